//! The real controller and the real agents against a model API server and machines in memory, while things go wrong: crashes before and
//! after every kind of write, watches that are frozen or lose or join events, leaders that sleep, an API that is away.
//!
//! Each seed is one run: a scenario, up to three faults, and the time that every request takes. Whatever went wrong, the run must end as the
//! run without faults does, have written the same, and stay there. On the way, at every step: one grant and one node at a time, an API
//! server that serves, every manifest the original or what a target makes of it, no grant after a failure.
//!
//! ```text
//! make simulation SEEDS=100000                                          how many; CI runs 1000
//! SIMULATION_SEED=17 cargo test --test simulation one -- --nocapture    one again, with all that happened
//! ```
//!
//! Not here: how long things really take, failing disks (`tests/agent`), a real API server's behaviour (`tests/controller_on_api_server.rs`).

#![expect(clippy::panic, reason = "a test fails by a panic")]

mod cluster;
mod fault;
mod machine;
mod objects;
mod processes;
mod scenario;
mod seed;
mod transitions;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use fault::Fault;
use scenario::{Failure, Run, Scenario, difference, run};
use seed::Chance;
use strum::IntoEnumIterator;

/// Seeds of a plain `cargo test`: 3 min on 2 cores. `make nightly` tries 100000.
const SEEDS: u64 = 1_000;
/// Where failures are kept, with their seeds.
const RECORD: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/simulation-failures.txt");

/// Each scenario without faults.
static CLEAN: LazyLock<BTreeMap<Scenario, Run>> = LazyLock::new(|| {
    let clean = |scenario: Scenario| match run(scenario, 0, Vec::new(), None) {
        Ok(run) => (scenario, run),
        Err(failure) => panic!("{scenario:?} without faults: {}\n{}", failure.message, failure.trace.join("\n")),
    };
    Scenario::iter().map(clean).collect()
});

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn planned(seed: u64) -> (Scenario, Vec<Fault>) {
    let mut chance = Chance::new(seed);
    let scenarios: Vec<_> = Scenario::iter().collect();
    let scenario = *chance.of(&scenarios);
    let clean = &CLEAN[&scenario];
    (scenario, fault::faults(&mut chance, &clean.writes, clean.millis))
}

fn try_seed(seed: u64) -> Result<Run, Failure> {
    let (scenario, faults) = planned(seed);
    let clean = &CLEAN[&scenario];
    let run = run(scenario, seed, faults, Some(clean))?;
    if scenario.writes_the_same() && run.wrote != clean.wrote {
        let lines = |run: &Run| run.wrote.iter().cloned().collect::<Vec<_>>().join("\n") + "\n";
        return Err(Failure { message: format!("other writes:\n{}", difference(&lines(clean), &lines(&run))), trace: run.trace });
    }
    Ok(run)
}

fn told(seed: u64, failure: &Failure) -> String {
    let (scenario, faults) = planned(seed);
    format!(
        "seed {seed}: {scenario:?} with {faults:?}: {}\nagain, with all that happened: SIMULATION_SEED={seed} cargo test --test simulation one -- --nocapture",
        failure.message
    )
}

#[test]
fn every_seed_ends_as_the_run_without_faults_and_has_written_the_same() {
    let (next, end) = (AtomicU64::new(0), number("SIMULATION_SEEDS").unwrap_or(SEEDS));
    let failures = Mutex::new(Vec::new());
    LazyLock::force(&CLEAN);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failures.lock().unwrap().len() >= 5 {
                        break;
                    }
                    if let Err(failure) = try_seed(seed) {
                        failures.lock().unwrap().push(told(seed, &failure));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    if !failures.is_empty() {
        let mut record = std::fs::File::options().append(true).create(true).open(RECORD).unwrap();
        for failure in &failures {
            writeln!(record, "{failure}\n").unwrap();
        }
    }
    assert!(failures.is_empty(), "{}\nkept in {RECORD}", failures.join("\n\n"));
}

#[test]
fn one_seed_again_is_the_same_run() {
    let seed = number("SIMULATION_SEED").unwrap_or(7);
    let (first, second) = (try_seed(seed), try_seed(seed));
    let trace = |run: &Result<Run, Failure>| run.as_ref().map_or_else(|failure| failure.trace.clone(), |run| run.trace.clone());
    if number("SIMULATION_SEED").is_some() {
        println!("{:#?}\n{}", planned(seed), trace(&first).join("\n"));
    }
    assert_eq!(trace(&first), trace(&second), "a seed is repeated exactly");
    first.unwrap_or_else(|failure| panic!("{}", told(seed, &failure)));
}
