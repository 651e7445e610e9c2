//! A trace of any number of spans: a collection of pods that is deleted one after the other, each with its calls of etcd, and a webhook now and
//! then.

use clustertracing::cli::trace::model::{Event, Kind, Span, SpanId, Status, Trace, TraceId};

/// When the trace begins: 2026-11-21 09:01:43 UTC.
const START: u64 = 1_795_251_703_000_000_000;
const MICRO: u64 = 1_000;

/// Spans from one template.
struct Maker {
    spans: Vec<Span>,
}

impl Maker {
    fn span(
        &mut self,
        parent: Option<SpanId>,
        program: (&str, Kind),
        name: &str,
        (start, took): (u64, u64),
        attributes: &[(&str, &str)],
    ) -> SpanId {
        let (component, kind) = program;
        let id = SpanId((self.spans.len() as u64 + 1).to_be_bytes());
        self.spans.push(Span {
            id,
            parent,
            component: component.to_owned(),
            instance: if component == "etcd" { "cp-1" } else { "apiserver-wlv32tlttr4jl3gtroqexyxapa" }.to_owned(),
            name: name.to_owned(),
            kind,
            start: START + start * MICRO,
            end: START + (start + took) * MICRO,
            status: Status::Ok,
            attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            events: vec![Event { name: "About to write a response".to_owned(), at: START + (start + took / 2) * MICRO }],
        });
        id
    }
}

/// A trace of so many spans, at least three.
pub(crate) fn trace(spans: usize) -> Trace {
    let mut maker = Maker { spans: Vec::with_capacity(spans) };
    let (server, client, internal) = (("apiserver", Kind::Server), ("apiserver", Kind::Client), ("apiserver", Kind::Internal));
    let whole = spans as u64 * 250 + 1_000;
    let root =
        maker.span(None, server, "DELETE /api/v1/namespaces/{:namespace}/pods", (0, whole), &[("user_agent.original", "kubectl/v1.36.3")]);
    let step = maker.span(Some(root), internal, "authorization", (10, whole - 30), &[]);
    let delete = maker.span(Some(step), internal, "Delete", (20, whole - 50), &[("resource", "pods"), ("namespace", "shop")]);
    let mut at = 100;
    // The 37th takes longest, whatever the number of spans.
    for object in 1.. {
        if maker.spans.len() + 6 > spans {
            break;
        }
        let took = if object == 37 { 9_000 } else { 300 + object * 7 % 400 };
        let webhook = [("webhook", "audit.shop.io"), ("configuration", "audit")];
        maker.span(Some(delete), internal, "Call validating webhook", (at, took), &webhook);
        for (storage, rpc) in [("cacher.Get", "etcdserverpb.KV/Range"), ("GuaranteedUpdate etcd3", "etcdserverpb.KV/Txn")] {
            let stored = maker.span(Some(delete), internal, storage, (at + took, 200), &[("type", "pods"), ("resource", "pods")]);
            maker.span(Some(stored), client, rpc, (at + took + 20, 150), &[]);
        }
        at += took + 210;
    }
    while maker.spans.len() < spans {
        maker.span(Some(delete), internal, "SerializeObject", (whole - 100, 20), &[]);
    }
    Trace::new(TraceId(*b"two thousand spa"), maker.spans)
}

/// The same as OTLP/JSON.
pub(crate) fn otlp_json(trace: &Trace) -> Vec<u8> {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let text = |(key, value): (&str, &str)| serde_json::json!({ "key": key, "value": { "stringValue": value } });
    let spans: Vec<_> = trace
        .spans()
        .iter()
        .map(|span| {
            serde_json::json!({
                "traceId": trace.id().to_string(),
                "spanId": hex(&span.id.0),
                "parentSpanId": span.parent.map_or(String::new(), |parent| hex(&parent.0)),
                "name": span.name,
                "kind": match span.kind { Kind::Internal => 1, Kind::Server => 2, Kind::Client => 3 },
                "startTimeUnixNano": span.start.to_string(),
                "endTimeUnixNano": span.end.to_string(),
                "attributes": span.attributes.iter().map(|(key, value)| text((key, value))).collect::<Vec<_>>(),
                "events": span.events.iter().map(|event| serde_json::json!({ "name": event.name, "timeUnixNano": event.at.to_string() })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let resource = [("service.name", "apiserver"), ("service.instance.id", "apiserver-wlv32tlttr4jl3gtroqexyxapa")].map(text);
    serde_json::to_vec(
        &serde_json::json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": [{ "spans": spans }] }] }),
    )
    .unwrap()
}
