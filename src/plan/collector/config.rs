//! The configurations: of the nodes' collectors, and of the gateway's.

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Map, Value, json};

use super::dialect::Dialect;
use super::extra::{self, Conflict, Open};
use super::{GATEWAY, GATEWAY_PORT, STORE, STORE_PORT, redaction};
use crate::api::collector::{Compression, QueueStorage, TailSampling, TlsVersion};
use crate::api::{COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT, ExporterProtocol, State};
use crate::plan::validate::{Collector, Exporter, ExporterTls, Queue};

/// Batches of spans that wait for the trace store, of at most [`STORE_BATCH`] spans: some megabytes.
const STORE_QUEUE: u32 = 16;
const STORE_BATCH: u32 = 512;
/// Traces that the gateway keeps until they are judged: with ten spans each some hundred megabytes.
const JUDGED_TRACES: u32 = 50_000;
/// The variable that holds the node's name.
pub(super) const NODE_NAME: &str = "NODE_NAME";
/// The variable that holds the name of a gateway's pod.
pub(super) const POD_NAME: &str = "POD_NAME";
/// Where a queue on disk is mounted.
pub(super) const QUEUE_DIR: &str = "/var/lib/clustertracing/queue";
/// The extension that keeps it.
const QUEUE: &str = "file_storage/queue";

/// Components of one kind, in the order in which a pipeline uses them.
type Components = Vec<(String, Value)>;

/// The configuration of the nodes' collectors, as YAML.
pub(super) fn node_text(collector: &Collector, namespace: &str) -> String {
    let config = match collector.gateway {
        Some(_) => Ok(node(collector, namespace)),
        None => sender(collector, namespace),
    };
    text(config)
}

/// The configuration of the gateway's collectors, as YAML.
pub(super) fn gateway_text(collector: &Collector, namespace: &str) -> String {
    text(sender(collector, namespace))
}

/// The configuration of the collectors that send to the back ends, with what the resource adds to it: the gateway's, or the nodes'.
pub(super) fn sender(collector: &Collector, namespace: &str) -> Result<Value, Conflict> {
    let dialect = Dialect::of(&collector.image);
    let exporters: Vec<_> = collector.exporters.iter().map(|e| format!("{}/{}", dialect.exporter(e.protocol), e.name)).collect();
    // A gateway gets redacted spans.
    let (config, closed_receivers): (_, &[_]) =
        if collector.gateway.is_some() { (gateway(collector, namespace), &[]) } else { (node(collector, namespace), &["otlp"]) };
    extra::merge(config, &collector.extra, Open { exporters: &exporters, closed_receivers })
}

/// What does not fit is found when the resource is validated: here nothing is left to refuse. A tree of strings, numbers and booleans with
/// string keys is always serializable.
fn text(config: Result<Value, Conflict>) -> String {
    let mut config = config.unwrap_or_default();
    if let Some(pipelines) = config.pointer_mut("/service/pipelines").and_then(Value::as_object_mut) {
        // A collector takes no pipeline without an end.
        pipelines.retain(|_, pipeline| pipeline["exporters"] != json!([]));
    }
    serde_yaml::to_string(&config).unwrap_or_default()
}

