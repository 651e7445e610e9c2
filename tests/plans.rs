//! The planner, turn by turn: each `tests/plans/<case>.yaml` is played, and what the controller did and told must equal `<case>.out`.
//! `UPDATE_GOLDEN=1 cargo test --test plans` writes the `.out` files anew. Every case ends with «no further change».

#![expect(clippy::unwrap_used, clippy::panic, reason = "a case that cannot go on panics")]
#![expect(clippy::option_option, reason = "a step may set a field to null, or leave it alone")]

mod golden;
#[path = "plans/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clustertracing::api::node_tracing::{Blocker, EtcdMember, Measurement, OutcomeResult, Verdict};
use clustertracing::api::{ClusterTracing, ComponentName, Deviation, Drift, DriftCause, Reason, RolloutMode, State};
use clustertracing::component::owner::{NodeFacts, Platform, owner};
use clustertracing::plan::CollectorPlan;
use clustertracing::plan::canary::Canary;
use clustertracing::plan::events::NewEvent;
use clustertracing::plan::observed::KubeadmConfig;
use clustertracing::plan::report::{Progress, WaitingOn};
use clustertracing::plan::secret::{Content, ObservedSecret};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use world::{CanaryEnds, CheckEnds, Turn, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    #[serde(default)]
    spec: Option<Value>,
    nodes: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    /// The controller takes one turn.
    Turn,
    /// Agents report once.
    Agents,
    /// Turns, agents and collectors alternate until nothing changes any more.
    Run,
    /// Seconds pass.
    Advance(i64),
    Spec(Value),
    Delete,
    Release,
    Machine(MachineStep),
    Node(NodeStep),
    AddNode(String),
    RemoveNode(String),
    ReplaceNode(String),
    CollectorsStart(bool),
    /// How a new collector's trial ends; null: well.
    CollectorCheck(Option<CheckEnds>),
    /// What a collector that is not Ready says, on each node.
    CollectorSays(String),
    /// A Secret that is there, with the end of its certificate; null: it is not there.
    Secret(String, Option<Timestamp>),
    /// Another controller leads.
    NewLeader,
    /// A label of the nodes that are no control-plane nodes.
    Elsewhere(String),
    /// kubeadm's configuration becomes that of a case of tests/kubeadm-config; null: there is none.
    KubeadmConfig(Option<String>),
    /// A hundred turns, five minutes apart, write nothing.
    Idle,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MachineStep {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    silent: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slow: Option<bool>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    refuses: Option<Option<Reason>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    stuck: Option<Option<Reason>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    fails: Option<Option<(OutcomeResult, Reason)>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    unhealthy: Option<Option<ComponentName>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    canary: Option<Option<CanaryEnds>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    measured: Option<Option<Measurement>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    without_etcd: Option<bool>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    member: Option<Option<EtcdMember>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leads: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blockers: Option<Vec<Blocker>>,
    /// Somebody changes a file; other contents are without our flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drift: Option<Drift>,
    /// Somebody puts all of it right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    undrift: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NodeStep {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<(String, String)>,
    /// What its kubelet says that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kubelet: Option<String>,
}

/// Tells `field: null` from a field that is not there.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// What kstatus makes of the conditions, as Flux, Helm and Argo CD read them.
fn kstatus(resource: &ClusterTracing) -> &'static str {
    let status = resource.status.clone().unwrap_or_default();
    let is = |kind: &str, value: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == value);
    if resource.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if status.observed_generation != resource.metadata.generation || is("Reconciling", "True") {
        "InProgress"
    } else if is("Stalled", "True") {
        "Failed"
    } else if is("Ready", "True") {
        "Current"
    } else {
        "InProgress"
    }
}

