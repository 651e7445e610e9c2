//! `kubectl tracing` on a cluster of three: what it shows, traces and names, against a webhook and an etcd member that are slow.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checks;
use crate::support::clients::{Access, get};
use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::process;
use crate::support::step::note;
use crate::support::traceparent::Traceparent;
use crate::support::wait::until;
use crate::support::webhook::{self, Webhook};

/// From the end of a request to all of its spans in the trace store: the API servers' and etcd's batches of 5 s, and the collectors' own.
const STORED: Duration = Duration::from_secs(30);
/// A boost of a minute, and the change at its end.
const ENDED: Duration = Duration::from_mins(4);
/// What the webhook takes for its answer.
const SECONDS: &str = "1.7";

/// What `kubectl tracing` prints; panics unless it ends well.
fn told(cluster: &Cluster, arguments: &[&str]) -> String {
    let (code, printed, errors) = cluster.kubectl_tracing(arguments);
    assert_eq!(code, Some(0), "kubectl tracing {}: {printed}{errors}", arguments.join(" "));
    printed
}

/// The same as JSON.
fn document(cluster: &Cluster, arguments: &[&str]) -> Value {
    serde_json::from_str(&told(cluster, &[arguments, &["-o", "json"]].concat())).expect("-o json prints JSON")
}

/// A cluster that is as requested.
pub(crate) async fn shows_a_good_cluster(cluster: &Cluster) {
    let status = document(cluster, &["status"]);
    assert_eq!((&status["summary"], &status["status"]["nodesReady"]), (&json!("Ready"), &json!("3/3")));
    note(&told(cluster, &["status"]));
    told(cluster, &["rollout", "status", "--timeout", "10s"]);
    let sample = cluster.kubectl(&["get", "clustertracing", "cluster", "-o", "yaml"]);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let spec: Value = serde_yaml::from_str(&sample).expect("kubectl prints YAML");
    let spec = json!({"apiVersion": spec["apiVersion"], "kind": spec["kind"], "metadata": {"name": "cluster"}, "spec": spec["spec"]});
    std::fs::write(file.path(), serde_yaml::to_string(&spec).expect("it is plain")).expect("a temporary file");
    let path = file.path().display().to_string();
    assert_eq!(told(cluster, &["diff", "-f", &path]), "", "what is in force changes nothing");
    let traces = until("there are traces", STORED, async || {
        let traces = document(cluster, &["traces", "--only", "etcd"])["traces"].as_array().cloned().unwrap_or_default();
        if traces.is_empty() { Err("none with a span of etcd".to_owned()) } else { Ok(traces) }
    })
    .await;
    let id = traces[0]["traceId"].as_str().expect("a trace has an id");
    assert!(told(cluster, &["show", id]).contains("etcd"));
}

/// From 25 %, and 1 % before: a rate that ends by itself, and a change that is taken back.
pub(crate) async fn changes_the_rate(cluster: &Cluster, operator: &Operator) {
    told(cluster, &["sample", "100%", "--for", "1m", "--wait"]);
    checks::assert_traced(cluster, 1_000_000);
    let back = until("the rate goes back by itself", ENDED, async || {
        let status = operator.get().await?.status.unwrap_or_default();
        if status.sampling_rate_per_million == Some(250_000) { Ok(()) } else { Err(format!("{status:?}")) }
    });
    back.await;
    operator.until_ready().await;
    checks::assert_traced(cluster, 250_000);
    note(&told(cluster, &["rollout", "undo"]));
    told(cluster, &["rollout", "status", "--timeout", "3m"]);
    checks::assert_traced(cluster, 10_000);
}

