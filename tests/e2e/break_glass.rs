//! A person at a node, without an API server: the agent's program in the state folder gives the original manifests back.

use std::time::Duration;

use clustertracing::api::Reason;

use crate::checks;
use crate::support::cluster::Cluster;
use crate::support::files::{self, Digests, MANIFESTS, STATE};
use crate::support::operator::Operator;
use crate::support::process;
use crate::support::step::note;
use crate::support::wait::until;

/// The kubelet lets the old process take its 30 s.
const GONE: Duration = Duration::from_mins(2);

/// Takes the API server of a traced single node away, restores the node by hand, and leaves it so: with the `original` manifests, and Stalled.
pub(crate) async fn restore(cluster: &Cluster, operator: &Operator, original: &Digests) {
    let node = cluster.nodes().remove(0);
    let program = format!("{STATE}/clustertracing-agent");
    cluster.shell(&node, &format!("mv {MANIFESTS}/kube-apiserver.yaml /etc/kubernetes/lost.yaml"));
    until("the API server is gone", GONE, async || {
        let running = process::running(cluster, &node, "kube-apiserver");
        if running.is_empty() { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await;
    note(&cluster.exec(&node, &[&program, "restore", "--dry-run"]));
    assert_ne!(&files::manifests(cluster), original, "a dry run changes nothing");
    note(&cluster.exec(&node, &[&program, "restore"]));
    assert_eq!(&files::manifests(cluster), original, "bytes, mode, owner");
    checks::assert_untraced(cluster);
    let message = operator.until_stalled(&[Reason::RestoredByHand]).await;
    note(&message);
    cluster.shell(&node, "rm /etc/kubernetes/lost.yaml");
}
