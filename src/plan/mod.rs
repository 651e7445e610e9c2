//! What to do about a `ClusterTracing`: a pure function of what is asked for, what is there, and the time.
//!
//! [`plan`] gives data, not actions: which targets to write, at most one grant, what becomes of the collector, and a [`Report`] of why.
//! Everything that is asked again later gives the same answer, so a controller that dies between two writes loses nothing: the next one
//! plans from what was written.
//!
//! Pure: no client, no clock, no environment. Called by the controller, and by tests turn by turn.

pub mod canary;
pub mod collector;
pub mod collector_check;
pub mod events;
pub mod flow;
pub mod kubeadm;
mod object;
pub mod observed;
pub mod quorum;
pub mod regression;
pub mod report;
pub mod retry;
pub mod rollout;
pub mod secret;
pub mod status;
pub mod validate;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{Grant, Reason, RolloutMode, Target};
use canary::CanaryPlan;
use collector::{CollectorObjects, Lacking};
use collector_check::{Check, CheckPlan};
use kubeadm::Keeping;
use observed::{Observed, ObservedNode};
use report::{Done, NodeReport, Progress, Report, Stalled, Stand, WaitingOn};
use rollout::Situation;
use validate::{Goal, Validated};

/// Watches tell what changes; this is for what they miss.
const RESYNC: Duration = Duration::from_mins(1);
/// Something changes within seconds, and its watch may have gone down with the API server that is being restarted.
const SOON: Duration = Duration::from_secs(2);
/// Something that no one can say when it changes.
const LATER: Duration = Duration::from_secs(30);

/// What to write, and why. Everything that is absent stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Put the finalizer on, before anything else is written.
    pub add_finalizer: bool,
    /// `NodeTracing`s whose node is gone or was replaced under its name: name and UID.
    pub orphans: Vec<(String, String)>,
    /// `NodeTracing`s to make, or to give another target.
    pub targets: Vec<TargetPlan>,
    /// The collector's objects.
    pub collector: CollectorPlan,
    /// The pod in which a new collector is tried, and its verdict.
    pub collector_check: CheckPlan,
    /// Canary pods, and their verdicts.
    pub canaries: CanaryPlan,
    /// What becomes of kubeadm's own configuration. It is written before a grant: see [`kubeadm`].
    pub kubeadm: Keeping,
    /// The one grant.
    pub grant: Option<GrantPlan>,
    /// The resource is being deleted and nothing is left to wait for: remove the collector, every `NodeTracing`, and the finalizer.
    pub finish: bool,
    /// Why.
    pub report: Report,
    /// When to look again, if nothing is heard before.
    pub next_check: Duration,
}

/// A `NodeTracing` to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    /// Node, and the object's name.
    pub node: String,
    /// UID of the Node.
    pub node_uid: String,
    /// `spec.target`.
    pub target: Target,
    /// [`observed::ANNOTATION_TERM`].
    pub term: String,
}

/// What becomes of the collector.
#[derive(Clone, Debug, PartialEq)]
pub enum CollectorPlan {
    /// Nothing.
    Keep,
    /// Make it so.
    Apply(Box<CollectorObjects>),
    /// Remove what only earlier configurations needed.
    Prune {
        /// Names of `ConfigMap`s.
        config_maps: Vec<String>,
        /// The gateway.
        gateway: bool,
    },
    /// Remove everything.
    Remove,
}

/// A grant to give, by compare-and-swap on the `NodeTracing` that was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantPlan {
    /// Node, and the object's name.
    pub node: String,
    /// The grant.
    pub grant: Grant,
    /// Whether the API is away while the node changes.
    pub interrupts_the_api: bool,
}

impl Plan {
    /// Whether nothing is to be written.
    pub fn is_idle(&self) -> bool {
        !self.add_finalizer
            && self.orphans.is_empty()
            && self.targets.is_empty()
            && self.collector == CollectorPlan::Keep
            && self.collector_check.is_idle()
            && self.canaries.is_idle()
            && self.kubeadm.text().is_none()
            && self.grant.is_none()
            && !self.finish
    }
}

