//! The one change that is in flight on a node: which step comes next, when it has succeeded, and when it goes back.
//!
//! [`transition`] is pure: a [`Flight`] and an [`Event`] in, the new flight and the next [`Effect`] out. It reads no clock and touches nothing.
//! `effects` carries an effect out and brings the next event; `journal` keeps the flight, so that a restarted agent goes on with [`Event::Resumed`].
//!
//! ```text
//! Prepared ──> Committing ──> Verifying ──> Done(Succeeded)
//!    │  │           │              │
//!    │  └> Done(Refused) <─┐       v
//!    └───> Abandoned       └── RollingBack ──> Done(RolledBack | Failed)
//! ```

use std::mem;

use serde::{Deserialize, Serialize};

use crate::api::node_tracing::{Outcome, OutcomeResult, Step};
use crate::api::{ComponentName, Grant, Reason};
use crate::host::{Now, Permissions, Process, ProcessId};
use crate::manifest::Probe;

/// Time between two looks at the processes: a process that exits at once lives a third of a second.
const LOOK_EVERY: u64 = 200;
/// Time between two rounds of probes, and between two tries to put a file back.
const PROBE_EVERY: u64 = 1_000;
/// Green rounds in a row that make a component healthy.
const ROUNDS: u8 = 3;
/// How long the kubelet may take to end the old process: its own poll is 20 s, a pod's default grace 30 s, and a busy node is slow.
const KUBELET_REACTS: u64 = 90_000;
/// A process that ended sooner than this after its start did not get far enough to depend on anything else:
/// a wrong flag or file ends kube-apiserver within 0.3 s, a missing etcd after 20 s.
const QUICK_EXIT: u64 = 10_000;
/// Quick exits that are no accident any more.
const QUICK_EXITS: u8 = 2;

/// One change of one node, under one grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// The permission that it uses up.
    pub grant: Grant,
    /// The boot that every time in here counts from.
    pub boot_id: String,
    /// Milliseconds that the new processes have to become healthy, once the old ones are gone.
    pub health_timeout: u64,
    /// The manifests that change, in the order in which they are written.
    pub swaps: Vec<Swap>,
    /// When the first manifest was written, by the wall clock.
    pub begun: Option<jiff::Timestamp>,
    /// Where it stands.
    pub phase: Phase,
}

/// The change of one component's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// Which component.
    pub component: ComponentName,
    /// Name of the manifest in the static-pod folder.
    pub file: String,
    /// Its permissions, which stay.
    pub permissions: Permissions,
    /// Its text before.
    pub before: String,
    /// Its text after.
    pub after: String,
    /// Whether `before` carries nothing of ours: then it is what removal gives back, and is kept.
    pub original: bool,
    /// Files that `after` needs: name in the state folder, contents.
    pub needs: Vec<(String, String)>,
    /// argv under `before`.
    pub old_argv: Vec<String>,
    /// argv under `after`.
    pub new_argv: Vec<String>,
    /// The processes that ran before the change.
    pub old_processes: Vec<ProcessId>,
    /// The probes that were green before the change: what was red before is not the change's fault.
    pub probes: Vec<Probe>,
    /// Whether the file may hold our new bytes, so that going back must look at it.
    pub touched: bool,
}

/// Where a flight stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing that counts is written.
    Prepared,
    /// The manifests are being written.
    Committing,
    /// The new processes are waited for.
    Verifying(Verifying),
    /// The old manifests are being put back, and the old state is waited for.
    RollingBack(RollingBack),
    /// It ended.
    Done(Outcome),
    /// It ended before anything was written, and the grant is not used up.
    Abandoned,
}

/// What is known while the new processes are waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifying {
    /// When the manifests were in place.
    since: u64,
    /// When the last old process was gone: the health budget counts from here.
    old_gone: Option<u64>,
    /// Each component's newest process.
    watched: Vec<Watched>,
    streak: Streak,
}

/// A component's newest process, and how its predecessors ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    process: Option<ProcessId>,
    quick_exits: u8,
}

/// What is known while going back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollingBack {
    /// Why.
    cause: Cause,
    since: u64,
    /// Whether the kubelet may have seen a new manifest.
    disturbed: bool,
    /// The swaps that may have been made, and whose old state is waited for.
    undone: Vec<usize>,
    /// Manifests that somebody else has changed since we did.
    foreign: Vec<String>,
    /// Why the last try to put a manifest back failed.
    trouble: Option<String>,
    streak: Streak,
}

