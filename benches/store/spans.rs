//! Spans as the collector of a control-plane node sends them: those of its kube-apiserver 1.36 and of its etcd, made by number.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
use prost::Message;

/// Spans of a batch: what the collectors' `sending_queue.batch` sends as soon as it has them.
pub(crate) const BATCH: u64 = 512;
/// Spans of a trace: an API request with its filters, its admission and its storage, and etcd's part.
pub(crate) const TRACE: u64 = 12;
/// Of these, etcd's.
const ETCD: u64 = 4;
/// One trace of so many failed, and another one was slow: the store keeps both longer.
const FAILED_AND_SLOW: u64 = 100;
/// 2027-01-15T08:00:00Z, in nanoseconds.
const START: u64 = 1_800_000_000_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// Batches of these numbers, encoded. No two have a span's id in common.
pub(crate) fn batches(numbers: std::ops::Range<u64>) -> Vec<Bytes> {
    numbers.map(batch).collect()
}

/// The batch of this number, encoded.
pub(crate) fn batch(number: u64) -> Bytes {
    let spans = |etcd: bool| (number * BATCH..(number + 1) * BATCH).filter(move |span| (span % TRACE >= TRACE - ETCD) == etcd).map(span);
    let resource_spans = vec![
        sent("apiserver", "apiserver-lfbnywk3ycm4rhjzyiviz7yzgq", "k8s.io/apiserver/pkg/endpoints", spans(false).collect()),
        sent("etcd", "cp-0", "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc", spans(true).collect()),
    ];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

fn sent(service: &str, instance: &str, scope: &str, spans: Vec<Span>) -> ResourceSpans {
    let attributes = vec![
        text("service.name", service),
        text("service.instance.id", instance),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.language", "go"),
        text("telemetry.sdk.version", "1.39.0"),
        text("k8s.node.name", "cp-0"),
    ];
    let scope = InstrumentationScope { name: scope.to_owned(), ..InstrumentationScope::default() };
    ResourceSpans {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
        schema_url: String::new(),
    }
}

/// The span of this number: those of a trace follow one another, its root first.
fn span(number: u64) -> Span {
    let (trace, place) = (number / TRACE, number % TRACE);
    let start = START + trace * MILLISECOND;
    let took = if trace % FAILED_AND_SLOW == 1 { 1200 * MILLISECOND } else { 3 * MILLISECOND };
    let failed = trace % FAILED_AND_SLOW == 2;
    let mut attributes = vec![text("audit-id", &format!("{:032x}", trace_id(trace)))];
    if place == 0 {
        attributes.extend([
            text("http.request.method", "GET"),
            text("server.address", "kube-apiserver"),
            text("url.scheme", "https"),
            text("user_agent.original", "kube-controller-manager/v1.36.3 (linux/amd64) kubernetes/4f5e0ab/shared-informers"),
            text("network.protocol.version", "2.0"),
            count("http.response.status_code", if failed { 504 } else { 200 }),
            count("http.response.body.size", 18_532),
        ]);
    }
    let event = |name: &str| span::Event { time_unix_nano: start + MILLISECOND, name: name.to_owned(), ..span::Event::default() };
    Span {
        trace_id: trace_id(trace).to_be_bytes().to_vec(),
        span_id: span_id(number),
        parent_span_id: if place == 0 { Vec::new() } else { span_id(number - place) },
        name: match place {
            0 => "GET /api/v1/namespaces/{:namespace}/pods/{:name}",
            place if place >= TRACE - ETCD => "etcdserverpb.KV/Range",
            _ => "List(recursive=true) etcd3",
        }
        .to_owned(),
        kind: span::SpanKind::Server.into(),
        flags: 0x101,
        start_time_unix_nano: start,
        end_time_unix_nano: start + took,
        attributes,
        events: vec![event("About to List from storage"), event("Listing from storage done")],
        status: failed.then(|| Status { message: "etcdserver: request timed out".to_owned(), code: status::StatusCode::Error.into() }),
        ..Span::default()
    }
}

/// Spread over all of its bytes, as random ids are.
fn trace_id(trace: u64) -> u128 {
    u128::from(trace + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn span_id(number: u64) -> Vec<u8> {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec()
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn count(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
