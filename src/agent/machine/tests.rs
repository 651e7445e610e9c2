//! The whole table of transitions (golden file), and scripts for what depends on time.

use std::fmt::Write as _;

use super::*;

const SECOND: u64 = 1_000;

pub(crate) fn mk_flight() -> Flight {
    Flight {
        grant: Grant { id: 7, revision: "0123456789ab".into(), generation: 3 },
        boot_id: "boot".into(),
        health_timeout: 120 * SECOND,
        swaps: vec![mk_swap(ComponentName::KubeApiserver, 10), mk_swap(ComponentName::Etcd, 20)],
        begun: None,
        phase: Phase::Prepared,
    }
}

fn mk_swap(component: ComponentName, pid: i32) -> Swap {
    Swap {
        component,
        file: format!("{component}.yaml"),
        permissions: Permissions { mode: 0o600, uid: 0, gid: 0 },
        before: "before".into(),
        after: "after".into(),
        original: true,
        needs: Vec::new(),
        old_argv: vec![component.to_string()],
        new_argv: vec![component.to_string(), "--new".into()],
        old_processes: vec![ProcessId { pid, started: 1 }],
        probes: vec![mk_probe()],
        touched: false,
    }
}

fn mk_probe() -> Probe {
    Probe { scheme: "HTTPS".into(), host: "127.0.0.1".into(), port: 6443, path: "/livez".into() }
}

fn at(since_boot: u64) -> Now {
    let wall = jiff::Timestamp::from_millisecond(1_700_000_000_000 + i64::try_from(since_boot).unwrap()).unwrap();
    Now { since_boot, boot_id: "boot".into(), wall }
}

/// What is seen of both components: which argv runs in which process, and whether the probes answer.
fn seen(flight: &Flight, argv: impl Fn(&Swap) -> &Vec<String>, pid: impl Fn(&Swap) -> ProcessId, green: bool) -> Event {
    let one = |swap: &Swap| Seen {
        processes: vec![Process { id: pid(swap), argv: argv(swap).clone() }],
        silent: Some(if green { Vec::new() } else { swap.probes.clone() }),
    };
    Event::Looked(flight.swaps.iter().map(one).collect())
}

fn old(flight: &Flight) -> Event {
    seen(flight, |s| &s.old_argv, |s| mk_swap(s.component, if s.component == ComponentName::Etcd { 20 } else { 10 }).old_processes[0], true)
}

fn new(flight: &Flight, started: u64, green: bool) -> Event {
    seen(flight, |s| &s.new_argv, |_| ProcessId { pid: 99, started }, green)
}

fn nothing(flight: &Flight) -> Event {
    Event::Looked(flight.swaps.iter().map(|_| Seen { processes: Vec::new(), silent: None }).collect())
}

/// The swap that a put or a put-back is about, if one is under way.
fn last(flight: &Flight) -> usize {
    flight.swaps.iter().rposition(|s| s.touched).unwrap_or(0)
}

/// Feeds events at their times, each answering the last effect, and gives the last flight and effect.
fn play(flight: Flight, script: Vec<(u64, Event)>) -> (Flight, Option<Effect>) {
    script.into_iter().fold((flight, None), |(flight, _), (time, event)| transition(flight, event, &at(time)))
}

/// A flight whose manifests are in place since second 1.
fn mk_verifying() -> Flight {
    let put = |index| Event::Put(index, Put::Written);
    let script = [Event::Begun, Event::Saved, Event::Staged, Event::Confirmed, Event::Saved, put(0), put(1), Event::Saved];
    let (flight, effect) = play(mk_flight(), script.map(|event| (SECOND, event)).into());
    assert_eq!(effect, Some(Effect::Look { at: SECOND, probe: true }));
    flight
}

fn mk_rolling_back() -> Flight {
    play(mk_verifying(), vec![(SECOND, Event::Resumed(vec![Held::After, Held::Before]))]).0
}