/// Why a flight did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cause {
    reason: Reason,
    message: String,
}

/// Rounds in a row in which the same processes stood as expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Streak {
    processes: Vec<ProcessId>,
    green: u8,
    probed: u64,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the journal. Answered by [`Event::Saved`] or [`Event::SaveFailed`].
    Save,
    /// Write everything that is needed, under names that nobody reads yet. Answered by [`Event::Staged`].
    Stage,
    /// Ask the API server once more whether the grant stands. Answered by [`Event::Confirmed`] or [`Event::Withdrawn`].
    Confirm,
    /// Put this swap's new manifest in place, if the old one is there. Answered by [`Event::Put`].
    Put(usize),
    /// Put this swap's old manifest in place, if the new one is there. Answered by [`Event::Put`].
    PutBack(usize),
    /// At this time (milliseconds since boot) look at the processes, and at the probes too if asked. Answered by [`Event::Looked`].
    Look {
        /// When.
        at: u64,
        /// Whether the probes are made.
        probe: bool,
    },
}

/// What came of an effect, or how a flight is taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new flight starts.
    Begun,
    /// The flight was read from the journal; its manifests hold this now.
    Resumed(Vec<Held>),
    /// The journal is written.
    Saved,
    /// The journal could not be written.
    SaveFailed(String),
    /// Everything is ready.
    Staged,
    /// The grant stands.
    Confirmed,
    /// The grant does not stand, or nobody could say.
    Withdrawn(String),
    /// What came of putting this swap's manifest in place.
    Put(usize, Put),
    /// What was seen of each swap's component.
    Looked(Vec<Seen>),
    /// The effect failed.
    Failed(String),
}

/// Whose bytes a manifest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Those from before the change.
    Before,
    /// Those from after it.
    After,
    /// Somebody else's, or none.
    Other,
}

/// What came of putting a manifest in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was written.
    Written,
    /// It was there already.
    AlreadyThere,
    /// Somebody else changed the file: it was left alone.
    Foreign,
}

/// What was seen of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The processes of its program.
    pub processes: Vec<Process>,
    /// The probes that were not answered; `None` when they were not made.
    pub silent: Option<Vec<Probe>>,
}

/// The next state and what to do. A flight that is [`Phase::Done`] or [`Phase::Abandoned`] has no further effect.
///
/// An event that does not answer the flight's last effect counts as that effect's failure.
pub fn transition(mut flight: Flight, event: Event, now: &Now) -> (Flight, Option<Effect>) {
    let other_boot = flight.boot_id != now.boot_id;
    if other_boot {
        // none of them is alive, and their names may be given again
        flight.swaps.iter_mut().for_each(|swap| swap.old_processes.clear());
    }
    let effect = match mem::replace(&mut flight.phase, Phase::Abandoned) {
        Phase::Prepared => flight.prepared(event, now),
        Phase::Committing => flight.committing(event, now),
        Phase::Verifying(state) if other_boot => Some(flight.verifying(state.restarted(now), event, now)),
        Phase::Verifying(state) => Some(flight.verifying(state, event, now)),
        Phase::RollingBack(state) if other_boot => Some(flight.rolling_back(RollingBack { since: now.since_boot, ..state }, event, now)),
        Phase::RollingBack(state) => Some(flight.rolling_back(state, event, now)),
        end @ (Phase::Done(_) | Phase::Abandoned) => {
            flight.phase = end;
            None
        }
    };
    flight.boot_id.clone_from(&now.boot_id);
    (flight, effect)
}

