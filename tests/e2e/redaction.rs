//! Names that requests carry stay on the node: a canary wherever a request can hold one, and every span of it that arrives. (Namespaces are told:
//! who is slow where is what traces are for.)

use std::time::Duration;

use clustertracing::api::collector::Redaction;
use serde_json::{Value, json};

use crate::support::clients::{Access, get};
use crate::support::cluster::Cluster;
use crate::support::jaeger::{Jaeger, Trace};
use crate::support::operator::{Operator, sample};
use crate::support::step::note;
use crate::support::traceparent::Traceparent;
use crate::support::wait::until;

/// Spans that are looked through.
const SPANS: usize = 10_000;
/// From a request to its spans in Jaeger, with thousands before them.
const ARRIVAL: Duration = Duration::from_mins(2);

/// Sends requests that name a canary until 10,000 spans of them have arrived, and looks for it in all that Jaeger tells of them. Without
/// redaction it is there: so it would have been found.
pub(crate) async fn keeps_names_on_the_node(cluster: &Cluster, access: &Access, operator: &Operator, jaeger: &Jaeger) {
    let canary = format!("canary-{}", &Traceparent::new().trace[..12]);
    let (mut spans, mut requests) = (0, 0);
    while spans < SPANS {
        let mut sent = Vec::new();
        for node in cluster.nodes() {
            for _ in 0..8 {
                sent.extend(name(&access.at(&node), &canary).await);
            }
        }
        requests += sent.len();
        for trace in &sent {
            let (text, trace) = until("the spans of a request arrive", ARRIVAL, async || whole(jaeger, trace).await).await;
            assert!(!text.contains(&canary), "{canary} has left its node: {text}");
            spans += trace.spans();
        }
    }
    note(&format!("{spans} spans of {requests} requests that name {canary}: it is in none of them"));

    let mut open = sample();
    open.spec.collector.redaction = Redaction::None;
    operator.apply_until_ready(&open).await;
    let mut sent = Vec::new();
    until("the canary is seen without redaction", ARRIVAL, async || {
        sent.extend(name(&access.at("cp1"), &canary).await);
        for trace in &sent {
            if jaeger.text(trace).await?.contains(&canary) {
                return Ok(());
            }
        }
        Err(format!("{} requests, and it is in none", sent.len()))
    })
    .await;
    operator.apply_until_ready(&sample()).await;
}

/// One request of each kind that names the canary; gives their traces.
async fn name(access: &Access, canary: &str) -> Vec<String> {
    let client = access.client();
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": canary, "labels": { "app": canary }, "annotations": { "note": canary } },
        "stringData": { canary: canary },
    });
    let with = |method: &str, path: &str, kind: &str, body: &Value| {
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        request.body(body.to_string().into_bytes()).expect("a constant request")
    };
    let json = "application/json";
    let requests = [
        with("POST", secrets, json, &secret),
        // answered with an error that names it
        with("POST", secrets, json, &secret),
        get(&format!("{secrets}/{canary}")),
        with("PUT", &format!("{secrets}/{canary}"), json, &secret),
        with(
            "PATCH",
            &format!("{secrets}/{canary}"),
            "application/merge-patch+json",
            &json!({ "metadata": { "labels": { "app": canary } } }),
        ),
        get(&format!("{secrets}?fieldSelector=metadata.name%3D{canary}")),
        get(&format!("{secrets}?labelSelector=app%3D{canary}&limit=1")),
        get(&format!("{secrets}?limit=1&continue={canary}")),
        get(&format!("{secrets}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3D{canary}")),
        get(&format!("/api/v1/namespaces/default/pods/{canary}/exec?command={canary}&container={canary}")),
        with("DELETE", &format!("{secrets}/{canary}"), json, &json!({})),
        // not there any more: an error that names it
        get(&format!("{secrets}/{canary}")),
    ];
    let mut traces = Vec::new();
    for request in requests {
        let parent = Traceparent::new();
        // Many are refused: that, too, is told in spans.
        drop(client.request_text(parent.of(request)).await);
        traces.push(parent.trace);
    }
    traces
}

/// A trace, and the text that it was read from, once it holds the API server's own span: the others are sent with it or before.
async fn whole(jaeger: &Jaeger, id: &str) -> Result<(String, Trace), String> {
    let text = jaeger.text(id).await?;
    let trace = Trace::read(&text)?;
    if trace.has_service("apiserver") { Ok((text, trace)) } else { Err(format!("{id} has no span of an API server yet")) }
}
