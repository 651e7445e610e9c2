//! Plan → `ClusterTracing.status`, in the terms that kstatus (Flux, Helm, `kubectl wait`) reads:
//! `Reconciling` while it goes on by itself, `Stalled` while a person is needed, `Ready` when nothing is left to do; every condition
//! is there from the first visit on, and each carries the generation that it answers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::Plan;
use super::canary::{Canary, Refused};
use super::flow::{Aim, Member};
use super::kubeadm;
use super::observed::Observed;
use super::regression;
use super::report::{Done, NodeReport, Progress, Report, Stand, invalid_message};
use super::validate::{Goal, Invalid, Receiver, Validated};
use crate::api::clustertracing::{CollectorStatus, ComponentSpans, NodeComponentStatus, NodeState, NodeStatus, ReachedSpec};
use crate::api::condition::{NewCondition, merge_conditions};
use crate::api::node_tracing::{ComponentStatus, OutcomeResult, TracingFound};
use crate::api::{ClusterTracing, ClusterTracingStatus, ComponentName, ConditionType, Reason, RolloutMode, State};

/// The status that `plan` makes of what was observed.
pub fn status(v: &Validated, o: &Observed, plan: &Plan, now: Timestamp) -> ClusterTracingStatus {
    let report = &plan.report;
    let mut conditions = summary(report.reason(v.goal), &report.message(v), &report.progress);
    // A drift is why it is not ready; what is waited for before that is put right stands behind it, and in Reconciling.
    if let (Progress::Waiting(_), Some(drifted), Some(ready)) = (&report.progress, report.drifted(), conditions.first_mut()) {
        (ready.reason, ready.message) = (Reason::Drifted, format!("{drifted}; {}", ready.message));
    }
    conditions.extend([
        collector_available(v, o, report),
        traced(v, o, report, ComponentName::KubeApiserver),
        traced(v, o, report, ComponentName::Etcd),
    ]);
    conditions.extend([spans_flowing(v, o), kubeadm::upgrade_safe(v, o, &plan.kubeadm)]);
    let loss = (Aim::new(v) == Aim::Collectors).then_some(o.flow.loss);
    let reached = v.goal == Goal::Trace && matches!(report.progress, Progress::Done(Done::AsRequested | Done::Disabled));
    ClusterTracingStatus {
        history: if reached { history(&o.status.history, v, now) } else { o.status.history.clone() },
        observed_generation: Some(v.generation),
        conditions: merge_conditions(&o.status.conditions, &conditions, v.generation, now),
        revision: Some(v.target(true).revision),
        sampling_rate_per_million: sampling_in_force(v, o, report),
        nodes_ready: Some(format!("{}/{}", report.up_to_date(), report.selected())),
        nodes: report.nodes.iter().map(|n| node_status(v, o, n, now)).collect(),
        collector: v.traces_anything().then(|| CollectorStatus {
            endpoint: v.endpoint(),
            ready_nodes: v
                .wanted_collector()
                .map(|_| i32::try_from(report.selected().saturating_sub(report.lacking.nodes.len())).unwrap_or(i32::MAX)),
            span_loss: loss.map(|loss| loss.state),
            span_loss_per_million: loss.and_then(|loss| loss.per_million),
        }),
    }
}

/// What was reached, with `v` in front. The same spec again is not news.
fn history(before: &[ReachedSpec], v: &Validated, now: Timestamp) -> Vec<ReachedSpec> {
    if before.first().is_some_and(|last| last.spec == v.kept) {
        return before.to_vec();
    }
    let reached = ReachedSpec { generation: v.generation, time: Time(now), spec: v.kept.clone() };
    std::iter::once(reached).chain(before.iter().take(HISTORY - 1).cloned()).collect()
}

/// Specs that are kept: this one, and the one to go back to.
const HISTORY: usize = 2;

