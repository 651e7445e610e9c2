//! The ordered swap, one way or the other: one manifest after the other is taken away and its process's end waited for; once the kubelet
//! has let go of all their pods, the other versions are put in.
//!
//! It interrupts a node's API server for a few seconds, where replaced manifests take it away for 40 to 55: etcd ends at once when
//! its client has gone, and a manifest that appears while the kubelet still ends a pod of the same name is only tried again 10 s later.

use serde::{Deserialize, Serialize};

use super::LOOK_EVERY;
use super::types::{Effect, Held, Seen, Side, Swap, View};
use crate::host::Now;

/// How long the kubelet may take to end a process: its own poll of the folder is 20 s, a pod's default grace 30 s, and a busy node is slow.
pub(super) const KUBELET_REACTS: u64 = 90_000;
/// The kubelet has let go of a pod this long after the last of its processes, the sandbox's included, was gone: it waits for its next look
/// at the container runtime (once a second), unmounts the pod's volumes (a poll of 0.3 s) and removes its control group. Measured with
/// 1.36.3: 0.24 to 0.90 s in 28 of 28 runs; a new manifest was put off to a later try after 0.5 s in 2 of 6, after 1.0 s in 0 of 8.
const LET_GO_MARGIN: u64 = 1_500;
/// The same, counted from the end of the component's own process, when it is not known which pod it belonged to.
const LET_GO_UNSEEN: u64 = 2_500;
/// A pod that is not gone by then is waited for no longer: the kubelet comes back to the new manifest by itself.
const LET_GO_MOST: u64 = 20_000;

/// How far an ordered swap has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The swap whose manifest was taken away last and whose process has not ended, and since when.
    leaving: Option<(usize, u64)>,
    /// Whether the kubelet may still be ending a pod.
    ending: bool,
    /// When the last process was gone.
    ended: Option<u64>,
    /// When no process of any of the pods was seen for the first time.
    unseen: Option<u64>,
}

/// A process that does not end, in words.
pub(super) struct Stuck(pub(super) String);

impl Exchange {
    /// One that goes on where another one was stopped: pods may still be ending.
    pub(super) fn taken_up() -> Self {
        Self { ending: true, ..Self::default() }
    }

    /// What brings the manifests nearer to `to`; `None` when all that can be there are.
    pub(super) fn next(&self, swaps: &[Swap], to: Side, now: &Now) -> Option<Effect> {
        let look = |at| Effect::Look { at, probe: false, pods: Some(to.other()) };
        if self.leaving.is_some() {
            return Some(look(now.since_boot + LOOK_EVERY));
        }
        if let Some(index) = swaps.iter().position(|s| s.held == Held::Version(to.other())) {
            return Some(Effect::TakeAway(index, to.other()));
        }
        // a server before its client
        let index = swaps.iter().rposition(|s| s.held == Held::Nothing)?;
        Some(if self.ending { look(now.since_boot + LOOK_EVERY) } else { Effect::Put(index, to) })
    }

    /// A manifest is away: its process must end.
    pub(super) fn taken_away(&mut self, index: usize, now: &Now) {
        *self = Self { leaving: Some((index, now.since_boot)), ending: true, ..Self::default() };
    }

    /// The swap whose process is waited for.
    pub(super) fn leaving(&self) -> Option<usize> {
        self.leaving.map(|(index, _)| index)
    }

    /// The process that was waited for is not waited for any longer.
    pub(super) fn give_up_waiting(&mut self) {
        self.leaving = None;
    }

    /// Takes in what was seen; `from` is the version that is taken away.
    pub(super) fn looked(&mut self, swaps: &[Swap], view: &View, from: Side, now: &Now) -> Result<(), Stuck> {
        let Some((index, since)) = self.leaving else {
            self.watch_pods(&view.components, now);
            return Ok(());
        };
        let swap = &swaps[index];
        let process = view.components[index].processes.iter().find(|p| p.argv == swap.version(from).argv);
        match process {
            None => {
                self.leaving = None;
                self.ended = Some(now.since_boot);
            }
            Some(process) if now.since_boot.saturating_sub(since) >= KUBELET_REACTS => {
                let (component, pid, seconds) = (swap.component, process.id.pid, KUBELET_REACTS / 1000);
                return Err(Stuck(format!("{component}: process {pid} still runs {seconds} s after its manifest was taken away")));
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn watch_pods(&mut self, seen: &[Seen], now: &Now) {
        let ended = *self.ended.get_or_insert(now.since_boot);
        let waited = now.since_boot.saturating_sub(ended);
        if seen.iter().any(|s| s.pod_lives == Some(true)) {
            self.unseen = None;
        } else {
            self.unseen.get_or_insert(now.since_boot);
        }
        let known = seen.iter().all(|s| s.pod_lives.is_some());
        let let_go = self.unseen.is_some_and(|unseen| now.since_boot.saturating_sub(unseen) >= LET_GO_MARGIN);
        if (let_go && (known || waited >= LET_GO_UNSEEN)) || waited >= LET_GO_MOST {
            self.ending = false;
        }
    }
}