/// Every step of every script is one state of the table: what people read, and what tools make of it.
#[test]
fn tools_read_every_state_as_people_do() {
    let mut table = BTreeSet::new();
    for case in golden::cases("plans") {
        let (mut world, case) = load(&case);
        for step in &case.steps {
            take(&mut world, step, &mut String::new());
            // The controller has seen the step; nobody else has answered it.
            world.turn();
            let Some(resource) = &world.resource else { continue };
            let status = resource.status.clone().unwrap_or_default();
            for kind in ["Ready", "CollectorAvailable", "KubeAPIServerTraced", "EtcdTraced", "SpansFlowing", "UpgradeSafe"] {
                assert!(status.conditions.iter().any(|c| c.type_ == kind), "{kind} is always there");
            }
            assert_eq!(status.observed_generation, resource.metadata.generation);
            assert!(status.conditions.iter().all(|c| c.observed_generation == resource.metadata.generation && !c.message.is_empty()));
            let abnormal: Vec<_> = status.conditions.iter().filter(|c| ["Reconciling", "Stalled"].contains(&c.type_.as_str())).collect();
            assert!(abnormal.len() <= 1 && abnormal.iter().all(|c| c.status == "True"), "abnormal conditions are there only while true");
            let ready = &status.conditions[0];
            let abnormal = abnormal.first().map_or("-", |c| c.type_.as_str());
            table.insert(format!("{:<22} Ready={:<6} {:<12} kstatus {}", ready.reason, ready.status, abnormal, kstatus(resource)));
        }
    }
    assert!(table.len() >= 15, "{table:#?}");
    let table = table.into_iter().fold(String::new(), |text, line| text + &line + "\n");
    let different = golden::difference(&root().join("tests/plans/kstatus.out"), &table);
    assert!(different.is_empty(), "{different}");
}

