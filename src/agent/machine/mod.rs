//! The one change that is in flight on a node: which step comes next, when it has succeeded, and when it goes back.
//!
//! [`transition`] is pure: a [`Flight`] and an [`Event`] in, the new flight and the next [`Effect`] out. It reads no clock and touches nothing.
//! `effects` carries an effect out and brings the next event; `journal` keeps the flight, so that whoever is started next, agent or
//! watchdog, goes on with [`Event::Resumed`].
//!
//! ```text
//! Prepared ──> Guarding ──> Committing ──> Verifying ──> Done(Succeeded)
//!    │  │        │  │        │     │           │
//!    │  └────────┴──│> Done(Refused) <─┐       v
//!    └──────────────┴─> Abandoned <────┴── RollingBack ──> Done(RolledBack | Failed)
//! ```
//!
//! | part | what it holds |
//! | --- | --- |
//! | `types` | the values |
//! | `exchange` | the ordered swap of manifests, in either direction |
//! | `forward` | to the new manifests |
//! | `verify` | the judgement |
//! | `back` | to the old manifests |

mod back;
mod exchange;
mod forward;
mod types;
mod verify;

use std::mem;

pub use self::types::{Effect, Event, Flight, Held, Moved, Phase, Seen, Side, Swap, Version, View, Watchdog};
use crate::api::node_tracing::{Outcome, OutcomeResult};
use crate::api::{Grant, Reason};
use crate::host::Now;

/// Time between two looks at the processes. Those that live for less are seen by [`crate::host::Host::starts_until`].
const LOOK_EVERY: u64 = 100;
/// Time between two rounds of probes, and between two tries to put a file back.
const PROBE_EVERY: u64 = 1_000;
/// The kubelet starts the watchdog's pod within this time: its own poll of the folder is 20 s.
const WATCHDOG_STARTS: u64 = 60_000;
/// A process of the watchdog of this age runs: one that cannot ends within milliseconds.
const WATCHDOG_STAYS: u64 = 1_000;

/// The next state and what to do. A flight that is [`Phase::Done`] or [`Phase::Abandoned`] has no further effect.
///
/// An event that does not answer the flight's last effect counts as that effect's failure.
pub fn transition(mut flight: Flight, event: Event, now: &Now) -> (Flight, Option<Effect>) {
    let other_boot = flight.boot_id != now.boot_id;
    let effect = match mem::replace(&mut flight.phase, Phase::Abandoned) {
        Phase::Prepared => flight.prepared(event, now),
        Phase::Guarding(since) => flight.guarding(since, event, now),
        Phase::Committing(exchange) => flight.committing(exchange, event, other_boot, now),
        Phase::Verifying(state) if other_boot => {
            flight.reboots = flight.reboots.saturating_add(1);
            Some(flight.verifying(state.restarted(now), event, now))
        }
        Phase::Verifying(state) => Some(flight.verifying(state, event, now)),
        Phase::RollingBack(state) if other_boot => flight.rolling_back(state.restarted(now), event, now),
        Phase::RollingBack(state) => flight.rolling_back(state, event, now),
        end @ (Phase::Done(_) | Phase::Abandoned) => {
            flight.phase = end;
            None
        }
    };
    flight.boot_id.clone_from(&now.boot_id);
    (flight, effect)
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

#[cfg(test)]
pub(crate) mod tests;
