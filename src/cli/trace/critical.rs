//! What a request waited for.
//!
//! The critical path is the chain of operations any of which, had it been faster, would have made the whole faster. It is found from the end
//! backwards: a span waited last for the child that finished last; before that child began, for the one that had finished last by then; and
//! so within each child. This is Jaeger's algorithm (`jaeger-ui`, `TracePage/CriticalPath`) and CRISP's (Zhang et al., USENIX ATC 2022):
//! children that ran beside the one on the path are not on it. Children count as far as they lie within their parents.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::name;
use super::tree::Tree;

/// Some time in which the request waited for one span, and for none of that span's children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// The span.
    pub node: usize,
    /// The span under whose name this time is told: the webhook's of the call to it. Mostly the same.
    pub told_as: usize,
    /// From when: nanoseconds since 1970.
    pub start: u64,
    /// Until when: nanoseconds since 1970.
    pub end: u64,
}

/// A part of the whole that people have a name for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `webhook policy.shop.io`
    pub name: String,
    /// The outermost span of it that the path comes to first.
    pub node: usize,
    /// How long the request waited for it: nanoseconds.
    pub nanos: u64,
}

/// The critical path of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// In the order of time, without gaps, from the root's beginning to its end; empty ones are left out.
    pub sections: Vec<Section>,
    /// The root's duration: nanoseconds.
    pub whole: u64,
    /// For each span of the trace, how long the request waited for it alone; `None` of those that it did not wait for.
    waited: Vec<Option<u64>>,
    /// In the order in which the path comes to them.
    steps: Vec<Step>,
}

/// A span of which the path is sought.
struct Visit {
    node: usize,
    /// What of it lies within its parent, as far as it is not yet on the path.
    from: u64,
    until: u64,
    /// Its children that are left, and when each finished; of these the last one finishes last.
    children: Vec<(u64, usize)>,
}

/// The critical path through the main root of a trace; none of a trace without spans.
pub fn path(tree: &Tree<'_>) -> Option<Path> {
    let main = tree.main()?;
    let mut waited = vec![None; tree.trace().spans().len()];
    let told_as = told_as(tree);
    let mut sections = Vec::new();
    let mut visits = vec![visit(tree, main, 0, u64::MAX)];
    while let Some(Visit { node, from, until, children }) = visits.last_mut() {
        let last = std::iter::from_fn(|| children.pop()).find(|(end, _)| end <= until);
        let since = last.map_or(*from, |(end, _)| end);
        *waited[*node].get_or_insert(0) += *until - since;
        if since < *until {
            sections.push(Section { node: *node, told_as: told_as[*node], start: since, end: *until });
        }
        if let Some((end, child)) = last {
            let child = visit(tree, child, *from, end);
            *until = child.from;
            visits.push(child);
        } else {
            visits.pop();
        }
    }
    sections.reverse();
    let steps = steps(tree, &sections);
    Some(Path { sections, whole: tree.node(main).end - tree.node(main).start, waited, steps })
}

fn visit(tree: &Tree<'_>, node: usize, from: u64, until: u64) -> Visit {
    let place = tree.node(node);
    let (from, until) = (place.start.clamp(from, until), place.end.clamp(from, until));
    // A child that runs on after its parent counts as ending with it.
    let within = |child: &usize| tree.node(*child).end > from && tree.node(*child).start < until;
    let mut children: Vec<_> =
        place.children.iter().filter(|child| within(child)).map(|child| (tree.node(*child).end.min(until), *child)).collect();
    children.sort_unstable();
    Visit { node, from, until, children }
}

/// For each span, the one under whose name its time is told.
fn told_as(tree: &Tree<'_>) -> Vec<usize> {
    let mut told_as: Vec<usize> = (0..tree.trace().spans().len()).collect();
    for &node in tree.order() {
        if let Some(parent) = tree.node(node).parent.filter(|_| name::step(tree.span(node)).is_none()) {
            told_as[node] = told_as[parent];
        }
    }
    told_as
}

/// The sections by what people call them.
fn steps(tree: &Tree<'_>, sections: &[Section]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut places = HashMap::new();
    for section in sections {
        let node = section.told_as;
        let name = name::step(tree.span(node)).unwrap_or_else(|| tree.node(node).name.clone());
        let place = *places.entry(name.clone()).or_insert_with(|| {
            steps.push(Step { name, node, nanos: 0 });
            steps.len() - 1
        });
        steps[place].nanos += section.end - section.start;
    }
    steps
}

impl Path {
    /// How long the request waited for a span itself, in nanoseconds; `None` of a span that it did not wait for.
    pub fn waited(&self, node: usize) -> Option<u64> {
        self.waited[node]
    }

    /// What the request waited for, in the order of time.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The step that it waited for longest.
    pub fn longest(&self) -> Option<&Step> {
        self.steps.iter().rev().max_by_key(|step| step.nanos)
    }

    /// A step's share of the whole.
    pub fn share(&self, step: &Step) -> String {
        percent(step.nanos, self.whole)
    }

    /// `webhook policy.shop.io (88 %)`, `etcd Txn (5 %)`: the longest steps, in the order of time. Nothing where the whole took no time.
    pub fn told(&self) -> Vec<String> {
        let Some(longest) = self.longest().filter(|step| step.nanos > 0) else { return Vec::new() };
        let mut told: Vec<&Step> = self.steps.iter().collect();
        told.sort_by_key(|step| Reverse(step.nanos));
        told.truncate(TOLD);
        let told = self.steps.iter().filter(|step| told.contains(step) && (**step == *longest || is_worth_telling(step.nanos, self.whole)));
        told.map(|step| format!("{} ({})", step.name, self.share(step))).collect()
    }
}

/// So many steps fit into a sentence.
const TOLD: usize = 4;

/// From 1 % on.
fn is_worth_telling(part: u64, whole: u64) -> bool {
    u128::from(part) * 100 >= u128::from(whole)
}

/// A share in whole percent, rounded; `<1 %` where that would be nothing.
fn percent(part: u64, whole: u64) -> String {
    let (part, whole) = (u128::from(part), u128::from(whole).max(1));
    match (part * 100 + whole / 2) / whole {
        0 if part > 0 => "<1 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

#[cfg(test)]
mod tests;