#[test]
fn scripts_give_their_golden_reports() {
    let cases = golden::cases("plans");
    assert!(cases.len() >= 10, "found {} cases", cases.len());
    let different: String = cases.iter().map(|case| golden::difference(&case.with_extension("out"), &play(case))).collect();
    assert!(different.is_empty(), "{different}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn load(path: &Path) -> (World, Case) {
    let value: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    // Through JSON, whose enums are maps.
    let case: Case = serde_json::from_value(value).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let nodes: Vec<_> = case.nodes.iter().map(String::as_str).collect();
    (World::new(&nodes, case.spec.clone().unwrap_or_else(|| serde_json::json!({}))), case)
}

fn play(path: &Path) -> String {
    let (mut world, case) = load(path);
    let mut out = format!("# {}\n", case.about.trim());
    for step in &case.steps {
        writeln!(out, "\n== {}", serde_json::to_string(step).unwrap()).unwrap();
        take(&mut world, step, &mut out);
    }
    let last = world.turn();
    assert!(last.is_none_or(|t| t.is_idle()), "{}: a further change", path.display());
    out + "\nno further change\n"
}

fn take(world: &mut World, step: &Step, out: &mut String) {
    match step {
        Step::Turn => show(world.turn(), world, out),
        Step::Agents => world.agents(),
        Step::Run => run(world, out),
        Step::Advance(seconds) => world.advance(*seconds),
        Step::Spec(patch) => world.edit(patch),
        Step::Delete => world.delete(),
        Step::Release => world.release(),
        Step::Machine(m) => {
            let machine = world.machines.get_mut(&m.name).unwrap();
            machine.silent = m.silent.unwrap_or(machine.silent);
            machine.slow = m.slow.unwrap_or(machine.slow);
            machine.refuses = m.refuses.unwrap_or(machine.refuses);
            machine.stuck = m.stuck.unwrap_or(machine.stuck);
            machine.fails = m.fails.unwrap_or(machine.fails);
            machine.unhealthy = m.unhealthy.unwrap_or(machine.unhealthy);
            machine.canary = m.canary.unwrap_or(machine.canary);
            machine.measured = m.measured.clone().or(machine.measured.take());
            machine.without_etcd = m.without_etcd.unwrap_or(machine.without_etcd);
            machine.member = m.member.clone().unwrap_or(machine.member.take());
            machine.leads = m.leads.unwrap_or(machine.leads);
            machine.blockers = m.blockers.clone().unwrap_or(std::mem::take(&mut machine.blockers));
            if let Some(drift) = &m.drift {
                machine.drift(drift.clone());
            }
            if m.undrift {
                machine.drift.clear();
            }
        }
        Step::Node(n) => {
            let node = world.nodes.get_mut(&n.name).unwrap();
            node.ready = n.ready.unwrap_or(node.ready);
            node.labels.extend(n.label.clone());
            node.platform = n.kubelet.as_ref().map_or(node.platform, |version| platform(&BTreeMap::new(), version));
        }
        Step::AddNode(name) => world.add_node(name),
        Step::RemoveNode(name) => world.remove_node(name),
        Step::ReplaceNode(name) => {
            world.remove_node(name);
            world.add_node(name);
        }
        Step::CollectorsStart(start) => {
            world.collectors_start = *start;
            if !start {
                world.collector.ready.clear();
            }
        }
        Step::CollectorCheck(ends) => world.collector_check = *ends,
        Step::CollectorSays(words) => world.collector.words = world.nodes.keys().map(|node| (node.clone(), words.clone())).collect(),
        Step::Secret(name, ends) => secret(world, name, *ends),
        Step::NewLeader => world.term += 1,
        Step::Elsewhere(label) => world.elsewhere = platform(&BTreeMap::from([(label.clone(), String::new())]), "v1.31.4"),
        Step::KubeadmConfig(case) => {
            let path = |case: &String| root().join("tests/kubeadm-config").join(case).join("in.yaml");
            let text = case.as_ref().map(|case| std::fs::read_to_string(path(case)).unwrap());
            world.kubeadm_config = text.map_or(KubeadmConfig::Absent, KubeadmConfig::Found);
        }
        Step::Idle => {
            for _ in 0..100 {
                world.advance(60);
                world.agents();
                world.kubelets();
                let turn = world.turn().unwrap();
                assert!(turn.is_idle(), "something was written where nothing changed: {:?}", turn.status);
            }
            out.push_str("100 turns wrote nothing\n");
        }
    }
}

/// A Secret is there, with a certificate that ends then; or is not there.
fn secret(world: &mut World, name: &str, ends: Option<Timestamp>) {
    let keys = |ends| ["ca.crt", "tls.crt", "tls.key"].map(|key| (key.to_owned(), Content::Certificate { ends }));
    let secret = |ends| ObservedSecret { authorities: Some("authority".into()), keys: keys(ends).into(), ..ObservedSecret::default() };
    world.secrets.insert(name.to_owned(), ends.map(secret));
}

fn platform(labels: &BTreeMap<String, String>, kubelet_version: &str) -> Option<Platform> {
    owner(&NodeFacts { labels, annotations: &BTreeMap::new(), os_image: "Linux", kubelet_version })
}

fn run(world: &mut World, out: &mut String) {
    for _ in 0..200 {
        let turn = world.turn();
        let wait = turn.as_ref().and_then(|t| t.plan.as_ref()).map(|p| p.next_check);
        let progress = turn.as_ref().and_then(|t| t.plan.as_ref()).map(|p| &p.report.progress);
        let soaks = matches!(progress, Some(Progress::Waiting(WaitingOn::Soak { .. } | WaitingOn::Measurement { .. })));
        let idle = turn.as_ref().is_none_or(Turn::is_idle);
        if !idle {
            show(turn, world, out);
        }
        let before = (world.node_tracings.clone(), world.collector.clone(), world.canaries.clone(), world.collector_checks.clone());
        world.start_collectors();
        world.kubelets();
        world.agents();
        // A wait for a certain time ends; others need somebody.
        let timed = wait.filter(|w| w.as_secs() < 60 || soaks);
        if idle && before == (world.node_tracings.clone(), world.collector.clone(), world.canaries.clone(), world.collector_checks.clone())
        {
            let quiet = world.now;
            let Some(wait) = timed else { return };
            world.advance(i64::try_from(wait.as_secs()).unwrap().max(1));
            let probe = world.clone_turn();
            if probe.is_none_or(|t| t.is_idle()) {
                // Time alone does not help: look a minute further once, then it is settled.
                world.advance(61);
                if world.clone_turn().is_none_or(|t| t.is_idle()) {
                    world.now = quiet;
                    return;
                }
            }
        } else {
            world.advance(1);
        }
    }
    panic!("the rollout did not settle:\n{out}");
}

fn show(turn: Option<Turn>, world: &World, out: &mut String) {
    let Some(turn) = turn else {
        writeln!(out, "{} there is no ClusterTracing", world.now).unwrap();
        return;
    };
    writeln!(out, "{}", world.now).unwrap();
    for line in writes(&turn) {
        writeln!(out, "  write   {line}").unwrap();
    }
    for NewEvent { warning, reason, action, note, node } in &turn.events {
        let kind = if *warning { "Warning" } else { "Normal" };
        let node = node.as_ref().map(|n| format!(" [{n}]")).unwrap_or_default();
        writeln!(out, "  event   {kind} {reason} {action}{node}: {note}").unwrap();
    }
    if turn.plan.as_ref().is_some_and(|p| p.finish) {
        return;
    }
    let conditions: Vec<_> = turn.status.conditions.iter().map(|c| format!("{}={}/{}", c.type_, c.status, c.reason)).collect();
    writeln!(out, "  status  {}", conditions.join(" ")).unwrap();
    writeln!(out, "          {}", turn.status.conditions[0].message).unwrap();
    let available = turn.status.conditions.iter().find(|c| c.type_ == "CollectorAvailable");
    if let Some(available) = available.filter(|c| c.reason != "CollectorReady" || c.message.contains("before")) {
        writeln!(out, "          collector: {}", available.message).unwrap();
    }
    let upgrade =
        turn.status.conditions.iter().find(|c| c.type_ == "UpgradeSafe" && c.reason != "UpgradeSafe" && c.reason.starts_with("Upgrade"));
    if let Some(upgrade) = upgrade {
        writeln!(out, "          {}", upgrade.message).unwrap();
    }
    let nodes: Vec<_> = turn.status.nodes.iter().map(|n| format!("{} {:?}", n.name, n.state)).collect();
    writeln!(
        out,
        "          {} ready, sampling {}: {}",
        turn.status.nodes_ready.as_deref().unwrap_or("-"),
        turn.status.sampling_rate_per_million.map_or("-".to_owned(), |r| r.to_string()),
        nodes.join(", ")
    )
    .unwrap();
}

fn writes(turn: &Turn) -> Vec<String> {
    let Some(plan) = &turn.plan else { return Vec::new() };
    let mut lines = Vec::new();
    if plan.add_finalizer {
        lines.push("finalizer".to_owned());
    }
    lines.extend(plan.orphans.iter().map(|(name, _)| format!("remove nodetracing {name}")));
    lines.extend(plan.targets.iter().map(|t| format!("nodetracing {} target {}", t.node, t.target.revision)));
    lines.extend(plan.canaries.record.iter().map(|(node, record)| {
        let refused = record.refused.as_ref().map_or_else(|| "passed".to_owned(), |r| format!("refused by {}", r.component));
        format!("nodetracing {node} canary {} {refused}", record.key)
    }));
    lines.extend(plan.canaries.remove.iter().map(|(name, _)| format!("remove pod {name}")));
    lines.extend(plan.canaries.make.iter().map(|pod| format!("pod {} on {}", pod["metadata"]["name"], pod["spec"]["nodeName"])));
    if let Some((config_map, record)) = &plan.collector_check.record {
        let refused = if record.refused.is_some() { "refused" } else { "passed" };
        lines.push(format!("configmap {config_map} collector {} {refused}", record.revision));
    }
    lines.extend(plan.collector_check.remove.iter().map(|(name, _)| format!("remove pod {name}")));
    lines.extend(plan.collector_check.make.iter().map(|make| {
        let (config_map, pod) = &**make;
        format!("configmap {}, pod {} on {}", config_map["metadata"]["name"], pod["metadata"]["name"], pod["spec"]["nodeName"])
    }));
    match &plan.collector {
        CollectorPlan::Keep => {}
        CollectorPlan::Apply(objects) => lines.push(format!("collector {}", objects.config_map_name)),
        CollectorPlan::Prune { config_maps, gateway } => {
            let gateway = gateway.then(|| "the gateway".to_owned());
            let config_maps = (!config_maps.is_empty()).then(|| format!("configmap {}", config_maps.join(", ")));
            lines.push(format!("remove {}", gateway.into_iter().chain(config_maps).collect::<Vec<_>>().join(" and ")));
        }
        CollectorPlan::Remove => lines.push("remove the collector".to_owned()),
    }
    if let Some(text) = plan.kubeadm.text() {
        let has = |name: &str, mark: &str| text.contains(mark).then(|| name.to_owned());
        let kept: Vec<_> =
            [has("kube-apiserver", "tracing-config-file"), has("etcd", "distributed-tracing")].into_iter().flatten().collect();
        lines.push(format!("kubeadm-config with {}", if kept.is_empty() { "nothing of ours".to_owned() } else { kept.join(", ") }));
    }
    if let Some(g) = &plan.grant {
        lines.push(format!("nodetracing {} grant {} for {} generation {}", g.node, g.grant.id, g.grant.revision, g.grant.generation));
    }
    if plan.finish {
        lines.push("remove the collector, every nodetracing, and the finalizer".to_owned());
    }
    lines
}

/// What can happen to a cluster between two turns.
#[derive(Clone, Debug)]
enum Happening {
    /// A turn, then collectors and agents answer, and the soak time passes.
    Round,
    Turn,
    Agents,
    Advance(i64),
    Rate(i32),
    Pause(bool),
    Preview(bool),
    Etcd(bool),
    Select(bool),
    Silent(usize, bool),
    Slow(usize, bool),
    Refuses(usize, bool),
    Fails(usize, bool),
    Unhealthy(usize, bool),
    Canary(usize, Option<CanaryEnds>),
    CollectorCheck(Option<CheckEnds>),
    Exporter(bool),
    Secret(bool),
    Kubelets,
    NotReady(usize, bool),
    Drift(usize),
    Replace(usize),
    Leave(usize),
    Join(usize),
    CollectorsStart(bool),
    StartCollectors,
    Delete,
    FallAsleep,
    WakeUp,
}

const NODES: [&str; 4] = ["cp-1", "cp-2", "cp-3", "cp-4"];

fn happening() -> impl Strategy<Value = Happening> {
    let node = 0..NODES.len();
    // What is in the way goes away more often than it comes, or nothing would ever be granted.
    let flag = || (node.clone(), prop::bool::weighted(0.3));
    prop_oneof![
        30 => Just(Happening::Round),
        6 => Just(Happening::Turn),
        4 => Just(Happening::Agents),
        2 => Just(Happening::StartCollectors),
        3 => Just(Happening::Kubelets),
        2 => (1..90_i64).prop_map(Happening::Advance),
        1 => (0..4_i32).prop_map(Happening::Rate),
        1 => prop::bool::weighted(0.2).prop_map(Happening::Pause),
        1 => prop::bool::weighted(0.2).prop_map(Happening::Preview),
        1 => any::<bool>().prop_map(Happening::Etcd),
        1 => any::<bool>().prop_map(Happening::Select),
        1 => flag().prop_map(|(n, f)| Happening::Silent(n, f)),
        2 => flag().prop_map(|(n, f)| Happening::Slow(n, f)),
        1 => flag().prop_map(|(n, f)| Happening::Refuses(n, f)),
        2 => flag().prop_map(|(n, f)| Happening::Fails(n, f)),
        1 => flag().prop_map(|(n, f)| Happening::Unhealthy(n, f)),
        1 => flag().prop_map(|(n, f)| Happening::NotReady(n, f)),
        1 => (node.clone(), canary_ends()).prop_map(|(n, ends)| Happening::Canary(n, ends)),
        1 => check_ends().prop_map(Happening::CollectorCheck),
        2 => any::<bool>().prop_map(Happening::Exporter),
        1 => any::<bool>().prop_map(Happening::Secret),
        1 => node.clone().prop_map(Happening::Drift),
        1 => node.clone().prop_map(Happening::Replace),
        1 => node.clone().prop_map(Happening::Leave),
        1 => node.prop_map(Happening::Join),
        1 => prop::bool::weighted(0.7).prop_map(Happening::CollectorsStart),
        1 => Just(Happening::Delete),
        2 => Just(Happening::FallAsleep),
        2 => Just(Happening::WakeUp),
    ]
}

fn check_ends() -> impl Strategy<Value = Option<CheckEnds>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(CheckEnds::Refused)), 1 => Just(Some(CheckEnds::Never)), 1 => Just(Some(CheckEnds::Evicted))]
}

