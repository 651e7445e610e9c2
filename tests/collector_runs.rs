//! A real collector with the configuration that is rendered for it: what goes in and what comes out.
//! Needs a collector's program in `CLUSTERTRACING_OTELCOL`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clustertracing::api::{ClusterTracing, State};
use clustertracing::plan::collector::redaction::Rule;
use clustertracing::plan::collector::{self, STORE, STORE_PORT};
use clustertracing::plan::validate::{Installation, validate};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::{Value, json};
use strum::IntoEnumIterator;
use tonic::{Request, Response};

const BUDGET: Duration = Duration::from_secs(30);

/// Takes spans and keeps them.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans;
        self.0.lock().unwrap().extend(resources.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Sink {
    async fn start() -> (Self, SocketAddr) {
        let sink = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(TraceServiceServer::new(sink.clone())).serve_with_incoming(incoming));
        (sink, address)
    }

    /// The spans, once there are `count`.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let started = Instant::now();
        loop {
            let spans = self.0.lock().unwrap().clone();
            if spans.len() >= count {
                return spans;
            }
            assert!(started.elapsed() < BUDGET, "{} of {count} spans arrived", spans.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A running collector; it ends with this value.
struct Collector {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Collector {
    /// Runs what is rendered for `spec.collector`, on ports of its own, with one exporter to `user` and the trace store at `store`.
    async fn start(program: &std::ffi::OsStr, mut spec: Value, user: SocketAddr, store: SocketAddr) -> Self {
        let [port, health, metrics] = [(); 3].map(|()| free_port());
        spec["port"] = port.into();
        spec["exporters"] =
            json!([{ "name": "user", "endpoint": user.to_string(), "compression": "none", "tls": { "state": "Disabled" } }]);
        let resource = ClusterTracing::new("cluster", serde_json::from_value(json!({ "collector": spec })).unwrap());
        let installation = Installation {
            namespace: "clustertracing".into(),
            collector_image: "otelcol-k8s:0.155.0".into(),
            canary: State::Disabled,
            probe: State::Enabled,
        };
        let v = validate(&resource, &installation).unwrap();
        let objects = collector::render(&v, v.wanted_collector().unwrap());
        let config = objects.config_map["data"]["collector.yaml"].as_str().unwrap();
        let config = config
            .replace("127.0.0.1:13133", &format!("127.0.0.1:{health}"))
            .replace("port: 8888", &format!("port: {metrics}"))
            .replace(&format!("{STORE}.clustertracing.svc:{STORE_PORT}"), &store.to_string());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("collector.yaml");
        std::fs::write(&path, config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(program)
            .arg(format!("--config=file:{}", path.display()))
            .env("NODE_NAME", "cp-1")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
            assert!(started.elapsed() < BUDGET, "the collector does not answer: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { process, port, _folder: folder }
    }

    async fn send(&self, spans: Vec<Span>) {
        let mut client = TraceServiceClient::connect(format!("http://127.0.0.1:{}", self.port)).await.unwrap();
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let request = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
        client.export(request).await.unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program() -> Option<std::ffi::OsString> {
    let program = std::env::var_os("CLUSTERTRACING_OTELCOL");
    if program.is_none() {
        println!("CLUSTERTRACING_OTELCOL is not set: no collector was run");
    }
    program
}

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

/// 64 requests are more than the store's queue holds: the receiver takes every one, and the user gets every span.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_store_that_takes_nothing_holds_up_nothing() {
    let Some(program) = program() else { return };
    // Connections are taken by the system and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (user, user_at) = Sink::start().await;
    let collector = Collector::start(&program, json!({}), user_at, silent.local_addr().unwrap()).await;
    let one = || (0..512).map(|_| span(0)).collect::<Vec<_>>();
    for _ in 0..64 {
        collector.send(one()).await;
    }
    assert_eq!(user.spans(64 * 512).await.len(), 64 * 512);
}
