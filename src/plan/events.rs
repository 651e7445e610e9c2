//! Which Events a turn publishes: one for each transition, found by comparing the status before with the status after.
//!
//! Reason codes are those of conditions. An Event that tells of a write (a grant, the end of a removal) is published before it.

use super::Plan;
use super::report::{Done, Progress};
use crate::api::clustertracing::{NodeState, NodeStatus};
use crate::api::{ClusterTracingStatus, ConditionType, Reason};

/// An Event on the `ClusterTracing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Whether a person should look.
    pub warning: bool,
    /// The reason code.
    pub reason: Reason,
    /// What the controller did or does, in one word.
    pub action: &'static str,
    /// For people.
    pub note: String,
    /// The node that it is about.
    pub node: Option<String>,
}

/// Events that tell of what `plan` is about to write.
pub fn before_apply(plan: &Plan) -> Vec<NewEvent> {
    let grant = plan.grant.as_ref().map(|g| {
        let downtime = if g.interrupts_the_api { "; the API is away while its components restart" } else { "" };
        NewEvent {
            warning: g.interrupts_the_api,
            reason: Reason::NodeGranted,
            action: "Grant",
            note: format!("node {} is changed now{downtime}", g.node),
            node: Some(g.node.clone()),
        }
    });
    let finish = match &plan.report.progress {
        Progress::Done(done @ (Done::Restored | Done::Released)) if plan.finish => Some(NewEvent {
            warning: *done == Done::Released,
            reason: done.reason(),
            action: "Remove",
            note: match done {
                Done::Released => "let go without restoring the nodes: what stands in their manifests stays".to_owned(),
                _ => "every node has its original manifests back; the resource is let go".to_owned(),
            },
            node: None,
        }),
        _ => None,
    };
    grant.into_iter().chain(finish).collect()
}

/// The API server did not take a node's canary pod.
pub fn canary_not_made(node: &str, cause: &impl std::fmt::Display) -> NewEvent {
    NewEvent {
        warning: true,
        reason: Reason::WaitingForCanary,
        action: "Try",
        note: format!(
            "node {node}: the pod in which a change is tried first cannot be made: {cause}; allow it, or do without: start the controller with --canary=Disabled"
        ),
        node: Some(node.to_owned()),
    }
}

/// Events that tell of what changed from `old` to `new`. `node` is the one that the new status is about, if it is about one.
pub fn transitions(old: &ClusterTracingStatus, new: &ClusterTracingStatus, node: Option<&str>) -> Vec<NewEvent> {
    let mut events = nodes_changed(old, new);
    events.extend(nodes_drifted(old, new));
    events.extend(secret_trouble(old, new));
    events.extend(spans_changed(old, new));
    events.extend(condition_changed(old, new, node));
    events
}

fn nodes_changed(old: &ClusterTracingStatus, new: &ClusterTracingStatus) -> Vec<NewEvent> {
    let before = |name: &str| old.nodes.iter().find(|n| n.name == name).and_then(|n| n.changed_time.as_ref());
    new.nodes
        .iter()
        .filter(|n| n.changed_time.is_some() && n.changed_time.as_ref() != before(&n.name))
        .map(|n| NewEvent {
            warning: false,
            reason: Reason::NodeChanged,
            action: "Verify",
            note: {
                let warnings =
                    if n.message.is_empty() || n.state != NodeState::UpToDate { String::new() } else { format!("; {}", n.message) };
                let ready = new.nodes_ready.as_deref().unwrap_or("?");
                format!("node {} is changed and verified ({ready} nodes are ready){warnings}", n.name)
            },
            node: Some(n.name.clone()),
        })
        .collect()
}

/// One for each drift, however long it takes until it is put right.
fn nodes_drifted(old: &ClusterTracingStatus, new: &ClusterTracingStatus) -> Vec<NewEvent> {
    let before = |name: &str| old.nodes.iter().find(|n| n.name == name).map(|n| n.drift.as_slice()).unwrap_or_default();
    let event = |node: &NodeStatus| {
        let known = before(&node.name);
        let news: Vec<_> = node.drift.iter().filter(|d| !known.iter().any(|k| k.is_of(d))).map(ToString::to_string).collect();
        (!news.is_empty()).then(|| NewEvent {
            warning: true,
            reason: Reason::Drifted,
            action: "Check",
            note: format!("node {}: {}", node.name, news.join(", ")),
            node: Some(node.name.clone()),
        })
    };
    new.nodes.iter().filter_map(event).collect()
}

