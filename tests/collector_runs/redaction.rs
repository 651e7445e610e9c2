//! The rules of redaction, row by row.

use clustertracing::plan::collector::redaction::Rule;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use crate::running::{Collector, Sink, program};

/// Where a text stands in a span.
#[derive(Clone, Copy, Debug)]
enum Place {
    Name,
    Status,
    Attribute(&'static str),
    EventName,
    EventAttribute(&'static str),
}
use Place::{Attribute, EventAttribute, EventName, Name, Status as InStatus};

/// A text that spans carry, the rule that changes it, and what becomes of it.
type Row = (Place, &'static str, Option<Rule>, Option<&'static str>);

const ROWS: &[Row] = &[
    (Attribute("key"), "/registry/secrets/shop/CANARY", Some(Rule::EtcdKeys), Some("/registry/secrets/{key}")),
    (Attribute("key"), "/secrets/shop/CANARY", Some(Rule::EtcdKeys), Some("/secrets/{key}")),
    (Attribute("key"), "/minions/CANARY.example.com", Some(Rule::EtcdKeys), Some("/minions/{key}")),
    (Attribute("key"), "/registry/minions/CANARY.example.com", Some(Rule::EtcdKeys), Some("/registry/minions/{key}")),
    (Attribute("key"), "/example.com/widgets/shop/CANARY", Some(Rule::EtcdKeys), Some("/example.com/widgets/{key}")),
    (Attribute("key"), "/other-prefix/secrets/shop/CANARY", Some(Rule::EtcdKeys), Some("/other-prefix/{key}")),
    (Attribute("key"), "CANARY", Some(Rule::EtcdKeys), Some("")),
    (
        Attribute("range_begin"),
        "/registry/example.com/widgets/shop/CANARY",
        Some(Rule::EtcdKeys),
        Some("/registry/example.com/widgets/{key}"),
    ),
    (Attribute("range_end"), "/registry/secrets/shop/CANARY0", Some(Rule::EtcdKeys), Some("/registry/secrets/{key}")),
    (Attribute("range_begin"), "/registry/secrets/", Some(Rule::EtcdKeys), Some("/registry/secrets/{key}")),
    (Attribute("compare_first_key"), "/registry/secrets/shop/CANARY", Some(Rule::EtcdKeys), Some("/registry/secrets/{key}")),
    (Attribute("success_first_key"), "/registry/secrets/shop/CANARY", Some(Rule::EtcdKeys), Some("/registry/secrets/{key}")),
    (Attribute("of-a-later-version"), "/registry/secrets/shop/CANARY", Some(Rule::EtcdKeys), Some("/registry/secrets/{key}")),
    (Attribute("continue"), "CANARY", Some(Rule::EtcdKeys), None),
    (EventAttribute("of-a-later-version"), "/registry/secrets/shop/CANARY", Some(Rule::EtcdKeys), Some("/registry/secrets/{key}")),
    (
        Attribute("http.target"),
        "/api/v1/namespaces/shop/pods/CANARY/exec?command=cat&command=CANARY",
        Some(Rule::RequestPaths),
        Some("/api/v1/namespaces/{:namespace}/pods/{:name}/exec"),
    ),
    (
        Attribute("url.path"),
        "/apis/apps/v1/namespaces/shop/deployments/CANARY",
        Some(Rule::RequestPaths),
        Some("/apis/apps/v1/namespaces/{:namespace}/deployments/{:name}"),
    ),
    (Attribute("url"), "/api/v1/namespaces/shop/secrets", Some(Rule::RequestPaths), Some("/api/v1/namespaces/{:namespace}/secrets")),
    (Attribute("url"), "/api/v1/namespaces/CANARY", Some(Rule::RequestPaths), Some("/api/v1/namespaces/{:namespace}")),
    (Attribute("url"), "/api/v1/nodes/CANARY/proxy/CANARY", Some(Rule::RequestPaths), Some("/api/v1/nodes/{:name}/proxy")),
    (Attribute("url"), "/api/v1/nodes/CANARY/proxy/namespaces/CANARY/pods", Some(Rule::RequestPaths), Some("/api/v1/nodes/{:name}/proxy")),
    (
        Attribute("url"),
        "/api/v1/namespaces/shop/services/https:CANARY:443/proxy/CANARY",
        Some(Rule::RequestPaths),
        Some("/api/v1/namespaces/{:namespace}/services/{:name}/proxy"),
    ),
    (
        Attribute("url.full"),
        "https://[::1]:6443/api/v1/namespaces/shop/secrets/CANARY?timeout=5s",
        Some(Rule::RequestPaths),
        Some("https://[::1]:6443/api/v1/namespaces/{:namespace}/secrets/{:name}"),
    ),
    (
        Attribute("url.full"),
        "https://10.0.0.1:10250/exec/shop/CANARY/c?x=CANARY",
        Some(Rule::RequestPaths),
        Some("https://10.0.0.1:10250/exec/{:path}"),
    ),
    (Attribute("http.url"), "/api/v1/pods?fieldSelector=metadata.name%3DCANARY", Some(Rule::RequestPaths), Some("/api/v1/pods")),
    (Attribute("url.query"), "fieldSelector=metadata.name%3DCANARY", Some(Rule::RequestPaths), None),
    (
        Attribute("of-a-later-version"),
        "/api/v1/namespaces/shop/secrets/CANARY",
        Some(Rule::RequestPaths),
        Some("/api/v1/namespaces/{:namespace}/secrets/{:name}"),
    ),
    (
        Name,
        "GET /api/v1/namespaces/shop/secrets/CANARY",
        Some(Rule::RequestPaths),
        Some("GET /api/v1/namespaces/{:namespace}/secrets/{:name}"),
    ),
    (EventName, "/api/v1/nodes/CANARY", Some(Rule::RequestPaths), Some("/api/v1/nodes/{:name}")),
    (EventAttribute("path"), "/api/v1/nodes/CANARY?x=y", Some(Rule::RequestPaths), Some("/api/v1/nodes/{:name}")),
    (Attribute("name"), "CANARY", Some(Rule::ObjectNames), None),
    (EventAttribute("name"), "CANARY", Some(Rule::ObjectNames), None),
    (InStatus, "secrets \"CANARY\" not found", Some(Rule::ErrorMessages), Some("")),
    (Attribute("error.message"), "secrets \"CANARY\" not found", Some(Rule::ErrorMessages), None),
    (EventAttribute("err"), "secrets \"CANARY\" not found", Some(Rule::ErrorMessages), None),
    (EventAttribute("error"), "secrets \"CANARY\" not found", Some(Rule::ErrorMessages), None),
    (EventAttribute("exception.message"), "Get \"https://[::1]:6443/api/v1/nodes/CANARY\": EOF", Some(Rule::ErrorMessages), None),
    (EventAttribute("exception.stacktrace"), "CANARY", Some(Rule::ErrorMessages), None),
    // What says which webhook, verb, resource and namespace was slow.
    (Name, "GET /api/v1/namespaces/{:namespace}/pods/{:name}/log", None, None),
    (Name, "PATCH /apis/example.com/v1/widgets/{:name}/status", None, None),
    (Name, "GET /api/v1/namespaces/{:name}", None, None),
    (Name, "etcdserverpb.KV/Range", None, None),
    (Name, "List(recursive=true) etcd3", None, None),
    (Name, "Call mutating webhook", None, None),
    (Attribute("webhook"), "pods.example.com", None, None),
    (Attribute("configuration"), "policy-of-shop", None, None),
    (Attribute("resource"), "/v1, Resource=pods", None, None),
    (Attribute("namespace"), "shop", None, None),
    (Attribute("verb"), "get", None, None),
    (Attribute("user-agent"), "kubectl/v1.36.3 (linux/amd64) kubernetes/0123456", None, None),
    (Attribute("url.full"), "https://policy.shop.svc:443/mutate", None, None),
    (Attribute("url.path"), "/readyz", None, None),
    (Attribute("url.path"), "/apis/apps/v1", None, None),
    (Attribute("url.path"), "/api/v1/nodes", None, None),
    (EventName, "About to Get from storage", None, None),
    (EventAttribute("exception.type"), "*url.Error", None, None),
    (EventAttribute("index"), "f:spec.nodeName", None, None),
];

/// A span that carries one row's text; its id is the row's number.
fn span(row: usize) -> Span {
    let (place, text, ..) = ROWS[row];
    let attribute = |key: &str| {
        vec![KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Any::StringValue(text.into())) }), ..KeyValue::default() }]
    };
    let mut span = Span {
        trace_id: vec![1; 16],
        span_id: u64::try_from(row + 1).unwrap().to_be_bytes().to_vec(),
        name: "Get".into(),
        ..Span::default()
    };
    match place {
        Name => span.name = text.into(),
        InStatus => span.status = Some(Status { message: text.into(), code: 2 }),
        Attribute(key) => span.attributes = attribute(key),
        EventName => span.events = vec![Event { name: text.into(), ..Event::default() }],
        EventAttribute(key) => span.events = vec![Event { name: "event".into(), attributes: attribute(key), ..Event::default() }],
    }
    span
}

