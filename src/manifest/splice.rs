//! Puts members into a collection's text, and takes them out, so that one undoes the other to the byte.
//!
//! In block style, whole lines come and go. In flow style, a member comes and goes with the separator before it.
//! A text without a line end at its end keeps that.

use std::ops::Range;

use super::Unsupported;
use super::layout::{Layout, New, column, dash, dash_offset, has_quoted_keys, indentation, line_start};
use super::tree::{Kind, Node, shape};

/// Appends `new` to a list.
pub(super) fn append_item(text: &str, root: &Node, list: &Node, new: &New) -> Result<String, Unsupported> {
    let layout = Layout::of(text, root);
    if list.is_flow() {
        let members: Vec<_> = list.items().iter().map(|item| item.range.clone()).collect();
        let json = has_quoted_keys(list).unwrap_or(layout.json);
        let after = members.len().checked_sub(1);
        let one_line = list.items().iter().any(|item| item.is_mapping() && !text[item.range.clone()].contains('\n'));
        return Ok(insert_flow(text, &layout, list, &members, after, |indent| layout.flow(new, json, indent.filter(|_| !one_line))));
    }
    let (column, gap) = list
        .items()
        .first()
        .and_then(|item| dash(text, item))
        .ok_or_else(|| shape(list.line, "a list item that is not on the line of its dash"))?;
    Ok(insert_lines(text, &layout, list.range.end, column, &layout.item_lines(new, gap, layout.dash)))
}

/// Inserts `key: new` into a mapping that has entries, behind its entry at `after`.
pub(super) fn insert_entry(text: &str, root: &Node, mapping: &Node, after: usize, key: &str, new: &New) -> Result<String, Unsupported> {
    let layout = Layout::of(text, root);
    if mapping.is_flow() {
        let members: Vec<_> = mapping.entries().iter().map(super::tree::Entry::range).collect();
        let json = has_quoted_keys(mapping).unwrap_or(layout.json);
        let after = (after < members.len()).then_some(after);
        return Ok(insert_flow(text, &layout, mapping, &members, after, |indent| layout.flow_entry(key, new, json, indent)));
    }
    let (Some(first), Some(previous)) = (mapping.entries().first(), mapping.entries().get(after)) else {
        return Err(shape(mapping.line, "a mapping without entries"));
    };
    let dash = dash_offset(text, mapping).unwrap_or(layout.dash);
    let lines = layout.entry_lines(key, new, dash);
    let end = previous.range().end;
    let end = if previous.value.is_sequence() { behind_disabled_items(text, end) } else { end };
    Ok(insert_lines(text, &layout, end, column(text, first.key_range.start), &lines))
}

/// Takes the item at `index` out of a list that has others, or that may stand empty (in flow style).
pub(super) fn remove_item(text: &str, list: &Node, index: usize) -> Result<String, Unsupported> {
    let Some(item) = list.items().get(index) else { return Ok(text.to_owned()) };
    if list.is_flow() {
        let members: Vec<_> = list.items().iter().map(|item| item.range.clone()).collect();
        return Ok(remove_flow(text, list, &members, index));
    }
    dash(text, item).ok_or_else(|| shape(item.line, "what was added shares its line with something else"))?;
    Ok(remove_lines(text, &item.range))
}

/// Takes the entry at `index` out of a mapping, likewise.
pub(super) fn remove_entry(text: &str, mapping: &Node, index: usize) -> Result<String, Unsupported> {
    let Some(entry) = mapping.entries().get(index) else { return Ok(text.to_owned()) };
    if mapping.is_flow() {
        let members: Vec<_> = mapping.entries().iter().map(super::tree::Entry::range).collect();
        return Ok(remove_flow(text, mapping, &members, index));
    }
    let range = entry.range();
    if column(text, range.start) != indentation(text, range.start) {
        return Err(shape(entry.line, "what was added shares its line with something else"));
    }
    Ok(remove_lines(text, &range))
}

/// The bytes of a scalar's value, when it is written as it reads: no escapes, no folded lines, no block style.
pub(super) fn literal_range(text: &str, node: &Node) -> Option<Range<usize>> {
    let Kind::Scalar { value, .. } = &node.kind else { return None };
    let quoted = node.range.start + 1..node.range.end.saturating_sub(1);
    [node.range.clone(), quoted].into_iter().find(|range| text.get(range.clone()) == Some(value.as_str()))
}

/// People switch a flag off with a `#` before its dash. Such comments right below a list belong to it, so a new key goes below them.
fn behind_disabled_items(text: &str, list_end: usize) -> usize {
    let below = text[list_end..].split_inclusive('\n').skip(1).map(|line| (line.len(), line.trim().strip_prefix('#').map(str::trim_start)));
    let mut comments = below.map_while(|(length, comment)| Some((length, comment?))).peekable();
    if !comments.peek().is_some_and(|(_, comment)| comment.starts_with('-')) {
        return list_end;
    }
    let comments: usize = comments.map(|(length, _)| length).sum();
    let line = text[list_end..].find('\n').map_or(text.len(), |newline| list_end + newline + 1);
    // Inside the last comment's line, before its line end.
    text[..line + comments].trim_end_matches(['\r', '\n']).len()
}

