//! The waterfall: a trace as text, for a terminal of any width from [`LEAST_WIDTH`] cells on, a file, or a ticket.
//!
//! What it says does not depend on colour, and without Unicode it says the same. A bar is `▓` where the request waited for the span itself, `█`
//! elsewhere, to an eighth of a cell; `·` where the span did not run; `┃` where something happened within it.

mod axis;
mod bar;
mod glyphs;
mod rows;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

pub use self::axis::duration;
use self::glyphs::Glyphs;
use self::text::{cells, clean, shorten, wrap};
use super::critical::Path;
use super::model::{Kind, Span};
use super::name;
use super::tree::{Skew, Tree, View};

/// Narrower terminals get lines of this many cells.
pub const LEAST_WIDTH: usize = 40;

/// How to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Cells of a line, at the most. From 96 on, there is a column for the time that spans spent themselves.
    pub width: usize,
    /// ASCII only.
    pub ascii: bool,
    /// What people call a `service.instance.id`: an API server's is its identity Lease, which names its host by a label.
    pub instances: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: 80, ascii: false, instances: BTreeMap::new() }
    }
}

/// What a piece of text is, for whoever colours it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Text.
    Plain,
    /// The heads of columns, and what stands above them.
    Heading,
    /// What is there to lead the eye.
    Dim,
    /// What the request waited for.
    Waited,
    /// What failed.
    Failed,
    /// kube-apiserver.
    ApiServer,
    /// etcd.
    Etcd,
    /// Other components.
    OtherComponent,
}

impl Role {
    fn of(component: &str) -> Self {
        match component {
            "apiserver" => Self::ApiServer,
            name::ETCD => Self::Etcd,
            _ => Self::OtherComponent,
        }
    }

    /// How it looks on a terminal, in the colours of the terminal's own palette.
    pub fn style(self) -> anstyle::Style {
        let colour = |colour: anstyle::AnsiColor| anstyle::Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Plain => anstyle::Style::new(),
            Self::Heading => anstyle::Style::new().bold(),
            Self::Dim => anstyle::Style::new().dimmed(),
            Self::Waited => colour(anstyle::AnsiColor::Yellow).bold(),
            Self::Failed => colour(anstyle::AnsiColor::Red).bold(),
            Self::ApiServer => colour(anstyle::AnsiColor::Blue),
            Self::Etcd => colour(anstyle::AnsiColor::Green),
            Self::OtherComponent => colour(anstyle::AnsiColor::Cyan),
        }
    }
}

/// A line of a drawing: pieces of text, each of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    runs: Vec<(Role, String)>,
}

impl Line {
    fn of(role: Role, text: impl Into<String>) -> Self {
        let mut line = Self::default();
        line.push(role, &text.into());
        line
    }

    fn push(&mut self, role: Role, text: &str) {
        match self.runs.last_mut() {
            Some((last, run)) if *last == role => run.push_str(text),
            _ => self.runs.push((role, text.to_owned())),
        }
    }

    /// Its pieces.
    pub fn runs(&self) -> impl Iterator<Item = (Role, &str)> {
        self.runs.iter().map(|(role, text)| (*role, text.as_str()))
    }
}

/// A drawn trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawing {
    /// From top to bottom.
    pub lines: Vec<Line>,
}

impl Drawing {
    /// The text alone, each line ended.
    pub fn plain(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let start = text.len();
            line.runs().for_each(|(_, run)| text.push_str(run));
            text.truncate(start + text[start..].trim_end().len());
            text.push('\n');
        }
        text
    }

    /// The text with a terminal's colours (ANSI escape sequences), each line ended.
    pub fn coloured(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            for (role, run) in line.runs() {
                let style = role.style();
                // Writing to a text does not fail.
                let _written = write!(text, "{style}{run}{style:#}");
            }
            text.push('\n');
        }
        text
    }
}

/// What all parts of a drawing need.
struct Canvas<'a> {
    tree: &'a Tree<'a>,
    view: &'a View,
    path: Option<&'a Path>,
    options: &'a Options,
    glyphs: &'static Glyphs,
    width: usize,
}

/// Draws what a view shows of a tree.
pub fn draw(tree: &Tree<'_>, view: &View, path: Option<&Path>, options: &Options) -> Drawing {
    let glyphs = if options.ascii { &glyphs::ASCII } else { &glyphs::UNICODE };
    let canvas = Canvas { tree, view, path, options, glyphs, width: options.width.max(LEAST_WIDTH) };
    let Some(main) = tree.main() else {
        return Drawing { lines: vec![Line::of(Role::Plain, "no spans")] };
    };
    let mut lines = canvas.header(main);
    lines.extend(canvas.rows());
    lines.extend(canvas.footer());
    Drawing { lines }
}