/// Three pipelines. Spans are received and redacted once; from there one goes to the trace store and one to the back ends, or the gateway,
/// and neither knows of the other.
fn node(collector: &Collector, namespace: &str) -> Value {
    let dialect = Dialect::of(&collector.image);
    let mut received: Components = vec![("memory_limiter".into(), memory_limiter(collector.resources.as_ref()))];
    if !collector.redaction.is_empty() {
        received.push(("transform/redact".into(), redaction::processor(&collector.redaction)));
    }
    // This processor tells nobody that a queue behind it is full, and here that is what it is for: an error would go back through the receiver
    // to kube-apiserver, which would send the same spans, to the user's exporters too, once more.
    let to_store: Components = vec![(format!("batch/{STORE}"), batch(256, STORE_BATCH))];
    let store: Components = vec![(format!("{}/{STORE}", dialect.exporter(ExporterProtocol::Grpc)), store_exporter(namespace))];
    let users = dialect.batching();
    let exporters = match collector.gateway {
        Some(_) => {
            vec![(format!("{}/{GATEWAY}", dialect.exporter(ExporterProtocol::Grpc)), gateway_exporter(dialect, collector, namespace))]
        }
        None => exporters(dialect, collector),
    };
    let pipelines = [
        ("traces/received".to_owned(), pipeline("otlp", &received, &["forward"])),
        (format!("traces/{STORE}"), pipeline("forward", &to_store, &names(&store))),
        (extra::PIPELINE.to_owned(), pipeline("forward", &users, &names(&exporters))),
    ];
    let endpoint = format!("127.0.0.1:{}", collector.port);
    let health = format!("127.0.0.1:{COLLECTOR_HEALTH_PORT}");
    let mut config = json!({
        "extensions": extensions(collector, &health),
        "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": endpoint } } } },
        "processors": received.into_iter().chain(to_store).chain(users).collect::<Map<_, _>>(),
        "connectors": { "forward": {} },
        "exporters": store.into_iter().chain(exporters).collect::<Map<_, _>>(),
        "service": { "telemetry": telemetry(namespace, &json!({ "k8s.node.name": variable(NODE_NAME) })), "pipelines": Map::from_iter(pipelines) },
    });
    config["service"]["extensions"] = names_of(&config["extensions"]);
    config
}

/// One pipeline: what the nodes send goes on to the back ends, all of it or what is chosen.
fn gateway(collector: &Collector, namespace: &str) -> Value {
    let dialect = Dialect::of(&collector.image);
    let settings = collector.gateway.as_ref();
    let mut processors: Components =
        vec![("memory_limiter".into(), memory_limiter(settings.and_then(|gateway| gateway.resources.as_ref())))];
    processors.extend(settings.and_then(|gateway| gateway.tail_sampling.as_ref()).map(|t| ("tail_sampling".to_owned(), tail_sampling(t))));
    processors.extend(dialect.batching());
    let exporters = exporters(dialect, collector);
    // Every address, of whichever family the pod has.
    let (endpoint, health) = (format!(":{GATEWAY_PORT}"), format!(":{COLLECTOR_HEALTH_PORT}"));
    let mut config = json!({
        "extensions": extensions(collector, &health),
        "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": endpoint } } } },
        "exporters": exporters.iter().cloned().collect::<Map<_, _>>(),
        "service": {
            "telemetry": telemetry(namespace, &json!({ "k8s.pod.name": variable(POD_NAME) })),
            "pipelines": { extra::PIPELINE: pipeline("otlp", &processors, &names(&exporters)) },
        },
        "processors": processors.into_iter().collect::<Map<_, _>>(),
    });
    config["service"]["extensions"] = names_of(&config["extensions"]);
    config
}

fn extensions(collector: &Collector, health: &str) -> Value {
    let mut extensions = json!({ "health_check": { "endpoint": health } });
    if collector.queue.storage == QueueStorage::Disk {
        extensions[QUEUE] = json!({ "directory": QUEUE_DIR });
    }
    extensions
}

fn variable(name: &str) -> String {
    format!("${{env:{name}}}")
}

fn tail_sampling(t: &TailSampling) -> Value {
    let mut policies = Vec::new();
    if t.errors == State::Enabled {
        policies.push(json!({ "name": "errors", "type": "status_code", "status_code": { "status_codes": ["ERROR"] } }));
    }
    policies.push(json!({ "name": "slow", "type": "latency", "latency": { "threshold_ms": t.slower_than_milliseconds } }));
    if t.kept_per_million > 0 {
        let percentage = f64::from(t.kept_per_million) / 10_000.0;
        policies.push(json!({ "name": "share", "type": "probabilistic", "probabilistic": { "sampling_percentage": percentage } }));
    }
    json!({ "decision_wait": format!("{}s", t.decision_seconds), "num_traces": JUDGED_TRACES, "policies": policies })
}

fn exporters(dialect: Dialect, collector: &Collector) -> Components {
    let exporters = collector.exporters.iter().enumerate();
    exporters.map(|(i, e)| (format!("{}/{}", dialect.exporter(e.protocol), e.name), exporter(dialect, collector, i, e))).collect()
}

