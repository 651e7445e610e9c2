//! Where a field of a YAML text is written: for messages about what a person wrote.

use std::fmt;

use super::tree::{self, Node};

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

impl Position {
    /// Of the byte at `offset`; of the text's end, when it is behind it.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Where the field of that path (`spec.collector.exporters[0].name`) is written, or, where it is missing, the last that is there on the way
/// to it. `None` for a text whose parts stand for one another (anchors, several documents), or that cannot be read.
pub fn position(text: &str, path: &str) -> Option<Position> {
    let root = tree::parse(text).ok()?;
    let (mut node, mut rest, mut at) = (&root, path, root.range.start);
    while let Some((start, child, behind)) = step(node, rest) {
        (at, node, rest) = (start, child, behind);
    }
    Some(Position::of(text, at))
}

/// The first part of the path: where it begins, its value, and what follows it.
fn step<'n, 'p>(node: &'n Node, path: &'p str) -> Option<(usize, &'n Node, &'p str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    if let Some(index) = path.strip_prefix('[') {
        let (index, behind) = index.split_once(']')?;
        let item = node.items().get(index.parse::<usize>().ok()?)?;
        return Some((item.range.start, item, behind));
    }
    let fitting = node.entries().iter().filter_map(|entry| {
        let behind = path.strip_prefix(entry.key.as_str())?;
        (behind.is_empty() || behind.starts_with(['.', '['])).then_some((entry.key_range.start, &entry.value, behind))
    });
    // a key may have dots of its own: the longest that fits is meant
    fitting.filter(|(_, _, behind)| behind.len() < path.len()).min_by_key(|(_, _, behind)| behind.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "metadata:\n  labels: {a.b/c: x}\nspec:\n  # ä\n  list:\n    - name: one\n    - {name: two}\n";

    #[test]
    fn a_field_is_found_by_its_path_and_what_is_missing_by_what_should_hold_it() {
        for (path, line, column) in [
            ("spec", 3, 1),
            ("spec.list", 5, 3),
            ("spec.list[0]", 6, 7),
            ("spec.list[0].name", 6, 7),
            ("spec.list[1].name", 7, 8),
            ("spec.list[1].other", 7, 7),
            ("spec.list[2].name", 5, 3),
            ("spec.none.of.these", 3, 1),
            ("metadata.labels.a.b/c", 2, 12),
            ("nothing", 1, 1),
            ("", 1, 1),
        ] {
            assert_eq!(position(TEXT, path), Some(Position { line, column }), "{path}");
        }
    }

    #[test]
    fn columns_are_counted_in_characters_and_json_is_read_too() {
        assert_eq!(position("{\"ä\": {\"b\": 1}}", "ä.b"), Some(Position { line: 1, column: 8 }));
        assert_eq!(Position::of("a\nä", 99), Position { line: 2, column: 2 });
    }

    #[test]
    fn a_text_whose_parts_stand_for_one_another_has_no_positions() {
        for text in ["a: &x 1\nb: *x\n", "a: 1\n---\na: 2\n", "a: [", ""] {
            assert_eq!(position(text, "a"), None, "{text:?}");
        }
    }
}
