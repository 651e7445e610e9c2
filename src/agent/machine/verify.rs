//! Whether the new processes are as they should be, and when they are given up.
//!
//! What cannot get better goes back at once: a process that ends twice soon after its start, one that never starts. What may get better
//! has the health budget, and more while the component that does not answer is at work.

use serde::{Deserialize, Serialize};

use super::forward::{not_as_written, recalled};
use super::types::{Cause, Effect, Event, Flight, Held, Phase, Seen, Side, Swap, View};
use super::{LOOK_EVERY, PROBE_EVERY};
use crate::api::Reason;
use crate::api::node_tracing::OutcomeResult;
use crate::host::{Now, Process, ProcessId};
use crate::manifest::Probe;

/// Green rounds in a row that make a component healthy.
const ROUNDS: u8 = 3;
/// A process that ended sooner than this after its start has refused its flags or files: etcd does so within 0.1 s, kube-apiserver
/// within 0.3 s, and without an etcd it ends after 20 s. To wait for a second exit would be to wait for the kubelet's back-off of 10 s.
const AT_ONCE: u64 = 3_000;
/// A process that ended sooner than this did not get far enough to depend on anything else, …
const QUICK_EXIT: u64 = 10_000;
/// … and so many exits of that kind are no accident any more.
const QUICK_EXITS: u8 = 2;
/// A new process appears within this time of its manifest: the kubelet's own poll of the folder is 20 s, and a pod that it puts off it tries
/// again after 10 s, half of it more or less, twice if two components are put off.
pub(super) const STARTS: u64 = 45_000;
/// Over how long the work of a process is measured, and how often what is used up of the health budget goes to the journal.
const STRETCH: u64 = 10_000;
/// CPU time of one stretch that is work towards an answer: an idle kube-apiserver uses a twentieth of a core, etcd that replays its
/// log half of one.
const BUSY: u64 = STRETCH / 5;
/// Work stretches the health budget to this multiple of it, …
const STRETCHED: u64 = 5;
/// … and to this time at most.
const STRETCHED_MOST: u64 = 600_000;
/// A node that was started again this often since the new manifests came in is not made better by one more start.
const REBOOTS: u8 = 3;

/// What is known while the new processes are waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifying {
    /// When the manifests were in place, or the time from which `spent` does not count yet.
    since: u64,
    /// Milliseconds of the health budget that were used up before `since`: no start of the agent or the node gives it anew.
    spent: u64,
    /// Until when the new processes must have appeared. `None` after a reboot, when the kubelet has more to do.
    appear: Option<u64>,
    /// Each component's newest process.
    watched: Vec<Watched>,
    streak: Streak,
}

/// A component's newest process, and how its predecessors ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    process: Option<ProcessId>,
    appeared: bool,
    quick_exits: u8,
    /// When the present stretch of work began, and the CPU time by then.
    stretch: Option<(u64, u64)>,
    /// Whether the last whole stretch was one of work.
    busy: bool,
}

/// Rounds in a row in which the same processes stood as expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Streak {
    processes: Vec<ProcessId>,
    green: u8,
    probed: u64,
}

impl Verifying {
    pub(super) fn new(components: usize, now: &Now) -> Self {
        Self {
            since: now.since_boot,
            spent: 0,
            appear: Some(now.since_boot + STARTS),
            watched: vec![Watched::default(); components],
            streak: Streak::default(),
        }
    }

    /// After a reboot no process that was seen before is alive.
    pub(super) fn restarted(self, now: &Now) -> Self {
        Self { spent: self.spent, appear: None, ..Self::new(self.watched.len(), now) }
    }

    fn spent(&self, now: &Now) -> u64 {
        self.spent + now.since_boot.saturating_sub(self.since)
    }
}

impl Flight {
    /// Whether a new process has not been seen yet: it may start and end between two looks.
    pub fn awaits_a_start(&self) -> bool {
        matches!(&self.phase, Phase::Verifying(state) if state.watched.iter().any(|watched| !watched.appeared))
    }

    pub(super) fn verifying(&mut self, mut state: Verifying, event: Event, now: &Now) -> Effect {
        state.watched.resize(self.swaps.len(), Watched::default());
        let standing = match event {
            // A journal that cannot be written here costs nothing but work: the one on the disk leads to the same place.
            Event::Saved | Event::SaveFailed(_) => return self.look_again(state, now),
            Event::Resumed(_) if self.reboots >= REBOOTS => {
                let message = format!("the node was started again {REBOOTS} times while the new processes were waited for");
                return self.roll_back(Cause { reason: Reason::HealthTimeout, message }, now);
            }
            // so that a reboot counts, whatever comes next
            Event::Resumed(held) if held.iter().all(|h| *h == Held::AFTER) => return self.keep_verifying(state, Effect::Save),
            Event::Resumed(_) => {
                let message = "the new manifests were no longer in place when the agent started again".to_owned();
                return self.roll_back(Cause { reason: Reason::ManifestChanged, message }, now);
            }
            Event::Recalled => return self.roll_back(recalled(), now),
            Event::Compared(wrong) if wrong.is_empty() => return self.end(OutcomeResult::Succeeded, None, String::new(), now),
            Event::Compared(wrong) => return self.roll_back(not_as_written(&wrong), now),
            Event::Looked(view) => {
                let seen = &view.components;
                self.watch(&mut state, seen, now);
                if let Some(cause) = self.hopeless(&state, &view, now) {
                    return self.roll_back(cause, now);
                }
                let standing = standing(self.swaps.iter().zip(seen), Side::After);
                state.streak.count(standing.as_ref().ok(), seen, now);
                standing
            }
            failure => {
                state.streak = Streak::default();
                Err(failure.into_message())
            }
        };
        if state.streak.is_green() {
            // both of the API server's own checks pass over an empty tracing file
            return self.keep_verifying(state, Effect::Compare);
        }
        if let Err(problem) = standing
            && let Some(cause) = self.timeout(&state, &problem, now)
        {
            return self.roll_back(cause, now);
        }
        if now.since_boot.saturating_sub(state.since) >= STRETCH {
            (state.spent, state.since) = (state.spent(now), now.since_boot);
            return self.keep_verifying(state, Effect::Save);
        }
        self.look_again(state, now)
    }

