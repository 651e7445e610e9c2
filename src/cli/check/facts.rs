//! What is known of the cluster, as plain values. What could not be read says why: it becomes a finding, and the other checks go on.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::api::{ClusterTracing, NodeTracing};

/// All that the checks look at. With `--pre`, what concerns the operator is not read, and without it, what only `--pre` looks at.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields))]
pub(super) struct Facts {
    /// When this was read, by this machine's clock.
    pub(super) now: Timestamp,
    /// Namespace that the operator runs in, or would.
    pub(super) namespace: String,
    /// Version of this program.
    pub(super) program: String,
    /// Version of the API server that answered.
    pub(super) server: Read<String>,
    /// By name: the control plane's; all others too where none is of the control plane.
    pub(super) nodes: Read<BTreeMap<String, Node>>,
    /// Labels of the namespace; nothing where there is no such namespace.
    pub(super) namespace_labels: Read<Option<BTreeMap<String, String>>>,
    /// By name: pods of the control-plane nodes. With `--pre`.
    #[cfg_attr(test, serde(default))]
    pub(super) pods: Read<BTreeMap<String, Pod>>,
    /// What installing needs. With `--pre`.
    #[cfg_attr(test, serde(default))]
    pub(super) rights: Read<Vec<Right>>,
    /// By plural name: the operator's definitions.
    #[cfg_attr(test, serde(default))]
    pub(super) definitions: Read<BTreeMap<String, Definition>>,
    /// The controller's Deployment.
    #[cfg_attr(test, serde(default))]
    pub(super) controller: Read<Option<Workload>>,
    /// The agents' DaemonSet.
    #[cfg_attr(test, serde(default))]
    pub(super) agents: Read<Option<Workload>>,
    /// The collectors' DaemonSet.
    #[cfg_attr(test, serde(default))]
    pub(super) collectors: Read<Option<Workload>>,
    /// The controller's Lease.
    #[cfg_attr(test, serde(default))]
    pub(super) lease: Read<Option<Lease>>,
    /// The one ClusterTracing; nothing where none is, or where the cluster does not know the kind.
    #[cfg_attr(test, serde(default))]
    pub(super) resource: Read<Option<ClusterTracing>>,
    /// What each node's agent reports.
    #[cfg_attr(test, serde(default))]
    pub(super) node_tracings: Read<Vec<NodeTracing>>,
    /// The trace store.
    #[cfg_attr(test, serde(default))]
    pub(super) store: Read<Store>,
}

/// What was read, or why not.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(untagged))]
pub(super) enum Read<T> {
    /// It could not be read.
    Unread(Unread),
    /// It is this.
    Known(T),
    /// Nobody asked for it.
    #[default]
    Unasked,
}

/// What could not be read, and why: one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(super) struct Unread {
    /// Operation, object and cause.
    pub(super) unread: String,
    /// Whether the person may not read it; it may be as it should be.
    #[cfg_attr(test, serde(default))]
    pub(super) forbidden: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields, default))]
pub(super) struct Node {
    /// Whether it has the control plane's label.
    pub(super) control_plane: bool,
    /// Its condition Ready.
    pub(super) ready: bool,
    /// `metadata.labels`.
    pub(super) labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub(super) annotations: BTreeMap<String, String>,
    /// `status.nodeInfo.osImage`.
    pub(super) os_image: String,
    /// `status.nodeInfo.kubeletVersion`.
    pub(super) kubelet_version: String,
}

/// A pod on a control-plane node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields, default))]
pub(super) struct Pod {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its node.
    pub(super) node: String,
    /// Ports of the node that it takes.
    pub(super) host_ports: BTreeSet<u16>,
    /// Whether the operator brought it.
    pub(super) ours: bool,
    /// Of the API's image of a static pod: the pod as a manifest.
    pub(super) manifest: Option<String>,
}

/// Something that the person may do, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields))]
pub(super) struct Right {
    /// What it is about, such as "create deployments.apps in clustertracing-system".
    pub(super) what: String,
    /// Whether it is allowed.
    pub(super) allowed: bool,
}

/// A `CustomResourceDefinition`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields, default))]
pub(super) struct Definition {
    /// Versions that are served.
    pub(super) served: BTreeSet<String>,
    /// Fields of `spec` in the version that this program speaks.
    pub(super) fields: BTreeSet<String>,
}

/// A Deployment or a DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields, default))]
pub(super) struct Workload {
    /// Pods that there should be.
    pub(super) desired: i32,
    /// Pods that are ready.
    pub(super) ready: i32,
    /// Label `app.kubernetes.io/version`.
    pub(super) version: Option<String>,
}

/// A Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields, default))]
pub(super) struct Lease {
    /// Who leads; nobody's where the last one left.
    pub(super) holder: Option<String>,
    /// When it said so last.
    pub(super) renewed: Option<Timestamp>,
}

/// What the trace store tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Store {
    /// Traces that it holds.
    pub(super) traces: u64,
}
