//! Spans as kube-apiserver and etcd send them, made by number.

use clustertracing::store::TraceId;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, status};
use prost::Message;

/// 2027-01-15T08:00:00Z, in nanoseconds.
pub(crate) const START: u64 = 1_800_000_000_000_000_000;
pub(crate) const MILLISECOND: u64 = 1_000_000;

pub(crate) fn id(number: u64) -> TraceId {
    // Spread over all bytes, as random ids are.
    TraceId::new((u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()).unwrap()
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// A span of trace `trace`; number 0 is its root, and the parent of the others.
pub(crate) fn span(trace: u64, number: u64) -> Span {
    let span_id = |number: u64| (trace << 16 | (number + 1)).to_be_bytes().to_vec();
    Span {
        trace_id: id(trace).as_bytes().to_vec(),
        span_id: span_id(number),
        parent_span_id: if number == 0 { Vec::new() } else { span_id(0) },
        name: if number == 0 { "GET /api/v1/namespaces/{:namespace}/pods" } else { "etcdserverpb.KV/Range" }.to_owned(),
        start_time_unix_nano: START + trace * MILLISECOND,
        end_time_unix_nano: START + trace * MILLISECOND + 5 * MILLISECOND,
        attributes: vec![text("http.request.method", "GET"), text("audit-id", &id(trace).to_string())],
        ..Span::default()
    }
}

pub(crate) fn failed(mut span: Span) -> Span {
    span.status = Some(Status { message: "etcdserver: request timed out".to_owned(), code: status::StatusCode::Error.into() });
    span
}

pub(crate) fn lasting(mut span: Span, nanos: u64) -> Span {
    span.end_time_unix_nano = span.start_time_unix_nano + nanos;
    span
}

pub(crate) fn request(service: &str, instance: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let attributes = vec![text("service.name", service), text("service.instance.id", instance), text("host.name", "cp-0")];
    let resource = Resource { attributes, ..Resource::default() };
    let scope = InstrumentationScope { name: "k8s.io/apiserver".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: "https://opentelemetry.io/schemas/1.34.0".to_owned() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() }] }
}

/// The encoded request of an API server.
pub(crate) fn sent(spans: Vec<Span>) -> Vec<u8> {
    request("apiserver", "apiserver-abc", spans).encode_to_vec()
}
