//! The cluster, as a command asks it: with the person's own kubeconfig and rights, and no others.

mod error;
mod operator;
mod trace_store;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub(super) use error::Error;
pub(super) use operator::FIELD_MANAGER;
pub(super) use trace_store::{Query, Summary};

/// To an API server that is away there is no connection within this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// An API server that says nothing for so long has hung up without saying so: its own limit for a request is 60 s, and none here takes a tenth
/// of that.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// Which cluster, as kubectl is told it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct Connection {
    /// The kubeconfig's context to use, instead of its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig, instead of the files that KUBECONFIG names or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace that the operator runs in
    #[arg(long, value_name = "NAME", default_value = "clustertracing-system")]
    operator_namespace: String,
}

/// An API server, and what of the operator is found through it.
#[derive(Clone)]
pub(super) struct Cluster {
    /// The person's client.
    pub(super) client: Client,
    /// How the person reaches the API server.
    pub(super) config: Config,
    /// Name of the kubeconfig's context.
    pub(super) context: String,
    /// Namespace that the operator runs in.
    pub(super) namespace: String,
}

impl Connection {
    /// kubectl, for the same cluster.
    pub(super) fn kubectl(&self) -> Command {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(self.context.iter().flat_map(|context| ["--context", context]));
        if let Some(kubeconfig) = &self.kubeconfig {
            kubectl.arg("--kubeconfig").arg(kubeconfig);
        }
        kubectl
    }

    /// Reads the kubeconfig. Nothing is sent yet.
    pub(super) async fn open(&self) -> Result<Cluster, Error> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let read = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let kubeconfig = |source| Error::Kubeconfig { source };
        let read = read.map_err(kubeconfig)?;
        let context = options.context.clone().or(read.current_context.clone()).unwrap_or_default();
        let mut config = Config::from_custom_kubeconfig(read, &options).await.map_err(kubeconfig)?;
        config.connect_timeout = Some(CONNECT_WITHIN);
        // a person is told at once, and can ask again
        config.default_retry = false;
        // what a person's kubectl waits for may be silent for as long as it likes: the limit is this client's alone
        let mut limited = config.clone();
        limited.read_timeout = Some(SILENT_FOR);
        let client = Client::try_from(limited).map_err(|source| Error::Client { source })?;
        Ok(Cluster { client, config, context, namespace: self.operator_namespace.clone() })
    }

    /// Namespace that the operator runs in.
    pub(super) fn operator_namespace(&self) -> &str {
        &self.operator_namespace
    }
}
