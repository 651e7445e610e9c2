//! The way back to the manifests from before, with the same ordered swap.

use serde::{Deserialize, Serialize};

use super::exchange::{Exchange, KUBELET_REACTS};
use super::forward::recalled;
use super::types::{Cause, Effect, Event, Flight, Held, Moved, Phase, Side, Swap, View};
use super::verify::{STARTS, Streak, standing};
use super::{PROBE_EVERY, outcome};
use crate::api::node_tracing::OutcomeResult;
use crate::api::{ComponentName, Grant, Reason};
use crate::host::{Now, ProcessId};

/// A kubelet that hears of manifests starts their processes within this time: it was seen to take 1 to 2 s, and after a let-go pod no second try.
const TAKES_UP: u64 = 5_000;
/// Milliseconds that the original processes have to become healthy where no settings say so: `rollout.healthTimeoutSeconds`' default.
const HEALTH_BY_HAND: u64 = 120_000;

/// What is known while going back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollingBack {
    /// Why.
    cause: Cause,
    since: u64,
    exchange: Exchange,
    /// When the old manifests were in place again.
    in_place: Option<u64>,
    /// The swaps that were begun, and whose old state is waited for.
    undone: Vec<usize>,
    /// Manifests that somebody else has changed since we did.
    foreign: Vec<String>,
    /// Why the last try to put a manifest back failed.
    trouble: Option<String>,
    /// The processes that were ended by force: each once.
    killed: Vec<ProcessId>,
    streak: Streak,
}

impl RollingBack {
    /// After a reboot every wait starts anew.
    pub(super) fn restarted(self, now: &Now) -> Self {
        Self { since: now.since_boot, exchange: Exchange::default(), in_place: None, streak: Streak::default(), ..self }
    }

    fn involve(&mut self, index: usize) {
        if !self.undone.contains(&index) {
            self.undone.push(index);
        }
    }

    /// Somebody else's manifest is none of ours to undo.
    fn leave(&mut self, index: usize, file: &str) {
        self.undone.retain(|undone| *undone != index);
        self.foreign.push(file.to_owned());
    }

    /// The kubelet has its time and the new health budget, counted from when the manifests are back; putting them back has as long.
    fn is_over(&self, health_timeout: u64, now: &Now) -> bool {
        now.since_boot.saturating_sub(self.in_place.unwrap_or(self.since)) >= KUBELET_REACTS + health_timeout
    }
}

impl Flight {
    /// The way back by which a person takes manifests away that no flight is under way for. Begun with [`Event::Saved`].
    pub fn back_by_hand(grant: Grant, swaps: Vec<Swap>, now: &Now) -> Self {
        let mut flight = Self {
            grant,
            boot_id: now.boot_id.clone(),
            reboots: 0,
            interruptions: 0,
            health_timeout: HEALTH_BY_HAND,
            swaps,
            watchdog: None,
            begun: Some(now.wall),
            phase: Phase::Abandoned,
        };
        flight.roll_back(recalled(), now);
        flight
    }

    /// Whether a person who wants the old manifests back can still stop it.
    pub fn goes_forward(&self) -> bool {
        matches!(self.phase, Phase::Prepared | Phase::Guarding(_) | Phase::Committing(_) | Phase::Verifying(_))
    }

    pub(super) fn roll_back(&mut self, cause: Cause, now: &Now) -> Effect {
        let begun = |held: Held| matches!(held, Held::Nothing | Held::AFTER);
        self.phase = Phase::RollingBack(RollingBack {
            cause,
            since: now.since_boot,
            exchange: Exchange::default(),
            in_place: None,
            undone: (0..self.swaps.len()).filter(|index| begun(self.swaps[*index].held)).collect(),
            foreign: Vec::new(),
            trouble: None,
            killed: Vec::new(),
            streak: Streak::default(),
        });
        Effect::Save
    }

