//! The controller's own traces, as its program sends them: from its turns at a real API server to a real receiver.

#![expect(clippy::panic, reason = "a test that cannot go on panics")]

#[path = "common/api_server.rs"]
mod api_server;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api_server::ApiServer;
use clustertracing::api::ClusterTracing;
use clustertracing::store::query::Query;
use clustertracing::store::{Store, TraceId, grpc};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::SignedDuration;
use kube::api::PostParams;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::net::TcpListener;

const NAMESPACE: &str = "clustertracing-system";
/// How many turns are waited for: with no node to trace, one comes every few seconds.
const TURNS: usize = 2;

/// What a turn needs to be one: the definitions, the namespace, and something to do.
async fn install(client: &Client) {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")).expect("the definitions") {
        let text = std::fs::read_to_string(entry.expect("a definition").path()).expect("a definition");
        let crd: CustomResourceDefinition = serde_yaml::from_str(&text).expect("a definition");
        let (name, crds) = (crd.name_any(), Api::all(client.clone()));
        crds.create(&PostParams::default(), &crd).await.expect("a definition that is taken");
        await_condition(crds, &name, conditions::is_crd_established()).await.expect("a definition that is served");
    }
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).expect("a namespace");
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
    let tracing = ClusterTracing::new("cluster", serde_json::from_value(json!({})).expect("a spec"));
    Api::all(client.clone()).create(&PostParams::default(), &tracing).await.expect("a ClusterTracing");
}

/// The program; it ends with this value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

fn start(server: &ApiServer, endpoint: &str) -> Program {
    let command = &mut Command::new(env!("CARGO_BIN_EXE_clustertracing-controller"));
    command.env("KUBECONFIG", server.kubeconfig()).env("POD_NAMESPACE", NAMESPACE).env("POD_NAME", "controller-0");
    command.env("COLLECTOR_IMAGE", "otelcol:0.155.0").env("CANARY", "Disabled").env("PROBE", "Disabled");
    command.env("TRACE_STORE_MIB", "8").env("TRACE_STORE_GRPC_PORT", "0").env("TRACE_STORE_HTTP_PORT", "0");
    command.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint).env("RUST_LOG", "warn");
    // Milliseconds until a batch is sent: 5000 by default.
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    Program(command.stdin(Stdio::null()).spawn().expect("the controller can be started"))
}

/// Every trace in the store: names of its spans, those right below its root marked so.
fn traces(store: &Store) -> Vec<BTreeSet<String>> {
    let all = Query { since: None, min_duration: SignedDuration::ZERO, errors: false, service: None, name: None, limit: 1000 };
    let ids = store.traces(&all).traces.into_iter().map(|summary| summary.trace_id.parse::<TraceId>().expect("a trace's id"));
    let spans = ids.map(|id| {
        let data = store.trace(id).expect("a trace that is held");
        let spans = data.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect::<Vec<_>>();
        let root = spans.iter().find(|span| span.parent_span_id.is_empty()).map(|span| span.span_id.clone());
        let name = |span: &opentelemetry_proto::tonic::trace::v1::Span| match &root {
            Some(root) if span.parent_span_id == *root => format!("below: {}", span.name),
            _ => span.name.clone(),
        };
        spans.iter().map(name).collect()
    });
    spans.collect()
}

#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn a_turn_with_its_parts_is_one_trace_and_nothing_else_is_sent() {
    let server = ApiServer::start("1.36.3", "3.6.16").await;
    install(&server.client()).await;
    let store = Arc::new(Store::new(8 * 1024 * 1024));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("a bound port"));
    tokio::spawn(grpc::serve(listener, store.clone()));
    let _controller = start(&server, &endpoint);

    let turn = BTreeSet::from(["reconcile", "below: observe", "below: plan", "below: apply"].map(str::to_owned));
    let found = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let found = traces(&store);
            if found.iter().filter(|names| **names == turn).count() >= TURNS {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let found = found.await.unwrap_or_else(|_| panic!("these came: {:?}", traces(&store)));
    // The last one may still be under way.
    assert!(found.iter().all(|names| names.is_subset(&turn) || !names.contains("reconcile")), "{found:?}");
    let parts = BTreeSet::from(["reconcile", "observe", "plan", "apply"]);
    let names = found.iter().flatten().map(|name| name.trim_start_matches("below: "));
    assert!(names.clone().all(|name| parts.contains(name)), "only turns are sent, and no sending: {found:?}");
    let senders: Vec<_> = store.instances().into_keys().map(|instance| (instance.service, instance.id)).collect();
    assert_eq!(senders, [("clustertracing-controller".to_owned(), "controller-0".to_owned())]);
}