/// Inserts lines below the line in which `at` is.
fn insert_lines(text: &str, layout: &Layout, at: usize, indent: usize, lines: &[String]) -> String {
    let indented = lines.iter().map(|line| " ".repeat(indent) + line);
    match text[at..].find('\n') {
        Some(offset) => {
            let (before, behind) = text.split_at(at + offset + 1);
            let newline = if before.ends_with("\r\n") { "\r\n" } else { "\n" };
            indented.fold(before.to_owned(), |text, line| text + &line + newline) + behind
        }
        None => indented.fold(text.to_owned(), |text, line| text + layout.newline + &line),
    }
}

/// Removes all lines that `range` is in. When the last of them ends the text without a line end, the one before them goes instead.
fn remove_lines(text: &str, range: &Range<usize>) -> String {
    let before = &text[..line_start(text, range.start)];
    if let Some(offset) = text[range.end..].find('\n') {
        return before.to_owned() + &text[range.end + offset + 1..];
    }
    let before = before.strip_suffix('\n').unwrap_or(before);
    before.strip_suffix('\r').unwrap_or(before).to_owned()
}

/// Inserts a member behind the one at `after`, or as the only one, with the separator that its neighbours have.
/// `write` is told the indentation when each member has a line of its own.
fn insert_flow(
    text: &str,
    layout: &Layout,
    collection: &Node,
    members: &[Range<usize>],
    after: Option<usize>,
    write: impl Fn(Option<usize>) -> String,
) -> String {
    let opening = collection.range.start + 1;
    let own_line = |indent: usize| format!("{}{}", layout.newline, " ".repeat(indent));
    let Some((index, previous)) = after.and_then(|index| Some((index, members.get(index)?))) else {
        let base = indentation(text, collection.range.start);
        let new = match layout.pretty {
            Some(unit) => format!("{}{}{}", own_line(base + unit), write(Some(base + unit)), own_line(base)),
            None => write(None),
        };
        return spliced(text, opening..opening, &new);
    };
    let lead = match index {
        0 => opening..previous.start,
        _ => members[index - 1].end..previous.start,
    };
    let lead = &text[lead];
    let new = if lead.contains('\n') {
        let indent = indentation(text, previous.start);
        format!(",{}{}", own_line(indent), write(layout.pretty.map(|_| indent)))
    } else {
        let tight = lead == "," || (lead.is_empty() && !layout.spaced);
        format!(",{}{}", if tight { "" } else { " " }, write(None))
    };
    spliced(text, previous.end..previous.end, &new)
}

/// Removes a member with the separator before it (the first one: behind it), and all blanks when it was the only one.
fn remove_flow(text: &str, collection: &Node, members: &[Range<usize>], index: usize) -> String {
    let member = &members[index];
    let range = match (index.checked_sub(1).map(|before| members[before].end), members.get(index + 1)) {
        (Some(previous), _) if text[previous..member.start].contains('#') => return remove_flow_behind_comment(text, previous, member),
        (Some(previous), _) => previous..member.end,
        (None, Some(next)) => member.start..next.start,
        (None, None) => {
            let close = collection.range.end - 1;
            let own_line = text[member.end..close].contains('\n');
            collection.range.start + 1..if own_line { close } else { member.end }
        }
    };
    spliced(text, range, "")
}

/// The same where somebody has written a comment between the member and the one before it, which ends at `previous`: the comment stays.
fn remove_flow_behind_comment(text: &str, previous: usize, member: &Range<usize>) -> String {
    let behind = &text[member.end..];
    let trailing_comma = behind.trim_start().starts_with(',').then(|| member.end + behind.find(',').unwrap_or_default() + 1);
    let end = trailing_comma.unwrap_or(member.end);
    let start = line_start(text, member.start).max(previous);
    let rest_of_line = text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1);
    let alone = text[start..member.start].trim().is_empty() && text[end..rest_of_line].trim().is_empty();
    let without = spliced(text, if alone { start..rest_of_line } else { member.start..end }, "");
    match (trailing_comma, text[previous..member.start].find(',')) {
        (None, Some(comma)) => spliced(&without, previous + comma..previous + comma + 1, ""),
        _ => without,
    }
}

/// `text` with the bytes of `range` replaced.
pub(super) fn spliced(text: &str, range: Range<usize>, new: &str) -> String {
    format!("{}{new}{}", &text[..range.start], &text[range.end..])
}
