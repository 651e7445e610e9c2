//! A real collector with the configuration that is rendered for it: what goes in and what comes out.
//! Needs a collector's program in `CLUSTERTRACING_OTELCOL`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod redaction;
mod running;

use std::net::TcpListener;
use std::sync::Arc;

use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use running::{Collector, Sink, free_port, program};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// 64 requests are more than the store's queue holds: the receiver takes every one, and the user gets every span.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_store_that_takes_nothing_holds_up_nothing() {
    let Some(program) = program() else { return };
    // Connections are taken by the system and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (user, user_at) = Sink::start().await;
    let collector = Collector::start(&program, json!({}), user_at, silent.local_addr().unwrap()).await;
    let one = || (0..512).map(|_| Span::default()).collect::<Vec<_>>();
    for _ in 0..64 {
        collector.send(one()).await;
    }
    assert_eq!(user.spans(64 * 512).await.len(), 64 * 512);
}

/// Traces are judged in the order in which they came: the one that is not kept was judged before the one that arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_chooses_passes_traces_with_an_error_on_and_the_store_gets_all() {
    let Some(program) = program() else { return };
    let (user, user_at) = Sink::start().await;
    let (store, store_at) = Sink::start().await;
    let tail_sampling = json!({ "decisionSeconds": 1, "slowerThanMilliseconds": 60_000, "keptPerMillion": 0 });
    let spec = json!({ "mode": "Gateway", "gateway": { "tailSampling": tail_sampling } });
    let collector = Collector::start(&program, spec, user_at, store_at).await;
    let span = |trace, code| Span {
        trace_id: vec![trace; 16],
        span_id: vec![trace; 8],
        status: Some(Status { code, ..Status::default() }),
        ..Span::default()
    };
    collector.send(vec![span(1, 0)]).await;
    collector.send(vec![span(2, 2)]).await;
    assert_eq!(user.spans(1).await.iter().map(|span| span.trace_id[0]).collect::<Vec<_>>(), [2]);
    assert_eq!(store.spans(2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_in_a_queue_on_disk_outlive_a_crash() {
    let Some(program) = program() else { return };
    let (store, store_at) = Sink::start().await;
    // Nobody listens there yet.
    let user_at = ([127, 0, 0, 1], free_port()).into();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let spec = json!({ "queue": { "storage": "Disk" } });
    let collector = Collector::start_in(Arc::clone(&folder), &program, spec.clone(), user_at, store_at).await;
    collector.send(vec![Span { trace_id: vec![1; 16], span_id: vec![1; 8], ..Span::default() }]).await;
    // Behind the same pipeline as the queue.
    store.spans(1).await;
    drop(collector);
    let (user, user_at) = Sink::start_at(user_at).await;
    let _again = Collector::start_in(folder, &program, spec, user_at, store_at).await;
    assert_eq!(user.spans(1).await[0].trace_id, [1; 16]);
}

/// The back end's name is known to the proxy alone.
#[tokio::test(flavor = "multi_thread")]
async fn exporters_are_reached_through_the_proxy_and_the_store_is_not() {
    let Some(program) = program() else { return };
    let (user, user_at) = Sink::start().await;
    let (store, store_at) = Sink::start().await;
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut client, _) = proxy.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(client.read_u8().await.unwrap());
        }
        let mut server = tokio::net::TcpStream::connect(user_at).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        String::from_utf8(request).unwrap()
    });
    let exporter =
        json!({ "name": "user", "endpoint": "back-end.example.com:4317", "compression": "none", "tls": { "state": "Disabled" } });
    let spec = json!({ "exporters": [exporter], "proxy": { "url": url } });
    let collector = Collector::start(&program, spec, user_at, store_at).await;
    collector.send(vec![Span { trace_id: vec![1; 16], span_id: vec![1; 8], ..Span::default() }]).await;
    assert_eq!(user.spans(1).await.len(), 1);
    assert_eq!(store.spans(1).await.len(), 1);
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("CONNECT back-end.example.com:4317 "), "{asked}");
}
