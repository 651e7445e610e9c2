//! Which node is changed next, and whether it may be changed now.
//!
//! A rollout has three phases. First every agent checks the target: one refusal anywhere, and no node is granted, so that no byte is
//! written on any of them. Then what each node would be given is tried there in a pod ([`super::canary`]), with the same consequence.
//! Then nodes are granted one at a time: in the order of `order`, each only when every gate of `GATES` is open.
//!
//! A new rule about *when* is one more gate; a new rule about *which node* is one more key of `order`.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::canary::Canary;
use super::collector::Lacking;
use super::collector_check::Check;
use super::observed::{Observed, ObservedNodeTracing};
use super::report::{Done, NodeReport, Progress, Stalled, Stand, WaitingOn};
use super::validate::{Goal, Validated};
use super::{quorum, regression, retry};
use crate::api::clustertracing::SingleNodeDowntime;
use crate::api::node_tracing::{OutcomeResult, Preflight, Step, Verdict};
use crate::api::{Reason, RolloutMode, Target};

/// A check reads a few files. An agent that has not answered after this long is not there.
const AGENT_ANSWERS_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// Everything that the rollout's rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What is asked for.
    pub validated: &'a Validated,
    /// What is there.
    pub observed: &'a Observed,
    /// Where each control-plane node stands.
    pub nodes: &'a [NodeReport],
    /// Where the collector is not that should be there.
    pub lacking: &'a Lacking,
    /// Where the trial of that collector stands.
    pub check: &'a Check,
    /// Now.
    pub now: Timestamp,
}

/// A rule that can hold the next grant back: `None` lets `candidate` be granted.
type Gate = fn(&Situation<'_>, candidate: &NodeReport) -> Option<WaitingOn>;

/// All of them have to be open before a grant; the first closed one is reported.
const GATES: &[Gate] = &[collector_first, quorum::members_known, nothing_blocks, soaked, regression::measured];

/// What has to be well before anything is tried, too: a pod may not start on a node that is not.
const WELL: &[Gate] = &[nodes_ready, components_healthy, quorum::members_well];

/// How long a change may take, whatever happens: the new state is waited for and then the old one, each of them for the kubelet (90 s)
/// and for its health. A minute more for the report.
fn flight_ends_within(target: &Target) -> SignedDuration {
    let health = SignedDuration::from_secs(target.settings.health_timeout_seconds.into());
    (health + SignedDuration::from_secs(90)) * 2 + SignedDuration::from_mins(1)
}

/// What a node's agent says of `target`, if that is what it was asked, and it has answered.
pub fn answer<'a>(n: &'a ObservedNodeTracing, target: &Target) -> Option<&'a Preflight> {
    let asked = n.target.as_ref() == Some(target) && n.has_answered();
    n.status.preflight.as_ref().filter(|p| asked && p.revision == target.revision)
}

/// Where a node stands, from what its agent reports of `target`.
pub fn stand(node_tracing: Option<&ObservedNodeTracing>, target: &Target, generation: i64, now: Timestamp) -> Stand {
    let Some(n) = node_tracing else { return Stand::Unanswered { silent: false } };
    let asked = n.target.as_ref() == Some(target);
    let preflight = answer(n, target);
    let refused = preflight.filter(|p| p.verdict == Verdict::Refused && p.reason != Some(Reason::ComponentUnhealthy));
    let refused = refused.map(|p| Stand::Refused { reason: p.reason.unwrap_or(Reason::InvalidSettings), message: p.message.clone() });
    if n.in_flight().is_some() {
        // An agent that cannot act on its grant says why; one that acts says which step it is at.
        let idle = n.status.step == Step::Idle;
        let blocked = n.status.blockers.first().filter(|_| idle && n.has_answered()).cloned();
        let overdue = blocked.is_none() && n.granted.is_some_and(|granted| now.duration_since(granted) > flight_ends_within(target));
        return refused.filter(|_| idle).unwrap_or(Stand::InFlight { since: n.granted, overdue, blocked });
    }
    // What a person did at the node stands until a person takes it back there, whatever ended before, and whatever is edited.
    if preflight.is_some_and(|p| p.reason == Some(Reason::RestoredByHand))
        && let Some(kept) = refused
    {
        return kept;
    }
    // A failure of this generation stays one whatever the agent finds afterwards: only a person's edit starts afresh, or its next try.
    let failed = n.status.last_outcome.as_ref().filter(|o| o.generation == generation && o.result != OutcomeResult::Succeeded);
    let retry = failed.and_then(|o| retry::next_try(n, o));
    if let Some(o) = failed.filter(|_| retry.is_none_or(|at| now < at)) {
        let fallback = if o.result == OutcomeResult::Failed { Reason::RollbackFailed } else { Reason::RolledBack };
        return Stand::Failed { result: o.result, reason: o.reason.unwrap_or(fallback), message: o.message.clone(), retry };
    }
    if let Some((before, after)) = regression::regression(n, generation) {
        return Stand::Regressed { before, after };
    }
    // Healed for this generation already, and soon changed again: another heal would be changed, too.
    if let Some(again) = n.status.drift.iter().find(|d| d.healed_generation >= Some(generation)) {
        return Stand::Refused { reason: Reason::Conflict, message: again.fight() };
    }
    let Some(preflight) = preflight else {
        return Stand::Unanswered { silent: asked && n.targeted.is_some_and(|t| now.duration_since(t) > AGENT_ANSWERS_WITHIN) };
    };
    if let Some(refused) = refused {
        return refused;
    }
    match preflight.verdict {
        Verdict::Ready => Stand::Pending { changes: preflight.changes.clone() },
        // With nothing of ours in the manifests, how the node's processes do is not ours to wait for.
        Verdict::Unchanged if target.settings.is_off() => Stand::UpToDate,
        // Refused: the manifests match and their processes are not there. That passes, or the component is unhealthy by itself.
        Verdict::Unchanged | Verdict::Refused => match n.unhealthy() {
            Some(component) => Stand::Unhealthy { component: component.name },
            None if n.status.current_revision.as_ref() == Some(&target.revision) => Stand::UpToDate,
            None => Stand::Settling,
        },
    }
}

