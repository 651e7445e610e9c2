//! Whether the first node that runs a revision does worse with it: kube-apiserver's memory and latency, before the change and after the
//! soak time, both measured by the node's agent. Some harm shows only in use, and one node is enough to see it on.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::observed::ObservedNodeTracing;
use super::report::{NodeReport, Stand, WaitingOn};
use super::rollout::Situation;
use super::validate::Goal;
use crate::api::node_tracing::{Measurement, OutcomeResult, Soak};

/// How long after the soak time a measurement is waited for. Without one the rollout goes on, and the node's message says so.
const MEASURED_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// Memory that a process may grow by: half of what it held, and this many MiB. A span queue of 512 and the caches that a restarted
/// kube-apiserver has yet to fill stay far below.
const MORE_MEMORY_MIB: i64 = 128;
/// Latency may grow to three times what it was, and by this many milliseconds: probes on a busy node vary by tens.
const MORE_MILLISECONDS: i64 = 50;

/// Whether what was measured after is worse than before, beyond what chance and use explain.
fn is_worse(before: &Measurement, after: &Measurement) -> bool {
    let memory = before.memory_mib.saturating_mul(3) / 2 + MORE_MEMORY_MIB;
    let latency = before.latency_milliseconds.saturating_mul(3) + MORE_MILLISECONDS;
    after.memory_mib > memory || after.latency_milliseconds > latency
}

/// What was measured of the node's last change, if that was of this generation, succeeded, and was to be measured.
fn soak(n: &ObservedNodeTracing, generation: i64) -> Option<(Timestamp, Option<&Soak>)> {
    let outcome = n.status.last_outcome.as_ref().filter(|o| o.generation == generation && o.result == OutcomeResult::Succeeded)?;
    let grant = n.grant.as_ref().filter(|g| g.id == outcome.grant)?;
    let over = outcome.finished_time.0.checked_add(SignedDuration::from_secs(grant.measured_after?.into())).ok()?;
    Some((over, n.status.soak.as_ref().filter(|s| s.grant == outcome.grant)))
}

/// What was measured before and after, where it is worse.
pub fn regression(n: &ObservedNodeTracing, generation: i64) -> Option<(Measurement, Measurement)> {
    let (before, after) = soak(n, generation)?.1.and_then(|s| s.before.clone().zip(s.after.clone()))?;
    is_worse(&before, &after).then_some((before, after))
}

/// Whether a measurement was due and has not come, nor will be waited for.
pub fn is_missing(n: &ObservedNodeTracing, generation: i64, now: Timestamp) -> bool {
    soak(n, generation)
        .is_some_and(|(over, soak)| soak.is_none_or(|s| s.before.is_none() || s.after.is_none()) && now > over + MEASURED_WITHIN)
}

/// Gate: the first node has been measured again, or that is waited for no longer.
pub fn measured(s: &Situation<'_>, _: &NodeReport) -> Option<WaitingOn> {
    s.observed.node_tracings.iter().find_map(|(name, n)| {
        let (over, soak) = soak(n, s.validated.generation)?;
        // One that was not measured before cannot be compared.
        let pending = soak.is_some_and(|s| s.before.is_some() && s.after.is_none()) && s.now <= over + MEASURED_WITHIN;
        pending.then(|| WaitingOn::Measurement { node: name.clone() })
    })
}

/// After how many seconds the node that is granted now is measured: only the first one that gets something to trace.
pub fn measured_after(s: &Situation<'_>, candidate: &NodeReport) -> Option<i32> {
    let is_first = !s.nodes.iter().any(|n| n.selected && n.stand == Stand::UpToDate);
    let adds = s.validated.goal == Goal::Trace && s.validated.traces_anything() && candidate.selected;
    let seconds = i32::try_from(s.validated.rollout.soak.as_secs()).ok()?;
    (is_first && adds && seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_is_what_neither_chance_nor_use_explains() {
        let at = |memory_mib, latency_milliseconds| Measurement { memory_mib, latency_milliseconds };
        for (before, after, worse) in [
            (at(300, 5), at(300, 5), false),
            (at(300, 5), at(578, 65), false),
            (at(300, 5), at(579, 5), true),
            (at(300, 5), at(300, 66), true),
            (at(4_000, 5), at(6_000, 5), false),
            (at(0, 0), at(129, 0), true),
            (at(900, 400), at(250, 6), false),
        ] {
            assert_eq!(is_worse(&before, &after), worse, "{before:?} {after:?}");
        }
    }
}
