//! What the objects that the controller makes have in common: their labels, and their owner.

use serde_json::{Value, json};

use super::validate::Validated;
use crate::api::{ClusterTracing, GROUP, SINGLETON, VERSION};

/// What an object is part of: the value of its label `app.kubernetes.io/component`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Component {
    /// The nodes' collectors.
    Collector,
    /// The collectors between them and the back ends.
    Gateway,
    /// The trial of a collector.
    CollectorCheck,
    /// The trial of a component's flags.
    Canary,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::Gateway => "collector-gateway",
            Self::CollectorCheck => "collector-check",
            Self::Canary => "canary",
        }
    }

    /// Labels of an object and of its pods.
    pub(super) fn labels(self) -> Value {
        json!({
            "app.kubernetes.io/name": "clustertracing",
            "app.kubernetes.io/component": self.name(),
            "app.kubernetes.io/managed-by": "clustertracing-controller",
        })
    }

    /// Those of the labels that select its pods.
    pub(super) fn selector(self) -> Value {
        json!({ "app.kubernetes.io/name": "clustertracing", "app.kubernetes.io/component": self.name() })
    }
}

/// `metadata` of an object in the operator's namespace.
pub(super) fn metadata(v: &Validated, name: &str, component: Component) -> Value {
    json!({
        "name": name,
        "namespace": v.installation.namespace,
        "labels": component.labels(),
        // Deleting the resource takes these along even where the controller cannot.
        "ownerReferences": [{
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": <ClusterTracing as kube::Resource>::kind(&()),
            "name": SINGLETON,
            "uid": v.uid,
            "controller": true,
        }],
    })
}
