//! Clients for the API server: through the load balancer, and at one node's own server.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::cluster::{Cluster, HOST};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Who a client is, and through what it goes.
#[derive(Clone)]
pub(crate) struct Access {
    config: Config,
}

impl Access {
    /// The administrator, through the load balancer. (Group kubeadm:cluster-admins.)
    pub(crate) async fn administrator(cluster: &Cluster) -> Self {
        Self::of(&cluster.exec("cp1", &["cat", "/etc/kubernetes/admin.conf"])).await
    }

    /// The super-administrator, through the load balancer. (Group system:masters: an API server follows its `traceparent`.)
    pub(crate) async fn super_administrator(cluster: &Cluster) -> Self {
        Self::of(&cluster.exec("cp1", &["cat", "/etc/kubernetes/super-admin.conf"])).await
    }

    async fn of(kubeconfig: &str) -> Self {
        let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("kubeadm writes kubeconfigs");
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("kubeadm writes kubeconfigs");
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(REQUEST_TIMEOUT);
        config.reset_reader_on_write = true;
        config.default_retry = false; // a test counts what fails
        Self { config }
    }

    /// The same, at one node's own API server.
    pub(crate) fn at(&self, node: &str) -> Self {
        let mut config = self.config.clone();
        config.cluster_url = format!("https://{}:6443", address(node)).parse().expect("an address makes a URL");
        Self { config }
    }

    /// A client with connections of its own.
    pub(crate) fn client(&self) -> Client {
        Client::try_from(self.config.clone()).expect("a configuration makes a client")
    }
}

/// A client of a plain HTTP server on the host.
pub(crate) fn host_client(port: u16) -> Client {
    let mut config = Config::new(format!("http://{HOST}:{port}").parse().expect("an address makes a URL"));
    config.read_timeout = Some(REQUEST_TIMEOUT);
    config.default_retry = false;
    Client::try_from(config).expect("a configuration makes a client")
}

/// The address of a node: cp2's is 10.89.0.12.
pub(crate) fn address(node: &str) -> String {
    format!("{HOST}{}", node.trim_start_matches("cp"))
}

/// A GET request.
pub(crate) fn get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).expect("a path makes a request")
}
