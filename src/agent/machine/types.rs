//! The values of the machine: what a flight is, what is asked of the node, and what the node answers.

use serde::{Deserialize, Serialize};

use super::back::RollingBack;
use super::exchange::Exchange;
use super::verify::Verifying;
use crate::api::node_tracing::{Outcome, Step};
use crate::api::{ComponentName, Grant, Reason};
use crate::host::{Permissions, Process, ProcessId};
use crate::manifest::Probe;

/// One change of one node, under one grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// The permission that it uses up.
    pub grant: Grant,
    /// The boot that every time in here counts from.
    pub boot_id: String,
    /// How often the node was started again while new manifests were in place.
    pub reboots: u8,
    /// How often whoever carried it out was stopped while manifests were away.
    pub interruptions: u8,
    /// Milliseconds that the new processes have to become healthy.
    pub health_timeout: u64,
    /// The manifests that change, in the order in which they are taken away: a client before its server.
    pub swaps: Vec<Swap>,
    /// Who goes on when the agent cannot. `None` where a person wants none.
    pub watchdog: Option<Watchdog>,
    /// When the first manifest was taken away, by the wall clock.
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
    /// What it is before the change.
    pub before: Version,
    /// What it is after the change.
    pub after: Version,
    /// `before` without anything of ours, which is kept: what a person puts back by hand.
    pub original: String,
    /// Files that `after` needs: name in the state folder, contents.
    pub needs: Vec<(String, String)>,
    /// The probes that were green before the change: what was red before is not the change's fault.
    pub probes: Vec<Probe>,
    /// What the manifests folder holds under this name, as far as is known.
    pub held: Held,
    /// Whether a process of `after` has ever answered its probes.
    pub answered: bool,
}

/// One of the two versions of a manifest, and what runs under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The manifest's text.
    pub text: String,
    /// argv of the component's process.
    pub argv: Vec<String>,
    /// The pod that runs it, as the processes' control groups name it, once it has been seen. The kubelet makes a static pod's
    /// UID from its manifest: the same bytes are the same pod, after a reboot too.
    pub pod: Option<String>,
}

/// Which version of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// From before the change.
    Before,
    /// From after it.
    After,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Before => Self::After,
            Self::After => Self::Before,
        }
    }
}

/// What the manifests folder holds under a manifest's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// This version.
    Version(Side),
    /// Nothing.
    Nothing,
    /// Somebody else's bytes, a link, a folder.
    Other,
}

impl Held {
    /// The version from before the change.
    pub const BEFORE: Self = Self::Version(Side::Before);
    /// The version from after it.
    pub const AFTER: Self = Self::Version(Side::After);
}

/// The temporary static pod that goes on with a flight when the agent cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// The argument of its process that names this very flight: one that still ends from an earlier flight is not taken for it.
    pub argument: String,
    /// Its manifest.
    pub manifest: String,
}

/// Where a flight stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing that counts is written.
    Prepared,
    /// The watchdog's manifest is in place since that time, and its process is waited for.
    Guarding(u64),
    /// The manifests are being exchanged.
    Committing(Exchange),
    /// The new processes are waited for.
    Verifying(Verifying),
    /// The old manifests are being put back, and the old state is waited for.
    RollingBack(RollingBack),
    /// It ended.
    Done(Outcome),
    /// It ended with the old manifests in place, and the grant is not used up.
    Abandoned,
}

/// Why a flight did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cause {
    pub(super) reason: Reason,
    pub(super) message: String,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the journal. Answered by [`Event::Saved`] or [`Event::SaveFailed`].
    Save,
    /// Write everything that is needed, under names that nobody reads yet. Answered by [`Event::Staged`].
    Stage,
    /// Read the files that the new manifests need, and compare them. Answered by [`Event::Compared`].
    Compare,
    /// Put the watchdog's manifest in place. Answered by [`Event::Guarded`].
    Guard,
    /// At this time (milliseconds since boot) look for the watchdog's process. Answered by [`Event::WatchdogsSeen`].
    LookForWatchdog {
        /// When.
        at: u64,
    },
    /// Ask the API server once more whether the grant stands. Answered by [`Event::Confirmed`] or [`Event::Withdrawn`].
    Confirm,
    /// See what each manifest holds. Answered by [`Event::Examined`].
    Examine,
    /// Take this swap's manifest away, if it is this version. Answered by [`Event::TakenAway`].
    TakeAway(usize, Side),
    /// Put this version of this swap's manifest in place, if there is none. Answered by [`Event::Put`].
    Put(usize, Side),
    /// At this time (milliseconds since boot) look at the processes, and at more if asked. Answered by [`Event::Looked`].
    Look {
        /// When.
        at: u64,
        /// Whether the probes are made.
        probe: bool,
        /// Which version's pods are looked for.
        pods: Option<Side>,
    },
    /// End this process at once. Answered by [`Event::Killed`].
    Kill(ProcessId),
}