fn pipeline(receiver: &str, processors: &Components, exporters: &[&str]) -> Value {
    json!({ "receivers": [receiver], "processors": names(processors), "exporters": exporters })
}

fn names_of(components: &Value) -> Value {
    components.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

fn names(components: &Components) -> Vec<&str> {
    components.iter().map(|(name, _)| name.as_str()).collect()
}

/// First in line: at its limit it refuses spans instead of letting the container be killed. Percentages are of the container's limit, and
/// of the whole node's memory where it has none.
fn memory_limiter(resources: Option<&ResourceRequirements>) -> Value {
    let limited = match resources {
        Some(resources) => resources.limits.iter().flatten().any(|(name, _)| name == "memory"),
        None => true,
    };
    if limited {
        json!({ "check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 20 })
    } else {
        json!({ "check_interval": "1s", "limit_mib": 400, "spike_limit_mib": 100 })
    }
}

pub(super) fn batch(size: u32, max_size: u32) -> Value {
    json!({ "timeout": "1s", "send_batch_size": size, "send_batch_max_size": max_size })
}

/// The collector's own metrics: for whoever scrapes the node, and pushed to the trace store, so that the controller knows what each collector
/// took, sent and dropped without a way to reach it.
fn telemetry(namespace: &str, resource: &Value) -> Value {
    let endpoint = format!("http://{}", store_endpoint(namespace));
    json!({
        "resource": resource,
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
fn store_endpoint(namespace: &str) -> String {
    format!("{STORE}.{namespace}.svc:{STORE_PORT}")
}

/// Best effort: what the store does not take within ten seconds is dropped.
fn store_exporter(namespace: &str) -> Value {
    json!({
        "endpoint": store_endpoint(namespace),
        "tls": { "insecure": true },
        "compression": "none",
        "timeout": "2s",
        "sending_queue": { "enabled": true, "queue_size": STORE_QUEUE, "num_consumers": 2 },
        "retry_on_failure": { "enabled": true, "initial_interval": "1s", "max_interval": "2s", "max_elapsed_time": "10s" },
    })
}

/// What the nodes send to the gateway: plain text, within the cluster, redacted.
fn gateway_exporter(dialect: Dialect, collector: &Collector, namespace: &str) -> Value {
    json!({
        "endpoint": format!("{GATEWAY}.{namespace}.svc:{GATEWAY_PORT}"),
        "tls": { "insecure": true },
        // A connection stays with one pod; by this each batch goes to the next of those that are Ready.
        "balancer_name": "round_robin",
        "sending_queue": queue(dialect, collector.queue),
        "retry_on_failure": { "enabled": true, "max_elapsed_time": "300s" },
    })
}

/// Spans that wait for one destination. More are dropped, and counted: a back end that is away must not cost memory without end.
fn queue(dialect: Dialect, queue: Queue) -> Value {
    let mut config = match dialect {
        Dialect::BatchingQueue => json!({
            "enabled": true, "sizer": "items", "queue_size": queue.spans,
            "batch": { "flush_timeout": "1s", "min_size": 512, "max_size": 2048 },
        }),
        // Counted in batches of the processor.
        Dialect::BatchProcessor => json!({ "enabled": true, "queue_size": queue.spans / 512 }),
    };
    if queue.storage == QueueStorage::Disk {
        config["storage"] = QUEUE.into();
    }
    config
}

fn exporter(dialect: Dialect, collector: &Collector, index: usize, exporter: &Exporter) -> Value {
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
        Some(ExporterTls { ca_secret, cert_secret, server_name, min_version }) => {
            if *min_version == TlsVersion::V1_3 {
                tls.insert("min_version".into(), "1.3".into());
            }
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
    let mut config = json!({
        "endpoint": endpoint,
        "tls": tls,
        "sending_queue": queue(dialect, collector.queue),
        "retry_on_failure": { "enabled": true, "max_elapsed_time": "300s" },
    });
    if exporter.compression == Compression::None {
        config["compression"] = "none".into();
    }
    if !exporter.headers.is_empty() {
        let headers = exporter.headers.iter().enumerate().map(|(j, h)| (h.name.clone(), variable(&header_env(index, j)).into()));
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
