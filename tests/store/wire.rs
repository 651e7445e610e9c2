//! The walk over encoded spans, beside prost's decoding of the same bytes.

use clustertracing::store::wire::{Batch, Malformed, Sender};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::spans::{self, sent};

/// What both readers find, in one form.
#[derive(Debug, PartialEq)]
struct Read {
    senders: Vec<(String, String)>,
    spans: Vec<ReadSpan>,
}

#[derive(Debug, PartialEq)]
struct ReadSpan {
    /// The resource without its scopes, and the scope without its spans.
    context: (ResourceSpans, ScopeSpans),
    trace_id: Option<[u8; 16]>,
    span_id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    times: (u64, u64),
    failed: bool,
    whole: Span,
}

fn by_prost(request: &ExportTraceServiceRequest) -> Read {
    let mut read = Read { senders: Vec::new(), spans: Vec::new() };
    for resource in &request.resource_spans {
        if resource.scope_spans.iter().any(|scope| !scope.spans.is_empty()) {
            read.senders.push((name(resource, "service.name"), name(resource, "service.instance.id")));
        }
        for scope in &resource.scope_spans {
            let context =
                (ResourceSpans { scope_spans: Vec::new(), ..resource.clone() }, ScopeSpans { spans: Vec::new(), ..scope.clone() });
            read.spans.extend(scope.spans.iter().map(|span| ReadSpan {
                context: context.clone(),
                trace_id: span.trace_id.as_slice().try_into().ok().filter(|id| *id != [0; 16]),
                span_id: span.span_id.clone(),
                parent: span.parent_span_id.clone(),
                name: span.name.clone(),
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                failed: span.status.as_ref().is_some_and(|status| status.code == 2),
                whole: span.clone(),
            }));
        }
    }
    read
}

fn name(resource: &ResourceSpans, key: &str) -> String {
    let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
    match attributes.filter(|a| a.key == key).map(|a| a.value.as_ref().and_then(|v| v.value.as_ref())).next() {
        Some(Some(any_value::Value::StringValue(text))) => text.clone(),
        _ => String::new(),
    }
}

fn by_walking(batch: &Batch<'_>) -> Read {
    let context = |group: usize| {
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        batch.groups[group].write_resource(&mut resource);
        batch.groups[group].write_scope(&mut scope);
        (ResourceSpans::decode(&*resource).unwrap(), ScopeSpans::decode(&*scope).unwrap())
    };
    let spans = batch.spans.iter().map(|(group, span, bytes)| ReadSpan {
        context: context(*group),
        trace_id: span.trace_id.map(|id| *id.as_bytes()),
        span_id: span.span_id.to_vec(),
        parent: span.parent.to_vec(),
        name: span.name.to_owned(),
        times: (span.start, span.end),
        failed: span.failed,
        whole: Span::decode(*bytes).unwrap(),
    });
    let senders = batch.senders.iter().map(|Sender { service, id }| ((*service).to_owned(), (*id).to_owned()));
    Read { senders: senders.collect(), spans: spans.collect() }
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let array = ArrayValue { values: vec![AnyValue { value: Some(any_value::Value::IntValue(7)) }] };
    let value = prop_oneof![
        6 => ".{0,12}".prop_map(any_value::Value::StringValue),
        1 => any::<bool>().prop_map(any_value::Value::BoolValue),
        1 => any::<i64>().prop_map(any_value::Value::IntValue),
        1 => any::<i32>().prop_map(|n| any_value::Value::DoubleValue(n.into())),
        1 => Just(any_value::Value::ArrayValue(array)),
        1 => vec(any::<u8>(), 0..5).prop_map(any_value::Value::BytesValue),
    ];
    option::weighted(0.95, value).prop_map(|value| AnyValue { value })
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    let key = prop_oneof![Just("service.name".to_owned()), Just("service.instance.id".to_owned()), ".{0,8}".prop_map(String::from)];
    (key, option::of(any_value())).prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() })
}

fn any_span() -> impl Strategy<Value = Span> {
    let ids = (
        prop_oneof![4 => vec(any::<u8>(), 16), 1 => vec(any::<u8>(), 0..20), 1 => Just(vec![0; 16])],
        vec(any::<u8>(), 0..10),
        vec(any::<u8>(), 0..10),
    );
    let status = option::of((".{0,8}", -3..5_i32).prop_map(|(message, code)| Status { message, code }));
    let event = vec(key_value(), 0..2).prop_map(|attributes| span::Event {
        name: "Listing from storage done".to_owned(),
        attributes,
        ..span::Event::default()
    });
    (ids, ".{0,40}", any::<(u64, u64)>(), vec(key_value(), 0..4), vec(event, 0..2), status, any::<(u32, i32, u32)>()).prop_map(
        |((trace_id, span_id, parent_span_id), name, times, attributes, events, status, (flags, kind, dropped))| Span {
            trace_id,
            span_id,
            parent_span_id,
            name,
            flags,
            kind,
            dropped_links_count: dropped,
            start_time_unix_nano: times.0,
            end_time_unix_nano: times.1,
            attributes,
            events,
            status,
            ..Span::default()
        },
    )
}

