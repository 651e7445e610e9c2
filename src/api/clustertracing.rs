//! `ClusterTracing`: the resource that people write.
//!
//! Field documentation here is what `kubectl explain` prints: unit, default and effect of each field.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Drift;

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

/// Where spans are received, and where they are sent on to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'External' ? has(self.endpoint) : !has(self.endpoint)")
        .message("endpoint is required with mode External, and belongs to no other mode"),
    validation = Rule::new("self.mode != 'External' || !has(self.exporters) || self.exporters.size() == 0")
        .message("exporters configure the operator's own collector: with mode External there is none"),
    validation = Rule::new("self.redaction == 'Default' || !has(self.redactionRules)")
        .message("redactionRules are those of redaction Default: with redaction None there are none")
)]
pub struct CollectorSpec {
    /// Node (default): an OpenTelemetry Collector on each control-plane node, reached over the node's loopback.
    /// External: kube-apiserver and etcd send straight to `endpoint`.
    /// A change restarts kube-apiserver and etcd on each control-plane node, one at a time, after the new receiver is there.
    #[serde(default)]
    pub mode: CollectorMode,
    /// Mode External only: where kube-apiserver and etcd send spans, as `host:port`, OTLP over gRPC without TLS.
    /// Static pods use the node's resolver, which knows no cluster names: give an IP address (a Service's clusterIP will do) or a name that the node resolves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 261))]
    #[x_kube(
        validation = Rule::new("self.matches('^([a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?|\\\\[[0-9a-fA-F:]{2,45}\\\\]):[1-9][0-9]{0,4}$')")
            .message("must be host:port without a scheme, for example 10.96.0.20:4317"),
        validation = Rule::new("!self.matches('(\\\\.svc|\\\\.svc\\\\..*|\\\\.cluster\\\\.local)\\\\.?:[0-9]+$')")
            .message("kube-apiserver and etcd are static pods on the host network, whose resolver knows no cluster names: give the Service's clusterIP instead"),
        validation = Rule::new("!self.startsWith('169.254.')")
            .message("link-local addresses are not accepted: they reach cloud metadata services")
    )]
    pub endpoint: Option<String>,
    /// Port of the node's loopback on which the collector receives spans. 1024 to 65535; default 4317.
    /// A change restarts kube-apiserver and etcd on each control-plane node, one at a time.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// Where the collector sends spans on to, by name; at most 8. None: spans go to the operator's own trace store and nowhere else.
    /// A change restarts the collectors only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub exporters: Vec<Exporter>,
    /// Default: names of objects, keys of etcd, paths of requests and texts of errors are taken out of spans before they leave the node.
    /// None: they are kept. A change restarts the collectors only.
    #[serde(default)]
    pub redaction: Redaction,
    /// Single rules of redaction Default, to switch off what is not sensitive here. Default: all of them Enabled.
    /// A change restarts the collectors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction_rules: Option<RedactionRules>,
    /// The collector's image. Default: the one that the operator was installed with. A change restarts the collectors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// Resources of the collector's container. Default: requests of 50m CPU and 64Mi, a limit of 256Mi. A change restarts the collectors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

impl Default for CollectorSpec {
    fn default() -> Self {
        Self {
            mode: CollectorMode::Node,
            endpoint: None,
            port: default_port(),
            exporters: Vec::new(),
            redaction: Redaction::Default,
            redaction_rules: None,
            image: None,
            resources: None,
        }
    }
}

/// Who receives the control plane's spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CollectorMode {
    /// A collector on each control-plane node.
    #[default]
    Node,
    /// An endpoint that somebody else runs.
    External,
}

/// Whether sensitive parts of spans leave the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Redaction {
    /// They are removed.
    #[default]
    Default,
    /// They are kept.
    None,
}

/// The rules of redaction Default, one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedactionRules {
    /// Enabled (default): keys of etcd are cut after the resource.
    #[serde(default)]
    pub etcd_keys: State,
    /// Enabled (default): paths of requests become routes (`/api/v1/namespaces/{:namespace}/pods/{:name}/exec`), and queries, which hold the commands
    /// of exec, are removed.
    #[serde(default)]
    pub request_paths: State,
    /// Enabled (default): names of the objects that requests are about are removed.
    #[serde(default)]
    pub object_names: State,
    /// Enabled (default): texts of errors, which quote names, are removed from the status of spans and from their events.
    #[serde(default)]
    pub error_messages: State,
}

/// A destination of the collector.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exporter {
    /// Name of this exporter: lower-case letters, digits and dashes.
    #[schemars(length(min = 1, max = 40), pattern("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self != 'clustertracing-store'").message("is the name of the operator's own trace store"))]
    pub name: String,
    /// grpc (default) or http: the flavour of OTLP.
    #[serde(default)]
    pub protocol: ExporterProtocol,
    /// `host:port`, without a scheme. Cluster names are resolved.
    #[schemars(length(max = 261))]
    #[x_kube(
        validation = Rule::new("self.matches('^([a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?|\\\\[[0-9a-fA-F:]{2,45}\\\\]):[1-9][0-9]{0,4}$')")
            .message("must be host:port without a scheme, for example tempo.observability:4317"),
        validation = Rule::new("!self.startsWith('169.254.')")
            .message("link-local addresses are not accepted: they reach cloud metadata services")
    )]
    pub endpoint: String,
    /// gzip (default) or none: how requests are compressed. Some receivers take no compressed ones.
    #[serde(default)]
    pub compression: Compression,
    /// TLS to the destination. Default: on, with the public authorities of the collector's image.
    #[serde(default)]
    pub tls: ExporterTls,
    /// Request headers, with values from Secrets in the operator's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<ExporterHeader>,
}

/// The flavour of OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExporterProtocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP, path /v1/traces.
    Http,
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// By gzip.
    #[default]
    Gzip,
    /// Not at all.
    None,
}

/// TLS to a destination.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.state == 'Enabled' || !(has(self.caSecretRef) || has(self.certSecretRef) || has(self.serverName))")
    .message("certificates are given, and TLS is Disabled"))]
pub struct ExporterTls {
    /// Enabled (default), or Disabled for plain text.
    #[serde(default)]
    pub state: State,
    /// Secret in the operator's namespace whose key `ca.crt` holds the authorities to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
    /// Secret of type kubernetes.io/tls in the operator's namespace, for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<SecretRef>,
    /// The name in the destination's certificate, where it is not the endpoint's host: a DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern("^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$"))]
    pub server_name: Option<String>,
}

/// A Secret in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), pattern("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
}

/// A request header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExporterHeader {
    /// The header's name.
    #[schemars(length(min = 1, max = 64), pattern("^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// Where the value is.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), pattern("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253), pattern("^[-._a-zA-Z0-9]+$"))]
    pub key: String,
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
fn default_port() -> i32 {
    4317
}
fn default_soak_seconds() -> i32 {
    30
}
fn default_health_timeout_seconds() -> i32 {
    120
}
