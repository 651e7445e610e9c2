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
/// What a rollout says that waits for an etcd member: whose API server is away with it, or whose cluster has no voter to spare.
const REASONS: [Reason; 4] = [Reason::ComponentUnhealthy, Reason::EtcdUnhealthy, Reason::QuorumAtRisk, Reason::WaitingForAgent];

/// Stops the etcd of cp3 on a traced cluster of three nodes, asks for another rate, and lets it go on.
pub(crate) async fn hold(cluster: &Cluster, operator: &Operator, rate: i32) {
    let stopped = Stopped::etcd(cluster, "cp3");
    until("the agent says that the etcd of cp3 is not well", SEEN, async || {
        let nodes = operator.nodes().await?;
        let cp3 = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(stopped.node));
        let components = cp3.and_then(|node| node.status.as_ref()).map(|status| &status.components);
        let etcd = components.and_then(|all| all.iter().find(|found| found.name == ComponentName::Etcd));
        if etcd.is_some_and(|etcd| !etcd.healthy) { Ok(()) } else { Err(format!("{etcd:?}")) }
    })
    .await;
    let (granted, started) = (grants(operator).await, process::starts(cluster, "kube-apiserver"));
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
    assert_eq!(process::starts(cluster, "kube-apiserver"), started, "no API server was restarted");
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
