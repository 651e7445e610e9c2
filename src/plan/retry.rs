//! Which failed changes are tried again without a person: those whose cause is unclear, after a while, and not for ever.
//!
//! What can be told from the objects alone is not kept anywhere else: a grant carries the number of its try, and its outcome the time.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::observed::{Observed, ObservedNodeTracing};
use crate::api::Reason;
use crate::api::node_tracing::{FIRST_TRY, Outcome, OutcomeResult};

/// How long is waited after each try of a revision. After the last one a person is needed.
const WAITS: [SignedDuration; 2] = [SignedDuration::from_mins(10), SignedDuration::from_mins(30)];

/// How many tries a revision has in one generation, over all nodes.
pub const TRIES: usize = WAITS.len() + 1;

/// Whether the same change may well succeed later: nothing in it is known to be wrong, and the node has its original manifests.
fn is_unclear(outcome: &Outcome) -> bool {
    let may_pass = [Reason::HealthTimeout, Reason::KubeletNotReacting, Reason::WatchdogNotStarted, Reason::Interrupted];
    outcome.reason.is_some_and(|reason| may_pass.contains(&reason))
        && matches!(outcome.result, OutcomeResult::RolledBack | OutcomeResult::Refused)
}

/// When the change that ended so is tried again by itself, if it is.
pub fn next_try(n: &ObservedNodeTracing, outcome: &Outcome) -> Option<Timestamp> {
    let grant = n.grant.as_ref().filter(|g| g.id == outcome.grant && is_unclear(outcome))?;
    let wait = WAITS.get(usize::try_from(grant.attempt - FIRST_TRY).ok()?)?;
    outcome.finished_time.0.checked_add(*wait).ok()
}

/// The number of the next try of `revision` on `node`: a node that is granted for the first time goes on with the number that the others
/// have reached, so that the tries are counted over all of them.
pub fn attempt(o: &Observed, node: &str, revision: &str, generation: i64) -> i32 {
    let counted = o.node_tracings.values().filter_map(|n| n.grant.as_ref());
    let reached = counted.filter(|g| g.generation == generation && g.revision == revision).map(|g| g.attempt).max();
    let outcome = o.node_tracings.get(node).and_then(|n| n.status.last_outcome.as_ref());
    let failed = outcome.is_some_and(|o| o.generation == generation && o.revision == revision && o.result != OutcomeResult::Succeeded);
    reached.map_or(FIRST_TRY, |reached| if failed { reached.saturating_add(1) } else { reached })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::{Grant, NodeTracingStatus};

    const REVISION: &str = "0123456789ab";

    fn mk_failed(attempt: i32, result: OutcomeResult, reason: Reason) -> ObservedNodeTracing {
        let outcome = Outcome {
            grant: 7,
            revision: REVISION.into(),
            generation: 3,
            result,
            reason: Some(reason),
            message: String::new(),
            finished_time: Time(Timestamp::constant(1_000, 0)),
            seconds: 100,
        };
        ObservedNodeTracing {
            grant: Some(Grant { id: 7, revision: REVISION.into(), generation: 3, attempt, measured_after: None }),
            status: NodeTracingStatus { last_outcome: Some(outcome), ..NodeTracingStatus::default() },
            ..ObservedNodeTracing::default()
        }
    }

    #[test]
    fn an_unclear_failure_is_tried_again_after_10_and_30_minutes_and_no_other_ever() {
        let wait = |attempt, result, reason| {
            let n = mk_failed(attempt, result, reason);
            next_try(&n, n.status.last_outcome.as_ref().unwrap()).map(|at| (at.as_second() - 1_000) / 60)
        };
        for reason in [Reason::HealthTimeout, Reason::KubeletNotReacting] {
            let waits: Vec<_> = (1..=4).map(|attempt| wait(attempt, OutcomeResult::RolledBack, reason)).collect();
            assert_eq!(waits, [Some(10), Some(30), None, None], "{reason}");
            assert_eq!(wait(1, OutcomeResult::Failed, reason), None, "a node that could not go back is left to a person");
        }
        assert_eq!(wait(1, OutcomeResult::Refused, Reason::WatchdogNotStarted), Some(10));
        for reason in [Reason::NewProcessExited, Reason::ManifestChanged, Reason::RolledBack, Reason::RollbackFailed] {
            assert_eq!(wait(1, OutcomeResult::RolledBack, reason), None, "{reason}");
        }
        let mut n = mk_failed(1, OutcomeResult::RolledBack, Reason::HealthTimeout);
        n.grant = None;
        assert_eq!(next_try(&n, n.status.last_outcome.as_ref().unwrap()), None, "whose try it was is not known");
    }

    #[test]
    fn tries_are_counted_over_all_nodes_and_afresh_for_another_revision_or_generation() {
        let mut second = mk_failed(2, OutcomeResult::Succeeded, Reason::AsRequested);
        second.status.last_outcome.as_mut().unwrap().reason = None;
        let first = mk_failed(1, OutcomeResult::RolledBack, Reason::HealthTimeout);
        let o = |pairs: &[(&str, &ObservedNodeTracing)]| Observed {
            node_tracings: pairs.iter().map(|(name, n)| ((*name).to_owned(), (*n).clone())).collect(),
            ..Observed::default()
        };
        assert_eq!(attempt(&o(&[]), "cp1", REVISION, 3), 1);
        assert_eq!(attempt(&o(&[("cp1", &first)]), "cp1", REVISION, 3), 2);
        assert_eq!(attempt(&o(&[("cp1", &second)]), "cp2", REVISION, 3), 2, "the next node goes on where the first one has come to");
        assert_eq!(
            attempt(&o(&[("cp1", &second), ("cp2", &mk_failed(2, OutcomeResult::RolledBack, Reason::HealthTimeout))]), "cp2", REVISION, 3),
            3
        );
        assert_eq!(attempt(&o(&[("cp1", &first)]), "cp1", REVISION, 4), 1);
        assert_eq!(attempt(&o(&[("cp1", &first)]), "cp1", "another", 3), 1);
    }
}
