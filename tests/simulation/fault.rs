//! What goes wrong in a run: Sieve's three perturbations (a crash between writes, a view that is behind, events that are missed), and two of
//! our own: a leader that sleeps with a request on its way, and an API that is away.

use std::collections::BTreeMap;

use crate::seed::Chance;

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The process dies at its `write`th write (a request to the API, or an effect on a file), before it or after it.
    Crash { who: String, write: u64, after: bool },
    /// Nothing that changes reaches the process's watch between these moments; afterwards all of it does.
    Freeze { who: String, from: u64, until: u64 },
    /// One event in so many does not reach the process's watch.
    Lose { who: String, one_in: u64 },
    /// Events reach the process's watch every so many milliseconds only, as one.
    Join { who: String, every: u64 },
    /// The leader's `write`th write is on its way for so long; another controller takes over meanwhile.
    Sleep { write: u64, millis: u64 },
    /// No request is answered between these moments.
    Away { from: u64, until: u64 },
}

/// Up to three faults, at moments that the clean run has: `writes` is how many each process made there, `millis` how long it took.
pub(crate) fn faults(chance: &mut Chance, writes: &BTreeMap<String, u64>, millis: u64) -> Vec<Fault> {
    let processes: Vec<_> = writes.keys().cloned().collect();
    let fault = |chance: &mut Chance| {
        let who = chance.of(&processes).clone();
        let (made, from) = (writes[&who], chance.between(0..millis));
        match chance.between(0..10) {
            0..5 => Fault::Crash { write: chance.between(1..made + 1), after: chance.one_in(2), who },
            5 => Fault::Freeze { who, from, until: from + chance.between(1_000..40_000) },
            6 => Fault::Lose { who, one_in: chance.between(1..5) },
            7 => Fault::Join { who, every: chance.between(500..10_000) },
            8 => Fault::Sleep { write: chance.between(1..writes["controller"] + 1), millis: chance.between(2_000..60_000) },
            _ => Fault::Away { from, until: from + chance.between(500..20_000) },
        }
    };
    (0..chance.between(1..4)).map(|_| fault(chance)).collect()
}