impl Canvas<'_> {
    fn clean(&self, text: &str) -> String {
        clean(text, self.options.ascii)
    }

    fn duration(&self, nanos: u64) -> String {
        duration(nanos, self.glyphs.micro)
    }

    /// What was asked, by whom, of whom, when, and what came of it.
    fn header(&self, main: usize) -> Vec<Line> {
        let (span, spans) = (self.tree.span(main), self.tree.trace().spans());
        // The steps of this request, down to its handler; not those of a request that it gave rise to.
        let first_part = |node: &usize| self.tree.node(*node).children.first().copied();
        let steps = std::iter::successors(Some(main), first_part).skip(1).map(|node| self.tree.span(node));
        let title = name::request_line(span, steps.take_while(|step| step.kind == Kind::Internal))
            .unwrap_or_else(|| self.tree.node(main).name.clone());
        let components = spans.iter().map(|span| &span.component).collect::<BTreeSet<_>>().len();
        let errors = spans.iter().filter(|span| span.failed()).count();
        let counts = [count(components, "component"), count(spans.len(), "span"), count(errors, "error")].join("  ");
        let title = shorten(&self.clean(&title), self.width, self.glyphs.ellipsis);
        let began = i128::from(self.tree.node(main).start);
        let facts = [
            Some(format!("trace {}", self.tree.trace().id())),
            name::client(span).map(|client| self.clean(client)),
            self.instance(span),
            Some(self.duration(span.duration())),
            jiff::Timestamp::from_nanosecond(began).ok().map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()),
        ];
        let mut lines = Vec::new();
        if cells(&title) + cells(&counts) + 3 <= self.width {
            let mut line = Line::of(Role::Heading, format!("{title}   "));
            line.push(if errors > 0 { Role::Failed } else { Role::Plain }, &counts);
            lines.push(line);
        } else {
            lines.push(Line::of(Role::Heading, title));
            lines.push(Line::of(if errors > 0 { Role::Failed } else { Role::Plain }, counts));
        }
        let facts: Vec<_> = facts.into_iter().flatten().map(|fact| shorten(&fact, self.width, self.glyphs.ellipsis)).collect();
        lines.extend(wrap(facts.iter().map(String::as_str), "   ", self.width).into_iter().map(|line| Line::of(Role::Plain, line)));
        lines
    }

    /// What people call the program that a span is of; none where nobody said.
    fn instance(&self, span: &Span) -> Option<String> {
        self.instance_name(&span.instance)
    }

    fn instance_name(&self, instance: &str) -> Option<String> {
        let name = self.options.instances.get(instance).map_or(instance, String::as_str);
        (!name.is_empty()).then(|| shorten(&self.clean(name), 24, self.glyphs.ellipsis))
    }

    /// The critical path, clocks that disagree, and what is not shown.
    fn footer(&self) -> Vec<Line> {
        let steps = self.path.map(Path::told).unwrap_or_default();
        let steps = steps
            .iter()
            .enumerate()
            .map(|(n, step)| format!("{}{}", if n == 0 { "critical path: " } else { self.glyphs.arrow }, self.clean(step)));
        let sentence = wrap(steps.collect::<Vec<_>>().iter().map(String::as_str), " ", self.width);
        let mut lines: Vec<_> = self.tree.skews().iter().map(|skew| self.skew(skew)).collect();
        let View { hidden, passed, .. } = *self.view;
        let by_filter = (hidden > 0).then(|| format!("{} left out by the filter", count(hidden, "span")));
        let steps = (passed > 0).then(|| format!("{} that every request takes (below 1 %)", count(passed, "step")));
        let not_shown: Vec<_> = [by_filter, steps].into_iter().flatten().collect();
        if !not_shown.is_empty() {
            lines.push(format!("not shown: {}", not_shown.join(", ")));
        }
        let lines = lines.iter().flat_map(|line| wrap(line.split(' '), " ", self.width)).map(|line| Line::of(Role::Plain, line));
        sentence.into_iter().map(|line| Line::of(Role::Heading, line)).chain(lines).collect()
    }

    fn skew(&self, skew: &Skew) -> String {
        let program = |(component, instance): &(String, String)| {
            let instance = self.instance_name(instance).map_or(String::new(), |name| format!(" {name}"));
            format!("{}{instance}", self.clean(component))
        };
        let too_much = if skew.adjusted { "" } else { ", too much to even out" };
        let (client, server) = (program(&skew.client), program(&skew.server));
        format!("clock skew {client} {} {server}: {}{too_much}", self.glyphs.between, self.duration(skew.nanos))
    }
}

/// `1 span`, `2 spans`
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