#[test]
fn every_phase_answers_every_event_as_the_table_says() {
    let verifying = mk_verifying();
    let gone = play(verifying.clone(), vec![(2 * SECOND, nothing(&verifying)), (2 * SECOND, Event::Saved)]).0;
    let almost = play(gone.clone(), vec![(3 * SECOND, new(&gone, 2_500, true)), (4 * SECOND, new(&gone, 2_500, true))]).0;
    let committing = play(mk_flight(), vec![(SECOND, Event::Confirmed), (SECOND, Event::Saved)]).0;
    let second = play(committing.clone(), vec![(SECOND, Event::Put(0, Put::Written))]).0;
    let failing = play(committing.clone(), vec![(SECOND, Event::Failed("no room".into())), (SECOND, Event::Saved)]).0;
    let back =
        play(mk_rolling_back(), vec![(SECOND, Event::Saved), (SECOND, Event::Put(1, Put::Written)), (SECOND, Event::Put(0, Put::Written))])
            .0;
    let done = play(almost.clone(), vec![(5 * SECOND, new(&gone, 2_500, true))]).0;
    let abandoned = play(mk_flight(), vec![(SECOND, Event::Withdrawn("gone".into()))]).0;
    let phases = [
        ("prepared", SECOND, mk_flight()),
        ("committing the first", SECOND, committing),
        ("committing the last", SECOND, second),
        ("verifying, old ones run", 2 * SECOND, verifying.clone()),
        ("verifying, old ones run too long", 91 * SECOND, verifying.clone()),
        ("verifying, old ones gone", 3 * SECOND, gone.clone()),
        ("verifying, two rounds green", 5 * SECOND, almost),
        ("verifying, out of time", 122 * SECOND, gone),
        ("going back, nothing seen by the kubelet", SECOND, failing),
        ("going back, one to put back", SECOND, mk_rolling_back()),
        ("going back, all put back", 2 * SECOND, back.clone()),
        ("going back, out of time", 211 * SECOND, back),
        ("done", 6 * SECOND, done),
        ("abandoned", SECOND, abandoned),
    ];
    let events = |flight: &Flight| {
        [
            ("begun", Event::Begun),
            ("resumed with old manifests", Event::Resumed(vec![Held::Before, Held::Before])),
            ("resumed with mixed manifests", Event::Resumed(vec![Held::After, Held::Before])),
            ("resumed with new manifests", Event::Resumed(vec![Held::After, Held::After])),
            ("resumed with foreign manifests", Event::Resumed(vec![Held::After, Held::Other])),
            ("saved", Event::Saved),
            ("not saved", Event::SaveFailed("disk full".into())),
            ("staged", Event::Staged),
            ("confirmed", Event::Confirmed),
            ("withdrawn", Event::Withdrawn("withdrawn".into())),
            ("written", Event::Put(last(flight), Put::Written)),
            ("there already", Event::Put(last(flight), Put::AlreadyThere)),
            ("foreign", Event::Put(last(flight), Put::Foreign)),
            ("nothing runs", nothing(flight)),
            ("old ones run", old(flight)),
            ("new ones run, silent", new(flight, 2_500, false)),
            ("new ones run, green", new(flight, 2_500, true)),
            ("failed", Event::Failed("input/output error".into())),
        ]
    };
    let mut table = String::new();
    for (phase, time, flight) in &phases {
        writeln!(table, "{phase}").unwrap();
        for (name, event) in events(flight) {
            let (next, effect) = transition(flight.clone(), event, &at(*time));
            let effect = effect.map_or("end".to_owned(), |e| format!("{e:?}"));
            writeln!(table, "  {name:<31}-> {:<28}{effect}", describe_phase(&next)).unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/agent/machine/transitions.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(table, std::fs::read_to_string(path).unwrap(), "run with UPDATE_GOLDEN=1 and read the difference");
}

fn describe_phase(flight: &Flight) -> String {
    match &flight.phase {
        Phase::Prepared => "prepared".into(),
        Phase::Committing => "committing".into(),
        Phase::Verifying(_) => "verifying".into(),
        Phase::RollingBack(_) => "going back".into(),
        Phase::Done(o) => format!("{:?} {}", o.result, o.reason.map_or("", Reason::as_str)),
        Phase::Abandoned => "abandoned".into(),
    }
}

fn result(flight: &Flight) -> (OutcomeResult, Option<Reason>) {
    let outcome = flight.outcome().unwrap();
    (outcome.result, outcome.reason)
}

#[test]
fn succeeds_after_three_green_rounds_of_one_process() {
    let flight = mk_verifying();
    let rounds = |started: &[u64]| {
        let looks = started.iter().zip(3..).map(|(started, s)| (s * SECOND, new(&flight, *started, true)));
        play(flight.clone(), [(2 * SECOND, nothing(&flight)), (2 * SECOND, Event::Saved)].into_iter().chain(looks).collect()).0
    };
    assert_eq!(result(&rounds(&[2_500, 2_500, 2_500])), (OutcomeResult::Succeeded, None));
    assert_eq!(rounds(&[2_500, 2_500]).outcome(), None);
    assert_eq!(rounds(&[2_500, 2_500, 4_500]).outcome(), None, "a new process starts a new count");
}

#[test]
fn looks_without_probes_neither_add_to_a_count_nor_end_it() {
    let flight = mk_verifying();
    let unprobed = |started| {
        let Event::Looked(mut seen) = new(&flight, started, true) else { panic!("it looks") };
        for s in &mut seen {
            s.silent = None;
        }
        Event::Looked(seen)
    };
    let mut script = vec![(2 * SECOND, nothing(&flight)), (2 * SECOND, Event::Saved)];
    script.extend([3_000, 4_000].map(|t| (t, new(&flight, 2_500, true))));
    script.extend([4_200, 4_400, 4_600, 4_800].map(|t| (t, unprobed(2_500))));
    let (flight, effect) = play(flight.clone(), script);
    assert_eq!(effect, Some(Effect::Look { at: 5_000, probe: true }));
    assert_eq!(result(&play(flight.clone(), vec![(5_000, new(&flight, 2_500, true))]).0), (OutcomeResult::Succeeded, None));
}

#[test]
fn the_health_budget_starts_when_the_old_processes_are_gone() {
    let flight = mk_verifying();
    // the old one takes 80 s to end
    let (flight, _) = play(flight.clone(), vec![(80 * SECOND, old(&flight)), (81 * SECOND, nothing(&flight)), (81 * SECOND, Event::Saved)]);
    let silent = |t| play(flight.clone(), vec![(t, new(&flight, 82_000, false))]).0;
    assert_eq!(silent(200 * SECOND).step(), Step::Verifying);
    assert_eq!(silent(201 * SECOND).step(), Step::RollingBack);
}

#[test]
fn a_process_that_ends_at_once_twice_goes_back_at_once() {
    let flight = mk_verifying();
    let looks = |times: [(u64, u64); 2]| {
        let mut script = vec![(2 * SECOND, nothing(&flight)), (2 * SECOND, Event::Saved)];
        for (started, ended) in times {
            script.extend([(started + 100, new(&flight, started, false)), (ended, nothing(&flight))]);
        }
        play(flight.clone(), script).0
    };
    assert_eq!(looks([(2_500, 2_800), (12_800, 13_200)]).step(), Step::RollingBack);
    assert_eq!(looks([(2_500, 22_800), (32_800, 53_200)]).step(), Step::Verifying, "without etcd an API server ends after 20 s");
}

#[test]
fn a_green_count_under_way_is_not_cut_off_by_the_deadline() {
    let flight = mk_verifying();
    let late = 500 * SECOND;
    let mut script =
        vec![(2 * SECOND, nothing(&flight)), (2 * SECOND, Event::Saved), (late, Event::Resumed(vec![Held::After, Held::After]))];
    script.extend([0, 1, 2].map(|s| (late + s * SECOND, new(&flight, 3_000, true))));
    assert_eq!(result(&play(flight, script).0), (OutcomeResult::Succeeded, None));
}

#[test]
fn after_a_reboot_times_count_from_the_new_boot() {
    let flight = mk_verifying();
    let (flight, _) = play(flight.clone(), vec![(80_000 * SECOND, nothing(&flight)), (80_000 * SECOND, Event::Saved)]);
    let boot = |s| Now { boot_id: "next boot".into(), ..at(s) };
    let (flight, effect) = transition(flight, Event::Resumed(vec![Held::After, Held::After]), &boot(30 * SECOND));
    assert_eq!(effect, Some(Effect::Look { at: 30 * SECOND, probe: true }));
    // the same PID at the same time of the boot is another process now
    let (flight, effect) = transition(flight.clone(), old(&flight), &boot(31 * SECOND));
    assert_eq!(effect, Some(Effect::Save), "no old process can be alive: the health budget starts");
    let silent = new(&flight, 31_000, false);
    assert_eq!(transition(flight.clone(), silent.clone(), &boot(150 * SECOND)).0.step(), Step::Verifying);
    assert_eq!(transition(flight, silent, &boot(151 * SECOND)).0.step(), Step::RollingBack);
}

#[test]
fn a_failed_rollback_names_both_causes() {
    let flight = mk_rolling_back();
    let (flight, _) = play(flight, vec![(SECOND, Event::Saved), (2 * SECOND, Event::Failed("read-only file system".into()))]);
    let (flight, effect) = play(flight.clone(), vec![(3 * SECOND, nothing(&flight))]);
    assert_eq!(effect, Some(Effect::PutBack(1)), "it is tried again");
    let (flight, _) = play(flight, vec![(300 * SECOND, Event::Failed("read-only file system".into()))]);
    assert_eq!(result(&flight), (OutcomeResult::Failed, Some(Reason::RollbackFailed)));
    let message = &flight.outcome().unwrap().message;
    assert!(message.contains("read-only file system") && message.contains("no longer in place"), "{message}");
}

#[test]
fn somebody_elses_manifest_is_left_and_the_others_are_put_back() {
    let put = |index, put| (SECOND, Event::Put(index, put));
    let (flight, effect) = play(mk_rolling_back(), vec![(SECOND, Event::Saved), put(1, Put::Foreign)]);
    assert_eq!(effect, Some(Effect::PutBack(0)));
    let (flight, _) = play(flight, vec![put(0, Put::Written)]);
    assert_eq!(result(&flight), (OutcomeResult::Failed, Some(Reason::ManifestChanged)));
    assert!(flight.outcome().unwrap().message.contains("etcd.yaml"));
}

#[test]
fn a_manifest_that_is_ours_is_put_back_when_an_earlier_one_turns_out_to_be_foreign() {
    let (flight, _) =
        play(mk_flight(), vec![(0, Event::Confirmed), (0, Event::Saved), (0, Event::Resumed(vec![Held::Other, Held::After]))]);
    let (_, effect) = play(flight, vec![(0, Event::Put(0, Put::Foreign)), (0, Event::Saved)]);
    assert_eq!(effect, Some(Effect::PutBack(1)));
}

#[test]
fn a_manifest_that_cannot_be_put_back_is_never_called_rolled_back() {
    let flight = mk_rolling_back();
    let mut script = vec![(SECOND, Event::Saved)];
    // the kubelet never took the new manifests up: the old processes are as well as ever
    for t in 2..=220 {
        script.extend([(t * SECOND, Event::Failed("read-only file system".into())), (t * SECOND, old(&flight))]);
    }
    assert_eq!(result(&play(flight, script).0), (OutcomeResult::Failed, Some(Reason::RollbackFailed)));
}

#[test]
fn a_rename_that_failed_before_it_was_made_is_a_refusal() {
    let (flight, _) = play(mk_flight(), vec![(0, Event::Confirmed), (0, Event::Saved), (0, Event::Failed("no room".into()))]);
    let (flight, effect) = play(flight, vec![(0, Event::Saved)]);
    assert_eq!(effect, Some(Effect::PutBack(0)));
    let (flight, _) = play(flight, vec![(0, Event::Put(0, Put::AlreadyThere))]);
    assert_eq!(result(&flight), (OutcomeResult::Refused, Some(Reason::NodeFilesUnwritable)));
}

#[test]
fn the_outcome_counts_seconds_from_the_first_rename() {
    let flight = mk_verifying();
    let mut script = vec![(2 * SECOND, nothing(&flight)), (2 * SECOND, Event::Saved)];
    script.extend([7, 8, 9].map(|s| (s * SECOND, new(&flight, 2_500, true))));
    let outcome = play(flight, script).0.outcome().unwrap().clone();
    assert_eq!((outcome.seconds, outcome.grant, outcome.generation), (8, 7, 3));
    assert_eq!(outcome.finished_time.0, at(9 * SECOND).wall);
}
