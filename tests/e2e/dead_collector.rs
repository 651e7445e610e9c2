//! A collector that takes spans no more keeps no API server from ending.

use std::time::Duration;

use crate::support::clients::{Access, get};
use crate::support::cluster::Cluster;
use crate::support::operator::{Operator, at_rate};
use crate::support::process::{self, Process};
use crate::support::step::note;

/// From the end of an API server to one that is ready: the kubelet's look, its back-off of 10 s, and a start on busy cores.
const RESTART: Duration = Duration::from_mins(2);
/// What a dead receiver may add to the end of an API server.
const MORE: Duration = Duration::from_secs(1);
/// Requests right before the end, each with its spans: more than one batch (512).
const REQUESTS: usize = 300;
/// The collector's program in the testbed's image.
const COLLECTOR: &str = "otelcol";

/// Ends the API server of a node twice by the signal that the kubelet sends, with every request sampled: its collector works, and holds still.
pub(crate) async fn costs_nothing(cluster: &Cluster, access: &Access, operator: &Operator) {
    operator.apply_until_ready(&at_rate(1_000_000)).await;
    let node = cluster.nodes().remove(0);
    let live = end(cluster, access, &node).await;
    let collector = process::the_one(cluster, &node, COLLECTOR);
    signal(cluster, &node, "STOP", &collector);
    let dead = end(cluster, access, &node).await;
    // its liveness probe may have ended it meanwhile
    drop(cluster.try_exec(&node, &["kill", "-CONT", &collector.pid.to_string()]));
    note(&format!(
        "the API server ended after {:.2} s with a live collector, after {:.2} s with a dead one",
        live.as_secs_f64(),
        dead.as_secs_f64()
    ));
    assert!(dead <= live + MORE, "with a dead collector it took {dead:?}, with a live one {live:?}");
}

/// From the signal to the end of the process. Another one is ready then.
async fn end(cluster: &Cluster, access: &Access, node: &str) -> Duration {
    let client = access.at(node).client();
    for _ in 0..REQUESTS {
        client.request_text(get("/api/v1/namespaces/default")).await.expect("the API server answers");
    }
    let old = process::the_one(cluster, node, "kube-apiserver");
    let script = format!(
        "start=$(date +%s%N); kill -TERM {0}; while [ -d /proc/{0} ]; do sleep 0.02; done; echo $(( $(date +%s%N) - start ))",
        old.pid
    );
    let nanoseconds = cluster.shell(node, &script);
    process::until_replaced(cluster, access, node, "kube-apiserver", &old, RESTART).await;
    Duration::from_nanos(nanoseconds.trim().parse().expect("a number"))
}

fn signal(cluster: &Cluster, node: &str, name: &str, process: &Process) {
    cluster.exec(node, &["kill", &format!("-{name}"), &process.pid.to_string()]);
}
