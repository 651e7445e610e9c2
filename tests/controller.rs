//! The shape of the controller's requests: method, path, parameters and what matters of the body. What it decides is tested in `plans.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use clustertracing::api::{NodeSettings, State};
use clustertracing::controller::{Category, Context, Error, turn};
use clustertracing::plan::collector;
use clustertracing::plan::validate::{Installation, validate};
use clustertracing::runtime::lease::Leadership;
use http::{Method, Request, Response};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

const GROUP: &str = "/apis/clustertracing.dev/v1alpha1";
const TERM: &str = "controller-0@2026-11-21T11:00:00Z";
const COLLECTOR: &str = "/apis/apps/v1/namespaces/clustertracing/daemonsets/clustertracing-collector";

/// A request that the controller made.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    path: String,
    query: String,
    body: Value,
}

/// An API server that holds what it was given, answers writes with what was written, and remembers them.
#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    writes: Arc<Mutex<Vec<Seen>>>,
    /// Canary pods. Other pods are held under their path.
    canaries: Arc<Mutex<Vec<Value>>>,
    /// Paths of writes that are answered with this code.
    refuse: Arc<Mutex<BTreeMap<String, u16>>>,
}

impl Server {
    fn hold(&self, path: impl Into<String>, object: Value) {
        self.objects.lock().unwrap().insert(path.into(), object);
    }

    fn answer(&self, seen: &Seen) -> (u16, Value) {
        let not_found =
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "" });
        if seen.method == Method::GET && seen.query.contains("canary") {
            return (200, list("PodList", &self.canaries.lock().unwrap()));
        }
        if seen.method == Method::GET && seen.query.contains("collector-check") {
            return (200, list("PodList", &[]));
        }
        if seen.method == Method::GET {
            return self.objects.lock().unwrap().get(&seen.path).map_or((404, not_found), |o| (200, o.clone()));
        }
        let code = self.refuse.lock().unwrap().get(&seen.path).copied();
        let mut body = seen.body.clone();
        if seen.method == Method::POST {
            body["metadata"]["resourceVersion"] = json!("1");
        }
        self.writes.lock().unwrap().push(seen.clone());
        match code {
            Some(code) => {
                (code, json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "", "code": code, "message": "" }))
            }
            // What a write gives back is read for its kind alone.
            None if seen.method == Method::DELETE => (200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })),
            None if seen.path.contains("/clustertracings/") => {
                (200, self.objects.lock().unwrap()[&format!("{GROUP}/clustertracings/cluster")].clone())
            }
            // A merge patch names what changes; what a write gives back is read for its kind alone.
            None if seen.path.contains("/nodetracings/") && body.get("spec").is_none() => (200, node_tracing("cp-1", "Ready")),
            None => (200, body),
        }
    }

    fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let bytes = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let query = parts.uri.query().unwrap_or_default().to_owned();
                let (code, answer) = server.answer(&Seen { method: parts.method, path: parts.uri.path().to_owned(), query, body });
                send.send_response(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap());
            }
        });
        Client::new(service, "default")
    }

    /// One turn of the controller, without the canary; what it wrote, but for Events.
    async fn turn(&self) -> (Result<(), Error>, Vec<Seen>) {
        let (result, writes) = self.turn_with(State::Disabled).await;
        (result, writes.into_iter().filter(|w| !w.path.contains("/events")).collect())
    }

    /// One turn of the controller, and all that it wrote.
    async fn turn_with(&self, canary: State) -> (Result<(), Error>, Vec<Seen>) {
        let installation = Installation { canary, ..installation() };
        let context = Context::new(self.client(), installation, "controller-0", Leadership::assumed(), TERM.to_owned());
        let result = turn(&context, now()).await.map(|_| ());
        (result, std::mem::take(&mut *self.writes.lock().unwrap()))
    }
}

fn installation() -> Installation {
    Installation {
        namespace: "clustertracing".into(),
        collector_image: "otelcol:0.155.0".into(),
        canary: State::Disabled,
        probe: State::Enabled,
    }
}

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn image(component: &str) -> String {
    format!("{component}:{}", if component == "etcd" { "3.6.16-0" } else { "v1.36.3" })
}