fn canary_ends() -> impl Strategy<Value = Option<CanaryEnds>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(CanaryEnds::Refused)),
        1 => Just(Some(CanaryEnds::ImageMissing)),
        1 => Just(Some(CanaryEnds::Never)),
        1 => Just(Some(CanaryEnds::Evicted)),
    ]
}

fn mk_drift() -> Drift {
    Drift {
        component: ComponentName::KubeApiserver,
        file: "kube-apiserver.yaml".into(),
        what: Deviation::Content,
        cause: DriftCause::KubeadmRender,
        healed_generation: None,
    }
}

/// Lets it happen. The turn, where it is one, has been checked against what holds for every turn.
fn happen(world: &mut World, happening: &Happening) {
    let machine = |world: &mut World, n: usize, f: &dyn Fn(&mut world::Machine)| {
        if let Some(machine) = world.machines.get_mut(NODES[n]) {
            f(machine);
        }
    };
    match happening {
        Happening::Round => round(world),
        Happening::Turn => checked_turn(world),
        Happening::Agents => world.agents(),
        Happening::Advance(seconds) => world.advance(*seconds),
        Happening::Rate(rate) => world.edit(&json!({ "samplingRatePerMillion": rate })),
        Happening::Pause(paused) => world.edit(&json!({ "rollout": { "paused": paused } })),
        Happening::Preview(on) => world.edit(&json!({ "rollout": { "mode": if *on { "Preview" } else { "Automatic" } } })),
        Happening::Etcd(on) => world.edit(&json!({ "etcd": { "state": if *on { "Enabled" } else { "Disabled" } } })),
        Happening::Select(on) => {
            world.edit(&json!({ "rollout": { "nodeSelector": if *on { json!({ "name": "cp-1" }) } else { Value::Null } } }));
        }
        Happening::Silent(n, on) => machine(world, *n, &|m| m.silent = *on),
        Happening::Slow(n, on) => machine(world, *n, &|m| m.slow = *on),
        Happening::Refuses(n, on) => machine(world, *n, &|m| m.refuses = on.then_some(Reason::Conflict)),
        Happening::Fails(n, on) => machine(world, *n, &|m| m.fails = on.then_some((OutcomeResult::RolledBack, Reason::HealthTimeout))),
        Happening::Unhealthy(n, on) => machine(world, *n, &|m| m.unhealthy = on.then_some(ComponentName::Etcd)),
        Happening::Canary(n, ends) => machine(world, *n, &|m| m.canary = *ends),
        Happening::CollectorCheck(ends) => world.collector_check = *ends,
        Happening::Exporter(on) => {
            let tls = json!({ "certSecretRef": { "name": "client" } });
            let exporter = json!({ "name": "tempo", "endpoint": "tempo:4317", "tls": tls });
            world.edit(&json!({ "collector": { "exporters": if *on { vec![exporter] } else { Vec::new() } } }));
        }
        Happening::Secret(there) => secret(world, "client", there.then_some(Timestamp::MAX)),
        Happening::Kubelets => world.kubelets(),
        Happening::NotReady(n, on) => {
            if let Some(node) = world.nodes.get_mut(NODES[*n]) {
                node.ready = !on;
            }
        }
        Happening::Drift(n) => machine(world, *n, &|m| m.drift(mk_drift())),
        Happening::Replace(n) => {
            world.remove_node(NODES[*n]);
            world.add_node(NODES[*n]);
        }
        Happening::Leave(n) if world.nodes.len() > 1 => {
            world.remove_node(NODES[*n]);
            world.collect_garbage();
        }
        Happening::Leave(_) => {}
        Happening::Join(n) => {
            if !world.nodes.contains_key(NODES[*n]) {
                world.add_node(NODES[*n]);
            }
        }
        Happening::CollectorsStart(start) => world.collectors_start = *start,
        Happening::StartCollectors => world.start_collectors(),
        Happening::Delete => world.delete(),
        Happening::FallAsleep => world.fall_asleep(),
        Happening::WakeUp => {
            world.wake_up();
            assert!(world.in_flight() <= 1, "two nodes in flight, one of them by a controller that slept");
        }
    }
}

