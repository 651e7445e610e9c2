//! What was read from the API server, as plain values: the other input of [`super::plan`].
//!
//! Read anew for each plan, never from a cache: a plan that is made of an old view could give a second grant beside one in flight.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::canary::observed::ObservedCanary;
use super::canary::{ANNOTATION_VERDICT, Record};
use super::collector_check::observed::{ObservedCheck, trouble};
use super::flow::Flow;
use super::secret::ObservedSecret;
use super::{collector, collector_check};
use crate::api::node_tracing::TracingFound;
use crate::api::{ClusterTracingStatus, ComponentName, FIELD_MANAGER_CONTROLLER, Grant, NodeTracing, NodeTracingStatus, Target};
use crate::component::owner::{NodeFacts, Platform, owner};

/// On every `NodeTracing`: the term of leadership that wrote it last.
///
/// A fence. A controller that sleeps through the end of its term may wake up between its decision and its write. So each new term first
/// writes its name to every `NodeTracing`, which changes their `resourceVersion`s: from then on a grant of an earlier term, on whichever node,
/// fails its compare-and-swap. What was granted before is seen by the new term.
pub const ANNOTATION_TERM: &str = "clustertracing.dev/leadership-term";

/// Everything that a plan is made of, besides the resource and the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Control-plane nodes, by name.
    pub nodes: BTreeMap<String, ObservedNode>,
    /// `NodeTracing`s, by name.
    pub node_tracings: BTreeMap<String, ObservedNodeTracing>,
    /// The collector's objects.
    pub collector: ObservedCollector,
    /// Pods in which a collector is tried.
    pub collector_checks: Vec<ObservedCheck>,
    /// The Secrets that the wanted collector names; nothing of one that could not be read, and `None` for one that is not there.
    pub secrets: BTreeMap<String, Option<ObservedSecret>>,
    /// Canary pods.
    pub canaries: Vec<ObservedCanary>,
    /// Where there is no control-plane node: who runs the control plane, if the other nodes tell.
    pub elsewhere: Option<Platform>,
    /// kubeadm's own configuration.
    pub kubeadm_config: KubeadmConfig,
    /// The status that stands in the resource: times of transitions are kept from it.
    pub status: ClusterTracingStatus,
    /// The term of leadership in which this was read.
    pub term: String,
    /// Whether spans flow, as it was decided last.
    pub flow: Flow,
}

/// The `ClusterConfiguration` that kubeadm keeps in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KubeadmConfig {
    /// There is none: the cluster is not kubeadm's.
    #[default]
    Absent,
    /// The controller has no right to it.
    Forbidden,
    /// Its text.
    Found(String),
}

/// A control-plane node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNode {
    /// UID of the Node object.
    pub uid: String,
    /// Condition Ready is True.
    pub ready: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Who renders its manifests, where that is not kubeadm.
    pub platform: Option<Platform>,
    /// Its internal IP addresses.
    pub addresses: Vec<String>,
}

/// A `NodeTracing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNodeTracing {
    /// UID of this object.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.nodeUid`.
    pub node_uid: String,
    /// Whether it is owned by the Node of `spec.nodeUid`.
    pub owned_by_node: bool,
    /// [`ANNOTATION_TERM`].
    pub term: Option<String>,
    /// `spec.target`.
    pub target: Option<Target>,
    /// `spec.grant`.
    pub grant: Option<Grant>,
    /// When the target was written, by the API server's clock.
    pub targeted: Option<Timestamp>,
    /// When the grant was given, by the API server's clock.
    pub granted: Option<Timestamp>,
    /// [`ANNOTATION_VERDICT`]: what came of the last canary.
    pub canary: Option<Record>,
    /// What the agent reports.
    pub status: NodeTracingStatus,
}

/// The collector's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedCollector {
    /// The `DaemonSet`, if there is one.
    pub daemon_set: Option<DaemonSet>,
    /// Names of the collector's `ConfigMap`s.
    pub config_maps: BTreeSet<String>,
    /// What came of trying the collectors of these configurations, by the `ConfigMap`'s name.
    pub checks: BTreeMap<String, collector_check::Record>,
    /// What pods say of themselves that are not Ready, by node.
    pub words: BTreeMap<String, String>,
    /// Nodes on which a collector is Ready, with the revision that its pod was made from.
    pub ready: BTreeMap<String, String>,
    /// When its `DaemonSet` was changed last, by the API server's clock.
    pub applied: Option<Timestamp>,
    /// The gateway's objects.
    pub gateway: Box<ObservedGateway>,
}

/// The gateway's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedGateway {
    /// The `Deployment`, if there is one.
    pub deployment: Option<Deployment>,
    /// The `Service`, if there is one and it was looked for.
    pub service: Option<Service>,
    /// The `PodDisruptionBudget`, if there is one and it was looked for.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// What a pod says of itself that is not Ready.
    pub words: Option<String>,
}

impl ObservedGateway {
    /// Whether all pods are there, of this revision, and Ready.
    pub fn is_ready(&self, revision: &str) -> bool {
        let Some(Deployment { metadata, spec, status: Some(status) }) = &self.deployment else { return false };
        let wanted = spec.replicas.unwrap_or(1);
        metadata.annotations.iter().flatten().any(|(key, value)| key == collector::ANNOTATION_REVISION && value == revision)
            && status.observed_generation >= metadata.generation
            && [status.replicas, status.updated_replicas, status.available_replicas].iter().all(|count| *count == Some(wanted))
    }
}

