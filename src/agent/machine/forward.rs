//! From a prepared change to new manifests.

use super::exchange::{Exchange, Stuck};
use super::types::{Cause, Effect, Event, Flight, Held, Moved, Phase, Side};
use super::verify::Verifying;
use super::{LOOK_EVERY, WATCHDOG_STARTS, WATCHDOG_STAYS};
use crate::api::Reason;
use crate::host::Now;

impl Flight {
    pub(super) fn prepared(&mut self, event: Event, now: &Now) -> Option<Effect> {
        let next = match event {
            Event::Begun => Effect::Save,
            Event::Saved => Effect::Stage,
            Event::Staged => Effect::Compare,
            Event::Compared(wrong) if wrong.is_empty() && self.watchdog.is_some() => Effect::Guard,
            Event::Compared(wrong) if wrong.is_empty() => Effect::Confirm,
            Event::Compared(wrong) => return Some(self.refuse(not_as_written(&wrong), now)),
            Event::Guarded => {
                self.phase = Phase::Guarding(now.since_boot);
                return Some(Effect::LookForWatchdog { at: now.since_boot });
            }
            Event::Confirmed => return Some(self.commit()),
            // Nothing was written that counts: whoever comes next starts over with what is true then.
            Event::Resumed(_) | Event::Recalled | Event::Withdrawn(_) => return None,
            failure => return Some(self.refuse(failure.into_unwritable(), now)),
        };
        self.phase = Phase::Prepared;
        Some(next)
    }

    /// That the watchdog runs also shows that the kubelet reacts, and that the image is on the node.
    pub(super) fn guarding(&mut self, since: u64, event: Event, now: &Now) -> Option<Effect> {
        let problem = match event {
            Event::WatchdogsSeen(seen) => {
                // one that ends at once would not be seen at this age
                if seen.iter().any(|p| now.since_boot.saturating_sub(p.id.started) >= WATCHDOG_STAYS) {
                    self.phase = Phase::Guarding(since);
                    return Some(Effect::Confirm);
                }
                format!("{} processes of the watchdog run", seen.len())
            }
            Event::Confirmed => return Some(self.commit()),
            Event::Resumed(_) | Event::Recalled | Event::Withdrawn(_) => return None,
            failure => failure.into_message(),
        };
        if now.since_boot.saturating_sub(since) < WATCHDOG_STARTS {
            self.phase = Phase::Guarding(since);
            return Some(Effect::LookForWatchdog { at: now.since_boot + LOOK_EVERY });
        }
        let seconds = WATCHDOG_STARTS / 1000;
        let message = format!(
            "the watchdog's static pod did not start within {seconds} s ({problem}); nothing was changed. See the kubelet's log on the node: \
             journalctl -u kubelet"
        );
        Some(self.refuse(Cause { reason: Reason::WatchdogNotStarted, message }, now))
    }

    fn commit(&mut self) -> Effect {
        self.phase = Phase::Committing(Exchange::default());
        Effect::Save
    }

    pub(super) fn committing(&mut self, mut exchange: Exchange, event: Event, other_boot: bool, now: &Now) -> Option<Effect> {
        let effect = match event {
            Event::Saved => self.exchange_on(exchange, now),
            Event::Resumed(held) => return self.committing_again(&held, other_boot, now),
            Event::TakenAway(index, Moved::Done) => {
                self.swaps[index].held = Held::Nothing;
                exchange.taken_away(index, now);
                self.exchange_on(exchange, now)
            }
            Event::Put(index, Moved::Done) => {
                self.swaps[index].held = Held::AFTER;
                self.exchange_on(exchange, now)
            }
            Event::TakenAway(index, Moved::Foreign) | Event::Put(index, Moved::Foreign) => {
                let swap = &mut self.swaps[index];
                swap.held = Held::Other;
                let message = format!("{} was changed between the check and the write", swap.file);
                self.roll_back(Cause { reason: Reason::ManifestChanged, message }, now)
            }
            Event::Looked(view) => {
                self.swaps.iter_mut().zip(&view.components).for_each(|(swap, seen)| swap.learn_pod(Side::Before, seen));
                match exchange.looked(&self.swaps, &view, Side::Before, now) {
                    Ok(()) => self.exchange_on(exchange, now),
                    Err(Stuck(message)) => self.roll_back(Cause { reason: Reason::KubeletNotReacting, message }, now),
                }
            }
            Event::Recalled => self.roll_back(recalled(), now),
            // With nothing taken away this ends as a refusal.
            failure => self.roll_back(failure.into_unwritable(), now),
        };
        Some(effect)
    }

    fn exchange_on(&mut self, exchange: Exchange, now: &Now) -> Effect {
        self.begun.get_or_insert(now.wall);
        if let Some(effect) = exchange.next(&self.swaps, Side::After, now) {
            self.phase = Phase::Committing(exchange);
            return effect;
        }
        self.phase = Phase::Verifying(Verifying::new(self.swaps.len(), now));
        Effect::Save
    }

    /// The agent or the watchdog was stopped between the first rename and the last, and another one takes over.
    ///
    /// Where a new manifest is in place, all old ones were away and let go of: putting the others in is the shortest way to a serving node.
    /// With nothing but old manifests away, it goes on too, once, so that a process that is killed costs nothing: but not
    /// after a reboot, when nobody knows how long the node was away, and not a second time, since what is interrupted again and again
    /// may be interrupted by itself. Then the known good manifests come back first.
    fn committing_again(&mut self, held: &[Held], other_boot: bool, now: &Now) -> Option<Effect> {
        self.found(held);
        // Stopped before the first rename: as good as never begun, and the grant may have been withdrawn since.
        if self.all_hold(Side::Before) {
            return None;
        }
        if let Some(swap) = self.swaps.iter().find(|s| s.held == Held::Other) {
            let message = format!("{} was changed between the check and the write", swap.file);
            return Some(self.roll_back(Cause { reason: Reason::ManifestChanged, message }, now));
        }
        self.interruptions = self.interruptions.saturating_add(1);
        let begun_to_put = held.contains(&Held::AFTER);
        if self.interruptions > 1 || (other_boot && !begun_to_put) {
            let message = "the change was interrupted while manifests were away".to_owned();
            return Some(self.roll_back(Cause { reason: Reason::Interrupted, message }, now));
        }
        self.phase = Phase::Committing(Exchange::taken_up());
        Some(Effect::Save)
    }
}

/// A file of ours that does not hold what was written.
pub(super) fn not_as_written(names: &[String]) -> Cause {
    let message = format!("{} in the state folder does not hold what was written", names.join(", "));
    Cause { reason: Reason::TracingFileDamaged, message }
}

/// A person wants the old manifests back.
pub(super) fn recalled() -> Cause {
    Cause { reason: Reason::RestoredByHand, message: "a person gave the node its original manifests back".to_owned() }
}