/// Decides what to do.
///
/// # Guarantees
/// - At most one grant, and none while any node has one without an outcome, or after one of this generation that did not succeed.
/// - No grant before every `NodeTracing` carries this term's name, so that an earlier leader can give none beside it.
/// - No grant before every agent has checked its target, and none while any of them refuses.
/// - No grant before what it starts has been tried on the node, and on every other one that is to change, and none while one of them refuses.
/// - No canary pod is left where none is waited for.
/// - No collector that its own program has not found well in a pod, or whose Secrets are known to be missing.
/// - No collector on a port that an agent has not found free, or its own.
/// - No grant of a node that sends to the node collector before a collector of the wanted configuration is Ready on every selected node,
///   and the gateway, where there is to be one.
/// - Applied to its own effect, a plan of the same time is idle, or the next step of the same rollout.
pub fn plan(v: &Validated, o: &Observed, now: Timestamp) -> Plan {
    let nodes: Vec<_> = o.nodes.iter().map(|(name, node)| node_report(v, o, name, node, now)).collect();
    let wanted = v.wanted_collector().map(|c| collector::render(v, c, &o.secrets));
    let selected = nodes.iter().filter(|n| n.selected).map(|n| n.name.clone());
    let lacking = wanted.as_ref().map(|w| w.lacking(&o.collector, selected)).unwrap_or_default();
    let earlier_collector = wanted
        .as_ref()
        .is_some_and(|w| !w.are_in(&o.collector) && nodes.iter().filter(|n| n.selected).all(|n| o.collector.ready.contains_key(&n.name)));
    let check = collector_check::stand(v, o, &nodes, wanted.as_ref(), now);
    let situation = Situation { validated: v, observed: o, nodes: &nodes, lacking: &lacking, check: &check, now };
    let progress = rollout::decide(&situation);
    let finish = matches!(progress, Progress::Done(Done::Restored | Done::Released));
    // Not even an agent is asked where another platform renders the manifests.
    let elsewhere = matches!(progress, Progress::Stalled(Stalled::Platform { .. } | Stalled::NoNodes { platform: Some(_), .. }));
    let targets = if finish || elsewhere { Vec::new() } else { targets(v, o) };
    // The fence of this term comes before its first grant.
    let canaries = if targets.is_empty() { canary::plan(v, o, &nodes, &progress, now) } else { CanaryPlan::default() };
    let grant = if targets.is_empty() { grant(&situation, &progress) } else { None };
    let wanted = wanted.filter(|_| !finish && !elsewhere);
    let collector_check = collector_check::plan(v, o, wanted.as_ref(), &check, now);
    let collector = if finish || elsewhere { CollectorPlan::Keep } else { collector_plan(v, o, &nodes, wanted, &check, &lacking) };
    Plan {
        add_finalizer: v.goal == Goal::Trace && !v.has_finalizer && !elsewhere,
        orphans: orphans(o),
        targets,
        collector,
        collector_check,
        kubeadm: kubeadm::keeping(v, o, &nodes, &progress),
        next_check: next_check(&progress, now).min(end_of_boost(v, now)),
        canaries,
        grant,
        finish,
        report: Report { progress, nodes, lacking, earlier_collector, secret: secret::trouble(v, o, now) },
    }
}

fn is_selected(v: &Validated, node: &ObservedNode) -> bool {
    v.rollout.node_selector.iter().all(|(k, value)| node.labels.get(k) == Some(value))
}

fn node_report(v: &Validated, o: &Observed, name: &str, node: &ObservedNode, now: Timestamp) -> NodeReport {
    let selected = is_selected(v, node);
    // What was reported of a node that has gone says nothing of the one that has its name now.
    let node_tracing = o.node_tracings.get(name).filter(|n| n.node_uid == node.uid);
    let stand = rollout::stand(node_tracing, &v.target(selected), v.generation, now);
    let canary = canary::stand(v, node_tracing, &o.canaries, name, selected, &stand, now);
    let drift = node_tracing.map(|n| n.status.drift.clone()).unwrap_or_default();
    NodeReport { name: name.to_owned(), selected, stand, canary, drift }
}

fn orphans(o: &Observed) -> Vec<(String, String)> {
    let is_orphan = |name: &String, node_uid: &String| o.nodes.get(name).is_none_or(|node| node.uid != *node_uid);
    o.node_tracings.iter().filter(|(name, n)| is_orphan(name, &n.node_uid)).map(|(name, n)| (name.clone(), n.uid.clone())).collect()
}

fn targets(v: &Validated, o: &Observed) -> Vec<TargetPlan> {
    let plan_of = |(name, node): (&String, &ObservedNode)| {
        let target = v.target(is_selected(v, node));
        let write = match o.node_tracings.get(name) {
            None => true,
            // An orphan is removed first: a node that was replaced under the same name does not inherit a grant.
            Some(n) if n.node_uid != node.uid => false,
            // An agent does not act on a grant whose target has gone from under it: the node ends what it was granted, and is asked again then.
            Some(n) if n.in_flight().is_some() => false,
            Some(n) => n.target.as_ref() != Some(&target) || !n.owned_by_node || n.term.as_ref() != Some(&o.term),
        };
        write.then(|| TargetPlan { node: name.clone(), node_uid: node.uid.clone(), target, term: o.term.clone() })
    };
    o.nodes.iter().filter_map(plan_of).collect()
}