fn list(kind: &str, items: &[Value]) -> Value {
    json!({ "kind": kind, "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items })
}

fn resource() -> Value {
    json!({
        "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing",
        "metadata": {
            "name": "cluster", "uid": "uid-1", "generation": 1, "resourceVersion": "41",
            "finalizers": ["example.com/other", "clustertracing.dev/restore-nodes"],
        },
        "spec": {},
    })
}

fn settings() -> NodeSettings {
    validate(&serde_json::from_value(resource()).unwrap(), &installation()).unwrap().target(true).settings
}

/// A node whose agent found that a change is needed, or made.
fn node_tracing(name: &str, verdict: &str) -> Value {
    let revision = settings().revision();
    let component = |name: &str| json!({ "name": name, "image": image(name), "tracing": if verdict == "Unchanged" { "Ours" } else { "NotConfigured" }, "healthy": true });
    json!({
        "apiVersion": "clustertracing.dev/v1alpha1", "kind": "NodeTracing",
        "metadata": {
            "name": name, "uid": format!("uid-of-nodetracing-{name}"), "generation": 1, "resourceVersion": "77",
            "annotations": { "clustertracing.dev/leadership-term": TERM },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": format!("uid-of-{name}") }],
        },
        "spec": { "nodeUid": format!("uid-of-{name}"), "target": { "revision": revision, "settings": settings() } },
        "status": {
            "observedGeneration": 1,
            "currentRevision": if verdict == "Unchanged" { Some(&revision) } else { None },
            "step": "Idle",
            "components": [component("kube-apiserver"), component("etcd")],
            "etcd": { "health": "Healthy", "role": if name == "cp-3" { "Leader" } else { "Follower" }, "members": 3, "connected": 3 },
            "preflight": { "revision": revision, "verdict": verdict, "changes": if verdict == "Ready" { json!(["kube-apiserver", "etcd"]) } else { json!([]) } },
        },
    })
}

/// Three control-plane nodes whose collectors are Ready.
fn server(node_tracings: &[Value]) -> Server {
    let server = Server::default();
    let node = |name: &str| {
        json!({
            "metadata": { "name": name, "uid": format!("uid-of-{name}"), "labels": { "node-role.kubernetes.io/control-plane": "" } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    let v = validate(&serde_json::from_value(resource()).unwrap(), &installation()).unwrap();
    let objects = collector::render(&v, v.wanted_collector().unwrap(), &BTreeMap::new());
    let pod = |name: &str| {
        json!({
            "metadata": { "name": format!("collector-{name}"), "annotations": { collector::ANNOTATION_REVISION: objects.revision } },
            "spec": { "nodeName": name, "containers": [] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    let names = ["cp-1", "cp-2", "cp-3"];
    server.hold(format!("{GROUP}/clustertracings/cluster"), resource());
    server.hold("/api/v1/nodes", list("NodeList", &names.map(node)));
    server.hold("/api/v1/namespaces/clustertracing/pods", list("PodList", &names.map(pod)));
    server.hold("/api/v1/namespaces/clustertracing/configmaps", list("ConfigMapList", std::slice::from_ref(&objects.config_map)));
    server.hold(COLLECTOR, objects.daemon_set);
    server.hold(format!("{GROUP}/nodetracings"), list("NodeTracingList", node_tracings));
    server
}

fn all(verdict: &str) -> Vec<Value> {
    ["cp-1", "cp-2", "cp-3"].map(|name| node_tracing(name, verdict)).to_vec()
}

fn shapes(writes: &[Seen]) -> Vec<String> {
    writes.iter().map(|w| format!("{} {}", w.method, w.path)).collect()
}

#[tokio::test]
async fn targets_are_applied_server_side_and_leave_the_grant_alone() {
    let server = server(&[]);
    let (result, writes) = server.turn().await;
    result.unwrap();
    let targets: Vec<_> = writes.iter().filter(|w| w.path.contains("/nodetracings/")).collect();
    assert_eq!(targets.len(), 3, "{:?}", shapes(&writes));
    let first = targets[0];
    let made: Vec<_> = writes.iter().filter(|w| w.method == Method::POST).collect();
    assert_eq!(made.len(), 3, "{:?}", shapes(&writes));
    assert_eq!(made[0].body["spec"], json!({ "nodeUid": "uid-of-cp-1" }), "an object is made empty");
    assert_eq!(first.body["metadata"]["resourceVersion"], json!("1"), "its target goes to the object that was made, and to no later one");
    assert_eq!((first.method.as_str(), first.path.as_str()), ("PATCH", "/apis/clustertracing.dev/v1alpha1/nodetracings/cp-1"));
    assert!(first.query.contains("fieldManager=clustertracing-controller") && first.query.contains("force=true"), "{}", first.query);
    assert_eq!(
        first.body["metadata"]["ownerReferences"][0],
        json!({ "apiVersion": "v1", "kind": "Node", "name": "cp-1", "uid": "uid-of-cp-1" })
    );
    assert_eq!(first.body["spec"]["target"]["revision"], json!(settings().revision()));
    assert!(first.body["spec"].get("grant").is_none());
}

#[tokio::test]
async fn a_leader_that_slept_since_it_saw_no_object_applies_no_target_over_the_one_that_was_made() {
    let server = server(&[]);
    server.refuse.lock().unwrap().insert(format!("{GROUP}/nodetracings"), 409);
    let (result, writes) = server.turn().await;
    assert_eq!(result.unwrap_err().category(), Category::Conflict);
    assert!(!writes.iter().any(|w| w.path.contains("/nodetracings/")), "{:?}", shapes(&writes));
}

#[tokio::test]
async fn a_grant_replaces_the_object_that_was_read() {
    let server = server(&all("Ready"));
    let (result, writes) = server.turn().await;
    result.unwrap();
    let grants: Vec<_> = writes.iter().filter(|w| w.path.contains("/nodetracings/")).collect();
    assert_eq!(shapes(&writes)[0], "PUT /apis/clustertracing.dev/v1alpha1/nodetracings/cp-1");
    assert_eq!(grants.len(), 1, "one node at a time");
    assert!(grants[0].query.contains("fieldManager=clustertracing-controller"));
    assert_eq!(grants[0].body["metadata"]["resourceVersion"], all("Ready")[0]["metadata"]["resourceVersion"], "compare-and-swap");
    assert_eq!(
        grants[0].body["spec"]["grant"],
        json!({ "id": 1, "revision": settings().revision(), "generation": 1, "attempt": 1, "measuredAfter": 30 })
    );
}

#[tokio::test]
async fn a_grant_that_meets_a_newer_object_is_not_given_and_nothing_is_told() {
    let server = server(&all("Ready"));
    server.refuse.lock().unwrap().insert(format!("{GROUP}/nodetracings/cp-1"), 409);
    let (result, writes) = server.turn().await;
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Grant { .. }), "{error:?}");
    assert_eq!(error.category(), Category::Conflict);
    assert_eq!(writes.len(), 1, "{:?}", shapes(&writes));
}

#[tokio::test]
async fn the_status_goes_to_the_subresource_and_an_idle_turn_writes_nothing() {
    let server = server(&all("Unchanged"));
    let (result, writes) = server.turn().await;
    result.unwrap();
    assert_eq!(shapes(&writes), ["PATCH /apis/clustertracing.dev/v1alpha1/clustertracings/cluster/status"]);
    assert!(writes[0].query.contains("fieldManager=clustertracing-controller") && writes[0].query.contains("force=true"));
    assert_eq!(writes[0].body["status"]["nodesReady"], json!("3/3"));

    let mut stored = resource();
    stored["status"] = writes[0].body["status"].clone();
    server.hold(format!("{GROUP}/clustertracings/cluster"), stored);
    for _ in 0..100 {
        let (result, writes) = server.turn().await;
        result.unwrap();
        assert!(writes.is_empty(), "{:?}", shapes(&writes));
    }
}

#[tokio::test]
async fn the_collector_is_applied_where_it_differs() {
    let server = server(&all("Unchanged"));
    let mut edited = server.objects.lock().unwrap()[COLLECTOR].clone();
    edited["spec"]["template"]["spec"]["hostNetwork"] = json!(false);
    server.hold(COLLECTOR, edited);
    let (result, writes) = server.turn().await;
    result.unwrap();
    let shapes = shapes(&writes);
    assert!(shapes[0].starts_with("PATCH /api/v1/namespaces/clustertracing/configmaps/clustertracing-collector-"), "{shapes:?}");
    assert_eq!(shapes[1], format!("PATCH {COLLECTOR}"));
    assert!(writes[..2].iter().all(|w| w.query.contains("fieldManager=clustertracing-controller") && w.query.contains("force=true")));
}

#[tokio::test]
async fn the_finalizer_comes_first_and_leaves_others_alone() {
    let server = server(&[]);
    let mut fresh = resource();
    fresh["metadata"]["finalizers"] = json!(["example.com/other"]);
    server.hold(format!("{GROUP}/clustertracings/cluster"), fresh);
    let (result, writes) = server.turn().await;
    result.unwrap();
    assert_eq!(shapes(&writes)[0], "PATCH /apis/clustertracing.dev/v1alpha1/clustertracings/cluster");
    let expected =
        json!({ "metadata": { "resourceVersion": "41", "finalizers": ["example.com/other", "clustertracing.dev/restore-nodes"] } });
    assert_eq!(writes[0].body, expected);
}

#[tokio::test]
async fn a_removal_ends_with_the_finalizer() {
    let server = server(&all("Unchanged"));
    let mut deleted = resource();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-11-21T11:00:00Z");
    deleted["metadata"]["annotations"] = json!({ "clustertracing.dev/release-without-restore": "true" });
    server.hold(format!("{GROUP}/clustertracings/cluster"), deleted.clone());
    let (result, writes) = server.turn().await;
    result.unwrap();
    let shapes = shapes(&writes);
    assert_eq!(shapes[0], format!("DELETE {COLLECTOR}"));
    assert!(shapes[1].starts_with("DELETE /api/v1/namespaces/clustertracing/configmaps/"), "{shapes:?}");
    assert!(shapes[2..5].iter().all(|s| s.starts_with("DELETE /apis/clustertracing.dev/v1alpha1/nodetracings/cp-")), "{shapes:?}");
    assert_eq!(shapes[5], "PATCH /apis/clustertracing.dev/v1alpha1/clustertracings/cluster");
    assert_eq!(writes[5].body["metadata"]["finalizers"], json!(["example.com/other"]));
    assert_eq!(shapes.len(), 6);

    // Kept by somebody else's finalizer: nothing is made anew.
    deleted["metadata"]["finalizers"] = json!(["example.com/other"]);
    server.hold(format!("{GROUP}/clustertracings/cluster"), deleted);
    server.hold(format!("{GROUP}/nodetracings"), list("NodeTracingList", &[]));
    let (result, writes) = server.turn().await;
    result.unwrap();
    assert!(writes.is_empty());
}

#[tokio::test]
async fn without_a_resource_nothing_is_written() {
    let server = server(&[]);
    server.objects.lock().unwrap().remove(&format!("{GROUP}/clustertracings/cluster"));
    let (result, writes) = server.turn().await;
    result.unwrap();
    assert!(writes.is_empty());
}

#[tokio::test]
async fn an_event_tells_of_a_grant_before_it_is_given() {
    let server = server(&all("Ready"));
    let context = Context::new(server.client(), installation(), "controller-0", Leadership::assumed(), TERM.to_owned());
    turn(&context, now()).await.unwrap();
    let writes = std::mem::take(&mut *server.writes.lock().unwrap());
    assert_eq!(writes[0].path, "/apis/events.k8s.io/v1/namespaces/default/events");
    let event = &writes[0].body;
    assert_eq!((&event["reason"], &event["type"], &event["action"]), (&json!("NodeGranted"), &json!("Normal"), &json!("Grant")));
    assert_eq!((&event["regarding"]["name"], &event["related"]["name"]), (&json!("cluster"), &json!("cp-1")));
    assert_eq!(writes[1].method, Method::PUT);
}

const PODS: &str = "/api/v1/namespaces/clustertracing/pods";

#[tokio::test]
async fn canary_pods_come_before_the_first_grant_and_their_verdicts_before_they_go() {
    let server = server(&all("Ready"));
    let (result, writes) = server.turn_with(State::Enabled).await;
    result.unwrap();
    let made: Vec<_> = writes.iter().filter(|w| w.method == Method::POST && w.path == PODS).collect();
    assert_eq!(made.len(), 3, "one on each node: {:?}", shapes(&writes));
    assert!(!writes.iter().any(|w| w.method == Method::PUT), "nothing is granted: {:?}", shapes(&writes));

    // Kubelets take them up: two start well, one does not.
    for (n, pod) in made.iter().enumerate() {
        let mut pod = pod.body.clone();
        pod["metadata"]["uid"] = json!(format!("uid-of-pod-{n}"));
        let state = if n == 2 {
            json!({ "terminated": { "exitCode": 1, "message": "Error: unknown flag: --x" } })
        } else {
            json!({ "running": {} })
        };
        let container =
            |name: &str| json!({ "name": name, "image": "i", "imageID": "", "ready": n < 2, "restartCount": 0, "state": state });
        pod["status"] = json!({ "phase": "Running", "containerStatuses": [container("kube-apiserver"), container("etcd")] });
        server.canaries.lock().unwrap().push(pod);
    }
    let (result, writes) = server.turn_with(State::Enabled).await;
    result.unwrap();
    let verdicts: Vec<_> = writes.iter().take(3).collect();
    assert!(verdicts.iter().all(|w| w.method == Method::PATCH && w.path.contains("/nodetracings/cp-")), "{:?}", shapes(&writes));
    for verdict in &verdicts {
        assert!(verdict.query.contains("fieldManager=clustertracing-canary"), "not as the one whose last update tells when it granted");
        assert_eq!(verdict.body["metadata"]["resourceVersion"], json!("77"), "on the object that was read");
        assert_eq!(verdict.body.as_object().unwrap().keys().collect::<Vec<_>>(), ["metadata"]);
    }
    let told = |n: usize| verdicts[n].body["metadata"]["annotations"]["clustertracing.dev/canary"].as_str().unwrap().to_owned();
    assert!(!told(0).contains("refused"), "{}", told(0));
    assert!(told(2).contains("unknown flag: --x") && told(2).contains("kube-apiserver"), "{}", told(2));
    let removed: Vec<_> = writes.iter().filter(|w| w.method == Method::DELETE).collect();
    assert_eq!(removed.len(), 3, "{:?}", shapes(&writes));
    assert!(removed.iter().all(|w| w.path.starts_with(&format!("{PODS}/clustertracing-canary-"))));
    assert_eq!(removed[0].body["preconditions"]["uid"], json!("uid-of-pod-0"));
    assert!(!writes.iter().any(|w| w.method == Method::PUT));
}

/// What admission says is known to this controller alone: its own turn ends early, so it must tell first.
#[tokio::test]
async fn a_canary_pod_that_the_api_server_does_not_take_is_told_in_an_event_and_in_the_status() {
    let server = server(&all("Ready"));
    server.refuse.lock().unwrap().insert(PODS.to_owned(), 403);
    let (result, writes) = server.turn_with(State::Enabled).await;
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Canary { .. }), "{error:?}");
    assert_eq!(error.category(), Category::Rejected);
    let event = writes.iter().find(|w| w.path.contains("/events")).unwrap();
    assert_eq!((&event.body["reason"], &event.body["type"]), (&json!("WaitingForCanary"), &json!("Warning")));
    assert!(event.body["note"].as_str().unwrap().contains("--canary=Disabled"), "{}", event.body["note"]);
    let status = writes.iter().find(|w| w.path.ends_with("/status")).unwrap();
    assert_eq!(status.body["status"]["conditions"][0]["reason"], json!("WaitingForCanary"));
    assert!(!writes.iter().any(|w| w.method == Method::PUT));
}

#[tokio::test]
async fn a_spec_that_cannot_be_used_leaves_no_canary_pod() {
    let server = server(&all("Ready"));
    let pod = |name: &str, ending: bool| {
        let deleted = if ending { json!("2026-11-21T11:59:00Z") } else { Value::Null };
        json!({ "metadata": { "name": name, "uid": format!("uid-of-{name}"), "deletionTimestamp": deleted } })
    };
    server.canaries.lock().unwrap().extend([pod("canary-1", false), pod("canary-2", true)]);
    let mut invalid = resource();
    invalid["spec"] = json!({ "collector": { "mode": "External" } });
    server.hold(format!("{GROUP}/clustertracings/cluster"), invalid);
    let (result, writes) = server.turn().await;
    result.unwrap();
    assert_eq!(shapes(&writes)[0], format!("DELETE {PODS}/canary-1"));
    assert_eq!(writes.iter().filter(|w| w.method == Method::DELETE).count(), 1);
}