impl Observed {
    /// Sorts what was read.
    pub fn new(
        term: &str,
        nodes: &[Node],
        node_tracings: &[NodeTracing],
        collector: ObservedCollector,
        canaries: &[Pod],
        status: ClusterTracingStatus,
    ) -> Self {
        Self {
            term: term.to_owned(),
            nodes: nodes.iter().map(|n| (n.name_any(), n.into())).collect(),
            node_tracings: node_tracings.iter().map(|n| (n.name_any(), n.into())).collect(),
            collector,
            collector_checks: Vec::new(),
            secrets: BTreeMap::new(),
            canaries: canaries.iter().map(ObservedCanary::from).collect(),
            elsewhere: None,
            kubeadm_config: KubeadmConfig::Absent,
            status,
            flow: Flow::default(),
        }
    }
}

impl From<&Node> for ObservedNode {
    fn from(node: &Node) -> Self {
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
        Self {
            uid: node.uid().unwrap_or_default(),
            ready: conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            labels: node.labels().clone(),
            platform: platform(node),
            addresses: addresses.filter(|a| a.type_ == "InternalIP").map(|a| a.address.clone()).collect(),
        }
    }
}

/// Who renders a node's manifests, where that is not kubeadm.
pub fn platform(node: &Node) -> Option<Platform> {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    owner(&NodeFacts {
        labels: node.labels(),
        annotations: node.annotations(),
        os_image: info.map(|info| info.os_image.as_str()).unwrap_or_default(),
        kubelet_version: info.map(|info| info.kubelet_version.as_str()).unwrap_or_default(),
    })
}

impl From<&NodeTracing> for ObservedNodeTracing {
    fn from(object: &NodeTracing) -> Self {
        Self {
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            node_uid: object.spec.node_uid.clone(),
            term: object.annotations().get(ANNOTATION_TERM).cloned(),
            owned_by_node: object.owner_references().iter().any(|o| o.kind == "Node" && o.uid == object.spec.node_uid),
            target: object.spec.target.clone(),
            grant: object.spec.grant.clone(),
            targeted: written_by_controller(&object.metadata, "Apply"),
            granted: written_by_controller(&object.metadata, "Update"),
            // What cannot be read is tried again.
            canary: object.annotations().get(ANNOTATION_VERDICT).and_then(|text| serde_json::from_str(text).ok()),
            status: object.status.clone().unwrap_or_default(),
        }
    }
}

/// The time of the controller's last change, which the API server keeps for each field manager: targets are applied, grants are updates.
fn written_by_controller(meta: &ObjectMeta, operation: &str) -> Option<Timestamp> {
    let ours = meta.managed_fields.iter().flatten().filter(|m| m.manager.as_deref() == Some(FIELD_MANAGER_CONTROLLER));
    let spec = ours.filter(|m| m.subresource.is_none() && m.operation.as_deref() == Some(operation));
    spec.filter_map(|m| m.time.as_ref()).map(|t| t.0).max()
}

impl ObservedCollector {
    /// Sorts what was read of the collector.
    pub fn new(daemon_set: Option<DaemonSet>, config_maps: &[ConfigMap], pods: &[Pod], gateway: ObservedGateway) -> Self {
        Self {
            gateway: Box::new(gateway),
            applied: daemon_set.as_ref().and_then(|found| written_by_controller(&found.metadata, "Apply")),
            daemon_set,
            config_maps: config_maps.iter().map(ResourceExt::name_any).collect(),
            checks: config_maps.iter().filter_map(|found| Some((found.name_any(), verdict(found)?))).collect(),
            words: pods.iter().filter_map(words).collect(),
            ready: pods.iter().filter_map(ready_collector).collect(),
        }
    }
}

/// What cannot be read is tried again.
fn verdict(config_map: &ConfigMap) -> Option<collector_check::Record> {
    serde_json::from_str(config_map.annotations().get(collector_check::ANNOTATION_VERDICT)?).ok()
}

/// The node of a collector that is not Ready, and what it says.
fn words(pod: &Pod) -> Option<(String, String)> {
    let is_ready = ready_collector(pod).is_some() || pod.metadata.deletion_timestamp.is_some();
    let node = pod.spec.as_ref()?.node_name.clone()?;
    trouble(pod).filter(|_| !is_ready).map(|words| (node, words))
}

/// Node and revision of a collector's pod that takes spans.
fn ready_collector(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = pod.metadata.deletion_timestamp.is_none() && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let revision = pod.annotations().get(collector::ANNOTATION_REVISION)?.clone();
    let node = pod.spec.as_ref()?.node_name.clone()?;
    ready.then_some((node, revision))
}

impl ObservedNodeTracing {
    /// The grant that has no outcome yet.
    pub fn in_flight(&self) -> Option<&Grant> {
        let ended = self.status.last_outcome.as_ref().map(|o| o.grant);
        self.grant.as_ref().filter(|g| ended != Some(g.id))
    }

    /// Whether the agent's status answers the spec as it is.
    pub fn has_answered(&self) -> bool {
        self.status.observed_generation >= Some(self.generation)
    }

    /// The largest grant number that this node has seen.
    pub fn last_grant(&self) -> i64 {
        let ended = self.status.last_outcome.as_ref().map_or(0, |o| o.grant);
        self.grant.as_ref().map_or(0, |g| g.id).max(ended)
    }

    /// Whether a component has a manifest here.
    pub fn runs(&self, component: ComponentName) -> bool {
        self.status.components.iter().any(|c| c.name == component && c.tracing != TracingFound::Absent)
    }

    /// A component that runs here and does not answer its probes.
    pub fn unhealthy(&self) -> Option<&crate::api::node_tracing::ComponentStatus> {
        self.status.components.iter().find(|c| c.tracing != TracingFound::Absent && !c.healthy)
    }

    /// Whether a component that we configured does not answer its probes.
    pub fn unhealthy_by_us(&self) -> bool {
        self.status.components.iter().any(|c| c.tracing == TracingFound::Ours && !c.healthy)
    }
}