/// What the rollout does now: at most one grant, named by [`WaitingOn::Grant`].
pub fn decide(s: &Situation<'_>) -> Progress {
    let of = |pick: fn(&Stand) -> bool| s.nodes.iter().filter(move |n| pick(&n.stand));

    if s.validated.goal == Goal::Release {
        return Progress::Done(Done::Released);
    }
    if s.validated.goal == Goal::Trace && !s.nodes.iter().any(|n| n.selected) {
        return Progress::Stalled(Stalled::NoNodes { selector: !s.nodes.is_empty(), platform: s.observed.elsewhere });
    }
    if s.validated.goal == Goal::Trace
        && let Some((node, platform)) = s.observed.nodes.iter().find_map(|(name, node)| Some((name, node.platform?)))
    {
        return Progress::Stalled(Stalled::Platform { node: node.clone(), platform });
    }
    if let Some(stalled) = stop_the_line(s.nodes) {
        return Progress::Stalled(stalled);
    }
    if let Some(stalled) = collector_refused(s) {
        return Progress::Stalled(stalled);
    }
    if let Some(waiting) = s.nodes.iter().find_map(in_flight).or_else(|| s.nodes.iter().find_map(back_off)) {
        return Progress::Waiting(waiting);
    }
    if let Some(n) = of(|s| matches!(s, Stand::Unanswered { silent: true })).next() {
        return Progress::Waiting(WaitingOn::Agent { node: n.name.clone() });
    }
    let unanswered: Vec<_> = of(|s| matches!(s, Stand::Unanswered { .. })).map(|n| n.name.clone()).collect();
    if !unanswered.is_empty() {
        return Progress::Waiting(WaitingOn::Preflight { nodes: unanswered });
    }
    match order(s).first() {
        Some(candidate) => next(s, candidate),
        None => settled(s),
    }
}

fn in_flight(n: &NodeReport) -> Option<WaitingOn> {
    let Stand::InFlight { since, overdue, blocked } = &n.stand else { return None };
    Some(match blocked {
        Some(blocker) => WaitingOn::Blocked { node: n.name.clone(), blocker: blocker.clone(), granted: true },
        None => WaitingOn::Node { node: n.name.clone(), since: *since, overdue: *overdue },
    })
}

fn back_off(n: &NodeReport) -> Option<WaitingOn> {
    let Stand::Failed { reason, message, retry, .. } = &n.stand else { return None };
    Some(WaitingOn::Retry { node: n.name.clone(), reason: *reason, message: message.clone(), at: (*retry)? })
}

