//! `NodeTracing`: one node's part of the rollout. The controller writes `spec`, that node's agent writes `status`.
//!
//! It never carries raw flags, paths or YAML: whoever can write it cannot make the agent do what the component table
//! (`crate::component`) cannot express.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::drift::Drift;
use super::{ComponentName, Reason, State};

/// What one node should have, and the permission to change it. Written by the controller only.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "clustertracing.dev",
    version = "v1alpha1",
    kind = "NodeTracing",
    plural = "nodetracings",
    shortname = "ntrace",
    category = "tracing",
    status = "NodeTracingStatus",
    derive = "PartialEq",
    doc = "NodeTracing is one control-plane node's part of a tracing rollout. It is made by the ClusterTracing controller and named after its node; people read it and do not write it.",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.target.revision",
        description = "The revision that this node should have."
    ),
    printcolumn(
        name = "Current",
        type_ = "string",
        json_path = ".status.currentRevision",
        description = "The revision that this node has."
    ),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.step", description = "What the node's agent is doing."),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.preflight.reason",
        description = "Why the target was refused, if it was."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeTracingSpec {
    /// UID of the Node object that this is for. A node that was replaced under the same name does not inherit a grant.
    #[schemars(length(max = 64))]
    pub node_uid: String,
    /// What the node should have. The agent checks it against its manifests, and writes nothing without a grant for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Permission to bring this node to the target, once. Restarts the components that the target changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
}

/// The settings that a node should have, and their revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of these settings: the first 12 hexadecimal digits of their SHA-256.
    #[schemars(length(max = 64))]
    pub revision: String,
    /// The settings themselves.
    pub settings: NodeSettings,
}

/// Typed settings of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    /// Where the node's kube-apiserver and etcd send spans: `host:port`, OTLP over gRPC, no TLS.
    #[schemars(length(max = 261))]
    pub endpoint: String,
    /// Who takes spans at `endpoint`. Not part of the revision.
    #[serde(default)]
    pub receiver: ReceiverKind,
    /// What kube-apiserver gets.
    #[serde(rename = "kubeAPIServer")]
    pub kube_api_server: ComponentSettings,
    /// What etcd gets.
    pub etcd: ComponentSettings,
    /// Seconds that open watches get to end when kube-apiserver stops; 0 leaves the flag as it is.
    #[schemars(range(min = 0, max = 3600))]
    pub watch_termination_grace_seconds: i32,
    /// Seconds that the new processes have to become healthy, from the moment that the old ones are gone. Not part of the revision.
    #[schemars(range(min = 10, max = 3600))]
    pub health_timeout_seconds: i32,
}

/// Who takes a node's spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReceiverKind {
    /// The operator's collector on the node: nobody else may hold its ports.
    #[default]
    NodeCollector,
    /// Somebody else: the endpoint has to take connections from the node before it changes.
    External,
}

/// One component's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSettings {
    /// Whether the component is traced.
    pub state: State,
    /// Head sampling rate, in requests per million.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub sampling_rate_per_million: i32,
}

impl NodeSettings {
    /// One component's settings.
    pub fn of(&self, component: ComponentName) -> &ComponentSettings {
        match component {
            ComponentName::KubeApiserver => &self.kube_api_server,
            ComponentName::Etcd => &self.etcd,
        }
    }

    /// Whether nothing is to be traced: what was ours goes.
    pub fn is_off(&self) -> bool {
        [&self.kube_api_server, &self.etcd].iter().all(|component| component.state == State::Disabled)
    }

    /// The name of these settings. `healthTimeoutSeconds` says how to change a node, not what it should have: it is left out.
    /// A component that is switched off has no rate, and with both off the endpoint and the grace say nothing either.
    pub fn revision(&self) -> String {
        let component = |c: &ComponentSettings| match c.state {
            State::Enabled => format!("on {}", c.sampling_rate_per_million),
            State::Disabled => "off".to_owned(),
        };
        let (kube_apiserver, etcd) = (component(&self.kube_api_server), component(&self.etcd));
        let text = if self.is_off() {
            "off".to_owned()
        } else {
            format!("{}\n{kube_apiserver}\n{etcd}\n{}", self.endpoint, self.watch_termination_grace_seconds)
        };
        hex12(text.as_bytes())
    }
}

