//! A manifest's YAML as a tree whose nodes know their bytes in the text.
//!
//! JSON is YAML's flow style, so there is one tree for both. Whatever YAML readers disagree about, or what would let one part of the
//! text stand for another (anchors, aliases, merge keys, tags, directives, duplicate keys), is refused here, before anything deeper looks.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use super::Unsupported;

/// A static pod's manifest is a few kilobytes; a larger text is a mistake or an attack, and costs more than it is worth.
const MAX_BYTES: usize = 1 << 20;
/// The deepest field of a pod is about twenty levels down.
const MAX_DEPTH: usize = 64;

/// A value and the bytes it was written with.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// From the first to behind the last character, without what follows (comments, line ends).
    pub(super) range: Range<usize>,
    /// Counted from 1, as editors do.
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Scalar { value: String, style: ScalarStyle },
    Sequence { style: StructureStyle, items: Vec<Node> },
    Mapping { style: StructureStyle, entries: Vec<Entry> },
}

/// One `key: value`. Keys are scalars; anything else is refused.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_range: Range<usize>,
    pub(super) key_style: ScalarStyle,
    pub(super) line: usize,
    pub(super) value: Node,
}

impl Entry {
    /// Key and value together.
    pub(super) fn range(&self) -> Range<usize> {
        self.key_range.start..self.value.range.end.max(self.key_range.end)
    }
}

impl Node {
    /// The mapping's entry of that name, with its position among the entries.
    pub(super) fn entry(&self, key: &str) -> Option<(usize, &Entry)> {
        self.entries().iter().enumerate().find(|(_, entry)| entry.key == key)
    }

    /// The mapping's value of that name.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, entry)| &entry.value)
    }

    /// A mapping's entries; nothing for other nodes.
    pub(super) fn entries(&self) -> &[Entry] {
        if let Kind::Mapping { entries, .. } = &self.kind { entries } else { &[] }
    }

    /// A sequence's items; nothing for other nodes.
    pub(super) fn items(&self) -> &[Node] {
        if let Kind::Sequence { items, .. } = &self.kind { items } else { &[] }
    }

    /// How many items or entries it has.
    pub(super) fn len(&self) -> usize {
        self.items().len() + self.entries().len()
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.kind, Kind::Mapping { .. })
    }

    pub(super) fn is_sequence(&self) -> bool {
        matches!(self.kind, Kind::Sequence { .. })
    }

    /// Whether it is a collection in flow style: `[…]` or `{…}`, as everything in JSON.
    pub(super) fn is_flow(&self) -> bool {
        matches!(self.kind, Kind::Sequence { style: StructureStyle::Flow, .. } | Kind::Mapping { style: StructureStyle::Flow, .. })
    }

    /// The scalar's text, of whatever type.
    pub(super) fn scalar(&self) -> Option<&str> {
        if let Kind::Scalar { value, .. } = &self.kind { Some(value) } else { None }
    }

    /// The scalar's text when every YAML reader takes it for a string.
    pub(super) fn string(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { value, style: ScalarStyle::Plain } if !super::scalar::is_string_when_plain(value) => None,
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { value, style: ScalarStyle::Plain } if matches!(value.as_str(), "" | "~" | "null" | "Null" | "NULL") => "null",
            Kind::Scalar { .. } if self.string().is_some() => "a string",
            Kind::Scalar { .. } => "a number or boolean",
            Kind::Sequence { .. } => "a list",
            Kind::Mapping { .. } => "a mapping",
        }
    }
}

/// The refusal of a shape, with its line.
pub(super) fn shape(line: usize, what: impl std::fmt::Display) -> Unsupported {
    Unsupported::Shape(format!("line {line}: {what}"))
}

fn unreadable(line: usize, what: impl std::fmt::Display) -> Unsupported {
    Unsupported::Unreadable(format!("line {line}: {what}"))
}

/// Reads the one document of `text`.
pub(super) fn parse(text: &str) -> Result<Node, Unsupported> {
    check_characters(text)?;
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder { text, documents: 0, open: Vec::new(), root: None };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| unreadable(error.marker().line(), error.info()))?;
        builder.accept(event, &span)?;
    }
    builder.root.ok_or_else(|| Unsupported::Unreadable("it is empty".into()))
}