/// The status of a spec that cannot be used: what was in force stays told, and the rest is not known.
pub fn invalid_status(resource: &ClusterTracing, invalid: &Invalid, now: Timestamp) -> ClusterTracingStatus {
    let generation = resource.metadata.generation.unwrap_or_default();
    let old = resource.status.clone().unwrap_or_default();
    let stalled = super::report::Stalled::Invalid(invalid.clone());
    let reason = stalled.reason();
    let message = invalid_message(invalid);
    let mut conditions = summary(reason, &message, &Progress::Stalled(stalled));
    let unknown = |condition| NewCondition { condition, status: None, reason, message: message.clone() };
    let others = [
        ConditionType::CollectorAvailable,
        ConditionType::KubeAPIServerTraced,
        ConditionType::EtcdTraced,
        ConditionType::SpansFlowing,
        ConditionType::UpgradeSafe,
    ];
    conditions.extend(others.map(unknown));
    ClusterTracingStatus {
        observed_generation: Some(generation),
        conditions: merge_conditions(&old.conditions, &conditions, generation, now),
        ..old
    }
}

/// Ready, and while true Reconciling or Stalled.
fn summary(reason: Reason, message: &str, progress: &Progress) -> Vec<NewCondition> {
    let condition = |condition, status| NewCondition { condition, status: Some(status), reason, message: message.to_owned() };
    let ready = matches!(progress, Progress::Done(Done::AsRequested | Done::Disabled));
    let mut conditions = vec![condition(ConditionType::Ready, ready)];
    match progress {
        Progress::Done(_) => {}
        Progress::Waiting(_) => conditions.push(condition(ConditionType::Reconciling, true)),
        Progress::Stalled(_) => conditions.push(condition(ConditionType::Stalled, true)),
    }
    conditions
}

fn collector_available(v: &Validated, o: &Observed, report: &Report) -> NewCondition {
    let lacking = &report.lacking;
    let (status, reason, message) = match (&v.receiver, v.wanted_collector()) {
        (Receiver::External(endpoint), _) if v.traces_anything() => {
            (None, Reason::ExternalEndpoint, format!("spans go to {endpoint}, which the operator does not watch"))
        }
        (_, None) => (Some(false), Reason::Disabled, "nothing is to be traced, so that no collector is needed".to_owned()),
        (_, Some(_)) if let Some(trouble) = report.secret.as_ref().filter(|_| lacking.is_empty() || report.earlier_collector) => {
            let message = format!("a collector takes spans on every selected node; {}", trouble.message(&v.installation.namespace));
            (Some(true), trouble.reason(), message)
        }
        (_, Some(_)) if lacking.is_empty() => {
            (Some(true), Reason::CollectorReady, format!("a collector takes spans on {} on every selected node", v.endpoint()))
        }
        (_, Some(_)) if report.earlier_collector => {
            let message = "a collector of the configuration before takes spans on every selected node; it is not replaced yet";
            (Some(true), Reason::CollectorReady, message.to_owned())
        }
        (_, Some(_)) if v.rollout.mode == RolloutMode::Preview => {
            (Some(false), Reason::Preview, format!("preview: no collector of this configuration {lacking}"))
        }
        (_, Some(_)) => {
            let of_nodes = lacking.nodes.iter().filter_map(|node| Some(format!("; {node}: {}", o.collector.words.get(node)?)));
            let of_gateway = o.collector.gateway.words.iter().filter(|_| lacking.gateway).map(|words| format!("; gateway: {words}"));
            let told: String = of_nodes.chain(of_gateway).collect();
            (Some(false), Reason::WaitingForCollector, format!("no Ready collector {lacking}{told}"))
        }
    };
    NewCondition { condition: ConditionType::CollectorAvailable, status, reason, message }
}