    pub(super) fn rolling_back(&mut self, mut state: RollingBack, event: Event, now: &Now) -> Option<Effect> {
        let over = state.is_over(self.health_timeout, now);
        match event {
            // Going back does not depend on the journal: from any earlier one, the next start comes here again.
            // A person who wants the same changes nothing.
            Event::Saved | Event::SaveFailed(_) | Event::Recalled => Some(self.keep_rolling_back(state, Effect::Examine)),
            Event::Examined(held) => {
                state.trouble = None;
                self.examined(&mut state, &held);
                Some(self.exchange_back(state, now))
            }
            Event::Resumed(held) => {
                if state.undone.is_empty() && state.foreign.is_empty() {
                    state.undone = (0..self.swaps.len()).collect();
                }
                // a pod that was being ended when the last one stopped may still be
                state.exchange = Exchange::taken_up();
                self.examined(&mut state, &held);
                Some(self.exchange_back(state, now))
            }
            Event::TakenAway(index, Moved::Done) => {
                self.swaps[index].held = Held::Nothing;
                state.exchange.taken_away(index, now);
                Some(self.exchange_back(state, now))
            }
            Event::Put(index, Moved::Done) => {
                self.swaps[index].held = Held::BEFORE;
                Some(self.exchange_back(state, now))
            }
            Event::TakenAway(index, Moved::Foreign) | Event::Put(index, Moved::Foreign) => {
                self.swaps[index].held = Held::Other;
                state.leave(index, &self.swaps[index].file);
                Some(self.exchange_back(state, now))
            }
            Event::Looked(_) if state.trouble.is_some() && over => Some(self.rollback_failed(&state, "a manifest is not back", now)),
            Event::Looked(_) if state.trouble.is_some() => Some(self.keep_rolling_back(state, Effect::Examine)),
            Event::Looked(view) if state.in_place.is_none() => {
                self.swaps.iter_mut().zip(&view.components).for_each(|(swap, seen)| swap.learn_pod(Side::After, seen));
                if let Some(process) = self.never_served(&state, &view) {
                    state.killed.push(process);
                    return Some(self.keep_rolling_back(state, Effect::Kill(process)));
                }
                if state.exchange.looked(&self.swaps, &view, Side::After, now).is_err() {
                    // a process that does not end is no reason to keep the old manifests away
                    state.exchange.give_up_waiting();
                }
                Some(self.exchange_back(state, now))
            }
            Event::Looked(view) => {
                let seen = &view.components;
                let undone =
                    self.swaps.iter().zip(seen).enumerate().filter(|(index, _)| state.undone.contains(index)).map(|(_, pair)| pair);
                let standing = standing(undone, Side::Before);
                state.streak.count(standing.as_ref().ok(), seen, now);
                match standing {
                    _ if state.streak.is_green() => self.back(&state.cause, now),
                    Err(problem) if over => Some(self.rollback_failed(&state, &problem, now)),
                    Err(_) if let Some(kubelet) = self.deaf_kubelet(&state, &view, now) => {
                        state.killed.push(kubelet);
                        Some(self.keep_rolling_back(state, Effect::Kill(kubelet)))
                    }
                    _ => {
                        let look = state.streak.next_look(now);
                        Some(self.keep_rolling_back(state, look))
                    }
                }
            }
            Event::Killed => Some(self.exchange_back(state, now)),
            failure => {
                state.trouble = Some(failure.into_message());
                if over {
                    return Some(self.rollback_failed(&state, "", now));
                }
                Some(self.keep_rolling_back(state, Effect::Look { at: now.since_boot + PROBE_EVERY, probe: false, pods: None }))
            }
        }
    }

    /// A new kube-apiserver that has never answered and is asked to end: while it dials an etcd that is not there it does not listen to
    /// that for 20 s, and it has nothing to lose.
    fn never_served(&self, state: &RollingBack, view: &View) -> Option<ProcessId> {
        let index = state.exchange.leaving()?;
        let swap = self.swaps.get(index).filter(|swap| swap.component == ComponentName::KubeApiserver && !swap.answered)?;
        let process = view.components[index].processes.iter().find(|p| p.argv == swap.after.argv)?;
        (!state.killed.contains(&process.id)).then_some(process.id)
    }

