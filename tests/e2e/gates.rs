//! An etcd member that does not answer: nobody's components are restarted until it is back.

use std::collections::BTreeMap;
use std::time::Duration;

use clustertracing::api::{ConditionType, Grant, NodeTracing, Reason};

use crate::support::cluster::Cluster;
use crate::support::files;
use crate::support::operator::{Operator, current, sample};
use crate::support::process;
use crate::support::step::note;
use crate::support::wait::{holds, until};

/// From a change to the controller's answer: an agent looks every 10 s, and waits for the member's answer.
const TOLD: Duration = Duration::from_mins(2);
/// Long enough for a grant that somebody was about to give.
const HELD: Duration = Duration::from_secs(20);
/// What a rollout says that waits for an etcd member, for the API server that has none other, or for their node.
const REASONS: [Reason; 4] = [Reason::EtcdUnhealthy, Reason::QuorumAtRisk, Reason::ComponentUnhealthy, Reason::NodeNotReady];

/// Stops the etcd of cp3 on an untraced cluster of three nodes, and asks for tracing; takes both back.
pub(crate) async fn hold(cluster: &Cluster, operator: &Operator) {
    let stopped = Stopped::etcd(cluster, "cp3");
    // Without its etcd the API server of cp3 answers nobody, and keeps those waiting whose connections lead to it: now they lead elsewhere.
    cluster.exec(stopped.node, &["pkill", "-9", "-x", "kube-apiserver"]);
    let (manifests, started) = (files::manifests(cluster), process::starts(cluster, "etcd"));
    operator.apply(&sample()).await;
    let message = until("the rollout waits for the member", TOLD, async || {
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
    holds("nobody has a grant while a member is stopped", HELD, async || grants(operator).await.into_values().flatten().next()).await;
    assert!(grants(operator).await.values().all(Option::is_none));
    assert_eq!((files::manifests(cluster), process::starts(cluster, "etcd")), (manifests, started), "nothing was changed");
    drop(stopped);
    operator.delete().await;
}

/// Each node's grant.
async fn grants(operator: &Operator) -> BTreeMap<Option<String>, Option<Grant>> {
    let nodes = until("the nodes can be read", TOLD, async || operator.nodes().await).await;
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
