//! Reads spans out of OTLP/JSON, and nothing else: what a [`Trace`] holds has been looked at, and later code need not check it again.
//!
//! OTLP/JSON is <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>: what the trace store answers, and what the collector's file
//! exporter writes (one document a line). Whatever the bytes are, this gives traces or an [`Error`] that says where they are wrong.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, TracesData};

/// Why bytes are no traces. Whoever read them names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No JSON, or a field of another type than OTLP gives it.
    #[error("read OTLP/JSON at line {line}, column {column}")]
    Json {
        /// From 1 on; a document's own, where several follow one another on lines of their own.
        line: usize,
        /// From 1 on; 0 where the line has ended.
        column: usize,
        /// What is wrong there.
        source: serde_json::Error,
    },
    /// A field of a span is not what OTLP demands.
    #[error("read OTLP/JSON at {at}: {problem}")]
    Field {
        /// The field, as in `resourceSpans[0].scopeSpans[0].spans[2].spanId`.
        at: String,
        /// What is wrong with it.
        problem: FieldProblem,
    },
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// An identity of another length, or of zeros only.
    #[error("is not {0} hexadecimal digits that are not all zero")]
    Id(usize),
    /// A span without a beginning.
    #[error("is missing")]
    Missing,
}

/// 16 bytes, not all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, not all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which side of a call a span is (`SpanKind` of trace.proto, as far as it matters here).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Neither side of a call.
    #[default]
    Internal,
    /// A call, as its caller saw it.
    Client,
    /// A call, as the one that was called saw it.
    Server,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Well, or nobody said.
    #[default]
    Ok,
    /// Not well, with what was said about it: empty where redaction took it away.
    Error(String),
}

/// A moment within a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub name: String,
    /// When: nanoseconds since 1970.
    pub at: u64,
}

/// One operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Its identity within the trace.
    pub id: SpanId,
    /// The span that it is a part of, here or elsewhere; none of a root.
    pub parent: Option<SpanId>,
    /// `service.name`: `apiserver`, `etcd`, or what others call themselves.
    pub component: String,
    /// `service.instance.id`: an API server's identity Lease, an etcd member's node. Empty where nobody said.
    pub instance: String,
    /// What its program calls it.
    pub name: String,
    /// Which side of a call it is.
    pub kind: Kind,
    /// When it began: nanoseconds since 1970.
    pub start: u64,
    /// When it ended: nanoseconds since 1970, never before it began.
    pub end: u64,
    /// How it ended.
    pub status: Status,
    /// What else is known of it: texts, numbers and truth values as text. Lists and the like are left out.
    pub attributes: BTreeMap<String, String>,
    /// Moments within it, in their order.
    pub events: Vec<Event>,
}

impl Span {
    /// Nanoseconds that it took.
    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether its status is an error.
    pub fn failed(&self) -> bool {
        matches!(self.status, Status::Error(_))
    }

    /// The first of these attributes that it has, and that is not empty: names differ between the versions of OpenTelemetry's conventions.
    pub fn attribute(&self, names: &[&str]) -> Option<&str> {
        names.iter().filter_map(|name| self.attributes.get(*name)).map(String::as_str).find(|value| !value.is_empty())
    }
}

/// The spans of one trace: each identity once, in the order in which they began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    id: TraceId,
    spans: Vec<Span>,
}

impl Trace {
    /// A trace of these spans. Of spans that share an identity, as after a resend, the one that began first stays.
    pub fn new(id: TraceId, mut spans: Vec<Span>) -> Self {
        for span in &mut spans {
            span.end = span.end.max(span.start);
            span.events.sort_by(|a, b| (a.at, &a.name).cmp(&(b.at, &b.name)));
        }
        // What began at one moment: the longer first, which is the parent more often than not; then by identity, so that the order is one only.
        spans.sort_by(|a, b| (a.start, b.end, a.id, &a.name).cmp(&(b.start, a.end, b.id, &b.name)));
        let mut seen = HashSet::with_capacity(spans.len());
        spans.retain(|span| seen.insert(span.id));
        Self { id, spans }
    }

    /// Its identity.
    pub fn id(&self) -> TraceId {
        self.id
    }

