//! The objects that run the nodes' collectors: their `ConfigMap` and their `DaemonSet`; and what their pods and the gateway's have in common.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::config::{self, NODE_NAME, QUEUE_DIR, header_env, tls_dir};
use super::{ANNOTATION_REVISION, CollectorObjects, NAME, OTLP_PORT, gateway};
use crate::api::collector::QueueStorage;
use crate::api::node_tracing::hex12;
use crate::api::{COLLECTOR_HEALTH_PORT, COLLECTOR_UID, LABEL_CONTROL_PLANE};
use crate::plan::object::{Component, metadata};
use crate::plan::secret::{self, ObservedSecret};
use crate::plan::validate::{Collector, Exporter, Validated};

/// File of the `ConfigMap` that the nodes' collectors read.
const FILE: &str = "collector.yaml";

/// What the pods of nodes and gateway have in common.
pub(super) struct Pod<'a> {
    /// Variables that only the collector needs that sends to the exporters.
    exporters_env: Vec<Value>,
    mounts: Vec<Value>,
    pub(super) volumes: Vec<Value>,
    pub(super) security: &'a Value,
    container_security: &'a Value,
}

impl Pod<'_> {
    /// The collector's container; its own are file, identity (variable and field of the pod), port, probe and resources.
    pub(super) fn container(
        &self,
        image: &str,
        file: &str,
        identity: (&str, &str),
        port: &Value,
        probe: &Value,
        resources: &Value,
    ) -> Value {
        let (variable, field) = identity;
        let mut env = vec![json!({ "name": variable, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": field } } })];
        env.extend(self.exporters_env.iter().cloned());
        json!({
            "name": "collector",
            "image": image,
            "args": [format!("--config=file:/etc/clustertracing/collector/{file}")],
            "ports": [port],
            "readinessProbe": { "httpGet": probe, "periodSeconds": 5, "timeoutSeconds": 2 },
            "livenessProbe": { "httpGet": probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 },
            "resources": resources,
            "securityContext": self.container_security,
            "env": env,
            "volumeMounts": self.mounts,
            // The last lines of a collector that ends say why, and the controller reads them in the pod's status.
            "terminationMessagePolicy": "FallbackToLogsOnError",
        })
    }
}

/// Renders the collector's objects. `secrets` are those that it names, as far as they are known.
pub fn render(v: &Validated, collector: &Collector, secrets: &BTreeMap<String, Option<ObservedSecret>>) -> CollectorObjects {
    let namespace = &v.installation.namespace;
    let mut files = json!({ FILE: config::node_text(collector, namespace) });
    if collector.gateway.is_some() {
        files[gateway::FILE] = config::gateway_text(collector, namespace).into();
    }
    let config_map_name = format!("{NAME}-{}", hex12(digested(&files).as_bytes()));
    let security = json!({
        "runAsNonRoot": true, "runAsUser": COLLECTOR_UID, "runAsGroup": COLLECTOR_UID, "fsGroup": COLLECTOR_UID,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let container_security =
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true });
    let volume = json!({ "name": "config", "configMap": { "name": config_map_name } });
    let mount = json!({ "name": "config", "mountPath": "/etc/clustertracing/collector", "readOnly": true });
    let (queue_volume, queue_mount) = queue_volume(collector).unzip();
    let bare = Pod {
        exporters_env: Vec::new(),
        mounts: std::iter::once(mount).chain(queue_mount).collect(),
        volumes: std::iter::once(volume).chain(queue_volume).collect(),
        security: &security,
        container_security: &container_security,
    };
    // Secrets go where they are needed, and nowhere else.
    let tls = tls_mounts(collector);
    let tls_mounts = tls.iter().map(|(volume, _, dir)| json!({ "name": volume, "mountPath": dir, "readOnly": true }));
    let tls_volumes = tls.iter().map(|(volume, secret, _)| json!({ "name": volume, "secret": { "secretName": secret } }));
    let sending = Pod {
        exporters_env: exporters_env(collector),
        mounts: bare.mounts.iter().cloned().chain(tls_mounts).collect(),
        volumes: bare.volumes.iter().cloned().chain(tls_volumes).collect(),
        ..bare
    };
    let mut gateway = collector.gateway.as_ref().map(|g| gateway::render(v, collector, g, &sending));
    let mut daemon_set = daemon_set(v, collector, if gateway.is_some() { &bare } else { &sending });
    // With what is read of Secrets only at the start: another authority is another revision, which replaces the pods.
    let of_gateway = gateway.iter().flat_map(|g| [&g.deployment, &g.service, &g.disruption_budget]);
    let objects = std::iter::once(&daemon_set).chain(of_gateway).map(Value::to_string);
    let digested: Vec<_> = objects.chain(secret::read_at_start(collector, secrets)).collect();
    let revision = hex12(digested.join("\n").as_bytes());
    for pods in std::iter::once(&mut daemon_set).chain(gateway.as_mut().map(|gateway| &mut gateway.deployment)) {
        pods["metadata"]["annotations"] = json!({ ANNOTATION_REVISION: revision });
        pods["spec"]["template"]["metadata"]["annotations"] = json!({ ANNOTATION_REVISION: revision });
    }
    let config_map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(v, &config_map_name, Component::Collector),
        "immutable": true,
        "data": files,
    });
    CollectorObjects { revision, port: collector.port, config_map_name, config_map, daemon_set, gateway }
}

