//! The planner, turn by turn: each `tests/plans/<case>.yaml` is played, and what the controller did and told must equal `<case>.out`.
//! `UPDATE_GOLDEN=1 cargo test --test plans` writes the `.out` files anew. Every case ends with «no further change».

#[path = "plans/world.rs"]
mod world;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clustertracing::api::node_tracing::OutcomeResult;
use clustertracing::api::{ComponentName, Reason};
use clustertracing::plan::CollectorPlan;
use clustertracing::plan::events::NewEvent;
use serde::Deserialize;
use serde_json::Value;
use world::{Turn, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    #[serde(default)]
    spec: Option<Value>,
    nodes: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
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
    /// A hundred turns, five minutes apart, write nothing.
    Idle,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineStep {
    name: String,
    #[serde(default)]
    silent: Option<bool>,
    #[serde(default)]
    slow: Option<bool>,
    #[serde(default)]
    refuses: Option<Option<Reason>>,
    #[serde(default, deserialize_with = "present")]
    fails: Option<Option<(OutcomeResult, Reason)>>,
    #[serde(default, deserialize_with = "present")]
    unhealthy: Option<Option<ComponentName>>,
    /// Somebody takes our flags out of the manifests.
    #[serde(default)]
    drift: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeStep {
    name: String,
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    label: Option<(String, String)>,
}

/// Tells `field: null` from a field that is not there.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

#[test]
fn scripts_give_their_golden_reports() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    cases.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    cases.sort();
    assert!(cases.len() >= 10, "found {} cases in {}", cases.len(), dir.display());
    let different: Vec<_> = cases.iter().filter(|case| !golden(&case.with_extension("out"), &play(case))).collect();
    assert!(different.is_empty(), "different from their .out (UPDATE_GOLDEN=1 writes them anew): {different:#?}");
}

/// Compares with a golden file, showing the difference; or writes it.
fn golden(path: &Path, text: &str) -> bool {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, text).unwrap();
        return true;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected != text {
        let diff = similar::TextDiff::from_lines(&expected, text);
        println!("{}", diff.unified_diff().header(&path.display().to_string(), "now"));
    }
    expected == text
}

fn play(path: &Path) -> String {
    let value: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    // Through JSON, whose enums are maps.
    let case: Case = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let nodes: Vec<_> = case.nodes.iter().map(String::as_str).collect();
    let mut world = World::new(&nodes, case.spec.unwrap_or_else(|| serde_json::json!({})));
    let mut out = format!("# {}\n", case.about.trim());
    for (step, text) in case.steps.iter().zip(value["steps"].as_array().unwrap()) {
        writeln!(out, "\n== {}", text.as_str().map_or_else(|| text.to_string(), str::to_owned)).unwrap();
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
            machine.fails = m.fails.unwrap_or(machine.fails);
            machine.unhealthy = m.unhealthy.unwrap_or(machine.unhealthy);
            if m.drift {
                machine.carries = None;
            }
        }
        Step::Node(n) => {
            let node = world.nodes.get_mut(&n.name).unwrap();
            node.ready = n.ready.unwrap_or(node.ready);
            node.labels.extend(n.label.clone());
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
        Step::Idle => {
            for _ in 0..100 {
                world.advance(300);
                world.agents();
                assert!(world.turn().unwrap().is_idle(), "something was written where nothing changed");
            }
            out.push_str("100 turns wrote nothing\n");
        }
    }
}

fn run(world: &mut World, out: &mut String) {
    for _ in 0..200 {
        let turn = world.turn();
        let wait = turn.as_ref().and_then(|t| t.plan.as_ref()).map(|p| p.next_check);
        let idle = turn.as_ref().is_none_or(Turn::is_idle);
        if !idle {
            show(turn, world, out);
        }
        let before = (world.node_tracings.clone(), world.collector.clone());
        world.start_collectors();
        world.agents();
        // A wait for a certain time ends; others need somebody.
        let timed = wait.filter(|w| w.as_secs() < 300);
        if idle && before == (world.node_tracings.clone(), world.collector.clone()) {
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
    match &plan.collector {
        CollectorPlan::Keep => {}
        CollectorPlan::Apply(objects) => lines.push(format!("collector {}", objects.config_map_name)),
        CollectorPlan::Prune(names) => lines.push(format!("remove configmap {}", names.join(", "))),
        CollectorPlan::Remove => lines.push("remove the collector".to_owned()),
    }
    if let Some(g) = &plan.grant {
        lines.push(format!("nodetracing {} grant {} for {} generation {}", g.node, g.grant.id, g.grant.revision, g.grant.generation));
    }
    if plan.finish {
        lines.push("remove the collector, every nodetracing, and the finalizer".to_owned());
    }
    lines
}
