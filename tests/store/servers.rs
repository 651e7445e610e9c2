//! Both servers, on ports of their own.

use std::sync::Arc;

use clustertracing::store::{Store, grpc, http};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use super::spans::{failed, id, request, span, text};

/// A store with its two servers.
struct Served {
    store: Arc<Store>,
    otlp: String,
    api: String,
}

impl Served {
    async fn new() -> Self {
        let store = Arc::new(Store::new(8 * 1024 * 1024));
        let (spans, questions) = (listener().await, listener().await);
        let (otlp, api) = (format!("http://{}", spans.local_addr().unwrap()), questions.local_addr().unwrap().to_string());
        tokio::spawn(grpc::serve(spans, store.clone()));
        tokio::spawn(http::serve(questions, store.clone(), Arc::new(String::new)));
        Self { store, otlp, api }
    }

    async fn traces(&self) -> TraceServiceClient<tonic::transport::Channel> {
        TraceServiceClient::connect(self.otlp.clone()).await.unwrap().max_encoding_message_size(usize::MAX)
    }

    /// The status, and the answer.
    async fn get(&self, path: &str) -> (u16, Value) {
        let mut connection = TcpStream::connect(&self.api).await.unwrap();
        connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn spans_come_in_by_grpc_and_go_out_as_json() {
    let served = Served::new().await;
    let mut client = served.traces().await;
    let answer = client.export(request("apiserver", "apiserver-abc", vec![span(1, 0)])).await.unwrap();
    assert_eq!(answer.into_inner().partial_success, None);
    client.export(request("etcd", "cp-0", vec![failed(span(1, 1))])).await.unwrap();

    let (code, list) = served.get("/api/v1/traces?since=100000h&min-duration=1ms&errors=true&service=etcd&name=pods&limit=5").await;
    let expected = json!({
        "traces": [{
            "traceId": id(1).to_string(), "rootName": "GET /api/v1/namespaces/{:namespace}/pods", "start": "2027-01-15T08:00:00.001Z",
            "durationNanos": 5_000_000, "spans": 2, "errors": 1, "services": ["apiserver", "etcd"], "complete": true,
        }],
        "more": false,
    });
    assert_eq!((code, list), (200, expected));

    let (code, trace) = served.get(&format!("/api/v1/traces/{}", id(1))).await;
    assert_eq!(code, 200);
    // OTLP/JSON: hexadecimal ids, numbers of 64 bits as texts, names in lower camel case.
    let etcd = &trace["resourceSpans"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["resource"]["attributes"][0]["value"]["stringValue"] == "etcd")
        .unwrap();
    let found = &etcd["scopeSpans"][0]["spans"][0];
    assert_eq!(found["traceId"], json!(id(1).to_string()));
    assert_eq!((&found["spanId"], &found["parentSpanId"]), (&json!("0000000000010002"), &json!("0000000000010001")));
    assert_eq!(found["startTimeUnixNano"], json!("1800000000001000000"));
    assert_eq!(found["status"], json!({ "message": "etcdserver: request timed out", "code": 2 }));
    let read: TracesData = serde_json::from_value(trace.clone()).unwrap();
    assert_eq!(Some(read), served.store.trace(id(1)));

    let (_, instances) = served.get("/api/v1/instances").await;
    let names: Vec<_> = instances["instances"].as_array().unwrap().iter().map(|i| (i["service"].clone(), i["id"].clone())).collect();
    assert_eq!(names, [(json!("apiserver"), json!("apiserver-abc")), (json!("etcd"), json!("cp-0"))]);
    let (_, stats) = served.get("/api/v1/stats").await;
    assert_eq!(
        (&stats["traces"], &stats["spans"], &stats["acceptedSpans"], &stats["limitBytes"]),
        (&json!(1), &json!(2), &json!(2), &json!(8 * 1024 * 1024))
    );
    assert_eq!(served.get("/healthz").await, (200, json!("ok\n")));
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_is_told_what_to_ask_instead() {
    let served = Served::new().await;
    let missing = format!("/api/v1/traces/{}", id(9));
    let cases = [
        ("/", 404, "ask for /api/v1/traces"),
        ("/api/v1/traces/xyz", 400, "take one from /api/v1/traces"),
        (missing.as_str(), 404, "/api/v1/stats tells"),
        ("/api/v1/traces?since=yesterday", 400, "since=yesterday is not a duration, such as 500ms"),
        ("/api/v1/traces?min-duration=5", 400, "is not a duration"),
        ("/api/v1/traces?errors=yes", 400, "is not true or false"),
        ("/api/v1/traces?limit=0", 400, "a number from 1 to 1000"),
        ("/api/v1/traces?limit=1001", 400, "a number from 1 to 1000"),
        ("/api/v1/traces?sinc=5m", 400, "the parameters of /api/v1/traces are"),
    ];
    for (path, code, message) in cases {
        let (status, answer) = served.get(path).await;
        assert_eq!(status, code, "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(message), "{path}: {answer}");
    }
}

#[tokio::test]
async fn what_the_store_does_not_take_is_told_to_the_sender() {
    let served = Served::new().await;
    let mut client = served.traces().await;

    let mut large = span(1, 0);
    large.attributes.push(text("object", &"y".repeat(5 * 1024 * 1024)));
    let answer = client.export(request("apiserver", "a", vec![large])).await;
    assert_eq!(answer.unwrap_err().code(), Code::OutOfRange);

    let mut large = span(1, 0);
    large.attributes.push(text("object", &"y".repeat(70_000)));
    let answer = client.export(request("apiserver", "a", vec![large, span(2, 0)])).await.unwrap().into_inner();
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 1);

    let mut metrics = MetricsServiceClient::connect(served.otlp.clone()).await.unwrap();
    let answer = metrics.export(ExportMetricsServiceRequest::default()).await.unwrap().into_inner();
    assert!(answer.partial_success.unwrap().error_message.contains("k8s.node.name"));

    let stats = served.store.stats();
    assert_eq!((stats.counters.rejected_spans, stats.held.spans), (1, 1));
}

#[tokio::test]
async fn what_a_collector_pushes_of_itself_is_told_by_node() {
    let served = Served::new().await;
    let pushed: ExportMetricsServiceRequest = serde_json::from_str(include_str!("collector-0.155.0.json")).unwrap();
    let mut client = MetricsServiceClient::connect(served.otlp.clone()).await.unwrap();
    assert_eq!(client.export(pushed).await.unwrap().into_inner().partial_success, None);
    assert_eq!(served.store.collectors()["cp-0"][0].exporters["otlp_grpc/clustertracing-store"].failed, 1);
    let (_, answer) = served.get("/api/v1/collectors").await;
    let collector = &answer["collectors"][0];
    assert_eq!((&collector["node"], &collector["samples"][0]["accepted"]), (&json!("cp-0"), &json!(1)));
    assert_eq!(
        collector["samples"][0]["exporters"]["otlp_grpc/tempo"],
        json!({ "sent": 0, "failed": 0, "rejected": 0, "queued": 1, "capacity": 1000 })
    );
}

/// Those that waited for their turn had taken all that the connection takes in, and those that had it never came in.
#[tokio::test]
async fn requests_of_one_connection_that_wait_do_not_keep_out_those_that_have_their_turn() {
    let served = Served::new().await;
    let mut client = served.traces().await;
    // After this one, the sender knows how many there may be at a time.
    client.export(request("apiserver", "a", vec![span(1000, 0)])).await.unwrap();
    let requests = (0..32_u64).map(|number| {
        let large = |trace| Span { attributes: vec![text("object", &"y".repeat(60_000))], ..span(trace, 0) };
        let request = request("apiserver", "a", (number * 8..number * 8 + 8).map(large).collect());
        let mut client = client.clone();
        async move { client.export(request).await.map(drop) }
    });
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn many_senders_at_once_all_get_through() {
    let served = Served::new().await;
    let senders = (0..20_u64).map(|sender| {
        let client = served.traces();
        async move {
            let mut client = client.await;
            for n in 0..10 {
                let trace = sender * 10 + n;
                let request: ExportTraceServiceRequest = request("apiserver", "a", (0..50).map(|number| span(trace, number)).collect());
                client.export(request).await.unwrap();
            }
        }
    });
    futures::future::join_all(senders).await;
    let stats = served.store.stats();
    assert_eq!((stats.held.traces, stats.held.spans, stats.refused_requests), (200, 10_000, 0));
}
