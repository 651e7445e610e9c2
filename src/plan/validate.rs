//! `ClusterTracing` → [`Validated`]: every value that later code relies on, checked once.
//!
//! The CRD's schema and CEL rules check the same when an object is written. They are checked again here, because an object that
//! passed an older schema stays stored, and because what is rendered from it (flags, files, a collector's configuration) must not
//! depend on a rule in another place. Nothing here panics, whatever the object holds.
//!
//! A resource that is being deleted is never invalid: its nodes get their manifests back whatever the spec says.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::jiff::SignedDuration;
use strum::IntoEnumIterator;

use super::collector::{self, redaction::Rule};
use crate::api::clustertracing::{Compression, ExporterHeader, Redaction, RolloutSpec, SecretRef, SingleNodeDowntime};
use crate::api::node_tracing::{ComponentSettings, ReceiverKind};
use crate::api::{self, ClusterTracing, CollectorMode, ExporterProtocol, NodeSettings, RolloutMode, State, Target};

/// What the controller knows of its own installation, and not from the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The namespace that the operator runs in, and that its collector gets.
    pub namespace: String,
    /// The collector's image, where the resource names none.
    pub collector_image: String,
    /// Whether a change is tried in a pod before any node is granted.
    pub canary: State,
    /// Whether the probe may be sent, and its certificate asked for.
    pub probe: State,
}

/// A `ClusterTracing` whose values can be relied on.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// `metadata.generation` that this is made from.
    pub generation: i64,
    /// `metadata.uid`, for owner references.
    pub uid: String,
    /// Whether the finalizer is there.
    pub has_finalizer: bool,
    /// Trace, or take everything back.
    pub goal: Goal,
    /// What kube-apiserver gets on selected nodes.
    pub kube_api_server: ComponentSettings,
    /// What etcd gets on selected nodes.
    pub etcd: ComponentSettings,
    /// Who receives spans.
    pub receiver: Receiver,
    /// Whether the probe is sent.
    pub probe: State,
    /// How nodes are changed.
    pub rollout: Rollout,
    /// The installation that this is for.
    pub installation: Installation,
}

/// What the resource is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The spec's settings on the selected nodes.
    Trace,
    /// The resource is being deleted: the original manifests on every node.
    Restore,
    /// The resource is being deleted, and a person asked to let it go without restoring ([`api::ANNOTATION_RELEASE`]).
    Release,
}

/// Who receives spans.
#[derive(Clone, Debug, PartialEq)]
pub enum Receiver {
    /// A collector on each control-plane node.
    Node(Box<Collector>),
    /// Somebody else's endpoint.
    External(Endpoint),
}

/// `host:port` without a scheme, of letters, digits, dots, dashes, colons and brackets only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

/// The collector of each control-plane node.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Port of the loopback that spans are received on.
    pub port: u16,
    /// Where spans are sent on to.
    pub exporters: Vec<Exporter>,
    /// What is taken out of spans.
    pub redaction: Vec<Rule>,
    /// The image.
    pub image: String,
    /// The container's resources, where the resource names them.
    pub resources: Option<ResourceRequirements>,
}

/// A destination of the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// Unique name: lower-case letters, digits, dashes.
    pub name: String,
    /// The flavour of OTLP.
    pub protocol: ExporterProtocol,
    /// Destination.
    pub endpoint: Endpoint,
    /// How requests are compressed.
    pub compression: Compression,
    /// TLS; `None` is plain text.
    pub tls: Option<ExporterTls>,
    /// Request headers: name, and where the value is.
    pub headers: Vec<ExporterHeader>,
}

/// TLS to a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExporterTls {
    /// Secret with `ca.crt`.
    pub ca_secret: Option<String>,
    /// Secret with `tls.crt` and `tls.key`.
    pub cert_secret: Option<String>,
    /// The name in the destination's certificate, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// How nodes are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Whether nodes are changed at all.
    pub mode: RolloutMode,
    /// Whether the next node waits.
    pub paused: bool,
    /// How long a changed node is watched before the next.
    pub soak: SignedDuration,
    /// Seconds for new processes to become healthy.
    pub health_timeout_seconds: i32,
    /// Seconds for watches to end.
    pub watch_termination_grace_seconds: i32,
    /// Labels of the nodes to change.
    pub node_selector: BTreeMap<String, String>,
    /// Whether a control plane that cannot spare a member is changed.
    pub single_node_downtime: SingleNodeDowntime,
}

/// A field that cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct Invalid {
    /// Path of the field below `spec`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// Requests per million.
