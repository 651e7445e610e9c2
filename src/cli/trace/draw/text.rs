//! Texts of others in cells of a terminal.

use unicode_width::UnicodeWidthChar;

/// Cells that a text takes, once it is [`clean`].
pub(super) fn cells(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// What of a text can be shown: spans are anybody's, and a terminal obeys the control characters in them (escape sequences, line ends, writing
/// from right to left). Runs of white space become one space; what has no width is left out.
pub(super) fn clean(text: &str, ascii: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_whitespace() => {
                if !clean.ends_with(' ') {
                    clean.push(' ');
                }
            }
            _ if c.is_control() => clean.push(if ascii { '?' } else { char::REPLACEMENT_CHARACTER }),
            _ if c.width().unwrap_or(0) == 0 => {}
            _ if ascii && !c.is_ascii() => clean.push('?'),
            _ => clean.push(c),
        }
    }
    clean
}

/// A text in so many cells at the most: shortened in the middle, because names differ at both ends.
pub(super) fn shorten(text: &str, most: usize, ellipsis: &str) -> String {
    if cells(text) <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(cells(ellipsis));
    let head = taken(text.chars(), room.div_ceil(2));
    let tail: String = taken(text.chars().rev(), room - room.div_ceil(2)).chars().rev().collect();
    if most < cells(ellipsis) { taken(text.chars(), most) } else { format!("{head}{ellipsis}{tail}") }
}

/// As many characters as fit.
fn taken(text: impl Iterator<Item = char>, most: usize) -> String {
    let mut left = most;
    text.take_while(|c| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    })
    .collect()
}

/// A text in exactly so many cells: shortened, or with spaces behind it.
pub(super) fn left(text: &str, width: usize, ellipsis: &str) -> String {
    let text = shorten(text, width, ellipsis);
    let spaces = width - cells(&text);
    format!("{text}{:spaces$}", "")
}

/// The same with spaces before it.
pub(super) fn right(text: &str, width: usize, ellipsis: &str) -> String {
    let text = shorten(text, width, ellipsis);
    let spaces = width - cells(&text);
    format!("{:spaces$}{text}", "")
}

/// Parts on as few lines as they need, in their order; one that is too wide for a line is cut into several.
pub(super) fn wrap<'t>(parts: impl Iterator<Item = &'t str>, between: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        let mut part = part;
        match lines.last_mut() {
            Some(line) if cells(line) + cells(between) + cells(part) <= width => {
                line.push_str(between);
                line.push_str(part);
                continue;
            }
            _ => {}
        }
        loop {
            let head = taken(part.chars(), width);
            part = &part[head.len()..];
            let done = part.is_empty() || head.is_empty();
            lines.push(head);
            if done {
                break;
            }
        }
    }
    lines
}
