//! How long calls to etcd took, at their callers and at etcd. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::Spread;
use super::is_answered;
use crate::cli::trace::name;
use crate::cli::trace::tree::Tree;

/// Calls of one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct EtcdCall {
    /// `Txn`
    pub method: String,
    /// How long they took, as kube-apiserver saw it.
    #[serde(flatten)]
    pub spread: Spread,
    /// How long they took within etcd: of those whose span at etcd is there.
    pub at_etcd: Spread,
    /// Calls that failed.
    pub failed: usize,
}

#[derive(Default)]
struct Calls {
    seen: Vec<u64>,
    served: Vec<u64>,
    failed: usize,
}

/// All calls to etcd, the method first that took most time in all.
pub(super) fn calls(trees: &[Tree<'_>]) -> Vec<EtcdCall> {
    let mut methods = BTreeMap::<&str, Calls>::new();
    for tree in trees {
        for span in tree.trace().spans().iter().filter(|span| is_answered(span)) {
            if let Some(method) = name::etcd_call(span) {
                let calls = methods.entry(method).or_default();
                calls.seen.push(span.duration());
                calls.failed += usize::from(span.failed());
            } else if let Some(method) = name::etcd_served(span) {
                methods.entry(method).or_default().served.push(span.duration());
            }
        }
    }
    let mut methods: Vec<_> = methods.into_iter().collect();
    methods.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.seen.iter().chain(&calls.served).sum::<u64>()));
    let row = |(method, calls): (&str, Calls)| EtcdCall {
        method: method.to_owned(),
        spread: Spread::of(calls.seen),
        at_etcd: Spread::of(calls.served),
        failed: calls.failed,
    };
    methods.into_iter().map(row).collect()
}