const RATE: std::ops::RangeInclusive<i32> = 0..=1_000_000;

impl Invalid {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Validated {
    /// The target of a node that is, or is not, to be traced.
    pub fn target(&self, selected: bool) -> Target {
        let settings = if selected && self.goal == Goal::Trace { self.settings() } else { self.off() };
        Target { revision: settings.revision(), settings }
    }

    /// Whether the spec asks for any tracing at all.
    pub fn traces_anything(&self) -> bool {
        self.goal == Goal::Trace && (self.kube_api_server.state == State::Enabled || self.etcd.state == State::Enabled)
    }

    /// The collector that traced nodes send to, if it is ours.
    pub fn wanted_collector(&self) -> Option<&Collector> {
        match &self.receiver {
            Receiver::Node(collector) if self.traces_anything() => Some(collector),
            _ => None,
        }
    }

    /// Where traced nodes send spans.
    pub fn endpoint(&self) -> String {
        match &self.receiver {
            Receiver::Node(collector) => format!("127.0.0.1:{}", collector.port),
            Receiver::External(endpoint) => endpoint.to_string(),
        }
    }

    fn settings(&self) -> NodeSettings {
        NodeSettings {
            endpoint: self.endpoint(),
            receiver: match &self.receiver {
                Receiver::Node(_) => ReceiverKind::NodeCollector,
                Receiver::External(_) => ReceiverKind::External,
            },
            kube_api_server: self.kube_api_server.clone(),
            etcd: self.etcd.clone(),
            watch_termination_grace_seconds: self.rollout.watch_termination_grace_seconds,
            health_timeout_seconds: self.rollout.health_timeout_seconds,
        }
    }

    /// Everything off. Fields without effect have one fixed value, so that editing them rewrites no target.
    fn off(&self) -> NodeSettings {
        let off = ComponentSettings { state: State::Disabled, sampling_rate_per_million: 0 };
        NodeSettings {
            endpoint: "127.0.0.1:4317".to_owned(),
            receiver: ReceiverKind::NodeCollector,
            kube_api_server: off.clone(),
            etcd: off,
            watch_termination_grace_seconds: 0,
            health_timeout_seconds: self.rollout.health_timeout_seconds,
        }
    }
}

/// Checks `resource`; the first field that cannot be used is the error.
pub fn validate(resource: &ClusterTracing, installation: &Installation) -> Result<Validated, Invalid> {
    let meta = &resource.metadata;
    let spec = &resource.spec;
    let goal = goal(resource);
    let receiver = match receiver(&spec.collector, installation) {
        Ok(receiver) => receiver,
        // The receiver plays no part in giving manifests back.
        Err(_) if goal != Goal::Trace => Receiver::External(Endpoint("127.0.0.1:4317".to_owned())),
        Err(invalid) => return Err(invalid),
    };
    let rollout = &spec.rollout;
    let default = RolloutSpec::default();
    // What cannot be used does not keep a node from getting its manifests back.
    let in_range = |field, value: i32, range: std::ops::RangeInclusive<i32>, default: i32| match goal {
        Goal::Restore | Goal::Release if !range.contains(&value) => Ok(default),
        Goal::Trace | Goal::Restore | Goal::Release => within(field, value, &range),
    };
    Ok(Validated {
        generation: meta.generation.unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        has_finalizer: meta.finalizers.iter().flatten().any(|f| f == api::FINALIZER),
        goal,
        kube_api_server: ComponentSettings {
            state: spec.kube_api_server.state,
            sampling_rate_per_million: in_range("samplingRatePerMillion", spec.sampling_rate_per_million, RATE, 0)?,
        },
        etcd: ComponentSettings {
            state: spec.etcd.state,
            sampling_rate_per_million: in_range("etcd.samplingRatePerMillion", spec.etcd.sampling_rate_per_million, RATE, 0)?,
        },
        receiver,
        probe: match installation.probe {
            State::Enabled => spec.probe.state,
            State::Disabled => State::Disabled,
        },
        rollout: Rollout {
            mode: rollout.mode,
            paused: rollout.paused,
            soak: SignedDuration::from_secs(in_range("rollout.soakSeconds", rollout.soak_seconds, 0..=3600, default.soak_seconds)?.into()),
            health_timeout_seconds: in_range(
                "rollout.healthTimeoutSeconds",
                rollout.health_timeout_seconds,
                10..=3600,
                default.health_timeout_seconds,
            )?,
            watch_termination_grace_seconds: in_range(
                "rollout.watchTerminationGraceSeconds",
                rollout.watch_termination_grace_seconds,
                0..=3600,
                default.watch_termination_grace_seconds,
            )?,
            node_selector: rollout.node_selector.clone(),
            single_node_downtime: rollout.single_node_downtime,
        },
        installation: installation.clone(),
    })
}

fn goal(resource: &ClusterTracing) -> Goal {
    let release = resource.metadata.annotations.iter().flatten().any(|(k, v)| k == api::ANNOTATION_RELEASE && v == "true");
    match (&resource.metadata.deletion_timestamp, release) {
        (None, _) => Goal::Trace,
        (Some(_), false) => Goal::Restore,
        (Some(_), true) => Goal::Release,
    }
}

fn within(field: &str, value: i32, range: &std::ops::RangeInclusive<i32>) -> Result<i32, Invalid> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new(field, format!("{value} is not between {} and {}", range.start(), range.end())))
    }
}

