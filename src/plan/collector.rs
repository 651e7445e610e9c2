//! The node collector's objects, rendered from the spec: a `ConfigMap` named after its contents, and a `DaemonSet`.
//!
//! The configuration is a value that is serialized, never a template: a name or an endpoint cannot become structure. The collector
//! expands `${…}` in every string that it reads; the only ones here are ours (the headers' environment variables), because
//! [`super::validate`] lets no `$` through.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::observed::ObservedCollector;
use super::validate::{Collector, Exporter, ExporterTls, Validated};
use crate::api::clustertracing::Redaction;
use crate::api::node_tracing::hex12;
use crate::api::{ClusterTracing, ExporterProtocol, GROUP, LABEL_CONTROL_PLANE, SINGLETON, VERSION};

/// Name of the `DaemonSet` and of its `ServiceAccount`, which the installation brings, and the start of its `ConfigMap`s' names.
pub const NAME: &str = "clustertracing-collector";
/// Selects the collector's objects and pods.
pub const SELECTOR: &str = "app.kubernetes.io/name=clustertracing,app.kubernetes.io/component=collector";
/// On the `DaemonSet` and its pods: the digest of all that was rendered. A pod is up to date when it carries the wanted one.
pub const ANNOTATION_REVISION: &str = "clustertracing.dev/collector-revision";

/// The collector's own health, and its own metrics; both on the loopback, which the pod shares with its node.
const HEALTH_PORT: u16 = 13133;
const METRICS_PORT: u16 = 8888;
/// The user of the published images; any other works too, as nothing is written.
const UID: i64 = 10001;
/// Spans that wait for one destination: some ten megabytes. More are dropped, and counted: a back end that is away must not cost memory.
const QUEUED_SPANS: u32 = 8192;

/// Span attributes that name objects or hold parts of requests. Span names are routes (`/api/v1/namespaces/{:namespace}/…`) and stay.
const SENSITIVE: &[&str] = &[
    // the request's path and query: object names, selectors, the commands of exec
    "http.target",
    "http.url",
    "url.full",
    "url.path",
    "url.query",
    "url",
    "name",
    "continue",
    // keys in etcd: kind, namespace and name
    "key",
    "range_begin",
    "range_end",
    "compare_first_key",
    "success_first_key",
];

/// The objects to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectorObjects {
    /// Digest of everything below.
    pub revision: String,
    /// Name of the `ConfigMap`: it carries the configuration's digest, so a change is a new object and a rollout, and going back is one too.
    pub config_map_name: String,
    /// The `ConfigMap`.
    pub config_map: Value,
    /// The `DaemonSet`.
    pub daemon_set: Value,
}

/// Renders the collector's objects.
pub fn render(v: &Validated, collector: &Collector) -> CollectorObjects {
    let config = config_text(collector);
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
    CollectorObjects { revision, config_map_name, config_map, daemon_set }
}

impl CollectorObjects {
    /// Whether the API server already holds these objects, so that nothing needs to be written.
    ///
    /// Fields that the API server adds are passed over. Quantities are compared by the revision alone, since it rewrites them (`0.5` → `500m`).
    pub fn are_in(&self, observed: &ObservedCollector) -> bool {
        let mut wanted = self.daemon_set.clone();
        if let Some(container) = wanted.pointer_mut("/spec/template/spec/containers/0").and_then(Value::as_object_mut) {
            container.remove("resources");
        }
        let stored = observed.daemon_set.as_ref().and_then(|d| serde_json::to_value(d).ok());
        observed.config_maps.contains(&self.config_map_name) && stored.is_some_and(|stored| contains(&stored, &wanted))
    }

    /// Nodes of `selected` on which no collector of this revision is Ready.
    pub fn missing_on(&self, observed: &ObservedCollector, selected: impl Iterator<Item = String>) -> Vec<String> {
        selected.filter(|node| observed.ready.get(node) != Some(&self.revision)).collect()
    }
}