/// The first 12 hexadecimal digits of a SHA-256: enough to tell revisions apart, short enough to read aloud.
pub fn hex12(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(6).fold(String::new(), |s, b| s + &format!("{b:02x}"))
}

/// The whole SHA-256 in hexadecimal: what `sha256sum` prints.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |s, b| s + &format!("{b:02x}"))
}

/// A permission for one change of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Number of this grant: each is used once, and a later one is larger.
    pub id: i64,
    /// The target's revision that it was given for.
    #[schemars(length(max = 64))]
    pub revision: String,
    /// `metadata.generation` of the ClusterTracing that it was given for: a newer generation starts afresh after a failure.
    pub generation: i64,
    /// Which try of this revision in this generation it is, over all nodes.
    #[serde(default = "first_try")]
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// Seconds after the change at which the agent measures kube-apiserver, as it did before: on the first node of a revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub measured_after: Option<i32>,
}

/// The number of the first try.
pub const FIRST_TRY: i32 = 1;

fn first_try() -> i32 {
    FIRST_TRY
}

/// What the node's agent saw and did. Written by that agent only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTracingStatus {
    /// `metadata.generation` of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// UID of the Node that the agent runs on, as its pod says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// What the agent found of each component, one entry each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub components: Vec<ComponentStatus>,
    /// The check of the target against this node's manifests. Nothing is written by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Preflight>,
    /// What stands in the manifests, whoever wrote it, and would keep the next minor version of its component from starting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrade_obstacles: Vec<UpgradeObstacle>,
    /// The target's revision, once the manifests and the running processes match it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// What the agent is doing.
    #[serde(default)]
    pub step: Step,
    /// How the last grant ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_outcome: Option<Outcome>,
    /// What of this node's files is not as its agent left it. Nothing is told of a component that is to be switched off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["component", "file", "what"]))]
    pub drift: Vec<Drift>,
    /// What the etcd member of this node says of itself and of its cluster. Absent where none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdMember>,
    /// What was measured before and after the last change that was to be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Soak>,
    /// Whether the node's kubelet answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<KubeletHealth>,
    /// Why no change is begun on this node right now, with a grant or without one. Empty when nothing stands in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["reason"]))]
    pub blockers: Vec<Blocker>,
}

/// kube-apiserver before a change and after its soak time. Written when the change begins and once more when the time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Soak {
    /// Number of the grant under which the change was made.
    pub grant: i64,
    /// Right before the change. Absent when kube-apiserver did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Measurement>,
    /// When the soak time was over. Absent until then, and when kube-apiserver did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Measurement>,
}

/// kube-apiserver at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// Resident memory of its process, in MiB.
    #[serde(rename = "memoryMiB")]
    pub memory_mib: i64,
    /// Median time in which it answered its own probe, in milliseconds.
    pub latency_milliseconds: i64,
}

/// What an etcd member says of itself and of its cluster: categories and a count, so that nothing is written while nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// Whether it is well.
    pub health: MemberHealth,
    /// What it is among the members; absent while there is no leader, or while it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<MemberRole>,
    /// How many members its cluster has, itself and learners included, as far as it knows: no fewer than it is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<i32>,
    /// To how many of them it is connected, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<i32>,
}

/// Whether an etcd member is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberHealth {
    /// It reads from a quorum, and there is no alarm.
    Healthy,
    /// It does not answer, or could not read from a quorum.
    Unhealthy,
    /// An alarm is raised in the cluster: its space is used up, or a member's data are corrupt.
    Alarm,
    /// It knows no leader: the quorum is lost, or an election is under way.
    NoLeader,
    /// It has no address that tells without a certificate.
    Unknown,
}

/// What an etcd member is among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberRole {
    /// It leads.
    Leader,
    /// It votes.
    Follower,
    /// It follows and does not vote yet.
    Learner,
}

/// Whether a node's kubelet answers on its health port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KubeletHealth {
    /// It says that it is well.
    Healthy,
    /// It does not run, does not answer, or says that it is not well.
    NotAnswering,
    /// It runs with its health port closed: whether it is well cannot be seen on the node.
    Unknown,
}

