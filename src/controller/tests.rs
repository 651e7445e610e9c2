//! The watches of the controller, against an API server that answers with what a test says, in a time that does not pass by itself.

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::*;

/// When somebody changes the resource.
const CHANGED: Duration = Duration::from_secs(100);

/// What the API server says: `/nodes` cannot be read, and the resource's watch tells of its change in time.
async fn answer(path: &str, watches: bool, start: Instant) -> (u16, Value) {
    let resource = |generation: u64| {
        let metadata = json!({ "name": "cluster", "uid": "u", "resourceVersion": generation.to_string(), "generation": generation });
        json!({ "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing", "metadata": metadata, "spec": {} })
    };
    let list = |items: &[Value]| json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items });
    match path.rsplit('/').next().unwrap_or_default() {
        "nodes" => (503, json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503, "message": "starting" })),
        "cluster" => (404, json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound" })),
        "clustertracings" if watches && Instant::now() < start + CHANGED => {
            sleep_until(start + CHANGED).await;
            (200, json!({ "type": "MODIFIED", "object": resource(2) }))
        }
        "clustertracings" => (200, list(&[resource(1)])),
        _ if watches => std::future::pending().await,
        _ => (200, list(&[])),
    }
}

/// A client of that server; `turns` is told when a turn begins.
fn client(turns: mpsc::UnboundedSender<Instant>) -> Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let start = Instant::now();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let turns = turns.clone();
            tokio::spawn(async move {
                let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
                if request.uri().path().ends_with("/cluster") {
                    turns.send(Instant::now()).unwrap();
                }
                let (code, body) = answer(request.uri().path(), watches, start).await;
                send.send_response(Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap());
            });
        }
    });
    Client::new(service, "default")
}

/// Seen on a cluster of one node: after a restart of its API server the controller heard of a change two and a half minutes late.
#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_again_and_again_does_not_silence_the_others() {
    let start = Instant::now();
    let (sender, mut turns) = mpsc::unbounded_channel();
    let installation = Installation {
        namespace: "clustertracing-system".into(),
        collector_image: "otelcol:0.155.0".into(),
        canary: api::State::Enabled,
        probe: api::State::Enabled,
    };
    let context = Context::new(client(sender), installation, "controller-0", Leadership::assumed(), "term".into());
    let running = tokio::spawn(watch(Arc::new(context), futures::channel::mpsc::channel(1).1));
    let heard = loop {
        let at = turns.recv().await.unwrap();
        if at >= start + CHANGED {
            break at.duration_since(start + CHANGED);
        }
    };
    running.abort();
    assert!(heard < Duration::from_secs(1), "heard of the change {heard:?} late");
}