fn receiver(spec: &api::CollectorSpec, installation: &Installation) -> Result<Receiver, Invalid> {
    match (spec.mode, &spec.endpoint) {
        (CollectorMode::External, Some(endpoint)) => Ok(Receiver::External(node_endpoint("collector.endpoint", endpoint)?)),
        (CollectorMode::External, None) => Err(Invalid::new("collector.endpoint", "is required with mode External")),
        (CollectorMode::Node, Some(_)) => Err(Invalid::new("collector.endpoint", "belongs to mode External only")),
        (CollectorMode::Node, None) => Ok(Receiver::Node(Box::new(collector(spec, installation)?))),
    }
}

fn collector(spec: &api::CollectorSpec, installation: &Installation) -> Result<Collector, Invalid> {
    let port = within("collector.port", spec.port, &(1024..=65535))?;
    if spec.exporters.len() > 8 {
        return Err(Invalid::new("collector.exporters", "has more than 8 entries"));
    }
    let mut exporters: Vec<Exporter> = Vec::new();
    for (i, e) in spec.exporters.iter().enumerate() {
        let exporter = exporter(&format!("collector.exporters[{i}]"), e)?;
        if exporters.iter().any(|other| other.name == exporter.name) {
            return Err(Invalid::new(format!("collector.exporters[{i}].name"), format!("{:?} is used twice", exporter.name)));
        }
        exporters.push(exporter);
    }
    let image = spec.image.as_ref().unwrap_or(&installation.collector_image);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if image.is_empty() || image.len() > 512 || !image.chars().all(plain) {
        return Err(Invalid::new("collector.image", "is not an image reference"));
    }
    Ok(Collector {
        // In range: checked above.
        port: u16::try_from(port).unwrap_or(4317),
        exporters,
        redaction: redaction(spec)?,
        image: image.clone(),
        resources: spec.resources.clone(),
    })
}

fn redaction(spec: &api::CollectorSpec) -> Result<Vec<Rule>, Invalid> {
    match (spec.redaction, spec.redaction_rules) {
        (Redaction::None, None) => Ok(Vec::new()),
        (Redaction::None, Some(_)) => {
            Err(Invalid::new("collector.redactionRules", "are those of redaction Default: with None there are none"))
        }
        (Redaction::Default, rules) => {
            let rules = rules.unwrap_or_default();
            let state = |rule: &Rule| match rule {
                Rule::EtcdKeys => rules.etcd_keys,
                Rule::RequestPaths => rules.request_paths,
                Rule::ObjectNames => rules.object_names,
                Rule::ErrorMessages => rules.error_messages,
            };
            Ok(Rule::iter().filter(|rule| state(rule) == State::Enabled).collect())
        }
    }
}