/// The first node that needs a person: one that could not go back before one that could, and a failed change before a refused one.
fn stop_the_line(nodes: &[NodeReport]) -> Option<Stalled> {
    let failed = |wanted: &[OutcomeResult]| {
        nodes.iter().find_map(|n| match &n.stand {
            Stand::Failed { result, reason, message, retry: None } if wanted.contains(result) => {
                Some(Stalled::Failed { node: n.name.clone(), result: *result, reason: *reason, message: message.clone() })
            }
            _ => None,
        })
    };
    let refused = || {
        nodes.iter().find_map(|n| match &n.stand {
            Stand::Refused { reason, message } => {
                Some(Stalled::Refused { node: n.name.clone(), reason: *reason, message: message.clone() })
            }
            _ => None,
        })
    };
    let regressed = || {
        nodes.iter().find_map(|n| match &n.stand {
            Stand::Regressed { before, after } => {
                Some(Stalled::Regressed { node: n.name.clone(), before: before.clone(), after: after.clone() })
            }
            _ => None,
        })
    };
    let ended = || failed(&[OutcomeResult::RolledBack, OutcomeResult::Refused]);
    failed(&[OutcomeResult::Failed]).or_else(ended).or_else(refused).or_else(regressed)
}

/// Nodes that need a change, in the order in which they get it: first those that are unwell by our doing (a change cannot make them
/// worse, and no healthy one is taken down beside them), then by name, and etcd's leader last.
fn order<'a>(s: &Situation<'a>) -> Vec<&'a NodeReport> {
    let mut pending: Vec<_> = s.nodes.iter().filter(|n| matches!(n.stand, Stand::Pending { .. })).collect();
    pending.sort_by_key(|n| (!unwell_by_us(s, n), quorum::leads(s, n), &n.name));
    pending
}

/// Whether a node does not do well, and a change of ours may be why: it may be mended where another would have to wait.
pub fn unwell_by_us(s: &Situation<'_>, node: &NodeReport) -> bool {
    s.observed.node_tracings.get(&node.name).is_some_and(|n| {
        let failed_before = n.status.last_outcome.as_ref().is_some_and(|o| o.result != OutcomeResult::Succeeded);
        failed_before || n.unhealthy_by_us()
    })
}

/// A change is needed, and `candidate` is next.
fn next(s: &Situation<'_>, candidate: &NodeReport) -> Progress {
    let rollout = &s.validated.rollout;
    // Deleting the resource is an order to write, whatever the mode was; a pause still holds it.
    if rollout.mode == RolloutMode::Preview && s.validated.goal == Goal::Trace {
        return canary_refused(s).or_else(|| canaries(s)).unwrap_or_else(|| preview(s));
    }
    // Of all that is still to change: a rollout that would stop halfway does not begin.
    if rollout.single_node_downtime == SingleNodeDowntime::Refused && quorum::interrupts_the_api(s, order(s).into_iter()) {
        return Progress::Stalled(Stalled::Downtime { nodes: s.nodes.len(), voters: quorum::voters(s) });
    }
    if rollout.paused {
        return Progress::Waiting(WaitingOn::Paused { next: candidate.name.clone() });
    }
    let closed = |gates: &[Gate]| gates.iter().find_map(|gate| gate(s, candidate)).map(Progress::Waiting);
    canary_refused(s)
        .or_else(|| closed(WELL))
        .or_else(|| canaries(s))
        .or_else(|| closed(GATES))
        .unwrap_or_else(|| Progress::Waiting(WaitingOn::Grant { node: candidate.name.clone() }))
}

/// No node needs a change.
fn settled(s: &Situation<'_>) -> Progress {
    let unwell = s.nodes.iter().find_map(|n| match &n.stand {
        Stand::Unhealthy { component } => Some(WaitingOn::ComponentUnhealthy { node: n.name.clone(), component: *component }),
        Stand::Settling => Some(WaitingOn::Processes { node: n.name.clone() }),
        _ => None,
    });
    if let Some(waiting) = unwell {
        return Progress::Waiting(waiting);
    }
    if !s.lacking.is_empty() {
        return match s.validated.rollout.mode {
            RolloutMode::Preview => preview(s),
            RolloutMode::Automatic => Progress::Waiting(collector(s)),
        };
    }
    Progress::Done(match s.validated.goal {
        Goal::Trace if s.validated.traces_anything() => Done::AsRequested,
        Goal::Trace => Done::Disabled,
        Goal::Restore | Goal::Release => Done::Restored,
    })
}

/// A canary that refused stops everything.
fn canary_refused(s: &Situation<'_>) -> Option<Progress> {
    let refused = |n: &NodeReport| match &n.canary {
        Canary::Refused(refused) => Some(Stalled::CanaryRefused { node: n.name.clone(), refused: refused.clone() }),
        _ => None,
    };
    s.nodes.iter().find_map(refused).map(Progress::Stalled)
}