/// The texts, one after the other.
fn digested(files: &Value) -> String {
    files.as_object().into_iter().flatten().filter_map(|(_, text)| text.as_str()).collect()
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

/// Header values from Secrets, and the proxy: read by every gRPC and HTTP client in the process (golang.org/x/net/http/httpproxy).
fn exporters_env(collector: &Collector) -> Vec<Value> {
    let headers = collector.exporters.iter().enumerate().flat_map(|(i, e)| e.headers.iter().enumerate().map(move |(j, h)| (i, j, h)));
    let headers = headers.map(|(i, j, h)| {
        let key = json!({ "name": h.secret_key_ref.name, "key": h.secret_key_ref.key });
        json!({ "name": header_env(i, j), "valueFrom": { "secretKeyRef": key } })
    });
    let proxy = collector.proxy.iter().flat_map(|proxy| {
        // The trace store and the gateway end in .svc.
        let own = ["localhost", "127.0.0.1", "::1", ".svc"];
        let without: Vec<_> = own.into_iter().chain(proxy.no_proxy.iter().map(String::as_str)).collect();
        [("HTTP_PROXY", proxy.url.clone()), ("HTTPS_PROXY", proxy.url.clone()), ("NO_PROXY", without.join(","))]
    });
    headers.chain(proxy.map(|(name, value)| json!({ "name": name, "value": value }))).collect()
}

/// Volume and mount of a queue on disk. A pod whose volume outgrows its limit is evicted: so that is far above what may wait.
fn queue_volume(collector: &Collector) -> Option<(Value, Value)> {
    // 8 KiB a span, and as much as an empty file may take.
    let queues = u32::try_from(collector.exporters.len().max(1)).unwrap_or(8);
    let mebibytes = 64 + queues * collector.queue.spans.div_ceil(128);
    (collector.queue.storage == QueueStorage::Disk).then(|| {
        let volume = json!({ "name": "queue", "emptyDir": { "sizeLimit": format!("{mebibytes}Mi") } });
        (volume, json!({ "name": "queue", "mountPath": QUEUE_DIR }))
    })
}

fn daemon_set(v: &Validated, collector: &Collector, pod: &Pod<'_>) -> Value {
    let port = json!({
        "name": OTLP_PORT, "containerPort": collector.port, "hostPort": collector.port, "hostIP": "127.0.0.1", "protocol": "TCP",
    });
    let probe = json!({ "host": "127.0.0.1", "port": COLLECTOR_HEALTH_PORT, "path": "/" });
    let resources = collector.resources.as_ref().and_then(|r| serde_json::to_value(r).ok()).unwrap_or_else(default_resources);
    let container = pod.container(&collector.image, FILE, (NODE_NAME, "spec.nodeName"), &port, &probe, &resources);
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(v, NAME, Component::Collector),
        "spec": {
            "selector": { "matchLabels": Component::Collector.selector() },
            "template": {
                "metadata": { "labels": Component::Collector.labels() },
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
                    "securityContext": pod.security,
                    "containers": [container],
                    "volumes": pod.volumes,
                },
            },
        },
    })
}

fn default_resources() -> Value {
    json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "256Mi" } })
}
