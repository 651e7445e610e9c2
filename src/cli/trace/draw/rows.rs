//! The table: one line for each span that is shown, and what it needs below it.

use std::collections::{BTreeMap, BTreeSet};

use super::axis::Axis;
use super::bar::{Cell, Taken, bar};
use super::text::{cells, left, right, shorten, wrap};
use super::{Canvas, Line, Role};
use crate::cli::trace::model::{Span, Status};
use crate::cli::trace::name;
use crate::cli::trace::tree::{self, Folded, Item};

/// From this width on there is room for SELF, and for the share beside the bar that the request waited for longest.
const WIDE: usize = 96;
/// ` ◀ 100 %`
const MARK: usize = 8;
/// `59m59s` and `999 ms` with a space before them; longer ones are shortened.
const TIME: usize = 8;
/// Cells of a name and of a bar at the least.
const LEAST_NAME: usize = 8;
const LEAST_BAR: usize = 8;
/// Cells of a name that are left to it by the lines before it.
const LEAST_TEXT: usize = 12;
/// Lines of a status at the most.
const STATUS_LINES: usize = 3;

/// Cells of each column, with the space before those that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    component: usize,
    name: usize,
    /// 0 where there is none.
    own: usize,
    bar: usize,
}

impl Columns {
    fn name_from(self) -> usize {
        self.component + 2
    }
}