/// Canaries without a verdict are waited for.
fn canaries(s: &Situation<'_>) -> Option<Progress> {
    let held = s.nodes.iter().find_map(|n| match &n.canary {
        Canary::Held { words, .. } => Some((n.name.clone(), words.clone())),
        _ => None,
    });
    let undecided = s.nodes.iter().filter(|n| matches!(n.canary, Canary::Trying(_) | Canary::Held { .. }));
    let nodes: Vec<_> = undecided.map(|n| n.name.clone()).collect();
    (!nodes.is_empty()).then_some(Progress::Waiting(WaitingOn::Canary { nodes, held }))
}

fn preview(s: &Situation<'_>) -> Progress {
    let changes = s.nodes.iter().filter_map(|n| match &n.stand {
        Stand::Pending { changes } => Some((n.name.clone(), changes.clone())),
        _ => None,
    });
    Progress::Stalled(Stalled::Preview {
        changes: changes.collect(),
        collector: !s.lacking.is_empty(),
        tried: s.nodes.iter().any(|n| n.canary == Canary::Passed),
    })
}

/// No node is told to send spans before its collector takes them: a dead receiver makes a stopping API server wait for it.
fn collector_first(s: &Situation<'_>, candidate: &NodeReport) -> Option<WaitingOn> {
    (candidate.selected && !s.lacking.is_empty()).then(|| collector(s))
}

/// What the collector waits for that is not Ready.
fn collector(s: &Situation<'_>) -> WaitingOn {
    match s.check {
        Check::Trying { .. } => WaitingOn::CollectorCheck { held: None },
        Check::Held { words } => WaitingOn::CollectorCheck { held: Some(words.clone()) },
        Check::NotNeeded | Check::Passed | Check::Refused { .. } | Check::Lacks(_) => {
            let found = &s.observed.collector;
            let of_node = s.lacking.nodes.iter().find_map(|node| Some((Some(node.clone()), found.words.get(node)?.clone())));
            let of_gateway = || found.gateway.words.clone().filter(|_| s.lacking.gateway).map(|words| (None, words));
            WaitingOn::Collector { lacking: s.lacking.clone(), words: of_node.or_else(of_gateway) }
        }
    }
}

/// A collector that would not run stops everything: nothing is sent where nobody takes it.
fn collector_refused(s: &Situation<'_>) -> Option<Stalled> {
    match s.check {
        Check::Refused { words } => Some(Stalled::CollectorRefused { words: words.clone() }),
        Check::Lacks(trouble) => Some(Stalled::Secret(trouble.clone())),
        Check::NotNeeded | Check::Trying { .. } | Check::Held { .. } | Check::Passed => None,
    }
}

/// One node at a time may be away, and one is.
fn nodes_ready(s: &Situation<'_>, _: &NodeReport) -> Option<WaitingOn> {
    let away = s.observed.nodes.iter().find(|(_, node)| !node.ready);
    away.map(|(name, _)| WaitingOn::NodeNotReady { node: name.clone() })
}

/// As [`nodes_ready`], by the components' own probes; a node that is unwell by our doing may be mended.
fn components_healthy(s: &Situation<'_>, candidate: &NodeReport) -> Option<WaitingOn> {
    s.nodes.iter().find_map(|n| {
        let unhealthy = s.observed.node_tracings.get(&n.name)?.unhealthy()?;
        let mended = n.name == candidate.name && unwell_by_us(s, n);
        (!mended).then(|| WaitingOn::ComponentUnhealthy { node: n.name.clone(), component: unhealthy.name })
    })
}

/// The candidate can be changed, and no other node is being changed by somebody else, or without a kubelet, or would send its spans nowhere.
fn nothing_blocks(s: &Situation<'_>, candidate: &NodeReport) -> Option<WaitingOn> {
    let anywhere = [Reason::UpgradeInProgress, Reason::WaitingForQuiet, Reason::KubeletNotAnswering, Reason::EndpointUnreachable];
    s.nodes.iter().find_map(|n| {
        let blockers = &s.observed.node_tracings.get(&n.name)?.status.blockers;
        let blocker = blockers.iter().find(|b| n.name == candidate.name || anywhere.contains(&b.reason))?;
        Some(WaitingOn::Blocked { node: n.name.clone(), blocker: blocker.clone(), granted: false })
    })
}

/// The last change of any node had its time to show what it did.
fn soaked(s: &Situation<'_>, _: &NodeReport) -> Option<WaitingOn> {
    let outcomes = s.observed.node_tracings.iter().filter_map(|(name, n)| Some((n.status.last_outcome.as_ref()?.finished_time.0, name)));
    let (finished, node) = outcomes.max()?;
    let until = finished.checked_add(s.validated.rollout.soak).ok()?;
    (s.now < until).then(|| WaitingOn::Soak { node: node.clone(), until })
}
