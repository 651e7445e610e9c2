use std::error::Error as _;

use serde_json::{Value, json};

use super::*;

/// A document of one span of etcd's, with this in place of its fields.
fn document(span: &Value) -> Vec<u8> {
    let mut fields = json!({
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "put",
        "startTimeUnixNano": "1000", "endTimeUnixNano": "1500",
    });
    for (key, value) in span.as_object().unwrap() {
        fields[key] = value.clone();
    }
    let resource = json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": "etcd" } }] });
    serde_json::to_vec(&json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [fields] }] }] })).unwrap()
}

fn only_span(span: &Value) -> Span {
    read(&document(span)).unwrap().pop().unwrap().spans()[0].clone()
}

#[test]
fn a_span_is_read_with_all_that_is_known_of_it() {
    let span = only_span(&json!({
        "parentSpanId": "00f067aa0ba902b7", "kind": 2, "status": { "code": 2, "message": "too large" },
        "attributes": [
            { "key": "text", "value": { "stringValue": "a" } },
            { "key": "number", "value": { "intValue": "7" } },
            { "key": "truth", "value": { "boolValue": true } },
            { "key": "list", "value": { "arrayValue": { "values": [] } } },
            { "key": "nothing", "value": null },
            { "key": "text", "value": { "stringValue": "b" } },
        ],
        "events": [{ "timeUnixNano": "1200", "name": "second" }, { "timeUnixNano": 1100, "name": "first" }],
    }));
    assert_eq!((span.component.as_str(), span.name.as_str(), span.kind), ("etcd", "put", Kind::Server));
    assert_eq!((span.start, span.end, span.duration()), (1000, 1500, 500));
    assert_eq!(span.parent, Some(SpanId([0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7])));
    assert_eq!(span.status, Status::Error("too large".to_owned()));
    let attributes: Vec<_> = span.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(attributes, [("number", "7"), ("text", "a"), ("truth", "true")]);
    assert_eq!(span.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn a_root_has_no_parent_however_that_is_written() {
    for parent in ["", "0000000000000000"] {
        assert_eq!(only_span(&json!({ "parentSpanId": parent })).parent, None);
    }
}

#[test]
fn a_span_that_ended_before_it_began_took_no_time() {
    assert_eq!(only_span(&json!({ "endTimeUnixNano": "3" })).duration(), 0);
    assert_eq!(only_span(&json!({ "endTimeUnixNano": "0" })).duration(), 0);
}

#[test]
fn a_field_that_is_wrong_is_named() {
    let at = "resourceSpans[0].scopeSpans[0].spans[0]";
    for (span, message) in [
        (json!({ "traceId": "0af7" }), format!("read OTLP/JSON at {at}.traceId: is not 32 hexadecimal digits that are not all zero")),
        (
            json!({ "traceId": "0".repeat(32) }),
            format!("read OTLP/JSON at {at}.traceId: is not 32 hexadecimal digits that are not all zero"),
        ),
        (json!({ "spanId": "" }), format!("read OTLP/JSON at {at}.spanId: is not 16 hexadecimal digits that are not all zero")),
        (
            json!({ "parentSpanId": "ff" }),
            format!("read OTLP/JSON at {at}.parentSpanId: is not 16 hexadecimal digits that are not all zero"),
        ),
        (json!({ "startTimeUnixNano": "0" }), format!("read OTLP/JSON at {at}.startTimeUnixNano: is missing")),
    ] {
        assert_eq!(read(&document(&span)).unwrap_err().to_string(), message);
    }
}

#[test]
fn what_is_no_otlp_is_told_with_its_place() {
    for (bytes, message, cause) in [
        ("{\"resourceSpans\": [\n  x", "read OTLP/JSON at line 2, column 3", "expected value"),
        ("{\"resourceSpans\": [", "read OTLP/JSON at line 1, column 19", "EOF"),
        ("{}", "read OTLP/JSON at line 1, column 2", "missing field `resourceSpans`"),
        ("{\"resourceSpans\": 7}", "read OTLP/JSON at line 1, column 19", "invalid type"),
        ("\u{1f980}", "read OTLP/JSON at line 1, column 1", "expected value"),
    ] {
        let error = read(bytes.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), message, "{bytes}");
        assert!(error.source().unwrap().to_string().contains(cause), "{bytes}: {error:?}");
    }
}

#[test]
fn documents_may_follow_one_another_and_hold_several_traces() {
    let mut bytes = document(&json!({ "startTimeUnixNano": "900" }));
    bytes.push(b'\n');
    bytes.extend(document(&json!({ "traceId": "f".repeat(32), "startTimeUnixNano": "800" })));
    bytes.extend(document(&json!({ "spanId": "00f067aa0ba902b7" })));
    let traces = read(&bytes).unwrap();
    let told: Vec<_> = traces.iter().map(|trace| (trace.id().to_string(), trace.spans().len())).collect();
    assert_eq!(told, [("f".repeat(32), 1), ("0af7651916cd43dd8448eb211c80319c".to_owned(), 2)]);
    assert_eq!(read(b"").unwrap(), []);
}

#[test]
fn of_spans_that_were_sent_twice_one_stays() {
    let span = |id: u8, start| Span { id: SpanId([id; 8]), start, end: start + 5, ..Span::default() };
    let trace = Trace::new(TraceId([1; 16]), vec![span(2, 30), span(1, 20), span(2, 10), span(2, 30)]);
    assert_eq!(trace.spans().iter().map(|span| (span.id.0[0], span.start)).collect::<Vec<_>>(), [(2, 10), (1, 20)]);
}
