//! Which instance is slower than the others at the same work. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Spread, percentile};
use super::is_answered;
use crate::cli::trace::name;
use crate::cli::trace::tree::Tree;

/// Operations of a kind that are compared, at the least: on the instance, and on the others.
const ENOUGH: usize = 10;
/// What is compared, in percent: what most operations do not exceed. An instance that gets too little of its processor or disk serves many as
/// fast as the others do, and lets some wait: their median tells nothing.
const COMPARED: usize = 90;
/// So many times slower is called slow.
const SLOW: f64 = 2.0;

/// An API server or an etcd member.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Instance {
    /// `apiserver` or `etcd`.
    pub component: String,
    /// Its host, or its `service.instance.id`.
    pub name: String,
    /// How long it took for what it was asked.
    #[serde(flatten)]
    pub spread: Spread,
    /// How many times as long as the other instances of its component it takes for the same operations, by what nine of ten do not exceed;
    /// absent where it has no operation of which there are 10 here and 10 elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_the_others: Option<f64>,
    /// So many of its operations were compared.
    pub compared: usize,
}

impl Instance {
    /// Whether it is the one to look at.
    pub(in crate::cli) fn is_slow(&self) -> bool {
        self.times_the_others.is_some_and(|times| times >= SLOW)
    }
}

/// Durations by operation.
type Operations = BTreeMap<String, Vec<u64>>;

/// All instances of both components, the slowest first. `hosts`: what people call each `service.instance.id`.
pub(super) fn instances(trees: &[Tree<'_>], hosts: &BTreeMap<String, String>) -> Vec<Instance> {
    let mut found = BTreeMap::<(&str, &str), Operations>::new();
    for tree in trees {
        for span in tree.trace().spans().iter().filter(|span| name::is_asked(span) && is_answered(span)) {
            let host = hosts.get(&span.instance).unwrap_or(&span.instance);
            found.entry((&span.component, host)).or_default().entry(name::short(span)).or_default().push(span.duration());
        }
    }
    let rows = found.iter().map(|((component, instance), operations)| {
        let others = || found.iter().filter(|((of, other), _)| of == component && other != instance).map(|(_, operations)| operations);
        let (times, compared) = compare(operations, others);
        Instance {
            component: (*component).to_owned(),
            name: (*instance).to_owned(),
            spread: Spread::of(operations.values().flatten().copied().collect()),
            times_the_others: times,
            compared,
        }
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| b.times_the_others.unwrap_or(0.0).total_cmp(&a.times_the_others.unwrap_or(0.0)));
    rows
}

/// The geometric mean of how many times longer each operation takes here, weighted by how often it is done here; and how many those are.
/// Unlike means of durations it is not ruled by whatever takes longest.
fn compare<'a, I: Iterator<Item = &'a Operations>>(here: &Operations, others: impl Fn() -> I) -> (Option<f64>, usize) {
    let (mut logarithms, mut compared) = (0.0, 0);
    for (operation, nanos) in here {
        let elsewhere: Vec<u64> = others().filter_map(|operations| operations.get(operation)).flatten().copied().collect();
        if nanos.len() >= ENOUGH && elsewhere.len() >= ENOUGH {
            let times = most(nanos.clone()) / most(elsewhere);
            logarithms += times.ln() * as_f64(nanos.len());
            compared += nanos.len();
        }
    }
    let times = (compared > 0).then(|| (logarithms / as_f64(compared)).exp());
    (times.map(|times| (times * 100.0).round() / 100.0), compared)
}

/// What most of them do not exceed: in microseconds, and never nothing.
fn most(mut nanos: Vec<u64>) -> f64 {
    nanos.sort_unstable();
    let micros = (percentile(&nanos, COMPARED) / 1000).max(1);
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX))
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_operations(of: &[(&str, u64, usize)]) -> Operations {
        of.iter().map(|(name, micros, n)| ((*name).to_owned(), vec![micros * 1000; *n])).collect()
    }

    #[test]
    fn an_instance_is_compared_with_the_others_by_what_all_of_them_do() {
        let other = mk_operations(&[("Txn", 1_000, 50), ("Range", 200, 50), ("Compact", 10, 1)]);
        for (what, here, expected) in [
            ("the same", mk_operations(&[("Txn", 1_000, 50), ("Range", 200, 50)]), (Some(1.0), 100)),
            ("twice and eight times as long, as often", mk_operations(&[("Txn", 2_000, 12), ("Range", 1_600, 12)]), (Some(4.0), 24)),
            ("another mixture of the same", mk_operations(&[("Txn", 1_000, 99), ("Range", 200, 10)]), (Some(1.0), 109)),
            ("too few", mk_operations(&[("Txn", 9_000, 9)]), (None, 0)),
            ("what nobody else does", mk_operations(&[("Delete", 9_000, 40), ("Compact", 900, 40)]), (None, 0)),
        ] {
            assert_eq!(compare(&here, || std::iter::once(&other)), expected, "{what}");
        }
        let mut limping = mk_operations(&[("Txn", 1_000, 85)]);
        limping.entry("Txn".to_owned()).or_default().extend([100_000_000; 15]);
        assert_eq!(compare(&limping, || std::iter::once(&other)), (Some(100.0), 100), "some wait for the processor");
    }
}