/// What is wrong with a Secret of a collector that runs makes nothing wait, and would not be seen in Ready. Where it does, Stalled tells it.
fn secret_trouble(old: &ClusterTracingStatus, new: &ClusterTracingStatus) -> Option<NewEvent> {
    let told = |status: &ClusterTracingStatus| {
        let condition = status.conditions.iter().find(|c| c.type_ == ConditionType::CollectorAvailable.as_str())?;
        let reasons = [Reason::SecretMissing, Reason::SecretInvalid, Reason::CertificateExpired, Reason::CertificateExpiring];
        let reason = reasons.into_iter().find(|r| r.as_str() == condition.reason)?;
        Some((reason, condition.message.clone()))
    };
    let stalled = new.conditions.iter().any(|c| c.type_ == ConditionType::Stalled.as_str());
    let (reason, note) = told(new).filter(|now| !stalled && told(old).as_ref() != Some(now))?;
    Some(NewEvent { warning: true, reason, action: "Check", note, node: None })
}

/// A break of spans, another place where they end, and that they flow, at first or again.
fn spans_changed(old: &ClusterTracingStatus, new: &ClusterTracingStatus) -> Option<NewEvent> {
    let of = |status: &ClusterTracingStatus| status.conditions.iter().find(|c| c.type_ == ConditionType::SpansFlowing.as_str()).cloned();
    let is_broken = |status: &str, reason: &str| status == "False" && reason != Reason::Disabled.as_str();
    let now = of(new)?;
    let before = of(old);
    let was_broken = before.as_ref().is_some_and(|c| is_broken(&c.status, &c.reason));
    let warning = is_broken(&now.status, &now.reason);
    let news = match &before {
        Some(before) if warning => !was_broken || before.reason != now.reason,
        Some(before) => now.status == "True" && before.status != "True",
        None => warning,
    };
    let reason = now.reason.parse().ok()?;
    news.then_some(NewEvent { warning, reason, action: "Prove", note: now.message, node: None })
}

fn condition_changed(old: &ClusterTracingStatus, new: &ClusterTracingStatus, node: Option<&str>) -> Option<NewEvent> {
    let of = |status: &ClusterTracingStatus, wanted: ConditionType| {
        let condition = status.conditions.iter().find(|c| c.type_ == wanted.as_str() && c.status == "True");
        condition.map(|c| (c.reason.clone(), c.message.clone()))
    };
    let (action, warning, told) = if let Some(stalled) = of(new, ConditionType::Stalled) {
        // The message is part of the transition: another node, or another cause, is news.
        let news = of(old, ConditionType::Stalled).as_ref() != Some(&stalled);
        ("Stall", stalled.0 != Reason::Preview.as_str(), news.then_some(stalled)?)
    } else if let Some(waiting) = of(new, ConditionType::Reconciling) {
        // A grant has an Event of its own, and what follows it says the same.
        let own = [Reason::RollingOut, Reason::Removing, Reason::WaitingForNode].iter().any(|r| r.as_str() == waiting.0);
        let news = of(old, ConditionType::Reconciling).is_none_or(|before| before.0 != waiting.0) && !own;
        // It goes on by itself, and a person had better look all the same.
        let warning = [Reason::RetryBackOff, Reason::NodeOverdue].iter().any(|r| r.as_str() == waiting.0);
        ("Wait", warning, news.then_some(waiting)?)
    } else {
        let ready = of(new, ConditionType::Ready)?;
        let news = of(old, ConditionType::Ready).is_none_or(|before| before.0 != ready.0);
        ("Verify", false, news.then_some(ready)?)
    };
    let reason = told.0.parse().ok()?;
    Some(NewEvent { warning, reason, action, note: told.1, node: node.map(str::to_owned) })
}