impl Flight {
    /// What the node's status says of it.
    pub fn step(&self) -> Step {
        match self.phase {
            Phase::Prepared | Phase::Done(_) | Phase::Abandoned => Step::Idle,
            Phase::Committing => Step::Committing,
            Phase::Verifying(_) => Step::Verifying,
            Phase::RollingBack(_) => Step::RollingBack,
        }
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Done(outcome) => Some(outcome),
            _ => None,
        }
    }

    fn prepared(&mut self, event: Event, now: &Now) -> Option<Effect> {
        let next = match event {
            Event::Begun => Effect::Save,
            Event::Saved => Effect::Stage,
            Event::Staged => Effect::Confirm,
            Event::Confirmed => {
                self.phase = Phase::Committing;
                return Some(Effect::Save);
            }
            // Nothing was written that counts: whoever comes next starts over with what is true then.
            Event::Resumed(_) | Event::Withdrawn(_) => return None,
            failure => return Some(self.refuse(unwritable(failure), now)),
        };
        self.phase = Phase::Prepared;
        Some(next)
    }

    fn committing(&mut self, event: Event, now: &Now) -> Option<Effect> {
        let effect = match event {
            Event::Saved | Event::Put(_, Put::Written | Put::AlreadyThere) => self.put_next(now),
            // Stopped before the first rename: as good as never begun, and the grant may have been withdrawn since.
            Event::Resumed(held) if !held.contains(&Held::After) => return None,
            Event::Resumed(held) => {
                self.swaps.iter_mut().zip(held).for_each(|(swap, held)| swap.touched = held == Held::After);
                self.put_next(now)
            }
            Event::Put(index, Put::Foreign) => {
                let swap = &mut self.swaps[index];
                swap.touched = false;
                let message = format!("{} was changed between the check and the write", swap.file);
                self.roll_back(Cause { reason: Reason::ManifestChanged, message }, false, now)
            }
            // With nothing touched this ends as a refusal.
            failure => self.roll_back(unwritable(failure), false, now),
        };
        Some(effect)
    }

    fn put_next(&mut self, now: &Now) -> Effect {
        self.begun.get_or_insert(now.wall);
        if let Some(index) = self.swaps.iter().position(|s| !s.touched) {
            // Marked before the rename: when the rename fails, nobody knows which bytes are there.
            self.swaps[index].touched = true;
            self.phase = Phase::Committing;
            return Effect::Put(index);
        }
        let watched = vec![Watched::default(); self.swaps.len()];
        self.phase = Phase::Verifying(Verifying { since: now.since_boot, watched, ..Verifying::default() });
        Effect::Save
    }

    fn verifying(&mut self, mut state: Verifying, event: Event, now: &Now) -> Effect {
        if state.watched.len() != self.swaps.len() {
            state.watched = vec![Watched::default(); self.swaps.len()];
        }
        let standing = match event {
            // A journal that cannot be written here costs nothing but work: the one on the disk leads to the same place.
            Event::Saved | Event::SaveFailed(_) => return self.keep_verifying(state, Effect::Look { at: now.since_boot, probe: true }),
            Event::Resumed(held) if held.iter().all(|h| *h == Held::After) => {
                return self.keep_verifying(state, Effect::Look { at: now.since_boot, probe: true });
            }
            Event::Resumed(_) => {
                let message = "the new manifests were no longer in place when the agent started again".to_owned();
                return self.roll_back(Cause { reason: Reason::ManifestChanged, message }, true, now);
            }
            Event::Looked(seen) => {
                let probed = seen.iter().all(|s| s.silent.is_some());
                let first_without_old = state.old_gone.is_none() && self.old_are_gone(&seen);
                if first_without_old {
                    state.old_gone = Some(now.since_boot);
                }
                self.watch(&mut state, &seen, now);
                if let Some(cause) = self.crash_loop(&state) {
                    return self.roll_back(cause, true, now);
                }
                let all = self.swaps.iter().zip(&seen);
                let standing = standing(all, |swap| &swap.new_argv, |swap, p| swap.old_processes.contains(&p.id));
                state.streak.count(standing.as_ref().ok(), probed, now);
                if first_without_old {
                    // so that an agent that is started again does not give a new budget
                    return self.keep_verifying(state, Effect::Save);
                }
                standing
            }
            failure => Err(failure.into_message()),
        };
        if state.streak.green >= ROUNDS {
            return self.end(OutcomeResult::Succeeded, None, String::new(), now);
        }
        if let Err(problem) = standing
            && let Some(cause) = self.timeout(&state, &problem, now)
        {
            return self.roll_back(cause, true, now);
        }
        let look = state.streak.next_look(now);
        self.keep_verifying(state, look)
    }

    fn keep_verifying(&mut self, state: Verifying, effect: Effect) -> Effect {
        self.phase = Phase::Verifying(state);
        effect
    }

    fn old_are_gone(&self, seen: &[Seen]) -> bool {
        self.swaps.iter().zip(seen).all(|(swap, seen)| seen.processes.iter().all(|p| !swap.old_processes.contains(&p.id)))
    }

    /// Follows each component's newest new process, and counts those that ended soon after their start.
    fn watch(&self, state: &mut Verifying, seen: &[Seen], now: &Now) {
        for ((swap, watched), seen) in self.swaps.iter().zip(&mut state.watched).zip(seen) {
            let is_new = |p: &&Process| p.argv == swap.new_argv && !swap.old_processes.contains(&p.id);
            if let Some(last) = watched.process
                && !seen.processes.iter().any(|p| p.id == last)
            {
                watched.process = None;
                if now.since_boot.saturating_sub(last.started) < QUICK_EXIT {
                    watched.quick_exits += 1;
                }
            }
            if let Some(newest) = seen.processes.iter().filter(is_new).max_by_key(|p| p.id.started) {
                watched.process = Some(newest.id);
            }
        }
    }

    fn crash_loop(&self, state: &Verifying) -> Option<Cause> {
        let (swap, _) = self.swaps.iter().zip(&state.watched).find(|(_, w)| w.quick_exits >= QUICK_EXITS)?;
        let message = format!("{}: the new process ended {QUICK_EXITS} times within {} s of its start", swap.component, QUICK_EXIT / 1000);
        Some(Cause { reason: Reason::NewProcessExited, message })
    }

    fn timeout(&self, state: &Verifying, problem: &str, now: &Now) -> Option<Cause> {
        let (since, limit, reason, what) = match state.old_gone {
            Some(gone) => (gone, self.health_timeout, Reason::HealthTimeout, "after the old processes were gone"),
            None => (state.since, KUBELET_REACTS, Reason::KubeletNotReacting, "after the new manifests were in place"),
        };
        let over = now.since_boot.saturating_sub(since) >= limit;
        over.then(|| Cause { reason, message: format!("{problem}, {} s {what}", limit / 1000) })
    }

    fn roll_back(&mut self, cause: Cause, disturbed: bool, now: &Now) -> Effect {
        let since = now.since_boot;
        let undone = (0..self.swaps.len()).filter(|index| self.swaps[*index].touched).collect();
        self.phase = Phase::RollingBack(RollingBack {
            cause,
            since,
            disturbed,
            undone,
            foreign: Vec::new(),
            trouble: None,
            streak: Streak::default(),
        });
        Effect::Save
    }

    fn rolling_back(&mut self, mut state: RollingBack, event: Event, now: &Now) -> Effect {
        // Going back has the kubelet's time and the health budget, counted from its beginning: no process needs to be gone first.
        let over = now.since_boot.saturating_sub(state.since) >= KUBELET_REACTS + self.health_timeout;
        match event {
            // Going back does not depend on the journal: from any earlier one, the next start comes here again.
            Event::Saved | Event::SaveFailed(_) => self.put_back_next(state, now),
            Event::Resumed(_) => {
                state.disturbed = true;
                self.put_back_next(state, now)
            }
            Event::Put(index, put) => {
                let swap = &mut self.swaps[index];
                swap.touched = false;
                if put == Put::Foreign {
                    state.foreign.push(swap.file.clone());
                }
                state.disturbed |= put == Put::Written;
                state.trouble = None;
                self.put_back_next(state, now)
            }
            Event::Looked(_) if self.swaps.iter().any(|s| s.touched) && over => self.rollback_failed(&state, "a manifest is not back", now),
            Event::Looked(_) if self.swaps.iter().any(|s| s.touched) => self.put_back_next(state, now),
            Event::Looked(seen) => {
                let probed = seen.iter().all(|s| s.silent.is_some());
                let undone =
                    self.swaps.iter().zip(&seen).enumerate().filter(|(index, _)| state.undone.contains(index)).map(|(_, pair)| pair);
                let standing = standing(undone, |swap| &swap.old_argv, |swap, p| p.argv == swap.new_argv && p.argv != swap.old_argv);
                state.streak.count(standing.as_ref().ok(), probed, now);
                match standing {
                    _ if state.streak.green >= ROUNDS => {
                        let message = format!("{}; the earlier manifests are back", state.cause.message);
                        self.end(OutcomeResult::RolledBack, Some(state.cause.reason), message, now)
                    }
                    Err(problem) if over => self.rollback_failed(&state, &problem, now),
                    _ => {
                        let look = state.streak.next_look(now);
                        self.keep_rolling_back(state, look)
                    }
                }
            }
            failure => {
                let message = failure.into_message();
                if over {
                    return self.rollback_failed(&state, &message, now);
                }
                state.trouble = Some(message);
                self.keep_rolling_back(state, Effect::Look { at: now.since_boot + PROBE_EVERY, probe: false })
            }
        }
    }

    fn keep_rolling_back(&mut self, state: RollingBack, effect: Effect) -> Effect {
        self.phase = Phase::RollingBack(state);
        effect
    }

    fn put_back_next(&mut self, state: RollingBack, now: &Now) -> Effect {
        if let Some(index) = self.swaps.iter().rposition(|s| s.touched) {
            return self.keep_rolling_back(state, Effect::PutBack(index));
        }
        if !state.foreign.is_empty() {
            let files = state.foreign.join(", ");
            let message = format!("{}; {files} was changed by somebody else meanwhile, and was left as it is", state.cause.message);
            return self.end(OutcomeResult::Failed, Some(Reason::ManifestChanged), message, now);
        }
        if !state.disturbed {
            return self.refuse(state.cause, now);
        }
        self.keep_rolling_back(state, Effect::Look { at: now.since_boot, probe: true })
    }

    fn rollback_failed(&mut self, state: &RollingBack, problem: &str, now: &Now) -> Effect {
        let problem = state.trouble.as_deref().unwrap_or(problem);
        let message = format!("going back failed: {problem}; it was needed because: {}", state.cause.message);
        self.end(OutcomeResult::Failed, Some(Reason::RollbackFailed), message, now)
    }

    fn refuse(&mut self, cause: Cause, now: &Now) -> Effect {
        self.end(OutcomeResult::Refused, Some(cause.reason), cause.message, now)
    }

    fn end(&mut self, result: OutcomeResult, reason: Option<Reason>, message: String, now: &Now) -> Effect {
        let seconds = self.begun.map_or(0, |begun| now.wall.duration_since(begun).as_secs().max(0));
        self.phase = Phase::Done(outcome(&self.grant, result, reason, message, seconds, now));
        Effect::Save
    }
}

