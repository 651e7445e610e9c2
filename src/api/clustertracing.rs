//! `ClusterTracing`: the resource that people write.
//!
//! Field documentation here is what `kubectl explain` prints: unit, default and effect of each field.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Drift;
use super::collector::CollectorSpec;

/// What should be traced, how much of it, where the spans go, and how nodes are changed.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "clustertracing.dev",
    version = "v1alpha1",
    kind = "ClusterTracing",
    plural = "clustertracings",
    shortname = "ctrace",
    category = "tracing",
    status = "ClusterTracingStatus",
    derive = "PartialEq",
    cel,
    doc = "ClusterTracing turns tracing of kube-apiserver and etcd on for the whole control plane. There is one, named \"cluster\". Nodes are changed one at a time, each verified before the next; deleting the resource gives every node its original manifests back, byte for byte.",
    validation = Rule::new("self.metadata.name == 'cluster'")
        .message("there is one control plane to trace: the only name allowed is \"cluster\""),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether every node carries the requested settings."),
    printcolumn(name = "Sampling", type_ = "integer", json_path = ".status.samplingRatePerMillion", description = "API requests per million that are traced, as in force on every node."),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodesReady", description = "Nodes that carry the requested settings, of all control-plane nodes."),
    printcolumn(name = "Spans", type_ = "string", json_path = ".status.conditions[?(@.type==\"SpansFlowing\")].status", description = "Whether spans of every instance arrive."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it is ready, or not.", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", description = "The reason in words, and what to do next.", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTracingSpec {
    /// How many of a million API requests kube-apiserver traces from their start (head sampling). 0 to 1000000; default 10000, which is 1 %.
    /// At 0 only requests whose caller is allowed to ask for a trace are traced.
    /// A change restarts kube-apiserver on each control-plane node, one at a time; etcd is not restarted.
    #[serde(default = "default_sampling_rate")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub sampling_rate_per_million: i32,
    /// For a while, another sampling rate of kube-apiserver (`kubectl tracing sample RATE --for 10m` writes it). Default: none.
    /// Its beginning and its end each restart kube-apiserver on each control-plane node, one at a time; etcd is not restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boost: Option<BoostSpec>,
    /// Tracing of kube-apiserver.
    #[serde(default, rename = "kubeAPIServer")]
    pub kube_api_server: KubeApiServerSpec,
    /// Tracing of etcd, where it runs as a static pod beside kube-apiserver.
    #[serde(default)]
    pub etcd: EtcdSpec,
    /// Where spans are received, and where they are sent on to.
    #[serde(default)]
    pub collector: CollectorSpec,
    /// How it is proved that spans flow.
    #[serde(default)]
    pub probe: ProbeSpec,
    /// How nodes are changed.
    #[serde(default)]
    pub rollout: RolloutSpec,
}

/// A sampling rate that ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoostSpec {
    /// How many of a million API requests kube-apiserver traces until then. 0 to 1000000.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub sampling_rate_per_million: i32,
    /// Until when (RFC 3339). The controller then goes back to `samplingRatePerMillion`; what is past has no effect, and may stay.
    pub until: Time,
}

/// A switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::EnumString)]
pub enum State {
    /// On.
    #[default]
    Enabled,
    /// Off.
    Disabled,
}

/// The probe that proves that spans flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSpec {
    /// Enabled (default): every 15 seconds the controller sends one small request of its own to each API server, traced whatever the sampling
    /// rate is, and looks whether its spans arrive. Needs Kubernetes 1.33 or later, and a client certificate that the controller has the cluster
    /// sign once an hour. Disabled: condition SpansFlowing depends on the sampling rate, and is Unknown for longer. A change restarts nothing.
    #[serde(default)]
    pub state: State,
}

/// Tracing of kube-apiserver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeApiServerSpec {
    /// Enabled (default) or Disabled. Disabled gives the manifest its original bytes back.
    /// A change restarts kube-apiserver on each control-plane node, one at a time.
    #[serde(default)]
    pub state: State,
}

/// Tracing of etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdSpec {
    /// Enabled (default) or Disabled. Disabled gives the manifest its original bytes back.
    /// A change restarts etcd on each control-plane node, one at a time. Needs etcd 3.5.5 or later.
    #[serde(default)]
    pub state: State,
    /// How many of a million requests that arrive at etcd without a trace are traced. 0 to 1000000; default 0: etcd's spans appear only in the
    /// traces of sampled API requests. Another value than 0 needs etcd 3.5.11 or later.
    /// A change restarts etcd on each control-plane node, one at a time.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub sampling_rate_per_million: i32,
}

