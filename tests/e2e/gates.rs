//! An etcd member that does not answer: nobody's components are restarted until it is back.

use std::collections::BTreeMap;
use std::time::Duration;

use clustertracing::api::{ComponentName, ConditionType, Grant, NodeTracing, Reason};

use crate::checks;
use crate::support::cluster::Cluster;
use crate::support::operator::{Operator, at_rate, current};
use crate::support::process;
use crate::support::step::note;
use crate::support::wait::{holds, until};

/// An agent looks every 10 s, and waits for the member's answer.
const SEEN: Duration = Duration::from_mins(1);
/// Long enough for a grant that somebody was about to give.
const HELD: Duration = Duration::from_secs(15);
/// What a rollout says that waits for an etcd member and its API server.
const REASONS: [Reason; 3] = [Reason::ComponentUnhealthy, Reason::EtcdUnhealthy, Reason::QuorumAtRisk];

/// Stops the etcd of cp3 on a traced cluster of three nodes, asks for another rate, and lets it go on.
pub(crate) async fn hold(cluster: &Cluster, operator: &Operator, rate: i32) {
    let stopped = Stopped::etcd(cluster, "cp3");
    // Without its etcd the API server of cp3 answers nobody, and keeps those waiting whose connections lead to it: now they lead elsewhere.
    cluster.exec(stopped.node, &["pkill", "-9", "-x", "kube-apiserver"]);
    until("the agent says that the etcd of cp3 is not well", SEEN, async || {
        let nodes = operator.nodes().await?;
        let cp3 = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(stopped.node));
        let components = cp3.and_then(|node| node.status.as_ref()).map(|status| &status.components);
        let etcd = components.and_then(|all| all.iter().find(|found| found.name == ComponentName::Etcd));
        if etcd.is_some_and(|etcd| !etcd.healthy) { Ok(()) } else { Err(format!("{etcd:?}")) }
    })
    .await;
    let started = || ["cp1", "cp2"].map(|node| process::the_one(cluster, node, "kube-apiserver").pid);
    let (granted, before) = (grants(operator).await, started());
    operator.apply(&at_rate(rate)).await;
    let message = until("the rollout waits for the member", SEEN, async || {
        let tracing = operator.get().await?;
        match current(&tracing, ConditionType::Ready) {
            Some(ready) if REASONS.iter().any(|reason| reason.as_str() == ready.reason) => {
                Ok(format!("{}: {}", ready.reason, ready.message))
            }
            ready => Err(format!("Ready is {ready:?}")),
        }
    })
    .await;
    note(&message);
    holds("no grant while a member is stopped", HELD, async || grants(operator).await == granted).await;
    assert_eq!(started(), before, "no API server was restarted");
    drop(stopped);
    operator.until_recovered().await;
    checks::assert_traced(cluster, rate);
}

/// Each node's grant.
async fn grants(operator: &Operator) -> BTreeMap<Option<String>, Option<Grant>> {
    let nodes = until("the nodes can be read", SEEN, async || operator.nodes().await).await;
    nodes.into_iter().map(|NodeTracing { metadata, spec, .. }| (metadata.name, spec.grant)).collect()
}

/// A process that holds still, until this is dropped.
struct Stopped<'a> {
    cluster: &'a Cluster,
    node: &'static str,
    pid: u32,
}

impl<'a> Stopped<'a> {
    fn etcd(cluster: &'a Cluster, node: &'static str) -> Self {
        let pid = process::the_one(cluster, node, "etcd").pid;
        cluster.exec(node, &["kill", "-STOP", &pid.to_string()]);
        Self { cluster, node, pid }
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        // the kubelet may have ended it meanwhile
        drop(self.cluster.try_exec(self.node, &["kill", "-CONT", &self.pid.to_string()]));
    }
}