/// `ConfigMap`s that no pod needs any more.
pub fn unused_config_maps(observed: &ObservedCollector, wanted: Option<&str>) -> BTreeSet<String> {
    observed.config_maps.iter().filter(|name| Some(name.as_str()) != wanted).cloned().collect()
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

/// The collector's configuration, as YAML.
pub fn config_text(collector: &Collector) -> String {
    // A tree of strings, numbers and booleans with string keys is always serializable.
    serde_yaml::to_string(&config(collector)).unwrap_or_default()
}

fn config(collector: &Collector) -> Value {
    let dialect = Dialect::of(&collector.image);
    let mut processors = vec![
        // First in line: at its limit it refuses spans instead of letting the container be killed.
        ("memory_limiter", json!({ "check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 20 })),
    ];
    if collector.redaction == Redaction::Default {
        let actions: Vec<_> = SENSITIVE.iter().map(|key| json!({ "key": key, "action": "delete" })).collect();
        processors.push(("attributes/redact", json!({ "actions": actions })));
    }
    if dialect == Dialect::BatchProcessor {
        processors.push(("batch", json!({ "timeout": "1s", "send_batch_size": 512, "send_batch_max_size": 2048 })));
    }
    let exporters: Vec<_> = if collector.exporters.is_empty() {
        vec![("debug".to_owned(), json!({ "verbosity": "basic", "sampling_initial": 2, "sampling_thereafter": 500 }))]
    } else {
        collector.exporters.iter().enumerate().map(|(i, e)| (exporter_name(dialect, e), exporter(dialect, i, e))).collect()
    };
    json!({
        "extensions": { "health_check": { "endpoint": format!("127.0.0.1:{HEALTH_PORT}") } },
        "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": format!("127.0.0.1:{}", collector.port) } } } },
        "processors": processors.iter().cloned().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>(),
        "exporters": exporters.iter().cloned().collect::<Map<_, _>>(),
        "service": {
            "extensions": ["health_check"],
            "telemetry": { "metrics": { "readers": [
                { "pull": { "exporter": { "prometheus": { "host": "127.0.0.1", "port": METRICS_PORT } } } },
            ] } },
            "pipelines": { "traces": {
                "receivers": ["otlp"],
                "processors": processors.iter().map(|(k, _)| *k).collect::<Vec<_>>(),
                "exporters": exporters.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(),
            } },
        },
    })
}

/// What a collector's version calls its exporters, and where it batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Before 0.144: `otlp`, `otlphttp`; batching by a processor.
    BatchProcessor,
    /// `otlp_grpc`, `otlp_http`; batching in the exporter's queue.
    BatchingQueue,
}

impl Dialect {
    /// By the version in the image's tag; the newest where the tag tells none.
    fn of(image: &str) -> Self {
        match tag_version(image) {
            Some(version) if version < (0, 144) => Self::BatchProcessor,
            _ => Self::BatchingQueue,
        }
    }
}