/// Refuses what makes line numbers, indentation or line ends mean different things to different readers.
fn check_characters(text: &str) -> Result<(), Unsupported> {
    if text.len() > MAX_BYTES {
        return Err(Unsupported::Unreadable(format!("it has {} bytes, more than {MAX_BYTES}", text.len())));
    }
    if text.starts_with('\u{feff}') {
        return Err(unreadable(1, "a byte order mark"));
    }
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}']) {
            return Err(unreadable(number, "a line break that YAML readers disagree about"));
        }
        if line.trim_start_matches(' ').starts_with('\t') {
            return Err(shape(number, "a tab in the indentation"));
        }
    }
    Ok(())
}

/// A collection whose end has not come yet, and the key that waits for its value.
struct Open {
    node: Node,
    key: Option<Node>,
    lines_by_key: HashMap<String, usize>,
}

struct Builder<'t> {
    text: &'t str,
    documents: usize,
    open: Vec<Open>,
    root: Option<Node>,
}

impl Builder<'_> {
    fn accept(&mut self, event: Event<'_>, span: &Span) -> Result<(), Unsupported> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(unreadable(line, "a second document begins"));
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => return Err(shape(line, "an alias (`*name`)")),
            Event::Scalar(value, style, anchor, tag) => {
                plain_node(line, anchor, tag.is_some())?;
                let start = byte(span.start.byte_offset())?;
                let end = byte(span.end.byte_offset())?;
                // A block scalar's span takes in the blank lines and the indentation behind it.
                let end = start + self.text.get(start..end).unwrap_or_default().trim_end().len();
                self.close(Node { range: start..end, line, kind: Kind::Scalar { value: value.into_owned(), style } })?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                plain_node(line, anchor, tag.is_some())?;
                self.begin(line, span, Kind::Sequence { style, items: Vec::new() })?;
            }
            Event::MappingStart(style, anchor, tag) => {
                plain_node(line, anchor, tag.is_some())?;
                self.begin(line, span, Kind::Mapping { style, entries: Vec::new() })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(mut open) = self.open.pop() {
                    // A block collection ends where its last member ends: its closing event comes at the next token, comments later.
                    open.node.range.end = match &open.node.kind {
                        _ if open.node.is_flow() => byte(span.end.byte_offset())?,
                        Kind::Sequence { items, .. } => items.last().map_or(open.node.range.start, |item| item.range.end),
                        Kind::Mapping { entries, .. } => entries.last().map_or(open.node.range.start, |entry| entry.range().end),
                        Kind::Scalar { .. } => open.node.range.end,
                    };
                    self.close(open.node)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, span: &Span, kind: Kind) -> Result<(), Unsupported> {
        if self.open.len() == MAX_DEPTH {
            return Err(unreadable(line, format!("deeper than {MAX_DEPTH} levels")));
        }
        let start = byte(span.start.byte_offset())?;
        self.open.push(Open { node: Node { range: start..start, line, kind }, key: None, lines_by_key: HashMap::new() });
        Ok(())
    }

    /// Puts a whole node into the collection it belongs to.
    fn close(&mut self, node: Node) -> Result<(), Unsupported> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.kind {
            Kind::Sequence { items, .. } => items.push(node),
            Kind::Mapping { entries, .. } => match open.key.take() {
                None => {
                    let key = node.scalar().ok_or_else(|| shape(node.line, "a key that is not a scalar"))?;
                    if key == "<<" {
                        return Err(shape(node.line, "a merge key (`<<`)"));
                    }
                    if let Some(first) = open.lines_by_key.insert(key.to_owned(), node.line) {
                        return Err(shape(node.line, format!("key {key:?} again, which line {first} has already")));
                    }
                    open.key = Some(node);
                }
                Some(key) => {
                    let line = key.line;
                    if let Kind::Scalar { value: name, style } = key.kind {
                        entries.push(Entry { key: name, key_range: key.range, key_style: style, line, value: node });
                    }
                }
            },
            Kind::Scalar { .. } => {}
        }
        Ok(())
    }
}

fn plain_node(line: usize, anchor: usize, tagged: bool) -> Result<(), Unsupported> {
    if anchor != 0 {
        return Err(shape(line, "an anchor (`&name`)"));
    }
    if tagged {
        return Err(shape(line, "a tag (`!name`)"));
    }
    Ok(())
}

fn byte(offset: Option<usize>) -> Result<usize, Unsupported> {
    offset.ok_or_else(|| Unsupported::Unreadable("the parser does not say where it is".into()))
}