/// The one process of each component that should run, or what is missing.
fn standing<'a>(
    swaps: impl Iterator<Item = (&'a Swap, &'a Seen)>,
    wanted: impl Fn(&Swap) -> &Vec<String>,
    unwanted: impl Fn(&Swap, &Process) -> bool,
) -> Result<Vec<ProcessId>, String> {
    let one = |(swap, seen): (&Swap, &Seen)| {
        let component = swap.component;
        if let Some(process) = seen.processes.iter().find(|p| unwanted(swap, p)) {
            return Err(format!("{component}: process {} of the other manifest still runs", process.id.pid));
        }
        let running: Vec<_> = seen.processes.iter().filter(|p| p.argv == *wanted(swap)).map(|p| p.id).collect();
        let [process] = running[..] else {
            return Err(format!("{component}: {} processes run with the expected flags instead of one", running.len()));
        };
        match seen.silent.as_deref() {
            None | Some([]) => Ok(process),
            Some([probe, ..]) => Err(format!("{component}: {} is not answered", describe(probe))),
        }
    };
    swaps.map(one).collect()
}

/// How a grant ended, at `now`.
pub fn outcome(grant: &Grant, result: OutcomeResult, reason: Option<Reason>, message: String, seconds: i64, now: &Now) -> Outcome {
    Outcome {
        grant: grant.id,
        revision: grant.revision.clone(),
        generation: grant.generation,
        result,
        reason,
        message,
        finished_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now.wall_time_of(now.since_boot)),
        seconds,
    }
}