/// How nodes are changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Automatic (default): nodes are changed one at a time. Preview: the change is planned and checked on every node, and nothing is written.
    #[serde(default)]
    pub mode: RolloutMode,
    /// Stops before the next node while true. A node whose change has begun finishes it. Default false.
    #[serde(default)]
    pub paused: bool,
    /// When a person asked last to begin a change again that had failed or was refused (RFC 3339; `kubectl tracing rollout restart` writes it).
    /// Another value does so; nodes that carry the requested settings are left alone. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<Time>,
    /// Seconds that a changed node is watched before the next one is changed. 0 to 3600; default 30.
    #[serde(default = "default_soak_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub soak_seconds: i32,
    /// Seconds that a node's new processes have to become healthy, counted from the moment that the old ones are gone; after that the node goes
    /// back to its original manifests. 10 to 3600; default 120.
    #[serde(default = "default_health_timeout_seconds")]
    #[schemars(range(min = 10, max = 3600))]
    pub health_timeout_seconds: i32,
    /// Seconds that open watches get to end when kube-apiserver stops (`--shutdown-watch-termination-grace-period`, Kubernetes 1.27 or later).
    /// 0 (default) leaves the flag as it is. 5 makes each later restart of kube-apiserver several times shorter. A value that somebody else set stays.
    /// A change restarts kube-apiserver on each control-plane node, one at a time.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub watch_termination_grace_seconds: i32,
    /// Labels of the control-plane nodes to change. Default: all of them. Nodes that do not match are left, or given back, as they were.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: std::collections::BTreeMap<String, String>,
    /// Allowed (default): with one or two etcd members any change interrupts the API for as long as the restart takes, and is made all the same.
    /// Refused: it is not made.
    #[serde(default)]
    pub single_node_downtime: SingleNodeDowntime,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            mode: RolloutMode::Automatic,
            paused: false,
            restarted_at: None,
            soak_seconds: default_soak_seconds(),
            health_timeout_seconds: default_health_timeout_seconds(),
            watch_termination_grace_seconds: 0,
            node_selector: std::collections::BTreeMap::new(),
            single_node_downtime: SingleNodeDowntime::Allowed,
        }
    }
}

/// Whether nodes are changed, or the change is only planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutMode {
    /// Nodes are changed one at a time.
    #[default]
    Automatic,
    /// Nothing is written.
    Preview,
}

/// Whether a control plane that cannot spare a member is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SingleNodeDowntime {
    /// It is changed, and its API is away meanwhile.
    #[default]
    Allowed,
    /// It is not changed.
    Refused,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTracingStatus {
    /// `metadata.generation` of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, CollectorAvailable, KubeAPIServerTraced, EtcdTraced, SpansFlowing, UpgradeSafe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Name of the settings that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Sampling rate in force on every node, in requests per million; absent while nodes differ or tracing is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_rate_per_million: Option<i32>,
    /// Nodes that carry the requested settings, of all that should: "2/3".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_ready: Option<String>,
    /// Each control-plane node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<NodeStatus>,
    /// The collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<CollectorStatus>,
    /// The last two specs that every node was brought to, the latest first: what `kubectl tracing rollout undo` goes back to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<ReachedSpec>,
}

/// A spec that every node was brought to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReachedSpec {
    /// `metadata.generation` of the resource when it was.
    pub generation: i64,
    /// When.
    pub time: Time,
    /// The spec as JSON, without what says only how and when: `boost`, `rollout.paused`, `rollout.restartedAt`.
    pub spec: String,
}

/// One control-plane node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub name: String,
    /// Revision that the node carries, if it is one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Where the node stands.
    pub state: NodeState,
    /// Its kube-apiserver.
    #[serde(default, rename = "kubeAPIServer", skip_serializing_if = "Option::is_none")]
    pub kube_api_server: Option<NodeComponentStatus>,
    /// Its etcd member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<NodeComponentStatus>,
    /// When the last change of this node ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_time: Option<Time>,
    /// What of its files is not as its agent left it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["component", "file", "what"]))]
    pub drift: Vec<Drift>,
    /// For people: why it stands there, and what its agent warns of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeState {
    /// It carries the requested settings, verified.
    UpToDate,
    /// It waits for its turn.
    Pending,
    /// It carried the requested settings, somebody changed its files since, and it waits for its turn to be put right.
    Drifted,
    /// It is being changed.
    Changing,
    /// Its manifests carry the requested settings, and a component does not answer its own probes.
    Unhealthy,
    /// Its agent refused the settings; nothing was written.
    Refused,
    /// Its change failed, and its original manifests are back.
    RolledBack,
    /// Its change failed, and so did going back.
    Failed,
    /// Its agent does not report.
    Unknown,
}

/// A component of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeComponentStatus {
    /// Version, from the image in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it is traced.
    pub tracing: super::node_tracing::TracingFound,
    /// Whether it answers its own probes on its node.
    pub healthy: bool,
    /// Whether its spans arrive. Absent where it is not traced by ClusterTracing, or sends to an endpoint that somebody else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spans: Option<ComponentSpans>,
}

/// Whether the spans of a node's component arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSpans {
    /// Flowing, Broken or Unknown.
    pub state: SpanFlow,
    /// Why: at which hop they end, or what is waited for.
    pub reason: super::Reason,
    /// Since when, as the controller that leads has seen it.
    pub since: Time,
}

/// Whether spans arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr, strum::EnumIter)]
pub enum SpanFlow {
    /// They do.
    Flowing,
    /// They do not, and should.
    Broken,
    /// It cannot be told, or not yet.
    Unknown,
}

/// How many spans get lost, compared with the 1 % that KEP-647 allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpanLoss {
    /// Less than 1 %, beyond chance.
    Within,
    /// More than 1 %, beyond chance.
    Exceeded,
    /// Too few spans were seen to tell.
    #[default]
    Unknown,
}

/// The collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectorStatus {
    /// Where kube-apiserver and etcd send.
    pub endpoint: String,
    /// Nodes whose collector is Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_nodes: Option<i32>,
    /// Whether less than 1 % of the spans of the last 10 minutes got lost between the collectors' receivers and the back end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_loss: Option<SpanLoss>,
    /// How many of a million spans of the last 10 minutes got lost, rounded to one digit. It stands until it is certainly another.
    /// The exact figure and its interval are metrics of the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_loss_per_million: Option<i32>,
}

fn default_sampling_rate() -> i32 {
    10_000
}
fn default_soak_seconds() -> i32 {
    30
}
fn default_health_timeout_seconds() -> i32 {
    120
}