    fn look_again(&mut self, state: Verifying, now: &Now) -> Effect {
        let look = state.streak.next_look(now);
        self.keep_verifying(state, look)
    }

    fn keep_verifying(&mut self, state: Verifying, effect: Effect) -> Effect {
        self.phase = Phase::Verifying(state);
        effect
    }

    /// Follows each component's newest new process: how it works, and whether it ends soon after its start.
    fn watch(&mut self, state: &mut Verifying, seen: &[Seen], now: &Now) {
        for ((swap, watched), seen) in self.swaps.iter_mut().zip(&mut state.watched).zip(seen) {
            swap.learn_pod(Side::After, seen);
            swap.answered |= seen.silent.as_ref().is_some_and(Vec::is_empty) && seen.processes.iter().any(|p| p.argv == swap.after.argv);
            if let Some(last) = watched.process
                && !seen.processes.iter().any(|p| p.id == last)
            {
                let exits = match now.since_boot.saturating_sub(last.started) {
                    lived if lived < AT_ONCE => QUICK_EXITS,
                    lived if lived < QUICK_EXIT => 1,
                    _ => 0,
                };
                *watched = Watched { appeared: true, quick_exits: watched.quick_exits.saturating_add(exits), ..Watched::default() };
            }
            if seen.brief.iter().any(|p| p.argv == swap.after.argv && watched.process != Some(p.id)) {
                *watched = Watched { appeared: true, quick_exits: QUICK_EXITS, ..Watched::default() };
            }
            if let Some(newest) = seen.processes.iter().filter(|p| p.argv == swap.after.argv).max_by_key(|p| p.id.started) {
                watched.follow(newest, now);
            }
        }
    }

    /// What cannot get better by waiting.
    fn hopeless(&self, state: &Verifying, view: &View, now: &Now) -> Option<Cause> {
        let watched = || self.swaps.iter().zip(&state.watched);
        if let Some((swap, _)) = watched().find(|(_, w)| w.quick_exits >= QUICK_EXITS) {
            let message = format!("{}: the new process ended within seconds of its start", swap.component);
            return Some(Cause { reason: Reason::NewProcessExited, message });
        }
        if view.kubelet.is_some() && state.appear.is_some_and(|appear| now.since_boot >= appear) {
            let (swap, _) = watched().find(|(_, w)| !w.appeared)?;
            let message = format!("{}: no new process appeared within {} s of its manifest", swap.component, STARTS / 1000);
            return Some(Cause { reason: Reason::NewProcessNotStarted, message });
        }
        None
    }

    fn timeout(&self, state: &Verifying, problem: &str, now: &Now) -> Option<Cause> {
        let busy = state.watched.iter().any(|w| w.busy);
        let most = self.health_timeout.max(STRETCHED_MOST.min(self.health_timeout * STRETCHED));
        let budget = if busy { most } else { self.health_timeout };
        let over = state.spent(now) >= budget;
        let message = || format!("{problem}, {} s after the new manifests were in place", budget / 1000);
        over.then(|| Cause { reason: Reason::HealthTimeout, message: message() })
    }
}

impl Watched {
    fn follow(&mut self, newest: &Process, now: &Now) {
        if self.process != Some(newest.id) {
            *self = Self { process: Some(newest.id), appeared: true, quick_exits: self.quick_exits, ..Self::default() };
        }
        let (began, cpu) = *self.stretch.get_or_insert((now.since_boot, newest.cpu));
        if now.since_boot.saturating_sub(began) >= STRETCH {
            self.busy = newest.cpu.saturating_sub(cpu) >= BUSY;
            self.stretch = Some((now.since_boot, newest.cpu));
        }
    }
}

impl Streak {
    /// `standing`: the processes that stand as expected, if all do.
    pub(super) fn count(&mut self, standing: Option<&Vec<ProcessId>>, seen: &[Seen], now: &Now) {
        let probed = seen.iter().all(|s| s.silent.is_some());
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

    pub(super) fn is_green(&self) -> bool {
        self.green >= ROUNDS
    }

    pub(super) fn next_look(&self, now: &Now) -> Effect {
        let at = now.since_boot + LOOK_EVERY;
        Effect::Look { at, probe: at >= self.probed + PROBE_EVERY, pods: None }
    }
}

/// The one process of each component that should run under this version, or what is missing.
pub(super) fn standing<'a>(swaps: impl Iterator<Item = (&'a Swap, &'a Seen)>, side: Side) -> Result<Vec<ProcessId>, String> {
    let one = |(swap, seen): (&Swap, &Seen)| {
        let (component, wanted, unwanted) = (swap.component, &swap.version(side).argv, &swap.version(side.other()).argv);
        if let Some(process) = seen.processes.iter().find(|p| p.argv == *unwanted && p.argv != *wanted) {
            return Err(format!("{component}: process {} of the other manifest still runs", process.id.pid));
        }
        let running: Vec<_> = seen.processes.iter().filter(|p| p.argv == *wanted).map(|p| p.id).collect();
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

fn describe(probe: &Probe) -> String {
    format!("{}://{}:{}{}", probe.scheme.to_lowercase(), probe.host, probe.port, probe.path)
}