fn any_request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = option::of(".{0,10}".prop_map(|name| InstrumentationScope { name, ..InstrumentationScope::default() }));
    let scope_spans =
        (scope, vec(any_span(), 0..4), ".{0,4}").prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resource = option::of(vec(key_value(), 0..4).prop_map(|attributes| Resource { attributes, ..Resource::default() }));
    let resource_spans = (resource, vec(scope_spans, 0..3), ".{0,4}").prop_map(|(resource, scope_spans, schema_url)| ResourceSpans {
        resource,
        scope_spans,
        schema_url,
    });
    vec(resource_spans, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

/// A change somewhere in encoded bytes.
#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index),
    /// What stands at one place, again at another: a field that comes twice, a message within another.
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    use prop::sample::Index;
    prop_oneof![
        3 => any::<(Index, u8)>().prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => (any::<Index>(), vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (any::<Index>(), any::<Index>(), 1..40_usize).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len() + 1;
        match damage {
            Damage::Set(at, byte) => {
                if let Some(place) = bytes.get_mut(at.index(length)) {
                    *place = *byte;
                }
            }
            Damage::Insert(at, new) => {
                let at = at.index(length);
                bytes.splice(at..at, new.iter().copied());
            }
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Copy(from, to, count) => {
                let from = from.index(length);
                let copy = bytes[from..bytes.len().min(from + count)].to_vec();
                let to = to.index(length);
                bytes.splice(to..to, copy);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_over_any_request_reads_what_prost_reads(request in any_request()) {
        let bytes = request.encode_to_vec();
        let batch = Batch::read(&bytes).unwrap();
        prop_assert_eq!(by_walking(&batch), by_prost(&request));
    }

    #[test]
    fn damaged_bytes_are_read_as_prost_reads_them_or_refused(request in any_request(), damages in vec(damage(), 1..4)) {
        let bytes = damaged(request.encode_to_vec(), &damages);
        match (ExportTraceServiceRequest::decode(&*bytes), Batch::read(&bytes)) {
            (Ok(request), Ok(batch)) => prop_assert_eq!(by_walking(&batch), by_prost(&request)),
            // Groups, which no OTLP message has, are stepped over by prost.
            (Ok(_), Err(malformed)) => prop_assert!(matches!(malformed, Malformed::WireType(3)), "{malformed}"),
            // Damage in what is not read here: whoever reads the trace leaves such a span out.
            (Err(_), _) => {}
        }
    }

    #[test]
    fn no_bytes_whatever_make_the_walk_panic(bytes in vec(any::<u8>(), 0..200)) {
        let known = [Malformed::Truncated, Malformed::Varint, Malformed::Key, Malformed::Text];
        if let Err(malformed) = Batch::read(&bytes) {
            prop_assert!(known.contains(&malformed) || matches!(malformed, Malformed::WireType(3 | 4 | 6 | 7) | Malformed::FieldType(_)));
        }
    }
}

#[test]
fn each_kind_of_malformed_bytes_has_its_reason() {
    let nested = |span: &[u8]| {
        let wrap = |tag: u8, inner: &[u8]| [&[tag, u8::try_from(inner.len()).unwrap()], inner].concat();
        wrap(0x0a, &wrap(0x12, &wrap(0x12, span)))
    };
    let cases: [(&str, Vec<u8>, Malformed); 14] = [
        ("a length without its bytes", vec![0x0a, 5, 1], Malformed::Truncated),
        ("a length of 2⁶³ bytes", [&[0x0a][..], &[0xff; 8], &[0x7f]].concat(), Malformed::Truncated),
        ("a key alone", vec![0x0a], Malformed::Truncated),
        ("a number without an end", vec![0x08, 0x80], Malformed::Truncated),
        ("half a fixed64", nested(&[0x39, 1, 2, 3]), Malformed::Truncated),
        ("half a fixed32", nested(&[0x85, 0x01, 1]), Malformed::Truncated),
        ("a number of eleven bytes", [&[0x08][..], &[0xff; 10], &[1]].concat(), Malformed::Varint),
        ("a number of 65 bits", [&[0x08][..], &[0xff; 9], &[2]].concat(), Malformed::Varint),
        ("field number 0", vec![0x02, 0], Malformed::Key),
        ("a key of 33 bits", vec![0xfa, 0xff, 0xff, 0xff, 0x1f, 0], Malformed::Key),
        ("a group", vec![0x0b, 0x0c], Malformed::WireType(3)),
        ("wire type 7", vec![0x0f], Malformed::WireType(7)),
        ("a trace id that is a number", nested(&[0x08, 1]), Malformed::FieldType(1)),
        ("a name that is not UTF-8", nested(&[0x2a, 1, 0xff]), Malformed::Text),
    ];
    for (what, bytes, malformed) in cases {
        assert_eq!(Batch::read(&bytes).map(|batch| batch.spans.len()), Err(malformed), "{what}");
    }
}

#[test]
fn a_request_that_ends_early_anywhere_is_read_to_a_whole_span_or_refused() {
    let bytes = sent(vec![spans::span(1, 0), spans::failed(spans::span(1, 1))]);
    for length in 0..bytes.len() {
        let read = Batch::read(&bytes[..length]).map(|batch| batch.spans.len());
        assert_eq!(read, if length == 0 { Ok(0) } else { Err(Malformed::Truncated) }, "{length} of {} bytes", bytes.len());
    }
}