fn text(place: Place, span: &Span) -> Option<String> {
    let of = |attributes: &[KeyValue], key: &str| {
        attributes.iter().find(|a| a.key == key).and_then(|a| match a.value.as_ref()?.value.as_ref()? {
            Any::StringValue(text) => Some(text.clone()),
            _ => None,
        })
    };
    match place {
        Name => Some(span.name.clone()),
        InStatus => Some(span.status.clone().unwrap_or_default().message),
        Attribute(key) => of(&span.attributes, key),
        EventName => Some(span.events[0].name.clone()),
        EventAttribute(key) => of(&span.events[0].attributes, key),
    }
}

/// Sends every row through a collector of this spec; what comes out, by row, at the user's exporter and at the trace store.
async fn through(program: &std::ffi::OsStr, spec: Value) -> [Vec<Span>; 2] {
    let (user, user_at) = Sink::start().await;
    let (store, store_at) = Sink::start().await;
    let collector = Collector::start(program, spec, user_at, store_at).await;
    collector.send((0..ROWS.len()).map(span).collect()).await;
    let mut both = [user.spans(ROWS.len()).await, store.spans(ROWS.len()).await];
    for spans in &mut both {
        spans.sort_by(|a, b| a.span_id.cmp(&b.span_id));
    }
    both
}

fn check(spans: &[Span], is_off: impl Fn(Rule) -> bool) {
    assert_eq!(spans.len(), ROWS.len());
    for ((place, before, rule, after), span) in ROWS.iter().zip(spans) {
        let expected = match rule {
            Some(rule) if !is_off(*rule) => after.map(str::to_owned),
            _ => Some((*before).to_owned()),
        };
        assert_eq!(text(*place, span), expected, "{place:?} {before}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_leaves_the_node_and_what_people_look_for_stays() {
    let Some(program) = program() else { return };
    for spans in through(&program, json!({})).await {
        check(&spans, |_| false);
        assert!(!format!("{spans:?}").contains("CANARY"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_switched_off_changes_nothing_and_the_others_do() {
    let Some(program) = program() else { return };
    for off in Rule::iter() {
        let [user, _] = through(&program, json!({ "redactionRules": { off.field(): "Disabled" } })).await;
        check(&user, |rule| rule == off);
    }
    let [user, _] = through(&program, json!({ "redaction": "None" })).await;
    check(&user, |_| true);
}