/// `registry:5000/name:v0.155.0@sha256:…` → `(0, 155)`.
fn tag_version(image: &str) -> Option<(u32, u32)> {
    let name = image.split('@').next()?.rsplit('/').next()?;
    let tag = name.split_once(':')?.1;
    let mut numbers = tag.trim_start_matches('v').split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn exporter_name(dialect: Dialect, exporter: &Exporter) -> String {
    let kind = match (dialect, exporter.protocol) {
        (Dialect::BatchingQueue, ExporterProtocol::Grpc) => "otlp_grpc",
        (Dialect::BatchingQueue, ExporterProtocol::Http) => "otlp_http",
        (Dialect::BatchProcessor, ExporterProtocol::Grpc) => "otlp",
        (Dialect::BatchProcessor, ExporterProtocol::Http) => "otlphttp",
    };
    format!("{kind}/{}", exporter.name)
}

fn exporter(dialect: Dialect, index: usize, exporter: &Exporter) -> Value {
    let endpoint = match (exporter.protocol, &exporter.tls) {
        (ExporterProtocol::Grpc, _) => exporter.endpoint.to_string(),
        (ExporterProtocol::Http, Some(_)) => format!("https://{}", exporter.endpoint),
        (ExporterProtocol::Http, None) => format!("http://{}", exporter.endpoint),
    };
    let mut tls = Map::new();
    match &exporter.tls {
        None => {
            tls.insert("insecure".into(), true.into());
        }
        Some(ExporterTls { ca_secret, cert_secret }) => {
            if ca_secret.is_some() {
                tls.insert("ca_file".into(), format!("{}/ca.crt", tls_dir(exporter, "ca")).into());
            }
            if cert_secret.is_some() {
                tls.insert("cert_file".into(), format!("{}/tls.crt", tls_dir(exporter, "cert")).into());
                tls.insert("key_file".into(), format!("{}/tls.key", tls_dir(exporter, "cert")).into());
                // The kubelet renews the mounted files when the Secret changes.
                tls.insert("reload_interval".into(), "5m".into());
            }
        }
    }
    let queue = match dialect {
        Dialect::BatchingQueue => json!({
            "enabled": true, "sizer": "items", "queue_size": QUEUED_SPANS,
            "batch": { "flush_timeout": "1s", "min_size": 512, "max_size": 2048 },
        }),
        // Counted in batches of the processor.
        Dialect::BatchProcessor => json!({ "enabled": true, "queue_size": QUEUED_SPANS / 512 }),
    };
    let mut config = json!({
        "endpoint": endpoint,
        "tls": tls,
        "sending_queue": queue,
        "retry_on_failure": { "enabled": true, "max_elapsed_time": "300s" },
    });
    if !exporter.headers.is_empty() {
        let headers =
            exporter.headers.iter().enumerate().map(|(j, h)| (h.name.clone(), format!("${{env:{}}}", header_env(index, j)).into()));
        config["headers"] = Value::Object(headers.collect());
    }
    config
}

fn header_env(exporter: usize, header: usize) -> String {
    format!("CLUSTERTRACING_HEADER_{exporter}_{header}")
}

fn tls_dir(exporter: &Exporter, kind: &str) -> String {
    format!("/etc/clustertracing/tls/{}/{kind}", exporter.name)
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
    let env: Vec<_> = headers
        .map(|(i, j, h)| {
            let key = json!({ "name": h.secret_key_ref.name, "key": h.secret_key_ref.key });
            json!({ "name": header_env(i, j), "valueFrom": { "secretKeyRef": key } })
        })
        .collect();
    let probe = json!({ "host": "127.0.0.1", "port": HEALTH_PORT, "path": "/" });
    let mut container = json!({
        "name": "collector",
        "image": collector.image,
        "args": ["--config=file:/etc/clustertracing/collector/collector.yaml"],
        "ports": [{ "name": "otlp-grpc", "containerPort": collector.port, "hostPort": collector.port, "hostIP": "127.0.0.1", "protocol": "TCP" }],
        "readinessProbe": { "httpGet": probe, "periodSeconds": 5, "timeoutSeconds": 2 },
        "livenessProbe": { "httpGet": probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 },
        "resources": collector.resources.as_ref().and_then(|r| serde_json::to_value(r).ok()).unwrap_or_else(default_resources),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": mounts,
    });
    if !env.is_empty() {
        container["env"] = env.into();
    }
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
                    "dnsPolicy": "ClusterFirstWithHostNet",
                    "priorityClassName": "system-node-critical",
                    "terminationGracePeriodSeconds": 10,
                    // By presence, as the controller finds its nodes: some distributions give the label a value.
                    "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                        { "matchExpressions": [{ "key": LABEL_CONTROL_PLANE, "operator": "Exists" }] },
                    ] } } },
                    "tolerations": [
                        { "key": LABEL_CONTROL_PLANE, "operator": "Exists" },
                        { "key": "node-role.kubernetes.io/master", "operator": "Exists" },
                    ],
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_tag() {
        let cases = [
            ("otelcol:0.155.0", Some((0, 155))),
            ("registry.example:5000/a/otelcol:v0.130.1", Some((0, 130))),
            ("registry.example:5000/a/otelcol", None),
            ("otelcol:0.143.0@sha256:0123", Some((0, 143))),
            ("otelcol@sha256:0123", None),
            ("otelcol:latest", None),
            ("otelcol:", None),
        ];
        for (image, version) in cases {
            assert_eq!(tag_version(image), version, "{image}");
        }
    }

    #[test]
    fn a_stored_object_may_have_more_fields_and_no_other_values() {
        let wanted = json!({ "a": { "b": 1 }, "l": [{ "x": 1 }] });
        assert!(contains(&json!({ "a": { "b": 1, "c": 2 }, "l": [{ "x": 1, "y": 2 }], "z": 0 }), &wanted));
        assert!(!contains(&json!({ "a": { "b": 2 }, "l": [{ "x": 1 }] }), &wanted));
        assert!(!contains(&json!({ "a": { "b": 1 }, "l": [{ "x": 1 }, { "x": 2 }] }), &wanted));
        assert!(!contains(&json!({ "a": { "b": 1 } }), &wanted));
    }
}
