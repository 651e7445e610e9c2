//! Whether spans flow, second by second: each `tests/flow/<case>.yaml` is played, and what people are told must equal `<case>.out`.
//! `UPDATE_GOLDEN=1 cargo test --test flow` writes the `.out` files anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a case that cannot go on panics")]

mod golden;
#[path = "flow/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clustertracing::api::ComponentName;
use clustertracing::plan::flow::Member;
use serde::Deserialize;
use world::{BackEnd, Event, Settings, World};

/// How soon a break has to be known, whatever it is, and how soon a collector's silence: the sums of `plan::flow::timing`.
const WITHIN: u32 = 47;
const SILENCE_WITHIN: u32 = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    settings: Settings,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    /// Seconds pass, and every change is shown.
    Pass(u32),
    Happen(Event),
    /// Spans are lost from now on: it has to be told in time, and is shown.
    Break(Event),
    /// Nothing may change for so many seconds, but how much gets lost while spans are.
    Quiet(u32),
    /// The condition becomes this within so many seconds.
    Until(String, u32),
    Metrics,
}

#[test]
fn every_break_is_told_in_time_and_nothing_else_is_called_one() {
    let cases = golden::cases("flow");
    assert!(cases.len() >= 15, "found {} cases", cases.len());
    let different: String = cases.iter().map(|case| golden::difference(&case.with_extension("out"), &play(case))).collect();
    assert!(different.is_empty(), "{different}");
}

/// One node at rate 0, whose spans flow: `moment` seconds into a round of the probe.
fn flowing(moment: u32) -> World {
    let mut world = World::new(&serde_json::from_value(serde_json::json!({ "nodes": ["cp1"] })).unwrap());
    (0..120 + moment).for_each(|_| world.tick());
    assert_eq!(world.flow.status, Some(true), "{}", world.flow.message);
    world
}

/// A probe and the 5 s of exports, pushes and looks come together every 30 s.
const MOMENTS: std::ops::Range<u32> = 0..30;

#[test]
fn whenever_it_happens_a_break_of_any_kind_is_known_in_time() {
    let node = || "cp1".to_owned();
    let drop_both = [ComponentName::KubeApiserver, ComponentName::Etcd].map(|component| Event::Drop(node(), component));
    let breaks = [
        (vec![Event::StopCollector(node())], SILENCE_WITHIN),
        (vec![Event::CutOff(node())], SILENCE_WITHIN),
        (drop_both.to_vec(), WITHIN),
        (vec![Event::Drop(node(), ComponentName::Etcd)], WITHIN),
        (vec![Event::Refuse(node(), true)], WITHIN),
        (vec![Event::BackEnd(BackEnd::Away)], WITHIN),
        (vec![Event::BackEnd(BackEnd::Refuses)], WITHIN),
        (vec![Event::BackEnd(BackEnd::Full)], WITHIN),
    ];
    let delays = [(None, 0), (Some(Event::LateProbe(node())), 8), (Some(Event::LatePush(node())), 5)];
    let worlds = MOMENTS.map(flowing).collect::<Vec<_>>();
    for ((broken, within), (late, by)) in breaks.iter().flat_map(|broken| delays.iter().map(move |delay| (broken, delay))) {
        let longest = worlds.iter().map(|world| {
            let mut world = world.clone();
            broken.iter().chain(late).for_each(|event| world.happen(event));
            let known = (1..=120).find(|_| {
                world.tick();
                world.flow.status == Some(false)
            });
            known.unwrap_or_else(|| panic!("{broken:?} is not known: {}", world.flow.message))
        });
        let longest = longest.max().unwrap();
        println!("{broken:?} {late:?}: {longest} s at the most");
        assert!(longest <= within + by, "{broken:?} while {late:?}: known after {longest} s");
    }
}

/// Its restart was given the grace in which spans may stay away: told after 61 s on a real cluster, whose kubelet had started it once more.
#[test]
fn a_collector_that_is_started_again_and_dies_again_is_silent_in_time() {
    for moment in MOMENTS {
        let mut world = flowing(moment);
        for (event, seconds) in [(Event::StopCollector("cp1".to_owned()), 2), (Event::StartCollector("cp1".to_owned()), 7)] {
            world.happen(&event);
            (0..seconds).for_each(|_| world.tick());
        }
        world.happen(&Event::StopCollector("cp1".to_owned()));
        let known = (1..=120).find(|_| {
            world.tick();
            world.flow.status == Some(false)
        });
        assert!(known.is_some_and(|known| known <= SILENCE_WITHIN), "at {moment} s: {known:?}, {}", world.flow.message);
    }
}

