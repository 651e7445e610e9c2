//! `ui`: the web page of a trace back end, over kubectl's port-forward.

use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::cluster::{self, Connection};
use super::output::Output;
use super::{Error, Exit, Report};
use crate::api::ClusterTracing;

/// Open a way to the web page of Jaeger or Grafana in the cluster
///
/// Looks for the page beside the back ends that the ClusterTracing's exporters send to: a Service in the same namespace with Jaeger's port
/// 16686 or Grafana's 3000. Runs kubectl port-forward until you end it with Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # Whatever page there is beside the exporters' back ends
  kubectl tracing ui

  # This one, at port 9000 of this machine
  kubectl tracing ui --service observability/jaeger-query:16686 --port 9000")]
pub(super) struct Ui {
    /// The Service to go to, instead of looking for one
    #[arg(long, value_name = "NAMESPACE/NAME:PORT", value_parser = page)]
    service: Option<Page>,
    /// Port of this machine; default: the Service's own
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    connection: Connection,
}

/// A Service's port with a page behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    namespace: String,
    name: String,
    port: u16,
}

/// Ports of web pages: Jaeger's query service, Grafana.
const PAGES: [u16; 2] = [16686, 3000];

fn page(text: &str) -> Result<Page, String> {
    let parts = text.split_once('/').and_then(|(namespace, rest)| Some((namespace, rest.rsplit_once(':')?)));
    let page = parts.and_then(|(namespace, (name, port))| {
        Some(Page { namespace: namespace.to_owned(), name: name.to_owned(), port: port.parse().ok()? })
    });
    page.filter(|page| !page.namespace.is_empty() && !page.name.is_empty() && page.port > 0)
        .ok_or_else(|| "is not NAMESPACE/NAME:PORT, such as observability/jaeger-query:16686".to_owned())
}

impl Ui {
    pub(super) async fn run(&self, output: &mut dyn Output) -> Result<Report, Error> {
        let page = if let Some(page) = &self.service { page.clone() } else { self.look().await.map_err(Error::Cluster)? };
        let here = self.port.unwrap_or(page.port);
        output.note(&format!("http://127.0.0.1:{here}/ shows {}/{}; Ctrl-C ends it", page.namespace, page.name)).map_err(Error::Output)?;
        let ended = self
            .connection
            .kubectl()
            .args(["port-forward", "--address", "127.0.0.1", "--namespace", &page.namespace])
            .args([format!("service/{}", page.name), format!("{here}:{}", page.port)])
            .status()
            .map_err(|source| Error::Kubectl { source })?;
        // its own words stand above
        Ok(Report { exit: if ended.success() { Exit::Ok } else { Exit::Unreachable }, ..Report::data(String::new()) })
    }

    async fn look(&self) -> Result<Page, cluster::Error> {
        let cluster = self.connection.open().await?;
        let resource = cluster.cluster_tracing().await?;
        for namespace in namespaces(&resource) {
            let services = Api::<Service>::namespaced(cluster.client.clone(), &namespace);
            let action = format!("list the Services of namespace {namespace}");
            let services = services.list(&ListParams::default()).await.map_err(|error| cluster::Error::of(action, error))?.items;
            if let Some(page) = choose(&services) {
                return Ok(page);
            }
        }
        Err(cluster::Error::NoPage)
    }
}

/// Namespaces of the exporters' back ends that are Services of this cluster: `tempo.observability.svc:4317`.
fn namespaces(resource: &ClusterTracing) -> Vec<String> {
    let endpoints = resource.spec.collector.exporters.iter().map(|exporter| exporter.endpoint.as_str());
    let namespace = |endpoint: &str| {
        let host = endpoint.rsplit_once("://").map_or(endpoint, |(_, host)| host);
        let host = host.split(['/', ':']).next()?;
        let mut labels = host.split('.').skip(1);
        let namespace = labels.next()?;
        (labels.next() == Some("svc")).then(|| namespace.to_owned())
    };
    let mut namespaces: Vec<String> = endpoints.filter_map(namespace).collect();
    namespaces.dedup();
    namespaces
}

/// The Service with a page, Jaeger's first.
fn choose(services: &[Service]) -> Option<Page> {
    let of_port = |port: u16| {
        let has = |service: &&Service| service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).any(|p| p.port == i32::from(port));
        let service = services.iter().find(has)?;
        Some(Page { namespace: service.namespace()?, name: service.name_any(), port })
    };
    PAGES.into_iter().find_map(of_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_is_looked_for_beside_the_back_ends_of_this_cluster() {
        let exporter = |name: &str, endpoint: &str| json!({"name": name, "endpoint": endpoint});
        let resource = json!({
            "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing", "metadata": {"name": "cluster"},
            "spec": {"collector": {"exporters": [
                exporter("a", "tempo.observability.svc:4317"), exporter("b", "http://jaeger.traces.svc.cluster.local:4318/v1/traces"),
                exporter("c", "otlp.example.com:443"), exporter("d", "10.0.0.1:4317"),
            ]}},
        });
        assert_eq!(namespaces(&serde_json::from_value(resource).unwrap()), ["observability", "traces"]);
    }

    #[test]
    fn of_several_pages_jaegers_is_chosen() {
        let service = |name: &str, port: i32| -> Service {
            serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": "o"}, "spec": {"ports": [{"port": 4317}, {"port": port}]}}),
            )
            .unwrap()
        };
        assert_eq!(choose(&[service("grafana", 3000), service("jaeger", 16686)]), page("o/jaeger:16686").ok());
        assert_eq!(choose(&[service("tempo", 3200)]), None);
        assert!(page("jaeger:16686").is_err() && page("o/jaeger").is_err() && page("o/jaeger:0").is_err());
    }
}
