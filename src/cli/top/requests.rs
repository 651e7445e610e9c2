//! Which requests took long, and what they waited for. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::IntoEnumIterator as _;

use super::figures::{Spread, per_mille};
use super::is_answered;
use crate::cli::trace::critical;
use crate::cli::trace::name::{self, Part};
use crate::cli::trace::tree::Tree;

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Request {
    /// `POST pods`
    pub name: String,
    /// How long they took.
    #[serde(flatten)]
    pub spread: Spread,
    /// How many answers had a status of 500 or more, or none.
    pub failed: usize,
    /// So many, the slowest tenth of them, are what follows made of.
    pub slowest: usize,
    /// What the slowest tenth waited for longest, over all of them: `webhook policy.shop.io`.
    pub waited_for: String,
    /// That one's part of their time: per mille.
    pub waited_per_mille: u16,
    /// Where the time of the slowest tenth went: per mille of it, for each part that has any.
    pub split_per_mille: BTreeMap<Part, u16>,
}

/// One request.
struct One<'a> {
    tree: &'a Tree<'a>,
    main: usize,
    nanos: u64,
}

/// The requests that are the roots of these traces, the kind first that took most time in all.
pub(super) fn requests(trees: &[Tree<'_>]) -> Vec<Request> {
    let mut kinds = BTreeMap::<&str, Vec<One<'_>>>::new();
    for tree in trees {
        let Some(main) = tree.main().filter(|main| name::is_request(tree.span(*main)) && is_answered(tree.span(*main))) else { continue };
        kinds.entry(&tree.node(main).name).or_default().push(One { tree, main, nanos: tree.span(main).duration() });
    }
    let total = |requests: &[One<'_>]| requests.iter().map(|one| one.nanos).sum::<u64>();
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, requests)| std::cmp::Reverse(total(requests)));
    kinds.into_iter().map(|(kind, requests)| row(kind, requests)).collect()
}

fn row(kind: &str, mut requests: Vec<One<'_>>) -> Request {
    requests.sort_by_key(|one| std::cmp::Reverse(one.nanos));
    let slowest = &requests[..requests.len().div_ceil(10)];
    let whole = slowest.iter().map(|one| one.nanos).sum();
    let (mut steps, mut parts) = (BTreeMap::<String, u64>::new(), BTreeMap::<Part, u64>::new());
    for One { tree, .. } in slowest {
        let Some(path) = critical::path(tree) else { continue };
        path.steps().iter().for_each(|step| *steps.entry(step.name.clone()).or_default() += step.nanos);
        path.sections.iter().for_each(|section| *parts.entry(part(tree, section)).or_default() += section.end - section.start);
    }
    let longest = steps.into_iter().max_by_key(|(_, nanos)| *nanos).unwrap_or_default();
    let failed = |one: &&One<'_>| {
        let span = one.tree.span(one.main);
        span.failed() || span.attribute(&["http.response.status_code", "http.status_code"]).is_none_or(|code| code.starts_with('5'))
    };
    Request {
        name: kind.to_owned(),
        failed: requests.iter().filter(failed).count(),
        slowest: slowest.len(),
        waited_for: longest.0,
        waited_per_mille: per_mille(longest.1, whole),
        split_per_mille: Part::iter().filter_map(|part| Some((part, per_mille(*parts.get(&part)?, whole)))).collect(),
        spread: Spread::of(requests.iter().map(|one| one.nanos).collect()),
    }
}

/// What part of a request some time of its critical path belongs to. All that a webhook makes others do is admission.
fn part(tree: &Tree<'_>, section: &critical::Section) -> Part {
    let line: Vec<usize> = std::iter::successors(Some(section.node), |node| tree.node(*node).parent).collect();
    let parts = || line.iter().rev().map(|node| name::part(tree.span(*node)));
    if let Some(outer) = parts().find(|part| matches!(part, Part::Admission | Part::Etcd)) {
        return outer;
    }
    match name::part(tree.span(section.node)) {
        // Its span lasts until the handler has ended: what comes before the handler's first span is its own.
        Part::Authorization if tree.node(section.node).children.first().is_none_or(|first| section.start >= tree.node(*first).start) => {
            Part::Handler
        }
        part => part,
    }
}