impl Verifying {
    /// After a reboot no process that was seen before is alive, and every wait starts anew.
    fn restarted(&self, now: &Now) -> Self {
        Self { since: now.since_boot, watched: vec![Watched::default(); self.watched.len()], ..Self::default() }
    }
}

impl Streak {
    /// `standing`: the processes that stand as expected, if all do.
    fn count(&mut self, standing: Option<&Vec<ProcessId>>, probed: bool, now: &Now) {
        if probed {
            self.probed = now.since_boot;
        }
        match standing {
            None => self.green = 0,
            Some(processes) => {
                if self.processes != *processes {
                    self.green = 0;
                    self.processes.clone_from(processes);
                }
                self.green += u8::from(probed);
            }
        }
    }

    fn next_look(&self, now: &Now) -> Effect {
        let at = now.since_boot + LOOK_EVERY;
        Effect::Look { at, probe: at >= self.probed + PROBE_EVERY }
    }
}

impl Event {
    fn into_message(self) -> String {
        match self {
            Self::Failed(message) | Self::SaveFailed(message) | Self::Withdrawn(message) => message,
            unexpected => format!("unexpected answer {unexpected:?}"),
        }
    }
}

fn unwritable(failure: Event) -> Cause {
    Cause { reason: Reason::NodeFilesUnwritable, message: failure.into_message() }
}

fn describe(probe: &Probe) -> String {
    format!("{}://{}:{}{}", probe.scheme.to_lowercase(), probe.host, probe.port, probe.path)
}

#[cfg(test)]
pub(crate) mod tests;
