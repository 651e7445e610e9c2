//! Who is part of whom: a trace as a tree, on one clock, with the time that each span spent itself.
//!
//! Whatever the spans say of their parents, each stands in the tree once: a parent that is not there makes an orphan, a circle is opened where
//! it began. Nothing here recurses, so that a chain of any length is only a long chain.

mod skew;
mod view;

use std::collections::HashMap;

pub use self::skew::Skew;
pub use self::view::{Filter, Folded, Item, Line, View, view};
use super::model::{Kind, Span, SpanId, Trace};
use super::name;

/// A span in the tree. Spans are told by their place in [`Trace::spans`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The span that this one is a part of.
    pub parent: Option<usize>,
    /// Its parts, in the order in which they began.
    pub children: Vec<usize>,
    /// When it began, on its root's clock: nanoseconds since 1970.
    pub start: u64,
    /// When it ended, on its root's clock: nanoseconds since 1970.
    pub end: u64,
    /// Nanoseconds in which none of its children ran.
    pub own: u64,
    /// What a person calls it ([`name::short`]).
    pub name: String,
}

/// The spans of a trace, and who is part of whom.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    trace: &'a Trace,
    nodes: Vec<Node>,
    roots: Vec<usize>,
    orphans: Vec<usize>,
    order: Vec<usize>,
    skews: Vec<Skew>,
}

impl<'a> Tree<'a> {
    /// The tree of a trace.
    pub fn new(trace: &'a Trace) -> Self {
        let spans = trace.spans();
        let parents = parents(spans);
        let mut nodes: Vec<_> = spans
            .iter()
            .zip(&parents)
            .map(|(span, parent)| Node { parent: *parent, start: span.start, end: span.end, name: name::short(span), ..Node::default() })
            .collect();
        for (child, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                nodes[parent].children.push(child);
            }
        }
        let (roots, orphans) = tops(spans, &parents);
        let order = parents_first(&nodes, roots.iter().chain(&orphans));
        let skews = skew::adjust(spans, &mut nodes, &order);
        for node in 0..nodes.len() {
            let mut children = std::mem::take(&mut nodes[node].children);
            children.sort_by_key(|child| (nodes[*child].start, *child));
            nodes[node].own = own_time(&nodes, node, &children);
            nodes[node].children = children;
        }
        Self { trace, nodes, roots, orphans, order, skews }
    }

    /// The trace whose tree it is.
    pub fn trace(&self) -> &'a Trace {
        self.trace
    }

    /// A span of the trace.
    pub fn span(&self, node: usize) -> &'a Span {
        &self.trace.spans()[node]
    }

    /// A span's place in the tree.
    pub fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// Spans that are part of no other.
    pub fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// Spans whose parent is not there.
    pub fn orphans(&self) -> &[usize] {
        &self.orphans
    }

    /// All spans, parents before their children.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Clocks that disagree, and by how much.
    pub fn skews(&self) -> &[Skew] {
        &self.skews
    }

    /// The span that stands for the whole: the longest root, or the longest orphan where there is none. None of a trace without spans.
    pub fn main(&self) -> Option<usize> {
        let longest = |nodes: &[usize]| nodes.iter().copied().max_by_key(|n| (self.nodes[*n].end - self.nodes[*n].start, usize::MAX - *n));
        longest(&self.roots).or_else(|| longest(&self.orphans))
    }

    /// From when to when there are spans: nanoseconds since 1970. None of a trace without spans.
    pub fn extent(&self) -> Option<(u64, u64)> {
        Some((self.nodes.iter().map(|node| node.start).min()?, self.nodes.iter().map(|node| node.end).max()?))
    }
}

/// Each span's parent, where it is there; circles are opened at the span that began first.
fn parents(spans: &[Span]) -> Vec<Option<usize>> {
    let places: HashMap<SpanId, usize> = spans.iter().enumerate().map(|(place, span)| (span.id, place)).collect();
    let mut parents: Vec<_> = spans.iter().map(|span| span.parent.and_then(|id| places.get(&id).copied())).collect();
    // The walk from which a span was seen first: to meet one's own walk again is a circle.
    let mut seen_by = vec![None; spans.len()];
    for start in 0..spans.len() {
        let mut at = start;
        loop {
            if let Some(walk) = seen_by[at] {
                if walk == start {
                    open_circle(&mut parents, at);
                }
                break;
            }
            seen_by[at] = Some(start);
            match parents[at] {
                Some(parent) => at = parent,
                None => break,
            }
        }
    }
    parents
}

fn open_circle(parents: &mut [Option<usize>], on_it: usize) {
    let mut first = on_it;
    let mut at = on_it;
    while let Some(parent) = parents[at].filter(|parent| *parent != on_it) {
        first = first.min(parent);
        at = parent;
    }
    parents[first] = None;
}

/// Roots and orphans.
///
/// A request that came with a trace context has the caller's span as its parent, which is exported by nobody when the caller is `kubectl`. So
/// where there is no root, the first request that came in from outside stands for it. etcd's callers are API servers, which export theirs.
fn tops(spans: &[Span], parents: &[Option<usize>]) -> (Vec<usize>, Vec<usize>) {
    let tops = (0..spans.len()).filter(|node| parents[*node].is_none());
    let (mut roots, mut orphans): (Vec<_>, Vec<_>) = tops.partition(|node| spans[*node].parent.is_none());
    if roots.is_empty()
        && let Some(place) = orphans.iter().position(|node| spans[*node].kind == Kind::Server && spans[*node].component != name::ETCD)
    {
        roots.push(orphans.remove(place));
    }
    (roots, orphans)
}

fn parents_first<'n>(nodes: &[Node], tops: impl DoubleEndedIterator<Item = &'n usize>) -> Vec<usize> {
    let mut order = Vec::with_capacity(nodes.len());
    let mut ahead: Vec<usize> = tops.rev().copied().collect();
    while let Some(node) = ahead.pop() {
        order.push(node);
        ahead.extend(nodes[node].children.iter().rev());
    }
    order
}

/// A span's time without the union of its children's, who are in the order in which they began.
fn own_time(nodes: &[Node], node: usize, children: &[usize]) -> u64 {
    let Node { start, end, .. } = nodes[node];
    let mut covered_until = start;
    let mut own = 0;
    for child in children {
        let (from, until) = (nodes[*child].start.clamp(start, end), nodes[*child].end.clamp(start, end));
        own += from.saturating_sub(covered_until);
        covered_until = covered_until.max(until);
    }
    own + (end - covered_until)
}

#[cfg(test)]
mod tests;
