//! The shape of each request, and when none is made.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::Value;

use super::*;
use crate::api::NodeTracingSpec;

/// Answers each request after its turn: a status code, and the body.
type Answers = Vec<(u16, Value)>;

#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    uri: String,
    content_type: String,
    body: Value,
}

/// A client whose requests are kept, and answered in order; requests beyond the answers wait for ever.
fn mk_cluster(answers: Answers) -> (Cluster, Arc<Mutex<Vec<Seen>>>) {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or(Value::Null);
            let content_type = parts.headers.get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned();
            kept.lock().unwrap().push(Seen { method: parts.method, uri: parts.uri.to_string(), content_type, body });
            let Some((code, answer)) = answers.next() else { return pending().await };
            send.send_response(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap());
        }
    });
    (Cluster::new(Client::new(service, "default"), "cp1".into()), seen)
}

fn mk_object(status: Option<NodeTracingStatus>) -> NodeTracing {
    let mut object = NodeTracing::new("cp1", NodeTracingSpec { node_uid: "uid".into(), target: None, grant: None });
    object.status = status;
    object
}

fn mk_status(generation: i64) -> NodeTracingStatus {
    NodeTracingStatus { observed_generation: Some(generation), ..NodeTracingStatus::default() }
}

fn failure(code: u16) -> (u16, Value) {
    (code, json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "", "code": code, "message": "" }))
}

fn success(object: &NodeTracing) -> (u16, Value) {
    (200, serde_json::to_value(object).unwrap())
}

/// Reports `wanted` of `object` until the API server has it; the requests that took.
async fn report(wanted: &NodeTracingStatus, object: NodeTracing, answers: Answers) -> Vec<Seen> {
    let (cluster, seen) = mk_cluster(answers);
    let (latest, reported) = (watch::Sender::new(Some(object)), watch::Sender::new(None));
    let object_uid = latest.borrow().as_ref().and_then(|object| object.metadata.uid.clone());
    let sender = watch::Sender::new(Some(Wanted { object_uid, status: wanted.clone() }));
    let mut told = reported.subscribe();
    tokio::select! {
        never = cluster.report(sender.subscribe(), &latest, &reported) => match never {},
        Ok(last) = told.wait_for(Option::is_some) => assert_eq!(last.as_ref(), Some(wanted)),
    }
    seen.lock().unwrap().clone()
}

#[tokio::test]
async fn a_status_is_applied_to_the_subresource_by_its_one_owner() {
    let seen = report(&mk_status(2), mk_object(Some(mk_status(1))), vec![success(&mk_object(Some(mk_status(2))))]).await;
    let [patch] = &seen[..] else { panic!("one request: {seen:?}") };
    assert_eq!(patch.method, Method::PATCH);
    assert_eq!(patch.uri, "/apis/clustertracing.dev/v1alpha1/nodetracings/cp1/status?&force=true&fieldManager=clustertracing-agent");
    assert_eq!(patch.content_type, "application/apply-patch+yaml");
    assert_eq!(patch.body["status"]["observedGeneration"], 2);
    assert_eq!(patch.body["spec"], Value::Null, "the spec is the controller's");
}

#[tokio::test]
async fn a_status_that_the_object_has_already_costs_no_request() {
    assert_eq!(report(&mk_status(1), mk_object(Some(mk_status(1))), vec![]).await.len(), 0);
}

fn mk_version(uid: &str, version: &str) -> NodeTracing {
    let mut object = mk_object(None);
    (object.metadata.uid, object.metadata.resource_version) = (Some(uid.into()), Some(version.into()));
    object
}

/// Seen on a real cluster: the outcome of a deleted object was reported into the next one of its name.
#[tokio::test]
async fn what_was_to_be_said_of_another_object_of_the_name_is_not_said() {
    let answer = NodeTracing { status: Some(mk_status(1)), ..mk_version("new", "8") };
    let (cluster, seen) = mk_cluster(vec![success(&answer)]);
    let (latest, reported) = (watch::Sender::new(Some(mk_version("new", "7"))), watch::Sender::new(None));
    let of = |uid: &str| Some(Wanted { object_uid: Some(uid.into()), status: mk_status(1) });
    let wanted = watch::Sender::new(of("old"));
    let mut report = pin!(cluster.report(wanted.subscribe(), &latest, &reported));
    assert!(futures::poll!(report.as_mut()).is_pending());
    tokio::task::yield_now().await;
    assert_eq!(seen.lock().unwrap().len(), 0);
    wanted.send_replace(of("new"));
    let mut told = reported.subscribe();
    tokio::select! {
        never = report => match never {},
        Ok(last) = told.wait_for(Option::is_some) => assert_eq!(last.as_ref(), Some(&mk_status(1))),
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
}

/// Seen on a real cluster: two statuses took turns for ever, each made of the version before the last.
#[test]
fn a_version_that_the_watch_tells_late_is_not_taken_back() {
    let latest = watch::Sender::new(None);
    let now = |object: NodeTracing| {
        put(&latest, Some(object));
        let last = latest.borrow().clone().unwrap();
        (last.metadata.uid.unwrap(), last.metadata.resource_version.unwrap())
    };
    let is = |uid: &str, version: &str| (uid.to_owned(), version.to_owned());
    assert_eq!(now(mk_version("a", "9")), is("a", "9"));
    assert_eq!(now(mk_version("a", "10")), is("a", "10"));
    assert_eq!(now(mk_version("a", "9")), is("a", "10"));
    assert_eq!(now(mk_version("b", "3")), is("b", "3"), "another object of the name");
}

#[tokio::test(start_paused = true)]
async fn a_report_is_made_again_until_the_api_server_takes_it() {
    let answers = vec![failure(500), failure(403), failure(404), success(&mk_object(Some(mk_status(2))))];
    assert_eq!(report(&mk_status(2), mk_object(None), answers).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_given_up() {
    let (cluster, _) = mk_cluster(vec![]);
    assert!(matches!(cluster.read().await, Err(Error::Timeout { operation: "get nodetracing", .. })));
}

#[tokio::test]
async fn before_a_commit_both_objects_are_read_anew() {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "cp1", "uid": "uid" } });
    let (cluster, seen) = mk_cluster(vec![(200, node), success(&mk_object(None))]);
    assert_eq!(cluster.node_uid().await.unwrap(), "uid");
    assert_eq!(cluster.read().await.unwrap(), mk_object(None));
    let uris: Vec<_> = seen.lock().unwrap().iter().map(|s| s.uri.clone()).collect();
    // without a resourceVersion the answer comes from etcd, not from a cache that may be behind
    assert_eq!(uris, ["/api/v1/nodes/cp1", "/apis/clustertracing.dev/v1alpha1/nodetracings/cp1"]);
}

#[tokio::test]
async fn its_own_object_alone_is_watched() {
    let list = json!({ "apiVersion": "clustertracing.dev/v1alpha1", "kind": "NodeTracingList",
        "metadata": { "resourceVersion": "7" }, "items": [serde_json::to_value(mk_object(None)).unwrap()] });
    let (cluster, seen) = mk_cluster(vec![(200, list)]);
    let latest = watch::Sender::new(None);
    let mut objects = latest.subscribe();
    tokio::select! {
        never = cluster.follow(&latest) => match never {},
        Ok(object) = objects.wait_for(Option::is_some) => assert_eq!(*object, Some(mk_object(None))),
    }
    assert!(seen.lock().unwrap()[0].uri.contains("fieldSelector=metadata.name%3Dcp1"));
}