impl Canvas<'_> {
    /// The heads of the columns, and the rows.
    pub(super) fn rows(&self) -> Vec<Line> {
        let Some((start, end)) = self.tree.extent() else { return Vec::new() };
        let components = self.components();
        let names: Vec<_> = self.view.lines.iter().map(|line| self.name(line)).collect();
        let columns = self.columns(components.values().map(|name| cells(name)).max(), &names);
        let axis = Axis { start, end, cells: columns.bar };
        let waited = self.waited();
        let mut lines = vec![self.heads(columns, &axis)];
        for (line, name) in self.view.lines.iter().zip(&names) {
            let indent = self.indent(line, columns.name);
            match &line.item {
                Item::Orphans => lines.push(self.orphans(columns)),
                Item::Span(node) => {
                    let span = self.tree.span(*node);
                    let (bar, took) = (self.span_bar(*node, &axis, &waited), span.duration());
                    let row = Row { indent, name: name.clone(), took, own: Some(self.tree.node(*node).own), bar, nodes: &[*node] };
                    lines.push(self.row(columns, span, &components[&program(span)], &row));
                    lines.extend(self.status(columns, line, span));
                }
                Item::Folded(folded) => {
                    let first = self.tree.span(folded.members[0]);
                    let (bar, took) = self.folded_bar(folded, &axis, &waited);
                    let fits = name.cells() <= columns.name;
                    let shown = if fits { name.with_statistics() } else { name.clone() };
                    let row = Row { indent, name: shown, took, own: None, bar, nodes: &folded.members };
                    lines.push(self.row(columns, first, &components[&program(first)], &row));
                    if !fits {
                        lines.push(self.below(columns, line, Role::Plain, &name.statistics));
                    }
                }
            }
        }
        lines
    }

    /// What stands under COMPONENT: with the instance where the trace has several of one component.
    fn components(&self) -> BTreeMap<(&str, &str), String> {
        let programs: BTreeSet<_> = self.tree.trace().spans().iter().map(program).collect();
        let mut instances = BTreeMap::new();
        for (component, _) in &programs {
            *instances.entry(*component).or_insert(0) += 1;
        }
        let name = |component: &str, instance: &str| match self.instance_name(instance) {
            Some(instance) if instances[component] > 1 => format!("{} {instance}", self.clean(component)),
            _ => self.clean(component),
        };
        programs.iter().map(|(component, instance)| ((*component, *instance), name(component, instance))).collect()
    }

    fn columns(&self, component: Option<usize>, names: &[Name]) -> Columns {
        let wide = self.width >= WIDE;
        let heading = "COMPONENT".len();
        let component = component.unwrap_or(0).clamp(heading, heading.max(self.width / 6 + 1));
        let (own, mark) = if wide { (TIME, MARK) } else { (0, 0) };
        let besides = component + 2 + 1 + TIME + own + 2 + mark;
        let room = (self.width * 36 / 100).min(self.width - besides - LEAST_BAR);
        // Statistics that have no room stand below their names, and need none.
        let name = names.iter().map(|name| if name.cells() <= room { name.cells() } else { name.cells_without_statistics() }).max();
        let name = name.unwrap_or(0).clamp(LEAST_NAME, room);
        Columns { component, name, own, bar: self.width - besides - name }
    }

    fn heads(&self, columns: Columns, axis: &Axis) -> Line {
        let ellipsis = self.glyphs.ellipsis;
        let own = if columns.own > 0 { right("SELF", columns.own, ellipsis) } else { String::new() };
        let (component, name) = (left("COMPONENT", columns.component, ellipsis), left("SPAN", columns.name, ellipsis));
        let mut line = Line::of(Role::Heading, format!("{component}  {name} {}{own}  ", right("DURATION", TIME, ellipsis)));
        line.push(Role::Dim, &axis.labels(self.glyphs.micro));
        line
    }

    fn orphans(&self, columns: Columns) -> Line {
        let text = "(parent not exported: not sampled there, or not here yet)";
        let indent = columns.name_from();
        Line::of(Role::Dim, format!("{:indent$}{}", "", shorten(text, self.width - indent, self.glyphs.ellipsis)))
    }

    fn row(&self, columns: Columns, span: &Span, component: &str, row: &Row<'_>) -> Line {
        let (ellipsis, role) = (self.glyphs.ellipsis, Role::of(&span.component));
        let mut line = Line::of(role, left(component, columns.component, ellipsis));
        line.push(Role::Dim, &format!("  {}", row.indent));
        line.push(row.name.role, &row.name.in_cells(columns.name - cells(&row.indent), ellipsis));
        line.push(Role::Plain, &format!(" {}", right(&self.duration(row.took), TIME, ellipsis)));
        if columns.own > 0 {
            let own = row.own.map_or(String::new(), |own| self.duration(own));
            line.push(Role::Plain, &right(&own, columns.own, ellipsis));
        }
        line.push(Role::Plain, "  ");
        for cell in &row.bar {
            let (role, glyph) = match cell {
                Cell::Empty(glyph) => (Role::Dim, glyph),
                Cell::Ran(glyph) => (role, glyph),
                Cell::Waited(glyph) => (Role::Waited, glyph),
            };
            line.push(role, glyph.encode_utf8(&mut [0; 4]));
        }
        if columns.own > 0
            && let Some(share) = self.share_of_longest(row.nodes)
        {
            line.push(Role::Waited, &format!(" {} {share}", self.glyphs.pointer));
        }
        line
    }

    /// The share of what the request waited for longest, where it is one of these.
    fn share_of_longest(&self, nodes: &[usize]) -> Option<String> {
        let path = self.path?;
        let longest = path.longest().filter(|step| step.nanos > 0 && nodes.contains(&step.node))?;
        Some(path.share(longest))
    }

    /// What was said of a span that failed, below it.
    fn status(&self, columns: Columns, line: &tree::Line, span: &Span) -> Vec<Line> {
        let Some(text) = status_text(span) else { return Vec::new() };
        let room = self.width - below_from(columns, line);
        let text = self.clean(&text);
        let mut texts = wrap(text.split(' '), " ", room);
        if texts.len() > STATUS_LINES {
            let rest = texts.split_off(STATUS_LINES - 1).join(" ");
            texts.push(shorten(&rest, room, self.glyphs.ellipsis));
        }
        texts.iter().map(|text| self.below(columns, line, Role::Failed, text)).collect()
    }

    /// A text below a row's name.
    fn below(&self, columns: Columns, line: &tree::Line, role: Role, text: &str) -> Line {
        let from = below_from(columns, line);
        Line::of(role, format!("{:from$}{}", "", shorten(text, self.width - from, self.glyphs.ellipsis)))
    }

    /// The lines of the tree before a name: the innermost levels where there are too many.
    fn indent(&self, line: &tree::Line, name: usize) -> String {
        let levels = (name.saturating_sub(LEAST_TEXT) / 2).max(1);
        let shown = line.guides.len().min(if line.depth > levels { levels - 1 } else { levels });
        let mut indent = if line.depth > shown { self.glyphs.deeper.to_owned() } else { String::new() };
        let guides = &line.guides[line.guides.len() - shown..];
        if let Some((last, outer)) = guides.split_last() {
            indent.extend(outer.iter().map(|more| if *more { self.glyphs.through } else { self.glyphs.blank }));
            indent.push_str(if *last { self.glyphs.fork } else { self.glyphs.last });
        }
        indent
    }

    fn name(&self, line: &tree::Line) -> Name {
        let named = |node: usize| self.clean(&self.tree.node(node).name);
        let mut name =
            Name { text: String::new(), suffix: String::new(), statistics: String::new(), role: Role::Plain, indent: line.depth * 2 };
        match &line.item {
            Item::Orphans => {}
            Item::Span(node) if self.tree.span(*node).failed() => {
                (name.text, name.role) = (format!("{}{}", self.glyphs.failed, named(*node)), Role::Failed);
            }
            Item::Span(node) => (name.text, name.role) = (named(*node), self.role(&[*node])),
            Item::Folded(Folded { members, p50, max }) => {
                (name.text, name.role) = (named(members[0]), self.role(members));
                name.suffix = format!(" {}{}", self.glyphs.times, members.len());
                name.statistics = format!("p50 {}, max {}", self.duration(*p50), self.duration(*max));
            }
        }
        name
    }

    /// What the request waited for stands out.
    fn role(&self, nodes: &[usize]) -> Role {
        let waited = |node: &usize| self.path.is_some_and(|path| path.waited(*node).is_some());
        if nodes.iter().any(waited) { Role::Heading } else { Role::Plain }
    }

    /// The times in which the request waited for each span itself, or for what is told under its name.
    fn waited(&self) -> BTreeMap<usize, Vec<(u64, u64)>> {
        let mut waited: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for section in self.path.iter().flat_map(|path| &path.sections) {
            let nodes = [Some(section.node), Some(section.told_as).filter(|told_as| *told_as != section.node)];
            nodes.into_iter().flatten().for_each(|node| waited.entry(node).or_default().push((section.start, section.end)));
        }
        waited
    }

    fn span_bar(&self, node: usize, axis: &Axis, waited: &BTreeMap<usize, Vec<(u64, u64)>>) -> Vec<Cell> {
        let (place, span) = (self.tree.node(node), self.tree.span(node));
        let mut ran = Taken::nothing(axis.cells);
        ran.take(axis, place.start, place.end);
        let mut waiting = Taken::nothing(axis.cells);
        waited.get(&node).into_iter().flatten().for_each(|(from, until)| waiting.take(axis, *from, *until));
        // Events are on the span's own clock.
        let happened = span.events.iter().filter(|event| !name::is_message(&event.name) && (span.start..=span.end).contains(&event.at));
        bar(&ran, &waiting, happened.map(|event| place.start + (event.at - span.start)), axis, self.glyphs)
    }

    /// The bar of several, and for how long any of them ran.
    fn folded_bar(&self, folded: &Folded, axis: &Axis, waited: &BTreeMap<usize, Vec<(u64, u64)>>) -> (Vec<Cell>, u64) {
        let (mut ran, mut waiting) = (Taken::nothing(axis.cells), Taken::nothing(axis.cells));
        let (mut union, mut until) = (0, 0);
        for node in &folded.members {
            let place = self.tree.node(*node);
            ran.take(axis, place.start, place.end);
            waited.get(node).into_iter().flatten().for_each(|(from, until)| waiting.take(axis, *from, *until));
            union += place.end.saturating_sub(place.start.max(until));
            until = until.max(place.end);
        }
        (bar(&ran, &waiting, std::iter::empty(), axis, self.glyphs), union)
    }
}