    /// Its spans.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
}

/// Reads OTLP/JSON: any number of documents one after the other, of spans of any number of traces. The traces come in the order in which they
/// began.
///
/// # Errors
/// When a document is no OTLP/JSON, or a span in it has no valid identity or beginning.
pub fn read(bytes: &[u8]) -> Result<Vec<Trace>, Error> {
    let mut traces = BTreeMap::<TraceId, Vec<Span>>::new();
    for document in serde_json::Deserializer::from_slice(bytes).into_iter::<TracesData>() {
        let document = document.map_err(|source| Error::Json { line: source.line(), column: source.column(), source })?;
        read_document(document, &mut traces)?;
    }
    let mut traces: Vec<_> = traces.into_iter().map(|(id, spans)| Trace::new(id, spans)).collect();
    traces.sort_by_key(|trace| (trace.spans.first().map(|span| span.start), trace.id));
    Ok(traces)
}

fn read_document(document: TracesData, traces: &mut BTreeMap<TraceId, Vec<Span>>) -> Result<(), Error> {
    for (r, resource_spans) in document.resource_spans.into_iter().enumerate() {
        let resource = attributes(resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default());
        let text = |key| resource.get(key).cloned().unwrap_or_default();
        let (component, instance) = (text("service.name"), text("service.instance.id"));
        for (s, scope_spans) in resource_spans.scope_spans.into_iter().enumerate() {
            for (n, span) in scope_spans.spans.into_iter().enumerate() {
                let field =
                    |name: &str, problem| Error::Field { at: format!("resourceSpans[{r}].scopeSpans[{s}].spans[{n}].{name}"), problem };
                let trace = id(&span.trace_id).ok_or_else(|| field("traceId", FieldProblem::Id(32)))?;
                let span = read_span(span, &component, &instance).map_err(|(name, problem)| field(name, problem))?;
                traces.entry(TraceId(trace)).or_default().push(span);
            }
        }
    }
    Ok(())
}

/// A span, or the name of the field that is wrong.
fn read_span(span: otlp::Span, component: &str, instance: &str) -> Result<Span, (&'static str, FieldProblem)> {
    let parent = match span.parent_span_id.as_slice() {
        // Some senders write a root's as zeros.
        [] | [0, 0, 0, 0, 0, 0, 0, 0] => None,
        bytes => Some(SpanId(id(bytes).ok_or(("parentSpanId", FieldProblem::Id(16)))?)),
    };
    if span.start_time_unix_nano == 0 {
        return Err(("startTimeUnixNano", FieldProblem::Missing));
    }
    let kind = match span.kind() {
        SpanKind::Server | SpanKind::Consumer => Kind::Server,
        SpanKind::Client | SpanKind::Producer => Kind::Client,
        SpanKind::Internal | SpanKind::Unspecified => Kind::Internal,
    };
    let status = match span.status {
        Some(status) if status.code() == StatusCode::Error => Status::Error(status.message),
        _ => Status::Ok,
    };
    Ok(Span {
        id: SpanId(id(&span.span_id).ok_or(("spanId", FieldProblem::Id(16)))?),
        parent,
        component: component.to_owned(),
        instance: instance.to_owned(),
        name: span.name,
        kind,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        status,
        attributes: attributes(span.attributes),
        events: span.events.into_iter().map(|event| Event { name: event.name, at: event.time_unix_nano }).collect(),
    })
}

/// An identity of N bytes that are not all zero.
fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok().filter(|bytes| *bytes != [0; N])
}

/// Those that are one value each. Keys are unique (OTLP); of those that are not, the first counts, as in the trace store.
fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for KeyValue { key, value, .. } in list {
        if let Some(text) = value.and_then(text) {
            attributes.entry(key).or_insert(text);
        }
    }
    attributes
}

fn text(value: AnyValue) -> Option<String> {
    match value.value? {
        Value::StringValue(text) => Some(text),
        Value::BoolValue(value) => Some(value.to_string()),
        Value::IntValue(value) => Some(value.to_string()),
        Value::DoubleValue(value) => Some(value.to_string()),
        Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_) | Value::StringValueStrindex(_) => None,
    }
}

#[cfg(test)]
mod tests;
