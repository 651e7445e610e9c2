//! What has arrived in Jaeger, through its query API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use kube::Client;
use serde::Deserialize;
use serde_json::Value;

use super::clients::{get, host_client};
use super::cluster::HOST;

/// Port of the query API on the host.
const QUERY_PORT: u16 = 16686;
/// How many traces of a service are looked through.
const TRACES: usize = 3000;

/// The endpoint that takes spans: OTLP over gRPC, with mutual TLS.
pub(crate) fn otlp_endpoint() -> String {
    format!("{HOST}:4317")
}

/// The query API.
pub(crate) struct Jaeger {
    client: Client,
}

/// A span, as far as the tests look at it.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Which kind of program recorded it: `apiserver`, `etcd`.
    pub(crate) service: String,
    /// Which of them: `service.instance.id`.
    pub(crate) instance: String,
    /// Its name.
    pub(crate) name: String,
    /// When it began, in microseconds since 1970.
    pub(crate) start: u64,
    id: String,
    parent: Option<String>,
}

/// The spans of one trace, in the order of their beginning.
#[derive(Clone, Debug)]
pub(crate) struct Trace(Vec<Span>);

impl Trace {
    /// Reads the only trace of an answer.
    pub(crate) fn read(answer: &str) -> Result<Self, String> {
        let answer: Answer = serde_json::from_str(answer).map_err(|error| format!("Jaeger's answer is not its JSON: {error}"))?;
        answer.data.into_iter().flatten().next().map(Self::from).ok_or_else(|| "there is no such trace".to_owned())
    }

    /// How many spans it has.
    pub(crate) fn spans(&self) -> usize {
        self.0.len()
    }

    /// Whether a span of `service` and `instance` has a name that begins with `name`.
    pub(crate) fn has(&self, service: &str, instance: &str, name: &str) -> bool {
        self.0.iter().any(|span| span.service == service && span.instance == instance && span.name.starts_with(name))
    }

    /// Whether it has a span of `service`.
    pub(crate) fn has_service(&self, service: &str) -> bool {
        self.0.iter().any(|span| span.service == service)
    }

    /// Names of the spans right below those of this name.
    pub(crate) fn names_below(&self, name: &str) -> BTreeSet<&str> {
        let above: BTreeSet<_> = self.0.iter().filter(|span| span.name == name).map(|span| &span.id).collect();
        let below = self.0.iter().filter(|span| span.parent.as_ref().is_some_and(|id| above.contains(id)));
        below.map(|span| span.name.as_str()).collect()
    }

    /// Who recorded a span of `service`: their `service.instance.id`.
    pub(crate) fn instances(&self, service: &str) -> BTreeSet<&str> {
        self.0.iter().filter(|span| span.service == service).map(|span| span.instance.as_str()).collect()
    }

    /// The trace as a tree, one span a line.
    pub(crate) fn tree(&self) -> String {
        fn print(spans: &[Span], parent: Option<&Span>, depth: usize, text: &mut String) {
            let is_root = |span: &Span| span.parent.as_ref().is_none_or(|id| spans.iter().all(|other| other.id != *id));
            for span in spans {
                if parent.map_or_else(|| is_root(span), |parent| span.parent.as_ref() == Some(&parent.id)) {
                    let indent = "  ".repeat(depth);
                    text.extend([&indent, &span.name, " (", &span.service, " ", &span.instance, ")\n"]);
                    print(spans, Some(span), depth + 1, text);
                }
            }
        }
        let mut text = String::new();
        print(&self.0, None, 0, &mut text);
        text
    }
}

impl Jaeger {
    /// The one that the testbed runs.
    pub(crate) fn new() -> Self {
        Self { client: host_client(QUERY_PORT) }
    }

    /// Instances of `service` that have recorded a span since `since`.
    pub(crate) async fn instances(&self, service: &str, since: SystemTime) -> Result<BTreeSet<String>, String> {
        let traces = self.traces_since(service, since).await?;
        Ok(traces.iter().flat_map(|trace| trace.instances(service)).map(str::to_owned).collect())
    }

    /// Traces of which `service` has recorded a span since `since`; of each, what began since then.
    pub(crate) async fn traces_since(&self, service: &str, since: SystemTime) -> Result<Vec<Trace>, String> {
        let start = since.duration_since(UNIX_EPOCH).expect("a time after 1970").as_micros();
        let traces = self.traces(&format!("/api/traces?service={service}&limit={TRACES}&start={start}")).await?;
        let since = |trace: Trace| Trace(trace.0.into_iter().filter(|span| u128::from(span.start) >= start).collect());
        Ok(traces.into_iter().map(since).filter(|trace| trace.has_service(service)).collect())
    }