/// What stands on a row but its component.
struct Row<'r> {
    indent: String,
    name: Name,
    /// Nanoseconds.
    took: u64,
    /// Nanoseconds; none of several spans.
    own: Option<u64>,
    bar: Vec<Cell>,
    nodes: &'r [usize],
}

/// What stands under SPAN.
#[derive(Clone)]
struct Name {
    text: String,
    /// What is never shortened: of how many.
    suffix: String,
    /// Of those: behind the name where it has room, below it where not.
    statistics: String,
    role: Role,
    /// Cells before it.
    indent: usize,
}

impl Name {
    fn cells_without_statistics(&self) -> usize {
        self.indent + cells(&self.text) + cells(&self.suffix)
    }

    fn cells(&self) -> usize {
        self.cells_without_statistics() + if self.statistics.is_empty() { 0 } else { 2 + cells(&self.statistics) }
    }

    fn with_statistics(&self) -> Self {
        Self { suffix: format!("{}, {}", self.suffix, self.statistics), ..self.clone() }
    }

    fn in_cells(&self, width: usize, ellipsis: &str) -> String {
        let text = shorten(&self.text, width.saturating_sub(cells(&self.suffix)), ellipsis);
        left(&format!("{text}{}", self.suffix), width, ellipsis)
    }
}

fn program(span: &Span) -> (&str, &str) {
    (&span.component, &span.instance)
}

/// Where a text below a row begins.
fn below_from(columns: Columns, line: &tree::Line) -> usize {
    columns.name_from() + (line.depth * 2).min(columns.name / 2) + 2
}

/// What was said of a failure, or what an attribute tells where redaction took that away.
fn status_text(span: &Span) -> Option<String> {
    let Status::Error(message) = &span.status else { return None };
    if !message.is_empty() {
        return Some(message.clone());
    }
    let code = span.attribute(&["http.response.status_code", "http.status_code"]).map(|code| format!("HTTP status {code}"));
    code.or_else(|| span.attribute(&["error.type", "rpc.grpc.status_code"]).map(|kind| format!("error {kind}")))
}