fn grant(s: &Situation<'_>, progress: &Progress) -> Option<GrantPlan> {
    let Progress::Waiting(WaitingOn::Grant { node }) = progress else { return None };
    let last = s.observed.node_tracings.values().map(observed::ObservedNodeTracing::last_grant).max().unwrap_or(0);
    let revision = s.observed.node_tracings.get(node)?.target.as_ref()?.revision.clone();
    let (generation, candidate) = (s.validated.generation, s.nodes.iter().find(|n| n.name == *node)?);
    let attempt = retry::attempt(s.observed, node, &revision, generation);
    let measured_after = regression::measured_after(s, candidate);
    Some(GrantPlan {
        node: node.clone(),
        grant: Grant { id: last.saturating_add(1), revision, generation, attempt, measured_after },
        interrupts_the_api: quorum::interrupts_the_api(s, s.nodes.iter().filter(|n| n.name == *node)),
    })
}

/// The collector comes before the first node and goes after the last.
fn collector_plan(
    v: &Validated,
    o: &Observed,
    nodes: &[NodeReport],
    wanted: Option<CollectorObjects>,
    check: &Check,
    lacking: &Lacking,
) -> CollectorPlan {
    if v.rollout.mode == RolloutMode::Preview && v.goal == Goal::Trace {
        return CollectorPlan::Keep;
    }
    if let Some(wanted) = wanted {
        if !wanted.are_in(&o.collector) {
            let free = collector::port(&o.collector) == Some(wanted.port) || port_is_free(v, o, nodes);
            return if free && check.lets_pass() { CollectorPlan::Apply(Box::new(wanted)) } else { CollectorPlan::Keep };
        }
        let unused = collector::unused_config_maps(&o.collector, Some(&wanted.config_map_name));
        let gateway = wanted.gateway.is_none() && o.collector.gateway.deployment.is_some();
        // A pod of the earlier configuration may still be starting, or send to the gateway, until each node has one of the new.
        let prune = (!unused.is_empty() || gateway) && lacking.is_empty();
        let config_maps = unused.into_iter().collect();
        return if prune { CollectorPlan::Prune { config_maps, gateway } } else { CollectorPlan::Keep };
    }
    let is_there = o.collector.daemon_set.is_some() || !o.collector.config_maps.is_empty() || o.collector.gateway.deployment.is_some();
    if is_there && nodes.iter().all(|n| n.stand == Stand::UpToDate) { CollectorPlan::Remove } else { CollectorPlan::Keep }
}

/// Whether the agent of every selected node has looked at the port that the collector is to listen on, and none found it taken: one that cannot
/// listen there would have replaced one that works.
fn port_is_free(v: &Validated, o: &Observed, nodes: &[NodeReport]) -> bool {
    let target = v.target(true);
    nodes.iter().filter(|n| n.selected).all(|n| {
        let answer = o.node_tracings.get(&n.name).and_then(|found| rollout::answer(found, &target));
        answer.is_some_and(|preflight| preflight.reason != Some(Reason::PortTaken))
    })
}

/// How long until the sampling rate is another one.
fn end_of_boost(v: &Validated, now: Timestamp) -> Duration {
    let left = v.boost.map(|boost| boost.until.duration_since(now).max(SignedDuration::from_secs(1)));
    left.and_then(|left| Duration::try_from(left).ok()).unwrap_or(Duration::MAX)
}

fn next_check(progress: &Progress, now: Timestamp) -> Duration {
    match progress {
        // nobody tells when a Secret comes
        Progress::Stalled(Stalled::Secret(_)) => LATER,
        Progress::Done(_) | Progress::Stalled(_) => RESYNC,
        Progress::Waiting(WaitingOn::Soak { until, .. } | WaitingOn::Retry { at: until, .. }) => {
            let left = until.duration_since(now).max(SignedDuration::from_secs(1));
            Duration::try_from(left).unwrap_or(LATER).min(RESYNC)
        }
        Progress::Waiting(
            WaitingOn::Grant { .. }
            | WaitingOn::Node { overdue: false, .. }
            | WaitingOn::Preflight { .. }
            | WaitingOn::Canary { .. }
            | WaitingOn::Collector { .. }
            | WaitingOn::CollectorCheck { held: None }
            | WaitingOn::Processes { .. }
            | WaitingOn::Measurement { .. },
        ) => SOON,
        Progress::Waiting(_) => LATER,
    }
}