#[test]
fn whenever_it_happens_one_probe_or_one_push_that_is_late_or_lost_changes_nothing() {
    let node = || "cp1".to_owned();
    let hitches = [
        vec![Event::LateProbe(node())],
        vec![Event::LatePush(node())],
        vec![Event::LoseProbe(node())],
        vec![Event::LoseProbe(node()), Event::LatePush(node())],
    ];
    let worlds = MOMENTS.map(flowing).collect::<Vec<_>>();
    for (hitch, (moment, world)) in hitches.iter().flat_map(|hitch| worlds.iter().enumerate().map(move |world| (hitch, world))) {
        let mut world = world.clone();
        let before = world.flow.message.clone();
        for event in hitch {
            world.happen(event);
        }
        for second in 1..=120 {
            world.tick();
            assert_eq!((world.flow.status, &world.flow.message), (Some(true), &before), "{hitch:?} at {moment} s, {second} s later");
        }
    }
}

fn play(path: &Path) -> String {
    // Through JSON, whose enums are maps.
    let value: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let case: Case = serde_json::from_value(value).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut show =
        Show { world: World::new(&case.settings), out: format!("# {}\n", case.about.trim()), told: Told::default(), changes: 0, at: 0 };
    for step in &case.steps {
        show.take(step, path);
    }
    show.out
}

/// What people were told last.
#[derive(Default)]
struct Told {
    condition: String,
    members: BTreeMap<Member, String>,
    loss: String,
}

struct Show {
    world: World,
    out: String,
    told: Told,
    changes: u32,
    at: u32,
}

impl Show {
    fn take(&mut self, step: &Step, path: &Path) {
        match step {
            Step::Pass(seconds) => (0..*seconds).for_each(|_| self.second()),
            Step::Happen(event) => self.happen(event),
            Step::Break(event) => {
                self.happen(event);
                self.until("False", WITHIN, path);
            }
            Step::Quiet(seconds) => {
                let before = self.changes;
                (0..*seconds).for_each(|_| self.second());
                assert!(self.changes == before, "{}: something changed\n{}", path.display(), self.out);
                writeln!(self.out, "{:>5} s  nothing changed for {seconds} s", self.at).unwrap();
            }
            Step::Until(status, seconds) => self.until(status, *seconds, path),
            Step::Metrics => self.out += &self.world.metrics(),
        }
    }

    fn happen(&mut self, event: &Event) {
        writeln!(self.out, "{:>5} s  == {event:?}", self.at).unwrap();
        self.world.happen(event);
    }

    fn until(&mut self, status: &str, seconds: u32, path: &Path) {
        for _ in 0..seconds {
            if self.status() == status {
                return;
            }
            self.second();
        }
        assert!(self.status() == status, "{}: not {status} within {seconds} s\n{}", path.display(), self.out);
    }

    fn status(&self) -> &'static str {
        match self.world.flow.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }

    fn second(&mut self) {
        self.world.tick();
        self.at += 1;
        let flow = &self.world.flow;
        let per_million = flow.loss.per_million.map_or(String::new(), |figure| format!(", {figure} of a million"));
        let now = Told {
            condition: format!("{} {}: {}", self.status(), flow.reason, flow.message),
            members: flow.members.keys().map(|member| (member.clone(), self.world.state_of(member).unwrap())).collect(),
            loss: format!("{:?}{per_million}", flow.loss.state),
        };
        let before = std::mem::take(&mut self.told);
        if before.condition != now.condition {
            writeln!(self.out, "{:>5} s  {}", self.at, now.condition).unwrap();
            self.changes += 1;
        }
        for (member, state) in now.members.iter().filter(|(member, state)| before.members.get(member) != Some(state)) {
            writeln!(self.out, "{:>5} s  {member}: {state}", self.at).unwrap();
            self.changes += 1;
        }
        if before.loss != now.loss {
            writeln!(self.out, "{:>5} s  loss {}", self.at, now.loss).unwrap();
            self.changes += u32::from(self.world.flow.status != Some(false));
        }
        self.told = now;
    }
}