/// Something that stands in the way of a change on a node. It passes, or a person ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// What.
    pub reason: Reason,
    /// For people: object, cause, next command.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What the agent is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Step {
    /// Nothing: it watches.
    #[default]
    Idle,
    /// New files are being written.
    Committing,
    /// The new processes are waited for and probed.
    Verifying,
    /// The original manifests are being put back, and the old state is waited for.
    RollingBack,
}

/// Bytes of a manifest's text that is reported, at the most: many times what a real one has, and a small part of what an object may have.
pub const MAX_REPORTED_MANIFEST: usize = 65_536;

/// What the agent found of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// Which component.
    pub name: ComponentName,
    /// The image in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// Version, from the image in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name of the manifest file in the static-pod folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// SHA-256 of the manifest's bytes, as `sha256sum` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// The manifest's text: what `kubectl tracing diff` shows a change of. Absent where it is no UTF-8 or has more than 65536 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub manifest_text: Option<String>,
    /// Who configured tracing in the manifest.
    pub tracing: TracingFound,
    /// Whether the component answers its own probes on this node.
    pub healthy: bool,
    /// When the running process started, from the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_time: Option<Time>,
}

/// A flag or a feature gate that the next minor version of a component does not start with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeObstacle {
    /// Which component.
    pub component: ComponentName,
    /// The flag, as people write it.
    pub what: String,
    /// For people: version, place, cause, next command.
    pub message: String,
}

/// Who configured tracing in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TracingFound {
    /// The component has no manifest on this node.
    Absent,
    /// No tracing flag is set.
    NotConfigured,
    /// The flags are ours.
    Ours,
    /// Somebody else set a tracing flag.
    Foreign,
}

/// The check of a target against a node's manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preflight {
    /// The target's revision that was checked.
    pub revision: String,
    /// What came out.
    pub verdict: Verdict,
    /// Components whose manifests would change, and which would restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ComponentName>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// For people: file, cause, next command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What came out of a preflight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// The manifests already match the target.
    Unchanged,
    /// A change is needed and can be made.
    Ready,
    /// The target cannot be reached from here; a person is needed.
    Refused,
}

/// How a grant ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The grant's number.
    pub grant: i64,
    /// The target's revision.
    pub revision: String,
    /// The ClusterTracing's generation that the grant was given for.
    pub generation: i64,
    /// How it ended.
    pub result: OutcomeResult,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// For people: object, cause, next command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it ended, by the node's clock.
    pub finished_time: Time,
    /// Seconds from the first rename until it ended.
    pub seconds: i64,
}

/// How a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OutcomeResult {
    /// The node has the target, verified.
    Succeeded,
    /// Nothing was written.
    Refused,
    /// The original manifests are back.
    RolledBack,
    /// Going back failed; a person is needed.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> NodeSettings {
        NodeSettings {
            endpoint: "127.0.0.1:4317".into(),
            receiver: ReceiverKind::NodeCollector,
            kube_api_server: ComponentSettings { state: State::Enabled, sampling_rate_per_million: 10_000 },
            etcd: ComponentSettings { state: State::Enabled, sampling_rate_per_million: 0 },
            watch_termination_grace_seconds: 0,
            health_timeout_seconds: 120,
        }
    }

    #[test]
    fn revision_names_what_the_node_should_have() {
        let base = settings();
        let changed = |f: fn(&mut NodeSettings)| {
            let mut s = base.clone();
            f(&mut s);
            s.revision() != base.revision()
        };
        assert!(changed(|s| s.kube_api_server.sampling_rate_per_million = 1));
        assert!(changed(|s| s.etcd.sampling_rate_per_million = 1));
        assert!(changed(|s| s.endpoint = "127.0.0.1:4318".into()));
        assert!(changed(|s| s.watch_termination_grace_seconds = 5));
        assert!(changed(|s| s.etcd.state = State::Disabled));
        assert!(!changed(|s| s.health_timeout_seconds = 60));
    }

    #[test]
    fn revision_of_off_does_not_depend_on_unused_fields() {
        let off = |endpoint: &str, rate| {
            let mut s = settings();
            s.endpoint = endpoint.into();
            s.kube_api_server = ComponentSettings { state: State::Disabled, sampling_rate_per_million: rate };
            s.etcd = s.kube_api_server.clone();
            s.revision()
        };
        assert_eq!(off("127.0.0.1:4317", 1), off("192.0.2.1:4317", 2));
    }
}
