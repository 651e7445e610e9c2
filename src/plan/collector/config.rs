//! The collector's configuration.

use serde_json::{Map, Value, json};

use super::dialect::Dialect;
use super::{STORE, STORE_PORT, redaction};
use crate::api::clustertracing::Compression;
use crate::api::{COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT, ExporterProtocol};
use crate::plan::validate::{Collector, Exporter, ExporterTls, Validated};

/// Spans that wait for one destination: some ten megabytes. More are dropped, and counted: a back end that is away must not cost memory.
const QUEUED_SPANS: u32 = 8192;

/// Batches of spans that wait for the trace store, of at most [`STORE_BATCH`] spans: some megabytes.
const STORE_QUEUE: u32 = 16;
const STORE_BATCH: u32 = 512;
/// The variable that holds the node's name.
pub(super) const NODE_NAME: &str = "NODE_NAME";

/// The collector's configuration, as YAML.
pub(super) fn config_text(v: &Validated, collector: &Collector) -> String {
    // A tree of strings, numbers and booleans with string keys is always serializable.
    serde_yaml::to_string(&config(v, collector)).unwrap_or_default()
}

/// Components of one kind, in the order in which a pipeline uses them.
type Components = Vec<(String, Value)>;

/// Three pipelines. Spans are received and redacted once; from there one goes to the trace store and one to the user's exporters,
/// and neither knows of the other.
fn config(v: &Validated, collector: &Collector) -> Value {
    let dialect = Dialect::of(&collector.image);
    // First in line: at its limit it refuses spans instead of letting the container be killed.
    let mut received: Components = vec![("memory_limiter".into(), memory_limiter(collector))];
    if !collector.redaction.is_empty() {
        received.push(("transform/redact".into(), redaction::processor(&collector.redaction)));
    }
    // This processor tells nobody that a queue behind it is full, and here that is what it is for: an error would go back through the receiver
    // to kube-apiserver, which would send the same spans, to the user's exporters too, once more.
    let to_store: Components = vec![(format!("batch/{STORE}"), batch(256, STORE_BATCH))];
    let store: Components = vec![(format!("{}/{STORE}", dialect.exporter(ExporterProtocol::Grpc)), store_exporter(v))];
    let users: Components = match dialect {
        Dialect::BatchProcessor => vec![("batch".into(), batch(512, 2048))],
        Dialect::BatchingQueue => Vec::new(),
    };
    let exporters: Components = collector
        .exporters
        .iter()
        .enumerate()
        .map(|(i, e)| (format!("{}/{}", dialect.exporter(e.protocol), e.name), exporter(dialect, i, e)))
        .collect();

    let mut pipelines = Map::new();
    pipelines.insert("traces/received".into(), pipeline("otlp", &received, &["forward"]));
    pipelines.insert(format!("traces/{STORE}"), pipeline("forward", &to_store, &names(&store)));
    if !exporters.is_empty() {
        pipelines.insert("traces".into(), pipeline("forward", &users, &names(&exporters)));
    }
    json!({
        "extensions": { "health_check": { "endpoint": format!("127.0.0.1:{COLLECTOR_HEALTH_PORT}") } },
        "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": format!("127.0.0.1:{}", collector.port) } } } },
        "processors": received.into_iter().chain(to_store).chain(users).collect::<Map<_, _>>(),
        "connectors": { "forward": {} },
        "exporters": store.into_iter().chain(exporters).collect::<Map<_, _>>(),
        "service": { "extensions": ["health_check"], "telemetry": telemetry(v), "pipelines": pipelines },
    })
}

fn pipeline(receiver: &str, processors: &Components, exporters: &[&str]) -> Value {
    json!({ "receivers": [receiver], "processors": names(processors), "exporters": exporters })
}

fn names(components: &Components) -> Vec<&str> {
    components.iter().map(|(name, _)| name.as_str()).collect()
}

/// Percentages are of the container's limit, and of the whole node's memory where it has none.
fn memory_limiter(collector: &Collector) -> Value {
    let limited = match &collector.resources {
        Some(resources) => resources.limits.iter().flatten().any(|(name, _)| name == "memory"),
        None => true,
    };
    if limited {
        json!({ "check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 20 })
    } else {
        json!({ "check_interval": "1s", "limit_mib": 400, "spike_limit_mib": 100 })
    }
}

fn batch(size: u32, max_size: u32) -> Value {
    json!({ "timeout": "1s", "send_batch_size": size, "send_batch_max_size": max_size })
}

/// The collector's own metrics: for whoever scrapes the node, and pushed to the trace store, so that the controller knows what each collector
/// took, sent and dropped without a way to reach it.
fn telemetry(v: &Validated) -> Value {
    let endpoint = format!("http://{}", store_endpoint(v));
    json!({
        "resource": { "k8s.node.name": format!("${{env:{NODE_NAME}}}") },
        "metrics": { "readers": [
            { "pull": { "exporter": { "prometheus": { "host": "127.0.0.1", "port": COLLECTOR_METRICS_PORT } } } },
            // In milliseconds.
            { "periodic": { "interval": 5000, "timeout": 2000, "exporter": {
                "otlp": { "protocol": "grpc", "endpoint": endpoint, "insecure": true, "timeout": 2000 },
            } } },
        ] },
    })
}

/// Relative to the cluster's domain, which may have any name: it is the last but one of the resolver's search list that completes it.
fn store_endpoint(v: &Validated) -> String {
    format!("{STORE}.{}.svc:{STORE_PORT}", v.installation.namespace)
}

/// Best effort: what the store does not take within ten seconds is dropped.
fn store_exporter(v: &Validated) -> Value {
    json!({
        "endpoint": store_endpoint(v),
        "tls": { "insecure": true },
        "compression": "none",
        "timeout": "2s",
        "sending_queue": { "enabled": true, "queue_size": STORE_QUEUE, "num_consumers": 2 },
        "retry_on_failure": { "enabled": true, "initial_interval": "1s", "max_interval": "2s", "max_elapsed_time": "10s" },
    })
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
        Some(ExporterTls { ca_secret, cert_secret, server_name }) => {
            if let Some(name) = server_name {
                tls.insert("server_name_override".into(), name.as_str().into());
            }
            if ca_secret.is_some() {
                tls.insert("ca_file".into(), format!("{}/ca.crt", tls_dir(exporter, "ca")).into());
            }
            if cert_secret.is_some() {
                tls.insert("cert_file".into(), format!("{}/tls.crt", tls_dir(exporter, "cert")).into());
                tls.insert("key_file".into(), format!("{}/tls.key", tls_dir(exporter, "cert")).into());
                // The kubelet renews the mounted files when the Secret changes; they are looked at when a connection is made.
                tls.insert("reload_interval".into(), "30s".into());
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
    if exporter.compression == Compression::None {
        config["compression"] = "none".into();
    }
    if !exporter.headers.is_empty() {
        let headers =
            exporter.headers.iter().enumerate().map(|(j, h)| (h.name.clone(), format!("${{env:{}}}", header_env(index, j)).into()));
        config["headers"] = Value::Object(headers.collect());
    }
    config
}

pub(super) fn header_env(exporter: usize, header: usize) -> String {
    format!("CLUSTERTRACING_HEADER_{exporter}_{header}")
}

pub(super) fn tls_dir(exporter: &Exporter, kind: &str) -> String {
    format!("/etc/clustertracing/tls/{}/{kind}", exporter.name)
}