fn traced(v: &Validated, o: &Observed, report: &Report, component: ComponentName) -> NewCondition {
    let (condition, state) = match component {
        ComponentName::KubeApiserver => (ConditionType::KubeAPIServerTraced, v.kube_api_server.state),
        ComponentName::Etcd => (ConditionType::EtcdTraced, v.etcd.state),
    };
    let wanted = state == State::Enabled && v.goal == Goal::Trace;
    let is_absent = |n: &NodeReport| found(o, &n.name, component).is_some_and(|c| c.tracing == TracingFound::Absent);
    let elsewhere = component == ComponentName::Etcd && !report.nodes.is_empty() && report.nodes.iter().all(is_absent);
    let (status, reason, message) = if wanted && elsewhere {
        let message = "no control-plane node runs etcd as a static pod: it is not traced, and how it does is not seen before a change";
        (Some(false), Reason::ExternalEtcd, message.to_owned())
    } else if wanted {
        let selected: Vec<_> = report.nodes.iter().filter(|n| n.selected).collect();
        let as_requested = selected.iter().filter(|n| carries(o, n, component)).count();
        let known = selected.iter().any(|n| found(o, &n.name, component).is_some());
        let message = format!("{component} runs with the requested settings on {as_requested} of {} nodes", selected.len());
        if as_requested == selected.len() && known {
            (Some(true), Reason::AsRequested, message)
        } else {
            (known.then_some(false), report.reason(v.goal), message)
        }
    } else {
        let ours = |n: &&NodeReport| found(o, &n.name, component).is_some_and(|c| c.tracing == TracingFound::Ours);
        let left: Vec<_> = report.nodes.iter().filter(ours).map(|n| n.name.as_str()).collect();
        if left.is_empty() {
            (Some(false), Reason::Disabled, format!("tracing of {component} is switched off"))
        } else {
            (Some(false), report.reason(v.goal), format!("tracing of {component} is switched off, and still set on {}", left.join(", ")))
        }
    };
    NewCondition { condition, status, reason, message }
}

/// Whether a component of a node runs with the requested settings: the node does, or its pending change leaves the component alone.
fn carries(o: &Observed, node: &NodeReport, component: ComponentName) -> bool {
    let ours = found(o, &node.name, component).is_some_and(|c| c.tracing == TracingFound::Ours && c.healthy);
    ours && match &node.stand {
        Stand::UpToDate => true,
        Stand::Unhealthy { component: unhealthy } => *unhealthy != component,
        Stand::Pending { changes } => !changes.contains(&component),
        _ => false,
    }
}

fn found<'a>(o: &'a Observed, node: &str, component: ComponentName) -> Option<&'a ComponentStatus> {
    o.node_tracings.get(node)?.status.components.iter().find(|c| c.name == component)
}

fn spans_flowing(v: &Validated, o: &Observed) -> NewCondition {
    let flow = || (o.flow.status, o.flow.reason, o.flow.message.clone());
    let (status, reason, message) = Aim::new(v).answer().unwrap_or_else(flow);
    NewCondition { condition: ConditionType::SpansFlowing, status, reason, message }
}

fn component_spans(v: &Validated, o: &Observed, node: &str, component: ComponentName) -> Option<ComponentSpans> {
    let member = Member { component, node: node.to_owned() };
    let flow = o.flow.members.get(&member).filter(|_| Aim::new(v) == Aim::Collectors)?;
    Some(ComponentSpans { state: flow.state, reason: flow.reason, since: Time(flow.since) })
}

/// The rate that every selected node's API server runs with. Before the first node of a new rate changes, the old one is still in force.
fn sampling_in_force(v: &Validated, o: &Observed, report: &Report) -> Option<i32> {
    let selected: Vec<_> = report.nodes.iter().filter(|n| n.selected).collect();
    let traced = |n: &&NodeReport| found(o, &n.name, ComponentName::KubeApiserver).is_some_and(|c| c.tracing == TracingFound::Ours);
    if selected.is_empty() || !selected.iter().all(traced) {
        return None;
    }
    let wanted = v.goal == Goal::Trace && v.kube_api_server.state == State::Enabled;
    if wanted && selected.iter().all(|n| carries(o, n, ComponentName::KubeApiserver)) {
        return Some(v.kube_api_server.sampling_rate_per_million);
    }
    let untouched = |n: &&NodeReport| matches!(n.stand, Stand::Unanswered { .. } | Stand::Pending { .. } | Stand::Refused { .. });
    o.status.sampling_rate_per_million.filter(|_| selected.iter().all(untouched))
}

