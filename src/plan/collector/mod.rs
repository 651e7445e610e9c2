//! The node collector's objects, rendered from the spec: a `ConfigMap` named after its contents, and a `DaemonSet`.
//!
//! - `config` is what the collector is told, `dialect` what differs between its versions, `redaction` what leaves no node;
//! - `objects` is what runs it.
//!
//! The configuration is a value that is serialized, never a template: a name or an endpoint cannot become structure. The collector
//! expands `${…}` in every string that it reads; the only ones here are ours (environment variables of the container), because
//! [`super::validate`] lets no `$` through.

mod config;
mod dialect;
pub mod extra;
mod gateway;
mod objects;
pub mod redaction;

use std::collections::BTreeSet;

use serde_json::Value;

use super::observed::ObservedCollector;

pub use gateway::GatewayObjects;
pub use objects::render;

/// Name of the `DaemonSet` and of its `ServiceAccount`, which the installation brings, and the start of its `ConfigMap`s' names.
pub const NAME: &str = "clustertracing-collector";
/// Selects the collector's objects and pods.
pub const SELECTOR: &str = "app.kubernetes.io/name=clustertracing,app.kubernetes.io/component=collector";
/// Name of the operator's trace store: of its `Service`, which the installation brings, and of the exporter that sends there.
pub const STORE: &str = "clustertracing-store";
/// Port of the trace store's `Service` that takes OTLP over gRPC: spans, and the collectors' own metrics.
pub const STORE_PORT: u16 = 4317;
/// Name of the gateway: of its `Deployment`, `Service` and `PodDisruptionBudget`, and of the nodes' exporter that sends there.
pub const GATEWAY: &str = "clustertracing-gateway";
/// Selects the gateway's objects and pods.
pub const GATEWAY_SELECTOR: &str = "app.kubernetes.io/component=collector-gateway";
/// Port of the gateway's `Service` and pods that takes OTLP over gRPC.
pub const GATEWAY_PORT: u16 = 4317;
/// On the `DaemonSet` and its pods: the digest of all that was rendered. A pod is up to date when it carries the wanted one.
pub const ANNOTATION_REVISION: &str = "clustertracing.dev/collector-revision";

/// Name of the container's port that takes spans.
const OTLP_PORT: &str = "otlp-grpc";

/// The objects to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectorObjects {
    /// Digest of everything below.
    pub revision: String,
    /// Port of the loopback that it listens on.
    pub port: u16,
    /// Name of the `ConfigMap`: it carries the configuration's digest, so a change is a new object and a rollout, and going back is one too.
    pub config_map_name: String,
    /// The `ConfigMap`.
    pub config_map: Value,
    /// The `DaemonSet`.
    pub daemon_set: Value,
    /// The gateway's objects, in mode Gateway.
    pub gateway: Option<GatewayObjects>,
}

impl CollectorObjects {
    /// Whether the API server already holds these objects, so that nothing needs to be written.
    ///
    /// Fields that the API server adds are passed over. Quantities are compared by the revision alone, since it rewrites them (`0.5` → `500m`).
    pub fn are_in(&self, observed: &ObservedCollector) -> bool {
        let gateway = self.gateway.as_ref().is_none_or(|wanted| {
            holds(observed.gateway.deployment.as_ref(), &wanted.deployment)
                && holds(observed.gateway.service.as_ref(), &wanted.service)
                && holds(observed.gateway.disruption_budget.as_ref(), &wanted.disruption_budget)
        });
        gateway && observed.config_maps.contains(&self.config_map_name) && holds(observed.daemon_set.as_ref(), &self.daemon_set)
    }

    /// What of these is not there, or not Ready, of the nodes `selected`.
    pub fn lacking(&self, observed: &ObservedCollector, selected: impl Iterator<Item = String>) -> Lacking {
        Lacking {
            nodes: selected.filter(|node| observed.ready.get(node) != Some(&self.revision)).collect(),
            gateway: self.gateway.is_some() && !observed.gateway.is_ready(&self.revision),
        }
    }
}

/// Where no Ready collector of the wanted configuration is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// On these selected nodes.
    pub nodes: Vec<String>,
    /// In the gateway: not all of its pods are there.
    pub gateway: bool,
}

impl Lacking {
    /// Whether nothing is lacking.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && !self.gateway
    }
}

/// `on cp-1, cp-2 and in the gateway`.
impl std::fmt::Display for Lacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = self.nodes.join(", ");
        match (nodes.is_empty(), self.gateway) {
            (false, false) => write!(f, "on {nodes}"),
            (false, true) => write!(f, "on {nodes} and in the gateway"),
            (true, _) => f.write_str("in the gateway"),
        }
    }
}

/// The port that the collector listens on now, if there is one.
pub fn port(observed: &ObservedCollector) -> Option<u16> {
    let template = observed.daemon_set.as_ref()?.spec.template.spec.as_ref()?;
    let mut ports = template.containers.iter().flat_map(|container| container.ports.iter().flatten());
    u16::try_from(ports.find(|port| port.name.as_deref() == Some(OTLP_PORT))?.container_port).ok()
}

/// `ConfigMap`s that no pod needs any more.
pub fn unused_config_maps(observed: &ObservedCollector, wanted: Option<&str>) -> BTreeSet<String> {
    observed.config_maps.iter().filter(|name| Some(name.as_str()) != wanted).cloned().collect()
}

/// Whether the API server holds `wanted`, whose one container's resources it may have written in another way.
fn holds<K: serde::Serialize>(stored: Option<&K>, wanted: &Value) -> bool {
    let mut wanted = wanted.clone();
    if let Some(container) = wanted.pointer_mut("/spec/template/spec/containers/0").and_then(Value::as_object_mut) {
        container.remove("resources");
    }
    stored.and_then(|stored| serde_json::to_value(stored).ok()).is_some_and(|stored| contains(&stored, &wanted))
}

/// Whether every field of `wanted` is in `stored` with the same value.
fn contains(stored: &Value, wanted: &Value) -> bool {
    match (stored, wanted) {
        (Value::Object(stored), Value::Object(wanted)) => wanted.iter().all(|(k, w)| stored.get(k).is_some_and(|s| contains(s, w))),
        (Value::Array(stored), Value::Array(wanted)) => {
            stored.len() == wanted.len() && stored.iter().zip(wanted).all(|(s, w)| contains(s, w))
        }
        _ => stored == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stored_object_may_have_more_fields_and_no_other_values() {
        let wanted = json!({ "a": { "b": 1 }, "l": [{ "x": 1 }] });
        assert!(contains(&json!({ "a": { "b": 1, "c": 2 }, "l": [{ "x": 1, "y": 2 }], "z": 0 }), &wanted));
        assert!(!contains(&json!({ "a": { "b": 2 }, "l": [{ "x": 1 }] }), &wanted));
        assert!(!contains(&json!({ "a": { "b": 1 }, "l": [{ "x": 1 }, { "x": 2 }] }), &wanted));
        assert!(!contains(&json!({ "a": { "b": 1 } }), &wanted));
    }
}
