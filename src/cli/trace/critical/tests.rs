use super::*;
use crate::cli::trace::model::{Kind, Span, SpanId, Trace, TraceId};

/// `(name, parent, start, end)`; a parent is told by its place, and the first is the root.
fn trace(spans: &[(&str, usize, u64, u64)]) -> Trace {
    let id = |place: usize| SpanId((place as u64 + 1).to_be_bytes());
    let span = |(place, (name, parent, start, end)): (usize, &(&str, usize, u64, u64))| Span {
        id: id(place),
        parent: (place > 0).then(|| id(*parent)),
        name: (*name).to_owned(),
        kind: if name.starts_with("HTTP ") { Kind::Client } else { Kind::Internal },
        start: *start,
        end: *end,
        attributes: name.strip_prefix("Call mutating webhook").map(|_| ("webhook".to_owned(), "policy".to_owned())).into_iter().collect(),
        ..Span::default()
    };
    Trace::new(TraceId([1; 16]), spans.iter().enumerate().map(span).collect())
}

/// `root 100-120, a 120-150, …`
fn sections(spans: &[(&str, usize, u64, u64)]) -> String {
    let trace = trace(spans);
    let tree = Tree::new(&trace);
    let path = path(&tree).unwrap();
    let text = |section: &Section| format!("{} {}-{}", tree.span(section.node).name, section.start, section.end);
    path.sections.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_path_goes_back_from_the_end_through_those_who_finished_last() {
    for (spans, expected) in [
        (&[("root", 0, 100, 200)][..], "root 100-200"),
        (&[("root", 0, 100, 200), ("a", 0, 120, 150)], "root 100-120, a 120-150, root 150-200"),
        // One after the other: both. Side by side: the one that finished last.
        (
            &[("root", 0, 100, 200), ("a", 0, 110, 140), ("b", 0, 150, 190)],
            "root 100-110, a 110-140, root 140-150, b 150-190, root 190-200",
        ),
        (&[("root", 0, 100, 200), ("a", 0, 110, 170), ("b", 0, 150, 190)], "root 100-150, b 150-190, root 190-200"),
        // b began only after c had finished.
        (
            &[("root", 0, 100, 200), ("a", 0, 110, 170), ("b", 0, 150, 190), ("c", 0, 105, 145)],
            "root 100-105, c 105-145, root 145-150, b 150-190, root 190-200",
        ),
        (&[("root", 0, 100, 200), ("a", 0, 110, 190), ("b", 1, 120, 180)], "root 100-110, a 110-120, b 120-180, a 180-190, root 190-200"),
        // Children that run on after their parents, or do not touch them.
        (&[("root", 0, 100, 200), ("a", 0, 150, 900)], "root 100-150, a 150-200"),
        (&[("root", 0, 100, 200), ("a", 0, 110, 150), ("b", 1, 120, 170)], "root 100-110, a 110-120, b 120-150, root 150-200"),
        (&[("root", 0, 100, 200), ("a", 0, 300, 900)], "root 100-200"),
        (&[("root", 0, 100, 200), ("a", 0, 150, 150)], "root 100-150, root 150-200"),
        (&[("root", 0, 100, 100), ("a", 0, 100, 100)], ""),
    ] {
        assert_eq!(sections(spans), expected, "{spans:?}");
    }
}

fn sentence(spans: &[(&str, usize, u64, u64)]) -> String {
    let trace = trace(spans);
    let tree = Tree::new(&trace);
    path(&tree).unwrap().told().join(" → ")
}

#[test]
fn the_sentence_names_the_longest_steps_in_the_order_of_time() {
    for (spans, expected) in [
        (&[("root", 0, 0, 1000)][..], "root (100 %)"),
        (
            &[("root", 0, 0, 1000), ("Call mutating webhook", 0, 10, 890), ("HTTP POST", 1, 11, 889), ("store", 0, 900, 990)],
            "root (3 %) → webhook policy (88 %) → store (9 %)",
        ),
        // Of more than four, the longest; below 1 %, nothing.
        (
            &[("root", 0, 1, 1001), ("a", 0, 1, 301), ("b", 0, 301, 501), ("c", 0, 501, 601), ("d", 0, 601, 651), ("e", 0, 651, 996)],
            "a (30 %) → b (20 %) → c (10 %) → e (35 %)",
        ),
        (&[("root", 0, 0, 0)], ""),
    ] {
        assert_eq!(sentence(spans), expected, "{spans:?}");
    }
}

#[test]
fn shares_are_rounded_and_never_nothing() {
    for (part, whole, text) in
        [(88, 100, "88 %"), (4, 1000, "<1 %"), (995, 1000, "100 %"), (0, 5, "0 %"), (0, 0, "0 %"), (u64::MAX, u64::MAX, "100 %")]
    {
        assert_eq!(percent(part, whole), text);
    }
}

#[test]
fn a_trace_without_spans_has_no_path() {
    assert_eq!(path(&Tree::new(&Trace::default())), None);
}
