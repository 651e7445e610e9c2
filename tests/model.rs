//! A model of the whole rollout: every order in which controllers, agents, kubelets, machines and people can act on 1 or 3 control-plane
//! nodes is tried (`stateright`), with crashes and delays at every step. The decisions are the product's own: [`clustertracing::plan::plan`]
//! is each controller's, `agent::check` and `agent::machine` are each agent's.
//!
//! | pretended | as |
//! | --- | --- |
//! | `resourceVersion` | whether the object was written since it was read |
//! | a manifest | the name of its settings; `agent::check::check`, which edits YAML, is replaced by a comparison of names |
//! | time | stands still, but for a flight's budgets: each may run out |
//! | rounds of probes, the wait until the kubelet has let go of a pod | one step |
//! | the watchdog | the agent that is started again: it does the same, from the same journal |
//! | the collector | somebody else's: `collector.mode: External` |
//!
//! Not here: failing writes to disk and half-written files (`tests/agent`), Nodes that come and go, Preview, pauses, foreign manifests
//! (`tests/plans`), reports in the middle of a flight, the status of the `ClusterTracing`.

#[path = "model/hashed.rs"]
mod hashed;
#[path = "model/node.rs"]
mod node;
#[path = "model/rollout.rs"]
mod rollout;

use stateright::{Checker, Model, Property};

use node::{COMPONENTS, Node, UNTOUCHED};
use rollout::{Action, Cluster, Rollout};

/// What holds in every state, and what must be reached at all for that to mean something.
fn properties() -> Vec<Property<Rollout>> {
    vec![
        Property::always("at most one node is changed at a time", |_, c: &Cluster| c.nodes.iter().filter(|n| n.is_changing()).count() <= 1),
        Property::always("at most one grant has no outcome", |_, c: &Cluster| c.granted() <= 1),
        Property::always("at most one member is away through us", |_, c: &Cluster| {
            c.nodes.iter().filter(|n| n.up && !is_whole(n)).count() <= 1
        }),
        Property::always("the API is served while every machine runs", |model: &Rollout, c: &Cluster| {
            model.nodes < 3 || c.has_api() || c.nodes.iter().any(|n| !n.up)
        }),
        Property::always("a manifest is the old one or the new one, or away in a change that the journal knows", |_, c: &Cluster| {
            c.flights().all(|(node, flight)| holds_old_or_new(node, flight))
                && c.nodes.iter().all(|node| node.flight().is_some() || node.manifests.iter().all(Option::is_some))
        }),
        Property::always("no grant follows a failure of its generation", |_, c: &Cluster| !c.granted_after_failure),
        Property::always("what comes to rest is at its target, or has stopped the line", |model: &Rollout, c: &Cluster| {
            is_stable(c) || !model.is_at_rest(c)
        }),
        Property::sometimes("every node carries the settings", |_, c: &Cluster| c.resource.is_some() && is_at_target(c)),
        Property::sometimes("the line has stopped", |model: &Rollout, c: &Cluster| {
            model.all_is_well() || c.has_stopped() && model.is_at_rest(c)
        }),
    ]
}

/// Both components answer.
fn is_whole(node: &Node) -> bool {
    (0..COMPONENTS.len()).all(|component| node.serves(component))
}

fn holds_old_or_new(node: &Node, flight: &clustertracing::agent::machine::Flight) -> bool {
    flight.swaps.iter().all(|swap| {
        let index = COMPONENTS.iter().position(|c| *c == swap.component);
        index.is_some_and(|index| node.manifests[index].as_ref().is_none_or(|held| [&swap.before.text, &swap.after.text].contains(&held)))
    })
}

fn is_at_target(c: &Cluster) -> bool {
    c.target().is_some_and(|target| c.nodes.iter().all(|node| node.carries(&target) && node.is_well()))
}

/// Where a rollout may stay: nothing under way, and the target reached, or a person is told why not.
fn is_stable(c: &Cluster) -> bool {
    let let_go =
        c.resource.is_none() && c.nodes.iter().all(|node| node.manifests.iter().all(|manifest| manifest.as_deref() == Some(UNTOUCHED)));
    c.agents_watch() && c.granted() == 0 && (let_go || is_at_target(c) || c.has_stopped())
}

fn check(model: Rollout) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} steps, depth {}", checker.unique_state_count(), checker.state_count(), checker.max_depth());
    checker.assert_properties();
}

#[test]
fn three_nodes_with_one_misfortune() {
    check(Rollout::new(3, 0, 1));
}

#[test]
fn three_nodes_with_one_edit() {
    check(Rollout::new(3, 1, 0));
}

/// What the fence of a term is for ([`clustertracing::plan::observed::ANNOTATION_TERM`]): a leader has decided on one node and sleeps, another
/// node comes to need a change first, and the next leader grants that. Without the fence the first one's grant still fits its object.
#[test]
fn two_nodes_with_a_leader_that_sleeps_and_a_node_that_drifts() {
    check(Rollout::new(2, 0, 2).of_kinds(|cluster, action| match action {
        Action::Sleep => cluster.is_about_to_grant(),
        Action::Drift(0) => cluster.sleeper.is_some(),
        _ => false,
    }));
}

#[test]
fn one_node_with_edits_and_misfortunes() {
    check(Rollout::new(1, 1, 1));
}

#[test]
#[ignore = "deep: make model"]
fn three_nodes_with_edits_and_misfortunes() {
    check(Rollout::new(3, 1, 1));
}