/// What came of an effect, or how a flight is taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new flight starts.
    Begun,
    /// The flight was read from the journal; its manifests hold this now.
    Resumed(Vec<Held>),
    /// A person wants the old manifests back.
    Recalled,
    /// The journal is written.
    Saved,
    /// The journal could not be written.
    SaveFailed(String),
    /// Everything is ready.
    Staged,
    /// Names of the needed files that do not hold what they should.
    Compared(Vec<String>),
    /// The watchdog's manifest is in place.
    Guarded,
    /// The processes that have the watchdog's argument.
    WatchdogsSeen(Vec<Process>),
    /// The grant stands.
    Confirmed,
    /// The grant does not stand, or nobody could say.
    Withdrawn(String),
    /// What each manifest holds.
    Examined(Vec<Held>),
    /// What came of taking this swap's manifest away.
    TakenAway(usize, Moved),
    /// What came of putting this swap's manifest in place.
    Put(usize, Moved),
    /// What was seen of the components.
    Looked(View),
    /// The process was ended, or had ended before.
    Killed,
    /// The effect failed.
    Failed(String),
}

/// What came of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It was made, or had been made before.
    Done,
    /// Somebody else changed the file: it was left alone.
    Foreign,
}

/// What was seen of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Each swap's component.
    pub components: Vec<Seen>,
    /// The kubelet's process, which is looked for together with the probes.
    pub kubelet: Option<ProcessId>,
}

/// What was seen of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The processes of its program.
    pub processes: Vec<Process>,
    /// Those that were seen to start since the last look and have ended again. Looked for only while [`Flight::awaits_a_start`].
    pub brief: Vec<Process>,
    /// The probes that were not answered; `None` when they were not made.
    pub silent: Option<Vec<Probe>>,
    /// Whether a process of the pod that was asked for is left; `None` when none was asked for, or the pod is not known.
    pub pod_lives: Option<bool>,
}

impl Flight {
    /// What the node's status says of it.
    pub fn step(&self) -> Step {
        match self.phase {
            Phase::Prepared | Phase::Guarding(_) | Phase::Done(_) | Phase::Abandoned => Step::Idle,
            Phase::Committing(_) => Step::Committing,
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

    /// Whether every manifest holds this version.
    pub(super) fn all_hold(&self, side: Side) -> bool {
        self.swaps.iter().all(|swap| swap.held == Held::Version(side))
    }

    /// Takes over what was found under the manifests' names.
    pub(super) fn found(&mut self, held: &[Held]) {
        self.swaps.iter_mut().zip(held).for_each(|(swap, held)| swap.held = *held);
    }
}

impl Swap {
    /// One of its versions.
    pub fn version(&self, side: Side) -> &Version {
        match side {
            Side::Before => &self.before,
            Side::After => &self.after,
        }
    }

    fn version_mut(&mut self, side: Side) -> &mut Version {
        match side {
            Side::Before => &mut self.before,
            Side::After => &mut self.after,
        }
    }

    /// Remembers which pod runs a version, when a process of it is seen.
    pub(super) fn learn_pod(&mut self, side: Side, seen: &Seen) {
        let version = self.version_mut(side);
        if let Some(process) = seen.processes.iter().find(|p| p.argv == version.argv && p.pod.is_some()) {
            version.pod.clone_from(&process.pod);
        }
    }
}

impl Event {
    pub(super) fn into_message(self) -> String {
        match self {
            Self::Failed(message) | Self::SaveFailed(message) | Self::Withdrawn(message) => message,
            unexpected => format!("unexpected answer {unexpected:?}"),
        }
    }

    /// The cause when an effect on the node's files failed.
    pub(super) fn into_unwritable(self) -> Cause {
        Cause { reason: Reason::NodeFilesUnwritable, message: self.into_message() }
    }
}
