//! The resources of group `clustertracing.dev`: their types, the closed set of condition types and reasons,
//! and every name (label, annotation, finalizer, field manager) that more than one program must agree on.
//!
//! Plain values only: nothing here talks to an API server or to a node.

#[expect(unreachable_pub, reason = "kube's derive makes public items in a private scope")]
pub mod clustertracing;
#[expect(unreachable_pub, reason = "kube's derive makes public items in a private scope")]
pub mod collector;
pub mod condition;
pub mod drift;
#[expect(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "kube's derive makes public items in a private scope; its columns repeat their keys"
)]
pub mod node_tracing;
pub mod telemetry;

pub use clustertracing::{ClusterTracing, ClusterTracingSpec, ClusterTracingStatus, ProbeSpec, RolloutMode, RolloutSpec, State};
pub use collector::{CollectorMode, CollectorSpec, Exporter, ExporterProtocol};
pub use condition::{ConditionType, Reason};
pub use drift::{Deviation, Drift, DriftCause};
pub use node_tracing::{Grant, NodeSettings, NodeTracing, NodeTracingSpec, NodeTracingStatus, Target};

/// The API group of both resources.
pub const GROUP: &str = "clustertracing.dev";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
/// The only name that a `ClusterTracing` may have: there is one control plane to trace.
pub const SINGLETON: &str = "cluster";
/// Keeps a deleted `ClusterTracing` until every reachable node has its original bytes back.
pub const FINALIZER: &str = "clustertracing.dev/restore-nodes";
/// Put on a `ClusterTracing` with value `"true"`, lets it go without restoring the nodes (break-glass).
pub const ANNOTATION_RELEASE: &str = "clustertracing.dev/release-without-restore";
/// In a static pod's manifest: the comma-separated list of what this project added to it, and nothing else.
/// It is what tells our flags from a person's, and what makes an edit reversible from the text alone.
pub const ANNOTATION_ADDED: &str = "clustertracing.dev/added";
/// In the environment of a container that kubeadm renders from what this project put into its configuration: the same list. kubeadm's
/// configuration has no place for annotations. No program reads the variable.
pub const VARIABLE_ADDED: &str = "CLUSTERTRACING_ADDED";
/// Server-side apply's field manager of the controller.
pub const FIELD_MANAGER_CONTROLLER: &str = "clustertracing-controller";
/// Field manager of the canaries' verdicts.
pub const FIELD_MANAGER_CANARY: &str = "clustertracing-canary";
/// Server-side apply's field manager of the agents.
pub const FIELD_MANAGER_AGENT: &str = "clustertracing-agent";
/// The label by which control-plane nodes are found (kubeadm sets it since 1.20).
pub const LABEL_CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// The user that the node collector runs as, and nothing else: by it the agent tells the collector's sockets from others'. Neither distributions
/// nor systemd give it to anybody (systemd's UIDS-GIDS: 60578 to 61183 are unused).
pub const COLLECTOR_UID: u32 = 61017;
/// Port of the loopback, which the collector shares with its node, for its health.
pub const COLLECTOR_HEALTH_PORT: u16 = 13133;
/// The same for its own metrics.
pub const COLLECTOR_METRICS_PORT: u16 = 8888;

/// The control-plane components that can be traced.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
pub enum ComponentName {
    /// The API server, static pod `kube-apiserver`.
    #[serde(rename = "kube-apiserver")]
    #[strum(serialize = "kube-apiserver")]
    KubeApiserver,
    /// The etcd member beside it, static pod `etcd`.
    #[serde(rename = "etcd")]
    #[strum(serialize = "etcd")]
    Etcd,
}

impl ComponentName {
    /// The program's and the container's name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl std::fmt::Display for ComponentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