fn round(world: &mut World) {
    checked_turn(world);
    world.start_collectors();
    world.kubelets();
    world.agents();
    world.advance(31);
}

/// What holds for every turn, whatever happened before.
fn checked_turn(world: &mut World) {
    let before = world.clone();
    let Some(turn) = world.turn() else { return };
    assert!(world.in_flight() <= 1, "two nodes in flight");
    let Some(plan) = &turn.plan else { return };
    let tries = matches!(plan.report.progress, Progress::Waiting(WaitingOn::Canary { .. }));
    assert!(tries || world.canaries.is_empty() || !plan.targets.is_empty(), "a canary pod is left over");
    let tried_on: BTreeSet<_> = world.canaries.iter().map(|pod| pod.spec.as_ref().unwrap().node_name.clone()).collect();
    assert_eq!(tried_on.len(), world.canaries.len(), "two canary pods on a node");
    if let CollectorPlan::Apply(objects) = &plan.collector {
        let verdict = before.collector.checks.get(&objects.config_map_name);
        let passed = verdict.is_some_and(|verdict| verdict.revision == objects.revision && verdict.refused.is_none());
        assert!(passed || objects.are_in(&before.collector), "a collector that was not tried");
    }
    assert!(world.collector_checks.len() <= 1, "two pods try a collector");
    let Some(grant) = &plan.grant else { return };
    assert_eq!(before.in_flight(), 0, "a grant beside one in flight");
    let generation = before.resource.as_ref().and_then(|r| r.metadata.generation).unwrap_or_default();
    let removing = before.resource.as_ref().is_some_and(|r| r.metadata.deletion_timestamp.is_some());
    for (name, node) in &before.nodes {
        let n = &before.node_tracings[name];
        assert_eq!(n.node_uid, node.uid, "a grant while {name} is somebody else");
        assert!(node.ready, "a grant while {name} is not Ready");
        assert_eq!(n.status.observed_generation, Some(n.generation), "a grant before the agent of {name} answered");
        assert!(n.status.preflight.as_ref().is_some_and(|p| p.verdict != Verdict::Refused), "a grant while {name} refuses");
        let failed = n.status.last_outcome.as_ref().is_some_and(|o| o.generation == generation && o.result != OutcomeResult::Succeeded);
        let waited = n.status.last_outcome.as_ref().is_some_and(|o| before.now.duration_since(o.finished_time.0).as_secs() >= 600);
        let tries = grant.grant.attempt <= 3 && name == &grant.node;
        assert!(!failed || (waited && tries), "a grant after a failure of this generation on {name}");
        assert!(grant.grant.id > n.last_grant(), "a grant's number is larger than every earlier one");
    }
    for node in &plan.report.nodes {
        assert!(matches!(node.canary, Canary::NotNeeded | Canary::Passed), "a grant before {} was tried, or after it refused", node.name);
    }
    let target = &before.node_tracings[&grant.node].target.as_ref().unwrap().settings;
    if target.kube_api_server.state == State::Enabled && target.etcd.state == State::Enabled {
        let verdict = before.node_tracings[&grant.node].canary.as_ref();
        assert!(verdict.is_some_and(|verdict| verdict.refused.is_none()), "a grant of {} without a passed canary", grant.node);
    }
    let spec = &before.resource.as_ref().unwrap().spec;
    assert!(!spec.rollout.paused, "a grant while paused");
    assert!(removing || spec.rollout.mode == RolloutMode::Automatic, "a grant in preview");
    let traced = turn.status.collector.is_some() && plan.report.nodes.iter().any(|n| n.name == grant.node && n.selected);
    assert!(!traced || plan.report.lacking.is_empty(), "a grant before the collector");
    let outcomes = before.node_tracings.values().filter_map(|n| n.status.last_outcome.as_ref());
    let soak = i64::from(spec.rollout.soak_seconds);
    assert!(outcomes.clone().all(|o| before.now.duration_since(o.finished_time.0).as_secs() >= soak), "a grant within the soak time");
}