    /// A kubelet that does not start the old manifests, long after they came back. One that was started while the API was away drops the
    /// removal of a static pod, and lets the next one of its name wait for ever (kubernetes issue 112814): what saves the node is that it
    /// is started once more, which costs no running pod anything. One that was started since the change began, and took the old
    /// manifests' coming without a start of theirs, is that one: it is waited for no longer than a kubelet takes.
    fn deaf_kubelet(&self, state: &RollingBack, view: &View, now: &Now) -> Option<ProcessId> {
        let kubelet = view.kubelet.filter(|kubelet| !state.killed.contains(kubelet))?;
        let waited = now.since_boot.saturating_sub(state.in_place?);
        let in_place = state.in_place?;
        let meanwhile = self.begun.is_some_and(|begun| now.wall_time_of(kubelet.started) >= begun) && kubelet.started <= in_place;
        // a kubelet that has been started since has its own time
        let due = (meanwhile && waited >= TAKES_UP) || (waited >= STARTS && now.since_boot.saturating_sub(kubelet.started) >= STARTS);
        let runs = |index: &usize| view.components[*index].processes.iter().any(|p| p.argv == self.swaps[*index].before.argv);
        (due && !state.undone.iter().all(runs)).then_some(kubelet)
    }

    fn examined(&mut self, state: &mut RollingBack, held: &[Held]) {
        self.found(held);
        for (index, swap) in self.swaps.iter().enumerate() {
            match swap.held {
                Held::Nothing | Held::AFTER => state.involve(index),
                Held::Other if state.undone.contains(&index) => state.leave(index, &swap.file),
                Held::BEFORE | Held::Other => {}
            }
        }
    }

    fn exchange_back(&mut self, mut state: RollingBack, now: &Now) -> Effect {
        if let Some(effect) = state.exchange.next(&self.swaps, Side::Before, now) {
            state.in_place = None;
            return self.keep_rolling_back(state, effect);
        }
        if !state.foreign.is_empty() {
            let files = state.foreign.join(", ");
            let message = format!("{}; {files} was changed by somebody else meanwhile, and was left as it is", state.cause.message);
            return self.end(OutcomeResult::Failed, Some(Reason::ManifestChanged), message, now);
        }
        if state.undone.is_empty() {
            return self.refuse(state.cause, now);
        }
        state.in_place.get_or_insert(now.since_boot);
        self.keep_rolling_back(state, Effect::Look { at: now.since_boot, probe: true, pods: None })
    }

    fn keep_rolling_back(&mut self, state: RollingBack, effect: Effect) -> Effect {
        self.phase = Phase::RollingBack(state);
        effect
    }

    /// The old state is back. A first interruption is no verdict on the change: the same grant may be tried again.
    fn back(&mut self, cause: &Cause, now: &Now) -> Option<Effect> {
        if cause.reason == Reason::Interrupted && self.interruptions <= 1 {
            self.phase = Phase::Abandoned;
            return None;
        }
        let message = format!("{}; the earlier manifests are back", cause.message);
        Some(self.end(OutcomeResult::RolledBack, Some(cause.reason), message, now))
    }

    fn rollback_failed(&mut self, state: &RollingBack, problem: &str, now: &Now) -> Effect {
        let problem = state.trouble.as_deref().unwrap_or(problem);
        let message = format!("going back failed: {problem}; it was needed because: {}", state.cause.message);
        self.end(OutcomeResult::Failed, Some(Reason::RollbackFailed), message, now)
    }

    pub(super) fn refuse(&mut self, cause: Cause, now: &Now) -> Effect {
        self.end(OutcomeResult::Refused, Some(cause.reason), cause.message, now)
    }

    pub(super) fn end(&mut self, result: OutcomeResult, reason: Option<Reason>, message: String, now: &Now) -> Effect {
        let seconds = self.begun.map_or(0, |begun| now.wall.duration_since(begun).as_secs().max(0));
        self.phase = Phase::Done(outcome(&self.grant, result, reason, message, seconds, now));
        Effect::Save
    }
}
