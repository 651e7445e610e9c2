//! How new parts are written so that they look like the text around them.

use super::scalar::{self, Quoting};
use super::tree::{Kind, Node};
use granit_parser::ScalarStyle;

/// A value to write.
#[derive(Clone, Debug)]
pub(super) enum New {
    /// A string, with the quoting of its neighbours.
    Text(String, Quoting),
    /// The boolean.
    True,
    Mapping(Vec<(&'static str, New)>),
    List(Vec<New>),
}

impl New {
    /// A string that is quoted only where it must be.
    pub(super) fn text(value: &str) -> Self {
        Self::Text(value.to_owned(), Quoting::Plain)
    }
}

/// The habits of a text, read off its own parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// `\n` or `\r\n`.
    pub(super) newline: &'static str,
    /// Columns from a block mapping's key to the keys below it.
    pub(super) step: usize,
    /// Columns from a key to the dashes of the block list below it: 0 as kubeadm writes, often 2 where people do.
    pub(super) dash: usize,
    /// The whole text is JSON, or YAML that looks like it.
    pub(super) json: bool,
    /// A blank follows `:` and `,` in flow style.
    pub(super) spaced: bool,
    /// The text is one flow collection with a line for each member, indented by that many columns a level.
    pub(super) pretty: Option<usize>,
}

impl Layout {
    pub(super) fn of(text: &str, root: &Node) -> Self {
        let first_break = text.find('\n').unwrap_or_default();
        let newline = if text[..first_break].ends_with('\r') { "\r\n" } else { "\n" };
        let mut layout = Self { newline, step: 2, dash: 0, json: false, spaced: true, pretty: None };
        let Some(first) = root.entries().first() else { return layout };
        if root.is_flow() {
            layout.json = first.key_style == ScalarStyle::DoubleQuoted;
            layout.spaced = !layout.json || text[first.key_range.end..first.value.range.start].ends_with(char::is_whitespace);
            layout.pretty = (first.line > root.line).then(|| column(text, first.key_range.start));
        } else {
            if let Some(nested) = root.entries().iter().find(|entry| entry.value.is_mapping() && !entry.value.is_flow()) {
                layout.step = column(text, nested.value.range.start).saturating_sub(column(text, nested.key_range.start)).max(1);
            }
            if let Some(spec) = root.get("spec") {
                layout.dash = dash_offset(text, spec).unwrap_or(0);
            }
        }
        layout
    }

    /// The lines of a value in block style, without the indentation that all of them share.
    pub(super) fn block_lines(&self, new: &New, dash: usize) -> Vec<String> {
        match new {
            New::Mapping(entries) => entries.iter().flat_map(|(key, value)| self.entry_lines(key, value, dash)).collect(),
            New::List(items) => items.iter().flat_map(|item| self.item_lines(item, 1, dash)).collect(),
            scalar => vec![scalar_text(scalar, false, false)],
        }
    }

    /// `key: value`, the value below where it is a collection.
    pub(super) fn entry_lines(&self, key: &str, value: &New, dash: usize) -> Vec<String> {
        let indent = match value {
            New::Mapping(_) => self.step,
            New::List(_) => dash,
            scalar => return vec![format!("{key}: {}", scalar_text(scalar, false, false))],
        };
        let below = self.block_lines(value, dash);
        std::iter::once(format!("{key}:")).chain(below.iter().map(|line| " ".repeat(indent) + line)).collect()
    }

    /// `- value`, with `gap` blanks behind the dash.
    pub(super) fn item_lines(&self, item: &New, gap: usize, dash: usize) -> Vec<String> {
        let lead = |index| if index == 0 { "-" } else { " " };
        let lines = self.block_lines(item, dash);
        lines.iter().enumerate().map(|(index, line)| format!("{}{}{line}", lead(index), " ".repeat(gap))).collect()
    }

    /// A value in flow style: over several lines, the outermost indented by `indent`, or in one.
    pub(super) fn flow(&self, new: &New, json: bool, indent: Option<usize>) -> String {
        let inner = indent.map(|indent| indent + self.pretty.unwrap_or(self.step));
        let (open, close, members): (_, _, Vec<String>) = match new {
            New::Mapping(entries) => ('{', '}', entries.iter().map(|(key, value)| self.flow_entry(key, value, json, inner)).collect()),
            New::List(items) => ('[', ']', items.iter().map(|item| self.flow(item, json, inner)).collect()),
            scalar => return scalar_text(scalar, json, true),
        };
        match (indent, inner) {
            (Some(indent), Some(inner)) => {
                let line = |indent| format!("{}{}", self.newline, " ".repeat(indent));
                format!("{open}{}{}{}{close}", line(inner), members.join(&format!(",{}", line(inner))), line(indent))
            }
            _ => format!("{open}{}{close}", members.join(if self.spaced { ", " } else { "," })),
        }
    }

    /// `key: value` in flow style.
    pub(super) fn flow_entry(&self, key: &str, value: &New, json: bool, indent: Option<usize>) -> String {
        let key = scalar::write(key, if json { Quoting::Double } else { Quoting::Plain }, true);
        format!("{key}:{}{}", if self.spaced { " " } else { "" }, self.flow(value, json, indent))
    }
}

/// A value that is no collection.
fn scalar_text(new: &New, json: bool, in_flow: bool) -> String {
    match new {
        New::Text(value, quoting) => scalar::write(value, if json { Quoting::Double } else { *quoting }, in_flow),
        New::True | New::Mapping(_) | New::List(_) => "true".to_owned(),
    }
}

/// Columns from a key of this mapping to the dashes of its block list, if it has one.
pub(super) fn dash_offset(text: &str, mapping: &Node) -> Option<usize> {
    mapping.entries().iter().filter(|entry| !entry.value.is_flow()).find_map(|entry| {
        let (dash, _) = dash(text, entry.value.items().first()?)?;
        dash.checked_sub(column(text, entry.key_range.start))
    })
}

/// The dash of a block list's item: its column, and how many blanks follow it. Nothing when it does not begin a line of its own.
pub(super) fn dash(text: &str, item: &Node) -> Option<(usize, usize)> {
    let lead = &text[line_start(text, item.range.start)..item.range.start];
    let indent = lead.trim_start_matches(' ');
    let gap = indent.strip_prefix('-')?;
    (!gap.is_empty() && gap.trim_start_matches(' ').is_empty()).then_some((lead.len() - indent.len(), gap.len()))
}

/// Whether the keys in this flow collection are quoted as in JSON; nothing where it has none yet.
pub(super) fn has_quoted_keys(node: &Node) -> Option<bool> {
    match &node.kind {
        Kind::Mapping { entries, .. } => entries.first().map(|entry| entry.key_style == ScalarStyle::DoubleQuoted),
        Kind::Sequence { items, .. } => items.iter().find_map(has_quoted_keys),
        Kind::Scalar { .. } => None,
    }
}

/// Where the line begins that `at` is in.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// How far `at` is into its line. Indentation has only blanks, so bytes are columns.
pub(super) fn column(text: &str, at: usize) -> usize {
    at - line_start(text, at)
}

/// The blanks that the line of `at` begins with.
pub(super) fn indentation(text: &str, at: usize) -> usize {
    let line = &text[line_start(text, at)..];
    line.len() - line.trim_start_matches(' ').len()
}
