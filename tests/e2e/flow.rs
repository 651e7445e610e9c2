//! Whether the operator knows that spans flow, and where they end if they do not: on real nodes, with real collectors and a real back end.

use std::time::{Duration, Instant};

use clustertracing::api::clustertracing::{ClusterTracingStatus, SpanFlow, SpanLoss};
use clustertracing::api::{ClusterTracing, ConditionType, Reason};

use crate::support::cluster::Cluster;
use crate::support::operator::{Operator, at_rate, current};
use crate::support::process;
use crate::support::step::note;
use crate::support::wait::until;

/// How soon a break has to be told: a minute, and what four programs on two cores take to do and read it.
const TOLD: Duration = Duration::from_secs(75);
/// A connection that was cut is made again within its sender's back-off, and a probe follows.
const MENDED: Duration = Duration::from_mins(3);
/// Probes alone make some hundred spans a minute; to tell 1 % from chance takes four hundred.
const KNOWN: Duration = Duration::from_mins(6);
/// The collector's program in the testbed's image.
const COLLECTOR: &str = "otelcol";

/// At rates that sample next to nothing, and nothing, every instance is proved all the same.
pub(crate) async fn is_proved_at_any_rate(cluster: &Cluster, operator: &Operator) {
    for rate in [100, 0] {
        operator.apply_until_ready(&at_rate(rate)).await;
        let begin = Instant::now();
        // The condition follows a node that is just done within seconds.
        every_instance("every instance is proved", MENDED, SpanFlow::Flowing, cluster, operator).await;
        flowing(operator, MENDED).await;
        note(&format!("at rate {rate} every instance is proved {:.0} s after the rollout", begin.elapsed().as_secs_f64()));
    }
}

/// One node's collector is stopped, its port dropped, and the back end stopped: each is told in time, with instance and hop, and ends.
pub(crate) async fn breaks_are_told_and_end(cluster: &Cluster, operator: &Operator) {
    let broken = told("cp2's collector is stopped", operator, Reason::CollectorSilent, || kill_collector(cluster, "cp2")).await;
    assert_broken(&broken, cluster, &["cp2"]);
    flowing(operator, MENDED).await;

    let rule = |verb: &str| cluster.exec("cp3", &["iptables", verb, "INPUT", "-i", "lo", "-p", "tcp", "--dport", "4317", "-j", "DROP"]);
    rule("-I");
    let broken = told("the port of cp3's collector is dropped", operator, Reason::NoSpansReceived, || ()).await;
    rule("-D");
    assert_broken(&broken, cluster, &["cp3"]);
    flowing(operator, MENDED).await;

    cluster.jaeger("stop");
    let broken = told("the back end is stopped", operator, Reason::ExporterFailing, || ()).await;
    assert!(condition(&broken).1.contains("jaeger"), "{broken:?}");
    // Each collector has its own moment; the rest follows.
    every_instance("every node's spans are told to end before the back end", TOLD, SpanFlow::Broken, cluster, operator).await;
    note(&format!("kubectl describe clustertracing cluster\n{}", cluster.kubectl(&["describe", "clustertracing", "cluster"])));
    cluster.jaeger("start");
    flowing(operator, MENDED).await;
}

/// Waits until spans flow, and enough of them were seen to tell how many get lost.
pub(crate) async fn settles(operator: &Operator) {
    flowing(operator, MENDED).await;
    until("the loss of spans is known", KNOWN, async || {
        let loss = operator.get().await?.status.and_then(|status| status.collector?.span_loss);
        if loss.is_some_and(|loss| loss != SpanLoss::Unknown) { Ok(()) } else { Err(format!("it is {loss:?}")) }
    })
    .await;
}

/// Waits until spans flow; gives the condition's message.
pub(crate) async fn until_flowing(operator: &Operator) -> String {
    condition(&flowing(operator, MENDED).await).1
}

/// Keeps it from running for as long as this is called again and again.
fn kill_collector(cluster: &Cluster, node: &str) {
    for process in process::running(cluster, node, COLLECTOR) {
        // It may have ended by itself since it was seen.
        drop(cluster.try_exec(node, &["kill", "-9", &process.pid.to_string()]));
    }
}

async fn flowing(operator: &Operator, budget: Duration) -> ClusterTracing {
    until("spans flow", budget, async || {
        let tracing = operator.get().await?;
        match current(&tracing, ConditionType::SpansFlowing) {
            Some(flowing) if flowing.status == "True" => Ok(tracing),
            other => Err(format!("SpansFlowing is {other:?}")),
        }
    })
    .await
}

/// Waits until both instances of every node are in this state.
async fn every_instance(what: &str, budget: Duration, state: SpanFlow, cluster: &Cluster, operator: &Operator) {
    until(what, budget, async || {
        let status = operator.get().await?.status.unwrap_or_default();
        let other = cluster.nodes().into_iter().find(|node| states(&status, node) != [Some(state); 2]);
        other.map_or(Ok(()), |node| Err(format!("{node}: {:?}", states(&status, &node))))
    })
    .await;
}

/// Waits until the condition is False for this reason, while `again` is done again and again; in time.
async fn told(what: &str, operator: &Operator, reason: Reason, again: impl Fn()) -> ClusterTracing {
    let begin = Instant::now();
    let tracing = until(what, TOLD, async || {
        again();
        let tracing = operator.get().await?;
        match current(&tracing, ConditionType::SpansFlowing) {
            Some(flowing) if flowing.status == "False" => Ok(tracing),
            other => Err(format!("SpansFlowing is {other:?}")),
        }
    })
    .await;
    let (found, message) = condition(&tracing);
    note(&format!("{what}: told after {:.0} s: {found}: {message}", begin.elapsed().as_secs_f64()));
    assert_eq!(found, reason.as_str(), "{message}");
    tracing
}

fn condition(tracing: &ClusterTracing) -> (String, String) {
    let condition = current(tracing, ConditionType::SpansFlowing).expect("it is always there");
    (condition.reason.clone(), condition.message.clone())
}

/// These nodes' instances are broken, no others, and the message names them. Both of a node: one may be told a look before the other.
fn assert_broken(tracing: &ClusterTracing, cluster: &Cluster, nodes: &[&str]) {
    let (_, message) = condition(tracing);
    let status = tracing.status.clone().unwrap_or_default();
    for node in cluster.nodes() {
        let is_one = nodes.contains(&node.as_str());
        let broken = states(&status, &node).contains(&Some(SpanFlow::Broken));
        assert_eq!((broken, message.contains(&node)), (is_one, is_one), "{node}: {message}");
    }
}

/// kube-apiserver's and etcd's.
fn states(status: &ClusterTracingStatus, node: &str) -> [Option<SpanFlow>; 2] {
    let found = status.nodes.iter().find(|found| found.name == node);
    let components = found.map(|found| [found.kube_api_server.as_ref(), found.etcd.as_ref()]).unwrap_or_default();
    components.map(|component| component.and_then(|component| component.spans.as_ref()).map(|spans| spans.state))
}
