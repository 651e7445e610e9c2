//! The objects that run the collector: its `ConfigMap` and its `DaemonSet`.

use serde_json::{Value, json};

use super::config::{NODE_NAME, config_text, header_env, tls_dir};
use super::{ANNOTATION_REVISION, CollectorObjects, NAME, OTLP_PORT};
use crate::api::node_tracing::hex12;
use crate::api::{COLLECTOR_HEALTH_PORT, COLLECTOR_UID, ClusterTracing, GROUP, LABEL_CONTROL_PLANE, SINGLETON, VERSION};
use crate::plan::validate::{Collector, Exporter, Validated};

/// Renders the collector's objects.
pub fn render(v: &Validated, collector: &Collector) -> CollectorObjects {
    let config = config_text(v, collector);
    let config_map_name = format!("{NAME}-{}", hex12(config.as_bytes()));
    let mut daemon_set = daemon_set(v, collector, &config_map_name);
    let revision = hex12(daemon_set.to_string().as_bytes());
    daemon_set["metadata"]["annotations"] = json!({ ANNOTATION_REVISION: revision });
    daemon_set["spec"]["template"]["metadata"]["annotations"] = json!({ ANNOTATION_REVISION: revision });
    let config_map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(v, &config_map_name),
        "immutable": true,
        "data": { "collector.yaml": config },
    });
    CollectorObjects { revision, port: collector.port, config_map_name, config_map, daemon_set }
}

/// Secrets that are mounted for TLS: volume, Secret, folder.
fn tls_mounts(collector: &Collector) -> Vec<(String, String, String)> {
    let mounts = |(i, e): (usize, &Exporter)| {
        let tls = e.tls.clone().unwrap_or_default();
        let ca = tls.ca_secret.map(|secret| (format!("tls-ca-{i}"), secret, tls_dir(e, "ca")));
        let cert = tls.cert_secret.map(|secret| (format!("tls-cert-{i}"), secret, tls_dir(e, "cert")));
        [ca, cert].into_iter().flatten().collect::<Vec<_>>()
    };
    collector.exporters.iter().enumerate().flat_map(mounts).collect()
}

fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": "clustertracing",
        "app.kubernetes.io/component": "collector",
        "app.kubernetes.io/managed-by": "clustertracing-controller",
    })
}

fn metadata(v: &Validated, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": v.installation.namespace,
        "labels": labels(),
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

fn daemon_set(v: &Validated, collector: &Collector, config_map: &str) -> Value {
    let tls = tls_mounts(collector);
    let mut volumes = vec![json!({ "name": "config", "configMap": { "name": config_map } })];
    volumes.extend(tls.iter().map(|(volume, secret, _)| json!({ "name": volume, "secret": { "secretName": secret } })));
    let mut mounts = vec![json!({ "name": "config", "mountPath": "/etc/clustertracing/collector", "readOnly": true })];
    mounts.extend(tls.iter().map(|(volume, _, dir)| json!({ "name": volume, "mountPath": dir, "readOnly": true })));
    let headers = collector.exporters.iter().enumerate().flat_map(|(i, e)| e.headers.iter().enumerate().map(move |(j, h)| (i, j, h)));
    let mut env = vec![json!({ "name": NODE_NAME, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "spec.nodeName" } } })];
    env.extend(headers.map(|(i, j, h)| {
        let key = json!({ "name": h.secret_key_ref.name, "key": h.secret_key_ref.key });
        json!({ "name": header_env(i, j), "valueFrom": { "secretKeyRef": key } })
    }));
    let probe = json!({ "host": "127.0.0.1", "port": COLLECTOR_HEALTH_PORT, "path": "/" });
    let container = json!({
        "name": "collector",
        "image": collector.image,
        "args": ["--config=file:/etc/clustertracing/collector/collector.yaml"],
        "ports": [{ "name": OTLP_PORT, "containerPort": collector.port, "hostPort": collector.port, "hostIP": "127.0.0.1", "protocol": "TCP" }],
        "readinessProbe": { "httpGet": probe, "periodSeconds": 5, "timeoutSeconds": 2 },
        "livenessProbe": { "httpGet": probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 },
        "resources": collector.resources.as_ref().and_then(|r| serde_json::to_value(r).ok()).unwrap_or_else(default_resources),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        },
        "env": env,
        "volumeMounts": mounts,
        // The last lines of a collector that ends say why, and the controller reads them in the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(v, NAME),
        "spec": {
            "selector": { "matchLabels": {
                "app.kubernetes.io/name": "clustertracing", "app.kubernetes.io/component": "collector",
            } },
            "template": {
                "metadata": { "labels": labels() },
                "spec": {
                    "serviceAccountName": NAME,
                    // The collector asks the API server for nothing.
                    "automountServiceAccountToken": false,
                    "hostNetwork": true,
                    // The trace store and most destinations are Services, which the node's own resolver does not know.
                    "dnsPolicy": "ClusterFirstWithHostNet",
                    "priorityClassName": "system-node-critical",
                    "terminationGracePeriodSeconds": 10,
                    // By presence, as the controller finds its nodes: some distributions give the label a value.
                    "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                        { "matchExpressions": [{ "key": LABEL_CONTROL_PLANE, "operator": "Exists" }] },
                    ] } } },
                    // Whatever keeps pods off a node does not keep its static pods off, whose spans this takes. And a DaemonSet that is
                    // made again while its predecessor's pod is still there would stay without a pod on a node that was NotReady
                    // meanwhile: from 1.35 on its controller tells the two apart by name only when the node is Ready again.
                    "tolerations": [{ "operator": "Exists" }],
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": COLLECTOR_UID, "runAsGroup": COLLECTOR_UID, "fsGroup": COLLECTOR_UID,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    })
}

fn default_resources() -> Value {
    json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "256Mi" } })
}