    /// The trace with this id.
    pub(crate) async fn trace(&self, id: &str) -> Result<Trace, String> {
        Trace::read(&self.text(id).await?).map_err(|error| format!("{id}: {error}"))
    }

    /// Whether a span of `service` since `since` has this attribute.
    pub(crate) async fn has_tagged(&self, service: &str, (key, value): (&str, &str), since: SystemTime) -> Result<bool, String> {
        let start = since.duration_since(UNIX_EPOCH).expect("a time after 1970").as_micros();
        Ok(!self.traces(&format!("/api/traces?service={service}&limit=1&start={start}&tag={key}:{value}")).await?.is_empty())
    }

    /// All that Jaeger tells of the trace with this id.
    pub(crate) async fn text(&self, id: &str) -> Result<String, String> {
        self.client.request_text(get(&format!("/api/traces/{id}"))).await.map_err(|error| format!("Jaeger answers with {error}"))
    }

    async fn traces(&self, path: &str) -> Result<Vec<Trace>, String> {
        let answer: Answer = self.client.request(get(path)).await.map_err(|error| format!("Jaeger answers {path} with {error}"))?;
        Ok(answer.data.unwrap_or_default().into_iter().map(Trace::from).collect())
    }
}

/// What the query API sends: <https://www.jaegertracing.io/docs/1.62/apis/>.
#[derive(Deserialize)]
struct Answer {
    data: Option<Vec<JsonTrace>>,
}

#[derive(Deserialize)]
struct JsonTrace {
    spans: Vec<JsonSpan>,
    processes: BTreeMap<String, JsonProcess>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpan {
    #[serde(rename = "spanID")]
    span_id: String,
    operation_name: String,
    references: Vec<JsonReference>,
    start_time: u64,
    #[serde(rename = "processID")]
    process_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonReference {
    ref_type: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonProcess {
    service_name: String,
    #[serde(default)]
    tags: Vec<JsonTag>,
}

#[derive(Deserialize)]
struct JsonTag {
    key: String,
    value: Value,
}

impl From<JsonTrace> for Trace {
    fn from(trace: JsonTrace) -> Self {
        let JsonTrace { spans, processes } = trace;
        let mut spans: Vec<_> = spans.into_iter().map(|span| span.with_process(&processes)).collect();
        spans.sort_by_key(|span| span.start);
        Self(spans)
    }
}

impl JsonSpan {
    fn with_process(self, processes: &BTreeMap<String, JsonProcess>) -> Span {
        let process = processes.get(&self.process_id);
        let instance = process.and_then(|p| p.tags.iter().find(|tag| tag.key == "service.instance.id")).and_then(|tag| tag.value.as_str());
        Span {
            service: process.map(|p| p.service_name.clone()).unwrap_or_default(),
            instance: instance.unwrap_or_default().to_owned(),
            name: self.operation_name,
            start: self.start_time,
            id: self.span_id,
            parent: self.references.into_iter().find(|reference| reference.ref_type == "CHILD_OF").map(|reference| reference.span_id),
        }
    }
}

#[test]
fn an_answer_of_the_query_api_is_parsed_and_drawn_as_a_tree() {
    let answer = r#"{"data": [{"spans": [
        {"spanID": "b", "operationName": "etcdserverpb.KV/Range", "references": [{"refType": "CHILD_OF", "spanID": "a"}], "startTime": 2, "processID": "p2"},
        {"spanID": "a", "operationName": "GET /api/v1/nodes", "references": [{"refType": "CHILD_OF", "spanID": "client"}], "startTime": 1, "processID": "p1"}
    ], "processes": {
        "p1": {"serviceName": "apiserver", "tags": [{"key": "service.instance.id", "value": "apiserver-1"}]},
        "p2": {"serviceName": "etcd", "tags": [{"key": "service.instance.id", "value": "cp1"}]}
    }}]}"#;
    let trace = Trace::read(answer).expect("it is Jaeger's JSON, with a trace");
    assert_eq!(trace.spans(), 2);
    assert!(trace.has("etcd", "cp1", "etcdserverpb.KV/"));
    assert!(!trace.has("etcd", "cp2", "etcdserverpb.KV/"));
    assert_eq!(trace.names_below("GET /api/v1/nodes"), BTreeSet::from(["etcdserverpb.KV/Range"]));
    assert_eq!(trace.instances("apiserver"), BTreeSet::from(["apiserver-1"]));
    assert_eq!(trace.tree(), "GET /api/v1/nodes (apiserver apiserver-1)\n  etcdserverpb.KV/Range (etcd cp1)\n");
}
