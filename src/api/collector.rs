//! `spec.collector`: who receives spans, what is taken out of them, and where they go.
//!
//! Field documentation here is what `kubectl explain` prints: unit, default and effect of each field.

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clustertracing::State;

/// Where spans are received, and where they are sent on to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'External' ? has(self.endpoint) : !has(self.endpoint)")
        .message("endpoint is required with mode External, and belongs to no other mode"),
    validation = Rule::new("self.mode != 'External' || !has(self.exporters) || self.exporters.size() == 0")
        .message("exporters configure the operator's own collector: with mode External there is none"),
    validation = Rule::new("self.mode != 'External' || !has(self.extraConfig)")
        .message("extraConfig is for the operator's own collector: with mode External there is none"),
    validation = Rule::new("self.mode != 'Gateway' || has(self.exporters) && self.exporters.size() > 0 || has(self.extraConfig)")
        .message("mode Gateway sends on to exporters: name at least one"),
    validation = Rule::new("self.mode == 'Gateway' || !has(self.gateway)")
        .message("gateway belongs to mode Gateway only"),
    validation = Rule::new("self.redaction == 'Default' || !has(self.redactionRules)")
        .message("redactionRules are those of redaction Default: with redaction None there are none")
)]
pub struct CollectorSpec {
    /// Node (default): an OpenTelemetry Collector on each control-plane node, reached over the node's loopback, which sends on to `exporters`.
    /// Gateway: the same, and it sends on to a Deployment of collectors, which sends on to `exporters`: one place that needs a way out of the
    /// cluster, and that can choose among whole traces. External: kube-apiserver and etcd send straight to `endpoint`.
    /// A change between Node and Gateway restarts the collectors only; one from or to External restarts kube-apiserver and etcd on each
    /// control-plane node, one at a time, after the new receiver is there.
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
    /// Mode Gateway only: the Deployment that the nodes' collectors send to. A change restarts the collectors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
    /// What waits for a back end that is slow or away. A change restarts the collectors only.
    #[serde(default)]
    pub queue: QueueSpec,
    /// HTTP proxy on the way to the exporters. Default: none. A change restarts the collectors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
    /// More configuration for the collector that sends to the exporters, in its own format. It adds: components, pipelines, and settings of
    /// `exporters` (as `otlp_grpc/NAME` or `otlp_http/NAME`); lists `processors` and `exporters` of pipeline `traces`, and `extensions`, are appended to.
    /// It replaces nothing that the operator sets, and gets redacted spans only. `$` has no meaning. Tried by the collector's own `validate`
    /// before it replaces what runs. A change restarts the collectors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub extra_config: Option<serde_json::Map<String, serde_json::Value>>,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
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
            gateway: None,
            queue: QueueSpec::default(),
            proxy: None,
            extra_config: None,
        }
    }
}

/// Who receives the control plane's spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CollectorMode {
    /// A collector on each control-plane node.
    #[default]
    Node,
    /// The same, and a Deployment that they send to.
    Gateway,
    /// An endpoint that somebody else runs.
    External,
}

/// The Deployment of collectors that those of the nodes send to.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.tailSampling) || !has(self.replicas) || self.replicas == 1")
    .message("tailSampling needs all spans of a trace in one place: replicas must be 1"))]
pub struct GatewaySpec {
    /// How many pods. 1 to 16; default 2, and 1 with `tailSampling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: Option<i32>,
    /// Which traces go on to the exporters, once they are complete. Default: all. The operator's own trace store gets all of them in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_sampling: Option<TailSampling>,
    /// Resources of a pod's container. Default: requests of 100m CPU and 128Mi, a limit of 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// Which traces are kept. One rule that keeps it is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TailSampling {
    /// Seconds from a trace's first span until it is judged by what came of it. 1 to 300; default 10.
    #[serde(default = "default_decision_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub decision_seconds: i32,
    /// Enabled (default): traces with an error in a span are kept.
    #[serde(default)]
    pub errors: State,
    /// Milliseconds; traces that take longer are kept. 1 to 3600000; default 1000.
    #[serde(default = "default_slower_than_milliseconds")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub slower_than_milliseconds: i32,
    /// How many of a million traces are kept whatever they are. 0 to 1000000; default 10000, which is 1 %.
    #[serde(default = "default_sampling_rate")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub kept_per_million: i32,
}

/// What waits for a back end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// How many spans may wait for each exporter; more are dropped and counted. 2048 to 1000000; default 8192. A span takes about 2 KiB, of
    /// the memory limit in `resources` or, with storage Disk, of the node's disk.
    #[serde(default = "default_queue_spans")]
    #[schemars(range(min = 2048, max = 1_000_000))]
    pub spans: i32,
    /// Memory (default), or Disk: a volume of the pod (emptyDir), where spans outlive a crash of the collector and of its node, but not the
    /// pod, which a change of the configuration replaces.
    #[serde(default)]
    pub storage: QueueStorage,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self { spans: default_queue_spans(), storage: QueueStorage::Memory }
    }
}

/// Where spans wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QueueStorage {
    /// In memory.
    #[default]
    Memory,
    /// In a volume of the pod.
    Disk,
}

/// An HTTP proxy.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxySpec {
    /// `http://host:port` or `https://host:port`, without credentials.
    #[schemars(length(max = 269))]
    #[x_kube(validation = Rule::new("self.matches('^https?://([a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?|\\\\[[0-9a-fA-F:]{2,45}\\\\]):[1-9][0-9]{0,4}$')")
        .message("must be http://host:port, for example http://proxy.example.com:3128"))]
    pub url: String,
    /// Destinations that are reached without it: host names, domains as `.example.com`, IP addresses, CIDRs; at most 64. The node itself and names
    /// that end in `.svc` always are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253), pattern("^[a-zA-Z0-9.:/-]+$")))]
    pub no_proxy: Vec<String>,
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
    #[x_kube(validation = Rule::new("self != 'clustertracing-store' && self != 'clustertracing-gateway'")
        .message("is the name of the operator's own trace store or gateway"))]
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
    /// The oldest version of TLS that is spoken: 1.2 (default) or 1.3.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
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

fn default_port() -> i32 {
    4317
}
fn default_queue_spans() -> i32 {
    8192
}
fn default_decision_seconds() -> i32 {
    10
}
fn default_slower_than_milliseconds() -> i32 {
    1000
}
fn default_sampling_rate() -> i32 {
    10_000
}
