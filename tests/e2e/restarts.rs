//! The API server ends again and again under the controller: after each time it must hear of a change.

use std::time::{Duration, Instant};

use clustertracing::api::ClusterTracing;

use crate::support::clients::Access;
use crate::support::cluster::Cluster;
use crate::support::operator::Operator;
use crate::support::process;
use crate::support::step::{note, rounds};
use crate::support::wait::until;

/// Restarts, where nothing else is asked for.
const ROUNDS: usize = 5;
/// From the kill of an API server to one that is ready: the kubelet's look, and a start on busy cores.
const RESTART: Duration = Duration::from_mins(1);
/// From a change to the controller's answer: its watches come back within 5 s, and its reads do with them.
const HEARD: Duration = Duration::from_secs(20);

/// Kills the only API server, changes the resource `applied` in what no node has to change for as soon as it is back, and waits for the controller's answer.
///
/// The kubelet makes a container that ends again and again wait up to five minutes; here it waits a second (from 1.35 on it can be told).
pub(crate) async fn survive(cluster: &Cluster, access: &Access, operator: &Operator, applied: &ClusterTracing) {
    let restarts = rounds(ROUNDS);
    let node = cluster.nodes().remove(0);
    let kubelet = "/var/lib/kubelet/config.yaml";
    cluster.shell(&node, &format!("printf 'crashLoopBackOff: {{maxContainerRestartPeriod: 1s}}\\n' >> {kubelet}; pkill -x kubelet"));
    let mut heard = Vec::new();
    for round in 0..restarts {
        let old = process::the_one(cluster, &node, "kube-apiserver");
        cluster.exec(&node, &["kill", "-9", &old.pid.to_string()]);
        process::until_replaced(cluster, access, &node, "kube-apiserver", &old, RESTART).await;
        let mut tracing = applied.clone();
        tracing.spec.rollout.soak_seconds = if round % 2 == 0 { 3 } else { 4 };
        let generation = operator.apply(&tracing).await.metadata.generation;
        let start = Instant::now();
        until("the controller has seen the change", HEARD, async || {
            let observed = operator.get().await?.status.and_then(|status| status.observed_generation);
            if observed == generation { Ok(()) } else { Err(format!("it has seen generation {observed:?} of {generation:?}")) }
        })
        .await;
        heard.push(start.elapsed());
    }
    note(&format!("{restarts} restarts; the change was heard of after at most {:.1?}", heard.iter().max().copied().unwrap_or_default()));
    cluster.shell(&node, &format!("sed -i '/^crashLoopBackOff:/d' {kubelet}; pkill -x kubelet"));
}
