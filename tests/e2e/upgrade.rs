//! A real `kubeadm upgrade` of a traced cluster: it renders every manifest anew, tracing with it, and nobody interferes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clustertracing::api::node_tracing::{NodeTracing, Step};
use clustertracing::api::{ConditionType, Reason};
use serde_json::{Value, json};

use crate::checks;
use crate::support::clients::Access;
use crate::support::cluster::{Cluster, Shape};
use crate::support::files::{Digests, STATE};
use crate::support::jaeger::Jaeger;
use crate::support::kubeadm;
use crate::support::operator::{Operator, current};
use crate::support::process::{self, Process};
use crate::support::step::{note, step};
use crate::support::wait::until;

/// From a changed configuration to the condition that tells of it.
const TOLD: Duration = Duration::from_mins(2);
/// From the end of kubeadm to the end of the change that completes the node: two components restart.
const COMPLETED: Duration = Duration::from_mins(5);
/// How often a node is looked at while kubeadm runs.
const LOOK: Duration = Duration::from_secs(2);
/// Not known to kube-apiserver 1.37, and taken by 1.36.
const GATE: &str = "APIServerTracing";

/// Upgrades a cluster of one node, traced at `rate`, to versions of which the operator does not know the successors.
pub(crate) async fn run(cluster: &mut Cluster, to: Shape, rate: i32, access: &Access, jaeger: &Jaeger, name: impl Fn(&str) -> String) {
    let operator = &Operator::new(access.client());
    step(&name("kubeadm's configuration keeps the settings, and tells when an upgrade would fail"), async || {
        assert_kept(cluster);
        until_upgrade_safe(operator, "True", Reason::UpgradeSafe).await;
        would_fail_with_a_gate(cluster, operator).await;
    })
    .await;
    let before = node_tracing(operator).await.expect("the node's part can be read");
    step(&name("kubeadm upgrade renders tracing anew, and nothing is changed while it runs"), async || {
        let looks = upgrade(cluster, operator, to).await;
        assert_left_alone(&looks, &before);
        assert_came_up_traced(&looks);
    })
    .await;
    cluster.became(to);
    step(&name("one change completes the upgraded node, by itself"), async || {
        let start = Instant::now();
        until("a change has been made", COMPLETED, async || {
            let outcome = node_tracing(operator).await?.status.unwrap_or_default().last_outcome;
            if outcome == before.status.clone().unwrap_or_default().last_outcome { Err(format!("the last is {outcome:?}")) } else { Ok(()) }
        })
        .await;
        operator.until_ready().await;
        note(&format!("Ready {:.0} s after the upgrade", start.elapsed().as_secs_f64()));
        let grants = [&before, &node_tracing(operator).await.expect("the node's part can be read")].map(grant);
        assert_eq!(grants[1], grants[0] + 1, "one change, and no second");
        checks::assert_traced(cluster, rate);
        checks::assert_spans_of_every_instance_arrive(cluster, access, jaeger).await;
        assert_kept(cluster);
        // What 1.38 and etcd 3.8 refuse is not known.
        until_upgrade_safe(operator, "Unknown", Reason::NotMeasured).await;
    })
    .await;
}

/// The static-pod folder and the configuration that kubeadm makes of this upgrade where nobody traces.
pub(crate) fn untraced(cluster: &Cluster, from: Shape, to: Shape, configured: &str) -> (Digests, String) {
    let configured = configured
        .replace(&format!("kubernetesVersion: v{}", from.kubernetes), &format!("kubernetesVersion: v{}", to.kubernetes))
        .replace(&format!("imageTag: {}-0", from.etcd), &format!("imageTag: {}-0", to.etcd));
    let folders = cluster.nodes().into_iter().flat_map(|node| kubeadm::rendered(cluster, &node, &configured));
    (folders.collect(), configured)
}

