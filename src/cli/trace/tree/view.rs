//! Which spans of a tree are shown, line by line.

use std::collections::HashMap;

use super::Tree;
use crate::cli::trace::name;

/// Levels of which a line knows whether something comes after them: more indentation than a terminal is wide for.
const GUIDES: usize = 32;

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Spans that took this long, or longer, in nanoseconds; those that failed, whatever they took; and what these are part of.
    pub min: u64,
    /// Levels below a root or an orphan, at the most.
    pub depth: Option<usize>,
    /// Spans of this component, and what these are part of.
    pub only: Option<String>,
    /// Siblings of one name and component are shown as one from this many on; those that failed are not.
    pub fold_from: usize,
    /// Also the steps that every request passes through (authorization and the like), where they took no time worth a line.
    pub all_steps: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self { min: 0, depth: None, only: None, fold_from: 4, all_steps: false }
    }
}

/// What is shown of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// From top to bottom.
    pub lines: Vec<Line>,
    /// Spans that the filter leaves out.
    pub hidden: usize,
    /// Steps that every request passes through, and that took less than 1 % of it.
    pub passed: usize,
}

/// A line of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What stands there.
    pub item: Item,
    /// 0 for roots.
    pub depth: usize,
    /// For the innermost levels below the root, from the outside in, this line's last: whether something comes after it on that level.
    pub guides: Vec<bool>,
}

/// What stands on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A span.
    Span(usize),
    /// Several.
    Folded(Folded),
    /// Above the spans whose parent is not there.
    Orphans,
}

/// Siblings of one name and component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The siblings, in the order in which they began.
    pub members: Vec<usize>,
    /// Half of them took this long or less: nanoseconds.
    pub p50: u64,
    /// None took longer: nanoseconds.
    pub max: u64,
}

/// The lines of a tree that a filter leaves.
pub fn view(tree: &Tree<'_>, filter: &Filter) -> View {
    let nodes = tree.trace().spans().len();
    let passed: Vec<bool> = (0..nodes).map(|node| !filter.all_steps && is_passed_through(tree, node)).collect();
    let mut kept: Vec<bool> = (0..nodes).map(|node| !passed[node] && is_asked_for(tree, filter, node)).collect();
    // The innermost span above each that is not passed through; a top never is.
    let mut above: Vec<Option<usize>> = vec![None; nodes];
    for &node in tree.order() {
        above[node] = tree.node(node).parent.and_then(|parent| if passed[parent] { above[parent] } else { Some(parent) });
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for &node in tree.order().iter().rev().filter(|node| !passed[**node]) {
        if let Some(above) = above[node].filter(|_| kept[node]) {
            kept[above] = true;
            children[above].push(node);
        }
    }
    for list in &mut children {
        list.sort_by_key(|node| (tree.node(*node).start, *node));
    }
    let lines = Shown { tree, filter, kept: &kept, children }.lines();
    let shown: usize = lines.iter().map(|(_, spans)| spans).sum();
    let passed = passed.iter().filter(|passed| **passed).count();
    View { lines: lines.into_iter().map(|(line, _)| line).collect(), hidden: nodes - passed - shown, passed }
}

fn is_asked_for(tree: &Tree<'_>, filter: &Filter, node: usize) -> bool {
    let span = tree.span(node);
    filter.only.as_ref().is_none_or(|component| *component == span.component) && (span.duration() >= filter.min || span.failed())
}

/// Each request passes some five steps, one within the other. Those that took less than 1 % of it are not worth a level of indentation each.
fn is_passed_through(tree: &Tree<'_>, node: usize) -> bool {
    let (span, place) = (tree.span(node), tree.node(node));
    let whole = tree.main().map_or(0, |main| tree.span(main).duration());
    name::is_step_of_every_request(span)
        && place.parent.is_some()
        && !place.children.is_empty()
        && !span.failed()
        && place.own < whole.div_ceil(100)
}

/// What is kept, and who stands below whom.
struct Shown<'t> {
    tree: &'t Tree<'t>,
    filter: &'t Filter,
    kept: &'t [bool],
    children: Vec<Vec<usize>>,
}

impl Shown<'_> {
    /// The lines, each with the number of spans that it stands for: those below folded ones among them.
    fn lines(&self) -> Vec<(Line, usize)> {
        let spans_below = self.spans_below();
        let mut tops = self.entries(self.tree.roots());
        if self.tree.orphans().iter().any(|orphan| self.kept[*orphan]) {
            tops.push(Item::Orphans);
        }
        let mut lines = Vec::new();
        let mut among_orphans = false;
        let mut levels = vec![tops.into_iter().peekable()];
        while let Some(level) = levels.last_mut() {
            let Some(item) = level.next() else {
                levels.pop();
                continue;
            };
            let depth = levels.len() - 1;
            let outermost = levels.len().saturating_sub(GUIDES).max(1);
            let guides = levels.iter_mut().skip(outermost).map(|level| level.peek().is_some()).collect();
            let level = depth - usize::from(among_orphans);
            let (spans, below) = match &item {
                Item::Span(_) if self.filter.depth.is_some_and(|most| level >= most) => (1, Vec::new()),
                Item::Span(node) => (1, self.entries(&self.children[*node])),
                Item::Folded(folded) => (folded.members.iter().map(|node| spans_below[*node]).sum(), Vec::new()),
                Item::Orphans => (0, self.entries(self.tree.orphans())),
            };
            among_orphans |= item == Item::Orphans;
            lines.push((Line { item, depth, guides }, spans));
            levels.push(below.into_iter().peekable());
        }
        lines
    }

    /// How many kept spans each one stands above, itself among them.
    fn spans_below(&self) -> Vec<usize> {
        let mut spans: Vec<usize> = self.kept.iter().map(|kept| usize::from(*kept)).collect();
        for &node in self.tree.order().iter().rev() {
            spans[node] += self.children[node].iter().map(|child| spans[*child]).sum::<usize>();
        }
        spans
    }

    /// Siblings as they are shown: those of one kind folded, where the first of them stands.
    fn entries(&self, siblings: &[usize]) -> Vec<Item> {
        let kind = |node: usize| (self.tree.span(node).component.as_str(), self.tree.node(node).name.as_str());
        let mut kinds: HashMap<_, Vec<usize>> = HashMap::new();
        for &node in siblings.iter().filter(|node| self.kept[**node] && !self.tree.span(**node).failed()) {
            kinds.entry(kind(node)).or_default().push(node);
        }
        kinds.retain(|_, members| members.len() >= self.filter.fold_from.max(2));
        let item = |node: usize| match kinds.get(&kind(node)).filter(|_| !self.tree.span(node).failed()) {
            None => Some(Item::Span(node)),
            Some(members) if members[0] == node => Some(Item::Folded(self.fold(members))),
            Some(_) => None,
        };
        siblings.iter().filter(|node| self.kept[**node]).filter_map(|node| item(*node)).collect()
    }

    fn fold(&self, members: &[usize]) -> Folded {
        let mut durations: Vec<_> = members.iter().map(|node| self.tree.span(*node).duration()).collect();
        durations.sort_unstable();
        let (p50, max) = (durations[(durations.len() - 1) / 2], durations[durations.len() - 1]);
        Folded { members: members.to_vec(), p50, max }
    }
}
