//! The operator, as its user sees it: one `ClusterTracing` to apply, wait for, and delete.

use std::time::Duration;

use clustertracing::api::collector::{Compression, ExporterTls, SecretRef};
use clustertracing::api::{ClusterTracing, ConditionType, Exporter, ExporterProtocol, NodeTracing, Reason, SINGLETON, State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};

use super::cluster::project;
use super::wait::until;
use super::{jaeger, tls};

/// The longest that a rollout of three nodes may take: with the default flags a server needs up to a minute to restart.
pub(crate) const ROLLOUT: Duration = Duration::from_mins(10);
/// The longest that the API may be away under a request: a single-node cluster restarts its only server.
const API_AWAY: Duration = Duration::from_mins(2);

/// The operator's resources.
pub(crate) struct Operator {
    tracings: Api<ClusterTracing>,
    nodes: Api<NodeTracing>,
}

/// The sample that the documentation starts with, sending to Jaeger and with nothing to wait for between nodes.
pub(crate) fn sample() -> ClusterTracing {
    let secret = |name: &str| Some(SecretRef { name: name.to_owned() });
    let path = project().join("config/samples/clustertracing.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    let mut tracing: ClusterTracing = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("parse {}: {error}", path.display()));
    tracing.spec.collector.exporters = vec![Exporter {
        name: "jaeger".to_owned(),
        protocol: ExporterProtocol::Grpc,
        endpoint: jaeger::otlp_endpoint(),
        compression: Compression::default(),
        tls: ExporterTls { ca_secret_ref: secret(tls::CA_SECRET), cert_secret_ref: secret(tls::CLIENT_SECRET), ..ExporterTls::default() },
        headers: Vec::new(),
    }];
    tracing.spec.rollout.soak_seconds = 2;
    tracing.spec.rollout.watch_termination_grace_seconds = 5;
    tracing
}

/// The sample with both components switched off.
pub(crate) fn switched_off() -> ClusterTracing {
    let mut tracing = sample();
    tracing.spec.kube_api_server.state = State::Disabled;
    tracing.spec.etcd.state = State::Disabled;
    tracing
}

/// The sample at another rate.
pub(crate) fn at_rate(per_million: i32) -> ClusterTracing {
    let mut tracing = sample();
    tracing.spec.sampling_rate_per_million = per_million;
    tracing
}

impl Operator {
    /// The operator of the cluster that `client` reaches.
    pub(crate) fn new(client: Client) -> Self {
        Self { tracings: Api::all(client.clone()), nodes: Api::all(client) }
    }

    /// What `kubectl apply` does.
    pub(crate) async fn apply(&self, tracing: &ClusterTracing) -> ClusterTracing {
        let parameters = PatchParams::apply("kubectl").force();
        until("the ClusterTracing is applied", API_AWAY, async || {
            self.tracings.patch(SINGLETON, &parameters, &Patch::Apply(tracing)).await.map_err(|error| error.to_string())
        })
        .await
    }

    /// Applies, and waits until the operator says that all is as requested.
    pub(crate) async fn apply_until_ready(&self, tracing: &ClusterTracing) -> ClusterTracing {
        self.apply(tracing).await;
        self.until_ready().await
    }

    /// Waits until the operator says that all is as requested; panics when it says that it needs a person.
    pub(crate) async fn until_ready(&self) -> ClusterTracing {
        until("the ClusterTracing is Ready", ROLLOUT, async || {
            let tracing = self.get().await?;
            if let Some(stalled) = current(&tracing, ConditionType::Stalled).filter(|stalled| stalled.status == "True") {
                panic!("the operator has given up: {}: {}", stalled.reason, stalled.message);
            }
            match current(&tracing, ConditionType::Ready) {
                Some(ready) if ready.status == "True" => Ok(tracing),
                ready => Err(format!("Ready is {ready:?}")),
            }
        })
        .await
    }

    /// Waits until the operator says that all is as requested, whatever it says before that.
    pub(crate) async fn until_recovered(&self) -> ClusterTracing {
        until("the ClusterTracing is Ready again", ROLLOUT, async || {
            let tracing = self.get().await?;
            match current(&tracing, ConditionType::Ready) {
                Some(ready) if ready.status == "True" => Ok(tracing),
                ready => Err(format!("Ready is {ready:?}")),
            }
        })
        .await
    }

    /// The same; the message, where it waits for a long time before it tries a change again that was interrupted.
    pub(crate) async fn until_recovered_or_backed_off(&self) -> Result<(), String> {
        until("the ClusterTracing is Ready again, or backs off", ROLLOUT, async || {
            let tracing = self.get().await?;
            match current(&tracing, ConditionType::Ready) {
                Some(ready) if ready.status == "True" => Ok(Ok(())),
                Some(ready) if ready.reason == Reason::RetryBackOff.as_str() => Ok(Err(ready.message.clone())),
                ready => Err(format!("Ready is {ready:?}")),
            }
        })
        .await
    }

    /// Whether the operator says that all is as requested. When it cannot be asked, it does not say so.
    pub(crate) async fn is_ready(&self) -> bool {
        self.get().await.is_ok_and(|tracing| current(&tracing, ConditionType::Ready).is_some_and(|ready| ready.status == "True"))
    }

    /// Waits until the operator says that it needs a person, for one of `reasons`; gives its message.
    pub(crate) async fn until_stalled(&self, reasons: &[Reason]) -> String {
        until("the ClusterTracing is Stalled", API_AWAY, async || {
            let tracing = self.get().await?;
            let conditions = [ConditionType::Ready, ConditionType::Stalled].map(|condition| current(&tracing, condition).cloned());
            let [Some(ready), Some(stalled)] = &conditions else { return Err(format!("the conditions are {conditions:?}")) };
            if (ready.status.as_str(), stalled.status.as_str()) == ("False", "True") && reasons.iter().any(|r| r.as_str() == stalled.reason)
            {
                Ok(stalled.message.clone())
            } else {
                Err(format!("the conditions are {conditions:?}"))
            }
        })
        .await
    }

    /// Deletes the `ClusterTracing`, and waits until the operator has let it go.
    pub(crate) async fn delete(&self) {
        until("the ClusterTracing is deleted", API_AWAY, async || match self.tracings.delete(SINGLETON, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => Err(error.to_string()),
            _ => Ok(()),
        })
        .await;
        until("the ClusterTracing is gone", ROLLOUT, async || match self.tracings.get_opt(SINGLETON).await {
            Ok(None) => Ok(()),
            Ok(Some(tracing)) => Err(format!("it says {:?}", current(&tracing, ConditionType::Ready))),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// The `ClusterTracing`, as it is now.
    pub(crate) async fn get(&self) -> Result<ClusterTracing, String> {
        self.tracings.get(SINGLETON).await.map_err(|error| error.to_string())
    }

    /// Every node's part, as it is now.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeTracing>, String> {
        self.nodes.list(&kube::api::ListParams::default()).await.map(|list| list.items).map_err(|error| error.to_string())
    }

    /// Makes the controller look again, by a change that means nothing; gives the object's new version.
    pub(crate) async fn touch(&self, value: usize) -> Result<Option<String>, String> {
        let patch = serde_json::json!({"metadata": {"annotations": {"e2e/touched": value.to_string()}}});
        let tracing = self.tracings.patch(SINGLETON, &PatchParams::default(), &Patch::Merge(patch)).await;
        tracing.map(|tracing| tracing.metadata.resource_version).map_err(|error| error.to_string())
    }
}

/// A condition, if it speaks of the present spec.
pub(crate) fn current(tracing: &ClusterTracing, condition: ConditionType) -> Option<&Condition> {
    let status = tracing.status.as_ref().filter(|status| status.observed_generation == tracing.metadata.generation)?;
    let found = status.conditions.iter().find(|found| found.type_ == condition.as_str())?;
    (found.observed_generation == tracing.metadata.generation).then_some(found)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