/// kubeadm's configuration carries what both components need, and the mark by which it is ours.
fn assert_kept(cluster: &Cluster) {
    let settings: Value = serde_yaml::from_str(&kubeadm::configuration(cluster)).expect("it is YAML");
    let names = |path: &str| -> BTreeSet<String> {
        let entries = settings.pointer(path).and_then(Value::as_array).into_iter().flatten();
        entries.map(|entry| entry["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let has = |path: &str, expected: &[&str]| {
        let missing: Vec<_> = expected.iter().filter(|name| !names(path).contains(**name)).collect();
        assert!(missing.is_empty(), "{path} lacks {missing:?}: {settings:#}");
    };
    has("/apiServer/extraArgs", &["tracing-config-file"]);
    has("/apiServer/extraVolumes", &["clustertracing", "clustertracing-folder"]);
    has("/apiServer/extraEnvs", &["CLUSTERTRACING_ADDED"]);
    has("/etcd/local/extraArgs", &["enable-distributed-tracing", "distributed-tracing-address", "distributed-tracing-sampling-rate"]);
    has("/etcd/local/extraEnvs", &["CLUSTERTRACING_ADDED"]);
}

/// A gate that the next version refuses is told, by name, before the upgrade; once it is gone, so is the warning.
async fn would_fail_with_a_gate(cluster: &Cluster, operator: &Operator) {
    let sound = kubeadm::configuration(cluster);
    let mut settings: Value = serde_yaml::from_str(&sound).expect("it is YAML");
    let arguments = settings.pointer_mut("/apiServer/extraArgs").and_then(Value::as_array_mut).expect("ours are there");
    arguments.push(json!({"name": "feature-gates", "value": format!("{GATE}=true")}));
    kubeadm::configure(cluster, &serde_yaml::to_string(&settings).expect("it was YAML"));
    operator.touch(1).await.expect("the controller is made to look: it does so every 30 s by itself");
    let message = until_upgrade_safe(operator, "False", Reason::UpgradeWouldFail).await;
    note(&message);
    assert!(message.contains(&format!("--feature-gates={GATE}=true")), "{message}");
    kubeadm::configure(cluster, &sound);
    operator.touch(2).await.expect("the controller is made to look");
    until_upgrade_safe(operator, "True", Reason::UpgradeSafe).await;
}

/// Waits for a verdict on the next upgrade; gives its message.
async fn until_upgrade_safe(operator: &Operator, status: &str, reason: Reason) -> String {
    until("the verdict on the next upgrade is told", TOLD, async || {
        let tracing = operator.get().await?;
        match current(&tracing, ConditionType::UpgradeSafe) {
            Some(told) if told.status == status && told.reason == reason.as_str() => Ok(told.message.clone()),
            other => Err(format!("UpgradeSafe is {other:?}")),
        }
    })
    .await
}

/// The node at one moment of the upgrade.
#[derive(Debug)]
struct Look {
    kubeadm_runs: bool,
    api_server: Option<Process>,
    etcd: Option<Process>,
    /// Nothing while the API server is away.
    node: Option<NodeTracing>,
}

/// Runs the upgrade to its end, and looks at the node all the while.
async fn upgrade(cluster: &Cluster, operator: &Operator, to: Shape) -> Vec<Look> {
    let mut child = cluster.begin_upgrade(to);
    let mut looks = Vec::new();
    let status = loop {
        looks.push(look(cluster, operator).await);
        if let Some(status) = child.try_wait().expect("its own child can be waited for") {
            break status;
        }
        tokio::time::sleep(LOOK).await;
    };
    assert!(status.success(), "the upgrade failed");
    looks
}

async fn look(cluster: &Cluster, operator: &Operator) -> Look {
    // The node's part first: a kubeadm that is seen after it ran when it was read, or began since.
    let node = node_tracing(operator).await.ok();
    let mut processes = process::all(cluster, &cluster.nodes()[0]);
    let kubeadm_runs = processes.iter().any(|process| process.program() == "kubeadm");
    let mut take = |program| processes.iter().position(|process| process.program() == program).map(|at| processes.swap_remove(at));
    Look { kubeadm_runs, api_server: take("kube-apiserver"), etcd: take("etcd"), node }
}

fn assert_left_alone(looks: &[Look], before: &NodeTracing) {
    let during: Vec<_> = looks.iter().filter(|look| look.kubeadm_runs).collect();
    let told: Vec<_> = during.iter().filter_map(|look| look.node.as_ref()).collect();
    let waits = |node: &&&NodeTracing| {
        let blockers = node.status.iter().flat_map(|status| &status.blockers);
        blockers.into_iter().any(|blocker| matches!(blocker.reason, Reason::UpgradeInProgress | Reason::WaitingForQuiet))
    };
    let waiting = told.iter().filter(waits).count();
    note(&format!(
        "kubeadm ran in {} looks; the node's report could be read in {}, and was waiting in {waiting}",
        during.len(),
        told.len()
    ));
    assert!(waiting > 0, "the agent never told that it waits");
    for node in told {
        assert_eq!(grant(node), grant(before), "a grant was given while kubeadm ran");
        let status = node.status.clone().unwrap_or_default();
        assert_eq!(status.step, Step::Idle, "a change was under way while kubeadm ran");
    }
}

/// What kubeadm itself rendered is traced, from its first start: seen before anything else could have changed it.
fn assert_came_up_traced(looks: &[Look]) {
    let replaced = |program: fn(&Look) -> Option<&Process>| {
        let mut seen = looks.iter().filter(|look| look.kubeadm_runs).filter_map(program);
        let first = seen.next().expect("it ran when kubeadm began");
        let last = seen.next_back().unwrap_or(first);
        assert_ne!(first.id(), last.id(), "kubeadm did not replace {first:?}");
        last
    };
    let etcd = replaced(|look| look.etcd.as_ref());
    assert_eq!(etcd.flag("enable-distributed-tracing"), Some("true"), "{etcd:?}");
    assert_eq!(etcd.flag("distributed-tracing-instance-id"), None, "it is the node's own: {etcd:?}");
    assert!(etcd.argv.iter().all(|argument| !argument.contains("experimental")), "{etcd:?}");
    let api_server = replaced(|look| look.api_server.as_ref());
    assert!(api_server.flag("tracing-config-file").is_some_and(|file| file.starts_with(STATE)), "{api_server:?}");
}

async fn node_tracing(operator: &Operator) -> Result<NodeTracing, String> {
    operator.nodes().await?.pop().ok_or_else(|| "there is no NodeTracing".to_owned())
}

/// Number of the last grant; 0 when there was none.
fn grant(node: &NodeTracing) -> i64 {
    let given = node.spec.grant.as_ref().map(|grant| grant.id);
    let used = node.status.as_ref().and_then(|status| status.last_outcome.as_ref()).map(|outcome| outcome.grant);
    given.max(used).unwrap_or_default()
}
