//! `ClusterTracing` → [`Validated`]: every value that later code relies on, checked once.
//!
//! The CRD's schema and CEL rules check the same when an object is written. They are checked again here, because an object that
//! passed an older schema stays stored, and because what is rendered from it (flags, files, a collector's configuration) must not
//! depend on a rule in another place. Nothing here panics, whatever the object holds.
//!
//! A resource that is being deleted is never invalid: its nodes get their manifests back whatever the spec says.

mod receiver;

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::clustertracing::{RolloutSpec, SingleNodeDowntime};
use crate::api::node_tracing::{ComponentSettings, ReceiverKind};
use crate::api::{self, ClusterTracing, ClusterTracingSpec, NodeSettings, RolloutMode, State, Target};
use receiver::receiver;

pub use receiver::{Collector, Endpoint, Exporter, ExporterTls, Gateway, Proxy, Queue, Receiver};

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
    /// The spec as the status's history keeps it.
    pub kept: String,
    /// Trace, or take everything back.
    pub goal: Goal,
    /// What kube-apiserver gets on selected nodes.
    pub kube_api_server: ComponentSettings,
    /// Another rate for a while.
    pub boost: Option<Boost>,
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

/// A sampling rate of kube-apiserver that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boost {
    /// Requests per million.
    pub rate_per_million: i32,
    /// Until when.
    pub until: Timestamp,
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

impl Validated {
    /// What holds at this time: a boost's rate until it ends, and no boost afterwards.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.boost = self.boost.filter(|boost| now < boost.until);
        if let Some(boost) = self.boost {
            self.kube_api_server.sampling_rate_per_million = boost.rate_per_million;
        }
        self
    }

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
        Err(_) if goal != Goal::Trace => Receiver::External(Endpoint::loopback()),
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
        kept: kept(spec),
        has_finalizer: meta.finalizers.iter().flatten().any(|f| f == api::FINALIZER),
        goal,
        kube_api_server: ComponentSettings {
            state: spec.kube_api_server.state,
            sampling_rate_per_million: in_range("samplingRatePerMillion", spec.sampling_rate_per_million, RATE, 0)?,
        },
        boost: match &spec.boost {
            None => None,
            Some(boost) => Some(Boost {
                rate_per_million: in_range("boost.samplingRatePerMillion", boost.sampling_rate_per_million, RATE, 0)?,
                until: boost.until.0,
            }),
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

/// A spec as JSON, without what nobody wants back: that it was held, begun again, or another one for a while.
pub fn kept(spec: &ClusterTracingSpec) -> String {
    let rollout = RolloutSpec { paused: false, restarted_at: None, ..spec.rollout.clone() };
    let spec = ClusterTracingSpec { boost: None, rollout, ..spec.clone() };
    // of fields with texts for keys
    serde_json::to_string(&spec).unwrap_or_default()
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
    fn a_boost_holds_until_its_end_and_not_a_moment_longer() {
        let boosted =
            validate(&resource("boost: {samplingRatePerMillion: 1000000, until: '2026-11-21T10:00:00Z'}"), &installation()).unwrap();
        for (now, expected) in [("2026-11-21T09:59:59Z", 1_000_000), ("2026-11-21T10:00:00Z", 10_000), ("2027-01-01T00:00:00Z", 10_000)] {
            let v = boosted.clone().at(now.parse().unwrap());
            assert_eq!(v.target(true).settings.kube_api_server.sampling_rate_per_million, expected, "{now}");
            assert_eq!(v.boost.is_some(), expected == 1_000_000, "{now}");
        }
    }

    #[test]
    fn a_field_that_an_older_schema_let_through_is_named() {
        let cases = [
            ("samplingRatePerMillion: -1", "samplingRatePerMillion"),
            ("samplingRatePerMillion: 1000001", "samplingRatePerMillion"),
            ("etcd: {samplingRatePerMillion: 2000000}", "etcd.samplingRatePerMillion"),
            ("boost: {samplingRatePerMillion: 1000001, until: '2026-11-21T10:00:00Z'}", "boost.samplingRatePerMillion"),
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
            ("collector: {exporters: [{name: clustertracing-gateway, endpoint: 'a:1'}]}", "collector.exporters[0].name"),
            ("collector: {gateway: {}}", "collector.gateway"),
            ("collector: {mode: Gateway}", "collector.exporters"),
            ("collector: {mode: Gateway, endpoint: '10.0.0.1:4317'}", "collector.endpoint"),
            ("collector: {mode: Gateway, exporters: [{name: a, endpoint: 'a:1'}], gateway: {replicas: 0}}", "collector.gateway.replicas"),
            (
                "collector: {mode: Gateway, exporters: [{name: a, endpoint: 'a:1'}], gateway: {replicas: 2, tailSampling: {}}}",
                "collector.gateway.replicas",
            ),
            (
                "collector: {mode: Gateway, exporters: [{name: a, endpoint: 'a:1'}], gateway: {tailSampling: {decisionSeconds: 0}}}",
                "collector.gateway.tailSampling.decisionSeconds",
            ),
            ("collector: {queue: {spans: 100}}", "collector.queue.spans"),
            ("collector: {proxy: {url: 'proxy:3128'}}", "collector.proxy.url"),
            ("collector: {proxy: {url: 'http://user:word@proxy:3128'}}", "collector.proxy.url"),
            ("collector: {proxy: {url: 'http://proxy:3128', noProxy: ['a,b']}}", "collector.proxy.noProxy[0]"),
            ("collector: {extraConfig: {receivers: {otlp: {}}}}", "collector.extraConfig.receivers.otlp"),
            ("collector: {mode: External, endpoint: '10.0.0.1:4317', extraConfig: {}}", "collector.extraConfig"),
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