/// A slow webhook is what a request waits for.
pub(crate) async fn names_a_slow_webhook(cluster: &Cluster, super_administrator: &Access) {
    let client = super_administrator.at("cp1").client();
    let webhook = Webhook::start(cluster);
    webhook.register(client.clone()).await;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "slow", "namespace": "default", "labels": {webhook::LABEL.0: webhook::LABEL.1},
            "annotations": {"demo.clustertracing.dev/seconds": SECONDS},
        },
        "spec": {"containers": [{"name": "sleep", "image": "testbed/busybox:dev", "command": ["/bin/busybox", "sleep", "1"]}]},
    });
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), pod.to_string()).expect("a temporary file");
    let path = file.path().display().to_string();
    // The API servers learn of the webhook by a watch: until then a Pod is made without it.
    let drawn = until("a request is drawn with the webhook that it waits for", Duration::from_mins(2), async || {
        let begun = Instant::now();
        let (code, printed, errors) = cluster.kubectl_tracing(&["request", "--", "create", "-f", &path]);
        let took = begun.elapsed();
        cluster.kubectl(&["delete", "pod", "slow", "--now", "--ignore-not-found"]);
        if code == Some(0) && errors.contains("webhook mutate.e2e.clustertracing.dev") {
            Ok(format!("{printed}{errors}in {took:.1?}"))
        } else {
            Err(format!("{code:?}: {printed}{errors}"))
        }
    })
    .await;
    note(&drawn);
    let sentence = drawn.lines().find(|line| line.starts_with("critical path: ")).expect("a drawing names the critical path");
    assert!(sentence.starts_with("critical path: webhook mutate.e2e.clustertracing.dev (9"), "{sentence}");
    let left: Vec<_> = ["csr", "clusterrole", "clusterrolebinding"]
        .iter()
        .flat_map(|kind| cluster.kubectl(&["get", kind, "-o", "name"]).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| name.contains("clustertracing-request"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "a request leaves nothing");
    let top = until("the webhook is the first of all", STORED, async || {
        let top = document(cluster, &["top", "webhooks"]);
        if top["items"][0]["name"] == "mutate.e2e.clustertracing.dev" { Ok(top) } else { Err(top.to_string()) }
    })
    .await;
    note(&told(cluster, &["top", "webhooks"]));
    let share = top["items"][0]["sharePerMille"].as_u64().expect("a share is a number");
    assert!((900..=1000).contains(&share), "{top}");
    webhook.remove(cluster, client).await;
}

/// An etcd member that gets little of a CPU is the one that is named.
pub(crate) async fn names_a_slow_member(cluster: &Cluster, super_administrator: &Access) {
    let leader = ["cp1", "cp2", "cp3"]
        .into_iter()
        .find(|node| cluster.shell(node, "curl -s http://127.0.0.1:2381/metrics").lines().any(|line| line == "etcd_server_is_leader 1"));
    // the leader's pace would be everybody's
    let slow = ["cp3", "cp2"].into_iter().find(|node| leader != Some(node)).expect("one leads");
    let throttled = Throttled::etcd(cluster, slow);
    for _ in 0..40 {
        for node in cluster.nodes() {
            let client = super_administrator.at(&node).client();
            // a single object is read from a quorum; a slow one's reads may fail
            drop(client.request_text(Traceparent::new().of(get("/api/v1/namespaces/default"))).await);
        }
    }
    let top = until("the slow member is the first of all", Duration::from_mins(1), async || {
        let top = document(cluster, &["top", "instances", "--since", "2m"]);
        let items = top["items"].as_array().cloned().unwrap_or_default();
        let first = items.iter().find(|item| item["component"] == "etcd").cloned().unwrap_or_default();
        let times = first["timesTheOthers"].as_f64().unwrap_or_default();
        if first["name"] == slow && times >= 2.0 { Ok(told(cluster, &["top", "instances", "--since", "2m"])) } else { Err(top.to_string()) }
    })
    .await;
    drop(throttled);
    note(&format!("etcd of {slow} is throttled:\n{top}"));
}

/// A process that gets a twentieth of a CPU, until this is dropped.
struct Throttled<'a> {
    cluster: &'a Cluster,
    node: &'static str,
    group: String,
}

impl<'a> Throttled<'a> {
    fn etcd(cluster: &'a Cluster, node: &'static str) -> Self {
        let pid = process::the_one(cluster, node, "etcd").pid;
        // the container's own group: its pod's may be limited already
        let script = format!("sed -n 's/^[0-9]*:[a-z,]*\\bcpu\\b[a-z,]*://p' /proc/{pid}/cgroup");
        let path = cluster.shell(node, &script).trim().to_owned();
        let group = cluster.shell(node, &format!("find /sys/fs/cgroup/cpu -type d -path '*{}' | head -n 1", last(&path))).trim().to_owned();
        assert!(!group.is_empty(), "etcd of {node} is in {path}");
        let throttled = Self { cluster, node, group };
        throttled.quota("5000");
        throttled
    }

    fn quota(&self, micros: &str) {
        self.cluster.shell(self.node, &format!("echo {micros} > {}/cpu.cfs_quota_us", self.group));
    }
}

impl Drop for Throttled<'_> {
    fn drop(&mut self) {
        self.quota("-1");
    }
}

/// The container's part of a control group's path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
