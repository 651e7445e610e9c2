//! The objects that run the gateway: its `Deployment`, `Service` and `PodDisruptionBudget`.

use serde_json::{Value, json};

use super::config::POD_NAME;
use super::objects::Pod;
use super::{GATEWAY, GATEWAY_PORT, NAME, OTLP_PORT};
use crate::api::{COLLECTOR_HEALTH_PORT, LABEL_CONTROL_PLANE};
use crate::plan::object::{Component, metadata};
use crate::plan::validate::{Collector, Gateway, Validated};

/// File of the `ConfigMap` that the gateway reads.
pub(super) const FILE: &str = "gateway.yaml";

/// The objects to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayObjects {
    /// The `Deployment`.
    pub deployment: Value,
    /// The `Service`.
    pub service: Value,
    /// The `PodDisruptionBudget`.
    pub disruption_budget: Value,
}

/// Renders the gateway's objects.
pub(super) fn render(v: &Validated, collector: &Collector, gateway: &Gateway, pod: &Pod<'_>) -> GatewayObjects {
    let selector = json!({ "matchLabels": Component::Gateway.selector() });
    let of = |object: Value| {
        let mut object = object;
        object["metadata"] = metadata(v, GATEWAY, Component::Gateway);
        object
    };
    GatewayObjects {
        deployment: of(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "spec": {
                "replicas": gateway.replicas,
                "selector": selector,
                // The new one is there before the old one goes.
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "template": {
                    "metadata": { "labels": Component::Gateway.labels() },
                    "spec": template(collector, gateway, pod),
                },
            },
        })),
        service: of(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "spec": {
                // Without an address of its own: a collector finds all pods in the DNS, and sends to each in turn. Behind one address it would keep
                // to the pod that it reached first.
                "clusterIP": "None",
                "selector": Component::Gateway.selector(),
                "ports": [{ "name": OTLP_PORT, "port": GATEWAY_PORT, "targetPort": OTLP_PORT, "protocol": "TCP", "appProtocol": "grpc" }],
            },
        })),
        disruption_budget: of(json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "spec": { "maxUnavailable": 1, "selector": selector },
        })),
    }
}

fn template(collector: &Collector, gateway: &Gateway, pod: &Pod<'_>) -> Value {
    let port = json!({ "name": OTLP_PORT, "containerPort": GATEWAY_PORT, "protocol": "TCP" });
    let probe = json!({ "port": COLLECTOR_HEALTH_PORT, "path": "/" });
    let default = || json!({ "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "512Mi" } });
    let resources = gateway.resources.as_ref().and_then(|r| serde_json::to_value(r).ok()).unwrap_or_else(default);
    let container = pod.container(&collector.image, FILE, (POD_NAME, "metadata.name"), &port, &probe, &resources);
    let spread = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|key| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": Component::Gateway.selector() },
        })
    });
    json!({
        "serviceAccountName": NAME,
        "automountServiceAccountToken": false,
        "priorityClassName": "system-cluster-critical",
        // Long enough to send what waits.
        "terminationGracePeriodSeconds": 30,
        // Beside the control plane only where there is nothing else.
        "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 100, "preference": { "matchExpressions": [{ "key": LABEL_CONTROL_PLANE, "operator": "DoesNotExist" }] } },
        ] } },
        "tolerations": [{ "key": LABEL_CONTROL_PLANE, "operator": "Exists", "effect": "NoSchedule" }],
        "topologySpreadConstraints": spread,
        "securityContext": pod.security,
        "containers": [container],
        "volumes": pod.volumes,
    })
}
