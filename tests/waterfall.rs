//! Waterfalls of real traces: each `tests/waterfall/<case>.json`, drawn, must equal the `.out` files beside it.
//! `UPDATE_GOLDEN=1 cargo test --test waterfall` writes them anew.
//!
//! The traces are of kube-apiserver 1.36.3 and etcd 3.6.16 (one of 1.37.1 and 3.7.3), as the trace store answers them: redacted, a span a line. `orphans`, `clock-skew` and
//! `one-span-of-no-time` are such traces with spans taken out, with the clocks of two etcd members put wrong, and with an end put at its beginning.

#![expect(clippy::unwrap_used, reason = "a case that cannot go on panics")]

#[path = "waterfall/generated.rs"]
mod generated;
mod golden;
#[path = "waterfall/properties.rs"]
mod properties;

use std::path::Path;

use clustertracing::cli::trace::critical;
use clustertracing::cli::trace::draw::{Drawing, Options, draw};
use clustertracing::cli::trace::model::{self, Trace};
use clustertracing::cli::trace::tree::{self, Filter, Tree};

/// The API server that sent the traces, and what its Lease calls it.
const API_SERVER: (&str, &str) = ("apiserver-wlv32tlttr4jl3gtroqexyxapa", "cp-1");

fn trace(case: &str) -> Trace {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/waterfall").join(format!("{case}.json"));
    model::read(&std::fs::read(path).unwrap()).unwrap().pop().unwrap_or_default()
}

fn drawn(trace: &Trace, filter: &Filter, options: &Options) -> Drawing {
    let tree = Tree::new(trace);
    draw(&tree, &tree::view(&tree, filter), critical::path(&tree).as_ref(), options)
}

fn width(width: usize) -> Options {
    Options { width, instances: [API_SERVER].map(|(id, name)| (id.to_owned(), name.to_owned())).into(), ..Options::default() }
}

/// What of a drawing differs from `tests/waterfall/<name>.out`.
fn difference(name: &str, text: &str) -> String {
    golden::difference(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/waterfall").join(format!("{name}.out")), text)
}

#[track_caller]
fn check(differences: impl IntoIterator<Item = String>) {
    let differences: String = differences.into_iter().collect();
    assert!(differences.is_empty(), "{differences}");
}

const CASES: [&str; 10] = [
    "clock-skew",
    "create-configmap-etcd-3.7",
    "create-pod",
    "delete-37-objects",
    "empty",
    "health-probe",
    "list-nodes",
    "one-span-of-no-time",
    "orphans",
    "webhook-unreachable",
];

#[test]
fn every_case_is_drawn_as_its_golden_files_show() {
    check(CASES.into_iter().flat_map(|case| {
        let trace = trace(case);
        [80, 104].map(|cells| difference(&format!("{case}.{cells}"), &drawn(&trace, &Filter::default(), &width(cells)).plain()))
    }));
}

#[test]
fn a_wide_terminal_a_narrow_one_and_one_without_unicode_show_the_same_trace() {
    let trace = trace("create-pod");
    let of = |name: &str, options: &Options| difference(&format!("create-pod.{name}"), &drawn(&trace, &Filter::default(), options).plain());
    check([of("160", &width(160)), of("40", &width(40)), of("ascii", &Options { ascii: true, ..width(104) })]);
}

#[test]
fn colours_say_nothing_that_the_text_does_not() {
    for case in CASES {
        let drawing = drawn(&trace(case), &Filter::default(), &width(104));
        let coloured = drawing.coloured();
        let mut plain = String::new();
        for line in coloured.lines() {
            let text: String =
                line.split('\u{1b}').enumerate().map(|(n, part)| if n == 0 { part } else { part.split_once('m').unwrap().1 }).collect();
            plain.push_str(text.trim_end());
            plain.push('\n');
        }
        assert_eq!(plain, drawing.plain(), "{case}");
    }
    let visible = |case: &str| drawn(&trace(case), &Filter::default(), &width(104)).coloured().replace('\u{1b}', "␛");
    check(["create-pod", "webhook-unreachable"].map(|case| difference(&format!("{case}.coloured"), &visible(case))));
}

#[test]
fn filters_leave_out_what_is_not_asked_for_and_say_so() {
    let of =
        |case: &str, name: &str, filter: &Filter| difference(&format!("{case}.{name}"), &drawn(&trace(case), filter, &width(104)).plain());
    check([
        of("create-pod", "min-2ms", &Filter { min: 2_000_000, ..Filter::default() }),
        of("create-pod", "depth-2", &Filter { depth: Some(2), ..Filter::default() }),
        of("create-pod", "only-etcd", &Filter { only: Some("etcd".to_owned()), ..Filter::default() }),
        of("create-pod", "all-steps", &Filter { all_steps: true, ..Filter::default() }),
        of("webhook-unreachable", "min-1s", &Filter { min: 1_000_000_000, ..Filter::default() }),
    ]);
}

#[test]
fn two_thousand_spans_fold_into_what_a_person_reads() {
    let trace = generated::trace(2_000);
    assert_eq!(trace.spans().len(), 2_000);
    assert_eq!(model::read(&generated::otlp_json(&trace)).unwrap(), std::slice::from_ref(&trace));
    check([difference("two-thousand-spans", &drawn(&trace, &Filter::default(), &width(104)).plain())]);
}

#[test]
fn the_documentation_shows_a_waterfall_as_it_is_drawn() {
    let documentation = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/waterfall.md")).unwrap();
    assert!(documentation.contains(&drawn(&trace("create-pod"), &Filter::default(), &width(104)).plain()));
}

#[test]
fn the_order_in_which_spans_come_changes_nothing() {
    for case in CASES {
        let trace = trace(case);
        let reversed = Trace::new(trace.id(), trace.spans().iter().rev().cloned().collect());
        let picture = |trace: &Trace| drawn(trace, &Filter::default(), &width(104));
        assert_eq!(picture(&trace), picture(&reversed), "{case}");
    }
}