fn exporter(field: &str, spec: &api::Exporter) -> Result<Exporter, Invalid> {
    let dns_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if spec.name.is_empty() || spec.name.len() > 40 || !spec.name.chars().all(dns_label) {
        return Err(Invalid::new(format!("{field}.name"), "must be 1 to 40 lower-case letters, digits and dashes"));
    }
    if spec.name == collector::STORE {
        return Err(Invalid::new(format!("{field}.name"), "is the name of the operator's own trace store"));
    }
    let tls = match spec.tls.state {
        State::Disabled => None,
        State::Enabled => Some(ExporterTls {
            ca_secret: secret(&format!("{field}.tls.caSecretRef.name"), spec.tls.ca_secret_ref.as_ref())?,
            cert_secret: secret(&format!("{field}.tls.certSecretRef.name"), spec.tls.cert_secret_ref.as_ref())?,
            server_name: server_name(&format!("{field}.tls.serverName"), spec.tls.server_name.as_ref())?,
        }),
    };
    if spec.headers.len() > 16 {
        return Err(Invalid::new(format!("{field}.headers"), "has more than 16 entries"));
    }
    for (i, header) in spec.headers.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if header.name.is_empty() || header.name.len() > 64 || !header.name.chars().all(plain) {
            return Err(Invalid::new(format!("{field}.headers[{i}].name"), "must be 1 to 64 letters, digits and dashes"));
        }
        secret_name(&format!("{field}.headers[{i}].secretKeyRef.name"), &header.secret_key_ref.name)?;
        let key = &header.secret_key_ref.key;
        if key.is_empty() || key.len() > 253 || !key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(Invalid::new(format!("{field}.headers[{i}].secretKeyRef.key"), "is not a Secret's key"));
        }
        if spec.headers[..i].iter().any(|other| other.name.eq_ignore_ascii_case(&header.name)) {
            return Err(Invalid::new(format!("{field}.headers[{i}].name"), format!("{:?} is used twice", header.name)));
        }
    }
    Ok(Exporter {
        name: spec.name.clone(),
        protocol: spec.protocol,
        endpoint: endpoint(&format!("{field}.endpoint"), &spec.endpoint)?,
        compression: spec.compression,
        tls,
        headers: spec.headers.clone(),
    })
}

fn server_name(field: &str, name: Option<&String>) -> Result<Option<String>, Invalid> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    match name {
        Some(name) if name.is_empty() || name.len() > 253 || !name.chars().all(plain) => Err(Invalid::new(field, "is not a DNS name")),
        name => Ok(name.cloned()),
    }
}

fn secret(field: &str, secret: Option<&SecretRef>) -> Result<Option<String>, Invalid> {
    secret.map(|s| secret_name(field, &s.name)).transpose()
}

fn secret_name(field: &str, name: &str) -> Result<String, Invalid> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
        return Err(Invalid::new(field, "is not a Secret's name"));
    }
    Ok(name.to_owned())
}

/// `host:port` of characters that mean nothing to YAML, a shell, or the collector's `${…}` expansion.
fn endpoint(field: &str, text: &str) -> Result<Endpoint, Invalid> {
    let invalid = |problem: &str| Err(Invalid::new(field, format!("{problem}, for example 10.96.0.20:4317")));
    let Some((host, port)) = text.rsplit_once(':') else { return invalid("must be host:port") };
    if text.len() > 261 || !port.starts_with(|c: char| ('1'..='9').contains(&c)) || port.parse::<u16>().is_err() {
        return invalid("must be host:port with a port between 1 and 65535");
    }
    let good_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<core::net::Ipv6Addr>().is_ok(),
        None => {
            host.starts_with(|c: char| c.is_ascii_alphanumeric())
                && host.ends_with(|c: char| c.is_ascii_alphanumeric())
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        }
    };
    if !good_host {
        return invalid("must be host:port without a scheme");
    }
    if host.starts_with("169.254.") {
        return Err(Invalid::new(field, "link-local addresses are not accepted: they reach cloud metadata services"));
    }
    Ok(Endpoint(text.to_owned()))
}