fn node_status(v: &Validated, o: &Observed, node: &NodeReport, now: Timestamp) -> NodeStatus {
    let before = o.status.nodes.iter().find(|n| n.name == node.name);
    let reported = o.node_tracings.get(&node.name).map(|n| &n.status);
    let succeeded = reported.and_then(|s| s.last_outcome.as_ref()).filter(|o| o.result == OutcomeResult::Succeeded);
    let component = |name| {
        found(o, &node.name, name).map(|c| NodeComponentStatus {
            version: c.version.clone(),
            tracing: c.tracing,
            healthy: c.healthy,
            spans: component_spans(v, o, &node.name, name),
        })
    };
    let (state, message) = node_state(node);
    let missing = o.node_tracings.get(&node.name).is_some_and(|n| regression::is_missing(n, v.generation, now));
    // What its agent warns of, where there is nothing of more weight to say.
    let message = match (state, missing) {
        (NodeState::UpToDate, true) => {
            "kube-apiserver could not be measured before and after the change, so that they are not compared".to_owned()
        }
        (NodeState::UpToDate, false) => reported.and_then(|s| s.preflight.as_ref()).map(|p| p.message.clone()).unwrap_or_default(),
        _ => message,
    };
    NodeStatus {
        name: node.name.clone(),
        revision: reported.and_then(|s| s.current_revision.clone()),
        state,
        kube_api_server: component(ComponentName::KubeApiserver),
        etcd: component(ComponentName::Etcd),
        changed_time: succeeded.map(|o| o.finished_time.clone()).or_else(|| before.and_then(|n| n.changed_time.clone())),
        drift: node.drift.clone(),
        message,
    }
}

fn node_state(node: &NodeReport) -> (NodeState, String) {
    if let Canary::Refused(Refused { component, words }) = &node.canary {
        return (NodeState::Refused, format!("{}: {component}: {words}", Reason::CanaryRefused));
    }
    match &node.stand {
        Stand::UpToDate => (NodeState::UpToDate, String::new()),
        Stand::Unanswered { silent: true } => (NodeState::Unknown, "no agent answers".to_owned()),
        Stand::Unanswered { silent: false } => (NodeState::Pending, "its agent checks the settings".to_owned()),
        Stand::Pending { changes } => {
            let changes: Vec<_> = changes.iter().map(|c| c.as_str()).collect();
            let restarts =
                if changes.is_empty() { "would restart nothing".to_owned() } else { format!("would restart {}", changes.join(", ")) };
            match node.drifted() {
                Some(drifted) => (NodeState::Drifted, format!("{drifted}; putting it right {restarts}")),
                None => (NodeState::Pending, restarts),
            }
        }
        Stand::InFlight { overdue: true, .. } => (NodeState::Unknown, "has not reported how its change ended".to_owned()),
        Stand::InFlight { blocked: Some(blocker), .. } => (NodeState::Pending, format!("{}: {}", blocker.reason, blocker.message)),
        Stand::InFlight { .. } => (NodeState::Changing, "carries out its change".to_owned()),
        Stand::Settling => (NodeState::Changing, "the manifests match, the running processes do not yet".to_owned()),
        Stand::Regressed { .. } => {
            (NodeState::Unhealthy, "kube-apiserver needs much more memory or time than before the change".to_owned())
        }
        Stand::Unhealthy { component } => (NodeState::Unhealthy, format!("{component} does not answer its probes")),
        Stand::Refused { reason, message } | Stand::Failed { result: OutcomeResult::Refused, reason, message, .. } => {
            (NodeState::Refused, format!("{reason}: {message}"))
        }
        Stand::Failed { result: OutcomeResult::Failed, reason, message, .. } => (NodeState::Failed, format!("{reason}: {message}")),
        Stand::Failed { reason, message, .. } => (NodeState::RolledBack, format!("{reason}: {message}")),
    }
}