#[test]
fn a_controller_that_slept_through_its_term_cannot_give_a_second_grant() {
    let mut world = World::new(&NODES[..3], json!({}));
    for _ in 0..10 {
        round(&mut world);
    }
    // The first controller decides on cp-2, and sleeps. Its successor finds cp-1 in need too, and grants that.
    world.machines.get_mut("cp-2").unwrap().carries = None;
    world.agents();
    world.fall_asleep();
    assert_eq!(world.asleep.as_ref().map(|(grant, _)| grant.node.as_str()), Some("cp-2"));
    let machine = world.machines.get_mut("cp-1").unwrap();
    (machine.carries, machine.slow) = (None, true);
    world.agents();
    while world.in_flight() == 0 {
        checked_turn(&mut world);
    }
    world.wake_up();
    let granted: Vec<_> = world.node_tracings.iter().filter(|(_, n)| n.in_flight().is_some()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(granted, ["cp-1"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_turn_breaks_a_rule_and_it_ends_as_requested(happenings in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new(&NODES[..3], json!({}));
        for happening in &happenings {
            happen(&mut world, happening);
        }
        // Everything is mended, and a person edits the spec: what is asked for must come.
        world.collectors_start = true;
        world.collector_check = None;
        secret(&mut world, "client", Some(Timestamp::MAX));
        for (name, machine) in &mut world.machines {
            *machine = world::Machine { carries: machine.carries.clone(), ..world::Machine::default() };
            world.nodes.get_mut(name).unwrap().ready = true;
        }
        world.edit(&json!({ "samplingRatePerMillion": 999_999, "rollout": { "mode": "Automatic", "paused": false, "nodeSelector": null } }));
        for _ in 0..60 {
            round(&mut world);
        }
        let Some(resource) = &world.resource else {
            prop_assert!(world.machines.values().all(|m| m.carries.is_none()), "gone, and a node is still traced");
            return Ok(());
        };
        prop_assert!(resource.metadata.deletion_timestamp.is_none(), "a removal that does not end");
        prop_assert_eq!(kstatus(resource), "Current", "{:?}", resource.status);
        let rates = world.machines.values().map(|m| m.carries.as_ref().map(|c| c.kube_api_server.sampling_rate_per_million));
        prop_assert!(rates.into_iter().all(|rate| rate == Some(999_999)));
        prop_assert!(world.turn().unwrap().is_idle());
    }
}
