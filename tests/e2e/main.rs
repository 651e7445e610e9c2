//! The main job on real clusters: kubelet, containerd, kubeadm's static pods, one and three control-plane nodes.
//!
//! Each test brings its cluster up through `tests/testbed/cluster.sh` and takes it down, so only one may run at a time:
//! `cargo test --test e2e -- --ignored --test-threads=1 --nocapture` (`make e2e`). For the work on a scenario, `E2E_KEEP=1` leaves
//! the cluster of a run, and `E2E_REUSE=1` takes it.

#![expect(clippy::panic, reason = "a test that cannot go on panics")]

mod bad_change;
mod break_glass;
mod checks;
mod collector_mistakes;
mod dead_collector;
mod drift;
mod flow;
mod gates;
mod gateway;
mod mistakes;
mod own_traces;
mod plugin;
mod redaction;
mod restarts;
mod rotation;
mod single_node;
mod support;
mod three_nodes;
mod upgrade;

use support::cluster::Shape;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real cluster: make e2e"]
async fn single_node_on_1_34() {
    single_node::run(Shape { kubernetes: "1.34.4", etcd: "3.6.16", control_planes: 1 }, None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real cluster: make e2e"]
async fn single_node_upgraded_from_1_36_to_1_37() {
    let shape = Shape { kubernetes: "1.36.3", etcd: "3.6.16", control_planes: 1 };
    single_node::run(shape, Some(Shape { kubernetes: "1.37.1", etcd: "3.7.3", ..shape })).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real cluster: make e2e"]
async fn three_nodes_on_1_36() {
    three_nodes::run(Shape { kubernetes: "1.36.3", etcd: "3.6.16", control_planes: 3 }).await;
}