/// An endpoint that static pods reach: they use the node's resolver, which knows no cluster names.
fn node_endpoint(field: &str, text: &str) -> Result<Endpoint, Invalid> {
    let endpoint = endpoint(field, text)?;
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_end_matches('.').to_ascii_lowercase() + ".";
    if host.contains(".svc.") || host.ends_with(".cluster.local.") {
        return Err(Invalid::new(
            field,
            "kube-apiserver and etcd are static pods, whose resolver knows no cluster names: give the Service's clusterIP instead",
        ));
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(spec: &str) -> ClusterTracing {
        let spec: api::ClusterTracingSpec = serde_yaml::from_str(spec).unwrap();
        let mut resource = ClusterTracing::new(api::SINGLETON, spec);
        resource.metadata.generation = Some(1);
        resource
    }

    fn installation() -> Installation {
        Installation {
            namespace: "clustertracing".into(),
            collector_image: "collector:0.155.0".into(),
            canary: State::Enabled,
            probe: State::Enabled,
        }
    }

    fn field(spec: &str) -> Option<String> {
        validate(&resource(spec), &installation()).err().map(|e| e.field)
    }

    #[test]
    fn an_empty_spec_is_valid_and_traces_both_components_through_the_node_collector() {
        let v = validate(&resource("{}"), &installation()).unwrap();
        assert!(v.traces_anything());
        assert_eq!(v.endpoint(), "127.0.0.1:4317");
        assert_eq!(v.wanted_collector().map(|c| c.image.as_str()), Some("collector:0.155.0"));
    }

    #[test]
    fn a_field_that_an_older_schema_let_through_is_named() {
        let cases = [
            ("samplingRatePerMillion: -1", "samplingRatePerMillion"),
            ("samplingRatePerMillion: 1000001", "samplingRatePerMillion"),
            ("etcd: {samplingRatePerMillion: 2000000}", "etcd.samplingRatePerMillion"),
            ("rollout: {soakSeconds: -5}", "rollout.soakSeconds"),
            ("rollout: {healthTimeoutSeconds: 0}", "rollout.healthTimeoutSeconds"),
            ("rollout: {watchTerminationGraceSeconds: 99999}", "rollout.watchTerminationGraceSeconds"),
            ("collector: {port: 80}", "collector.port"),
            ("collector: {port: 65536}", "collector.port"),
            ("collector: {endpoint: '10.0.0.1:4317'}", "collector.endpoint"),
            ("collector: {mode: External}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: 'http://10.0.0.1:4317'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: '10.0.0.1'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: '10.0.0.1:0'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: '10.0.0.1:65536'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: '169.254.169.254:80'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: 'c.obs.svc:4317'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: 'c.obs.svc.cluster.local.:4317'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: \"a\\nb:4317\"}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: '${env:HOME}:4317'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: '$(HOST):4317'}", "collector.endpoint"),
            ("collector: {mode: External, endpoint: '[::1:4317'}", "collector.endpoint"),
            ("collector: {redaction: None, redactionRules: {}}", "collector.redactionRules"),
            ("collector: {image: 'a b'}", "collector.image"),
            ("collector: {image: ''}", "collector.image"),
            ("collector: {exporters: [{name: 'A', endpoint: 'a:1'}]}", "collector.exporters[0].name"),
            ("collector: {exporters: [{name: clustertracing-store, endpoint: 'a:1'}]}", "collector.exporters[0].name"),
            ("collector: {exporters: [{name: a, endpoint: 'a:1'}, {name: a, endpoint: 'b:1'}]}", "collector.exporters[1].name"),
            ("collector: {exporters: [{name: a, endpoint: '${file:/etc/passwd}:1'}]}", "collector.exporters[0].endpoint"),
            (
                "collector: {exporters: [{name: a, endpoint: 'a:1', tls: {caSecretRef: {name: '../x'}}}]}",
                "collector.exporters[0].tls.caSecretRef.name",
            ),
            (
                "collector: {exporters: [{name: a, endpoint: 'a:1', tls: {serverName: '${env:HOME}'}}]}",
                "collector.exporters[0].tls.serverName",
            ),
            (
                "collector: {exporters: [{name: a, endpoint: 'a:1', headers: [{name: 'X: y', secretKeyRef: {name: s, key: k}}]}]}",
                "collector.exporters[0].headers[0].name",
            ),
            (
                "collector: {exporters: [{name: a, endpoint: 'a:1', headers: [{name: X, secretKeyRef: {name: s, key: '$k'}}]}]}",
                "collector.exporters[0].headers[0].secretKeyRef.key",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(field(spec).as_deref(), Some(expected), "{spec}");
        }
    }

    #[test]
    fn names_and_addresses_of_both_families_are_endpoints() {
        for good in ["10.96.0.20:4317", "[fd00::1]:4317", "otel.example.com:443", "tempo:1"] {
            assert_eq!(field(&format!("collector: {{mode: External, endpoint: '{good}'}}")), None, "{good}");
        }
    }

    #[test]
    fn a_resource_that_is_being_deleted_is_never_invalid_and_what_cannot_be_used_is_the_default() {
        let mut r =
            resource("{samplingRatePerMillion: -1, collector: {mode: External}, rollout: {healthTimeoutSeconds: -1, soakSeconds: 186627}}");
        r.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        let v = validate(&r, &installation()).unwrap();
        assert_eq!((v.goal, v.traces_anything()), (Goal::Restore, false));
        assert_eq!((v.rollout.health_timeout_seconds, v.rollout.soak), (120, SignedDuration::from_secs(30)));
        r.metadata.annotations = Some([(api::ANNOTATION_RELEASE.to_owned(), "true".to_owned())].into());
        assert_eq!(validate(&r, &installation()).unwrap().goal, Goal::Release);
    }
}
