//! What was read from the API server, as plain values: the other input of [`super::plan`].
//!
//! Read anew for each plan, never from a cache: a plan that is made of an old view could give a second grant beside one in flight.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::collector;
use crate::api::node_tracing::TracingFound;
use crate::api::{ClusterTracingStatus, FIELD_MANAGER_CONTROLLER, Grant, NodeTracing, NodeTracingStatus, Target};

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
    /// The status that stands in the resource: times of transitions are kept from it.
    pub status: ClusterTracingStatus,
    /// The term of leadership in which this was read.
    pub term: String,
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
    /// Nodes on which a collector is Ready, with the revision that its pod was made from.
    pub ready: BTreeMap<String, String>,
}

impl Observed {
    /// Sorts what was read.
    pub fn new(
        term: &str,
        nodes: &[Node],
        node_tracings: &[NodeTracing],
        collector: ObservedCollector,
        status: ClusterTracingStatus,
    ) -> Self {
        Self {
            term: term.to_owned(),
            nodes: nodes.iter().map(|n| (n.name_any(), n.into())).collect(),
            node_tracings: node_tracings.iter().map(|n| (n.name_any(), n.into())).collect(),
            collector,
            status,
        }
    }
}

impl From<&Node> for ObservedNode {
    fn from(node: &Node) -> Self {
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        Self {
            uid: node.uid().unwrap_or_default(),
            ready: conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            labels: node.labels().clone(),
        }
    }
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
    pub fn new(daemon_set: Option<DaemonSet>, config_maps: &[ConfigMap], pods: &[Pod]) -> Self {
        Self {
            daemon_set,
            config_maps: config_maps.iter().map(ResourceExt::name_any).collect(),
            ready: pods.iter().filter_map(ready_collector).collect(),
        }
    }
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

    /// The largest grant number that this node has seen.
    pub fn last_grant(&self) -> i64 {
        let ended = self.status.last_outcome.as_ref().map_or(0, |o| o.grant);
        self.grant.as_ref().map_or(0, |g| g.id).max(ended)
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
