use super::*;
use crate::cli::trace::model::{Status, TraceId};

/// `(id, parent, start, end)`; a parent of 0 is none.
fn span((id, parent, start, end): (u8, u8, u64, u64)) -> Span {
    let id_of = |n: u8| SpanId([n; 8]);
    let (parent, name) = ((parent != 0).then(|| id_of(parent)), format!("s{id}"));
    Span { id: id_of(id), parent, component: "apiserver".to_owned(), name, start, end, ..Span::default() }
}

fn trace(spans: impl IntoIterator<Item = Span>) -> Trace {
    Trace::new(TraceId([1; 16]), spans.into_iter().collect())
}

fn of(spans: &[(u8, u8, u64, u64)]) -> Trace {
    trace(spans.iter().copied().map(span))
}

fn names(tree: &Tree<'_>, nodes: &[usize]) -> Vec<String> {
    nodes.iter().map(|node| tree.span(*node).name.clone()).collect()
}

/// The tree as text: `s1(s2 s3(s4))`.
fn shape(tree: &Tree<'_>, node: usize) -> String {
    let children: Vec<_> = tree.node(node).children.iter().map(|child| shape(tree, *child)).collect();
    let name = &tree.span(node).name;
    if children.is_empty() { name.clone() } else { format!("{name}({})", children.join(" ")) }
}

fn shapes(tree: &Tree<'_>, tops: &[usize]) -> String {
    tops.iter().map(|top| shape(tree, *top)).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_span_stands_in_the_tree_once_whatever_is_said_of_its_parent() {
    for (spans, roots, orphans) in [
        (&[(1, 0, 0, 9), (3, 1, 5, 6), (2, 1, 1, 2), (4, 3, 5, 6)][..], "s1(s2 s3(s4))", ""),
        (&[(1, 0, 0, 9), (2, 0, 1, 2)], "s1 s2", ""),
        (&[(1, 0, 0, 9), (2, 7, 1, 2), (3, 2, 1, 2)], "s1", "s2(s3)"),
        // Its own parent; two that are each other's; a circle with a tail; a circle in which the later one is met first.
        (&[(1, 1, 0, 9)], "", "s1"),
        (&[(1, 2, 5, 9), (2, 1, 3, 9)], "", "s2(s1)"),
        (&[(1, 3, 1, 9), (2, 1, 2, 9), (3, 2, 3, 9), (4, 3, 4, 9)], "", "s1(s2(s3(s4)))"),
        (&[(9, 3, 0, 9), (1, 3, 1, 9), (2, 1, 2, 9), (3, 2, 3, 9)], "", "s1(s2(s3(s9)))"),
        (&[], "", ""),
    ] {
        let trace = of(spans);
        let tree = Tree::new(&trace);
        assert_eq!((shapes(&tree, tree.roots()), shapes(&tree, tree.orphans())), (roots.to_owned(), orphans.to_owned()), "{spans:?}");
        assert_eq!(tree.order().len(), spans.len(), "{spans:?}");
    }
}

#[test]
fn a_request_that_came_with_a_trace_context_is_the_root() {
    let server = |mut span: Span, component: &str| {
        (span.kind, span.component) = (Kind::Server, component.to_owned());
        span
    };
    let request = trace([server(span((1, 7, 5, 9)), "apiserver"), span((2, 1, 6, 7)), server(span((3, 8, 4, 5)), "etcd")]);
    let tree = Tree::new(&request);
    assert_eq!((names(&tree, tree.roots()), names(&tree, tree.orphans())), (vec!["s1".to_owned()], vec!["s3".to_owned()]));

    let with_a_root = trace([span((2, 0, 0, 9)), server(span((1, 7, 5, 9)), "apiserver")]);
    let tree = Tree::new(&with_a_root);
    assert_eq!((names(&tree, tree.roots()), names(&tree, tree.orphans())), (vec!["s2".to_owned()], vec!["s1".to_owned()]));
}

#[test]
fn own_time_is_what_no_child_covers() {
    for (children, own) in [
        (&[][..], 100),
        (&[(10, 20), (50, 60)], 80),
        (&[(10, 40), (20, 30), (35, 50)], 60),
        (&[(0, 100)], 0),
        // Beyond the parent counts for nothing.
        (&[(90, 400)], 90),
        (&[(200, 400)], 100),
        (&[(30, 30)], 100),
    ] {
        let children = children.iter().zip(2..).map(|((start, end), id)| span((id, 1, 1000 + start, 1000 + end)));
        let trace = trace(std::iter::once(span((1, 0, 1000, 1100))).chain(children));
        assert_eq!(Tree::new(&trace).node(0).own, own);
    }
}

#[test]
fn a_call_that_lies_outside_its_caller_is_moved_into_it_with_what_it_did() {
    const MS: u64 = 1_000_000;
    const T0: u64 = 1_000_000 * MS;
    let process = |mut span: Span, component: &str, kind| {
        (span.component, span.instance, span.kind) = (component.to_owned(), format!("{component}-1"), kind);
        span
    };
    let (apiserver, etcd) = ("apiserver", "etcd");
    // When etcd's clock says the call began and ended (ms after the caller's beginning); where it is drawn, and what is told of it.
    for (began, took, drawn, skew) in [
        (3_i64, 4, 3, None),
        (-5, 4, 3, Some((8, true))),
        (90, 4, 3, Some((87, true))),
        (8, 4, 3, Some((5, true))),
        // The caller gave up after 10 ms.
        (2, 30, 2, None),
        (-2, 30, 0, Some((2, true))),
        (61_000, 4, 61_000, Some((60_997, false))),
    ] {
        let at = |ms: i64| T0.saturating_add_signed(ms * 1_000_000);
        let trace = trace([
            process(span((1, 0, T0, T0 + 10 * MS)), apiserver, Kind::Client),
            process(span((2, 1, at(began), at(began + took))), etcd, Kind::Server),
            process(span((3, 2, at(began + 1), at(began + 2))), etcd, Kind::Internal),
        ]);
        let tree = Tree::new(&trace);
        let start_of = |name: &str| (0..3).find(|n| tree.span(*n).name == name).map(|n| tree.node(n).start).unwrap();
        assert_eq!((start_of("s2"), start_of("s3")), (at(drawn), at(drawn + 1)), "began at {began} ms");
        let told: Vec<_> = tree.skews().iter().map(|skew| (skew.nanos / MS, skew.adjusted)).collect();
        assert_eq!(told, Vec::from_iter(skew), "began at {began} ms");
    }
}

#[test]
fn what_runs_on_after_its_parent_is_not_taken_for_skew() {
    let mut later = span((2, 1, 50, 60));
    later.instance = "another".to_owned();
    let trace = trace([span((1, 0, 0, 9)), later]);
    let tree = Tree::new(&trace);
    assert_eq!((tree.node(1).start, tree.skews()), (50, &[][..]));
}

/// The view's lines: two spaces a level, folded ones with their number, p50 and max.
fn lines(tree: &Tree<'_>, filter: &Filter) -> Vec<String> {
    let text = |line: &Line| match &line.item {
        Item::Span(node) => tree.span(*node).name.clone(),
        Item::Folded(Folded { members, p50, max }) => format!("{}x{} {p50} {max}", tree.span(members[0]).name, members.len()),
        Item::Orphans => "orphans:".to_owned(),
    };
    view(tree, filter).lines.iter().map(|line| format!("{:indent$}{}", "", text(line), indent = line.depth * 2)).collect()
}

#[test]
fn siblings_of_one_name_fold_but_those_that_failed_stand() {
    let named = |mut span: Span, name: &str| {
        span.name = name.to_owned();
        span
    };
    let mut spans = vec![span((1, 0, 0, 100))];
    spans.extend((2..7).map(|id| named(span((id, 1, u64::from(id), u64::from(id * 2))), "put")));
    spans.push(named(span((7, 1, 4, 5)), "get"));
    spans.push(named(span((8, 2, 4, 5)), "below"));
    spans[4].status = Status::Error(String::new());
    let trace = trace(spans);
    let tree = Tree::new(&trace);
    assert_eq!(lines(&tree, &Filter::default()), ["s1", "  putx4 3 6", "  get", "  put"]);
    assert_eq!(view(&tree, &Filter::default()).hidden, 0, "folded spans are shown");
    let all = lines(&tree, &Filter { fold_from: usize::MAX, ..Filter::default() });
    assert_eq!(all, ["s1", "  put", "    below", "  put", "  put", "  get", "  put", "  put"]);
}

#[test]
fn a_filter_keeps_what_its_spans_are_part_of() {
    let mut failed = span((4, 1, 50, 51));
    failed.status = Status::Error(String::new());
    let mut etcd = span((3, 2, 6, 8));
    etcd.component = "etcd".to_owned();
    let trace = trace([span((1, 0, 0, 100)), span((2, 1, 5, 9)), etcd, failed, span((5, 1, 60, 90)), span((6, 9, 1, 2))]);
    let tree = Tree::new(&trace);
    let all = Filter::default();
    for (filter, shown) in [
        (all.clone(), vec!["s1", "  s2", "    s3", "  s4", "  s5", "orphans:", "  s6"]),
        (Filter { min: 10, ..all.clone() }, vec!["s1", "  s4", "  s5"]),
        (Filter { min: 1_000, ..all.clone() }, vec!["s1", "  s4"]),
        (Filter { only: Some("etcd".to_owned()), ..all.clone() }, vec!["s1", "  s2", "    s3"]),
        (Filter { only: Some("nobody".to_owned()), ..all.clone() }, vec![]),
        (Filter { depth: Some(0), ..all.clone() }, vec!["s1", "orphans:", "  s6"]),
        (Filter { depth: Some(1), ..all }, vec!["s1", "  s2", "  s4", "  s5", "orphans:", "  s6"]),
    ] {
        assert_eq!(lines(&tree, &filter), shown, "{filter:?}");
        let spans_shown = shown.iter().filter(|line| **line != "orphans:").count();
        assert_eq!(view(&tree, &filter).hidden, 6 - spans_shown, "{filter:?}");
    }
}

#[test]
fn steps_of_every_request_stand_only_where_they_took_time() {
    let step = |mut span: Span, name: &str| {
        span.name = name.to_owned();
        span
    };
    let spans = |authorized: u64| {
        let create = [(4, 3, authorized, 999), (5, 4, authorized + 1, 990)].map(span);
        [span((1, 0, 0, 1000)), step(span((2, 1, 1, 1000)), "audit"), step(span((3, 2, 2, 1000)), "authorization")]
            .into_iter()
            .chain(create)
    };
    for (authorized, shown, passed) in [(3, vec!["s1", "  s4", "    s5"], 2), (200, vec!["s1", "  authorization", "    s4", "      s5"], 1)]
    {
        let trace = trace(spans(authorized));
        let tree = Tree::new(&trace);
        assert_eq!(lines(&tree, &Filter::default()), shown);
        assert_eq!((view(&tree, &Filter::default()).passed, view(&tree, &Filter::default()).hidden), (passed, 0));
        let all = lines(&tree, &Filter { all_steps: true, ..Filter::default() });
        assert_eq!(all, ["s1", "  audit", "    authorization", "      s4", "        s5"]);
    }
}

#[test]
fn a_chain_of_a_hundred_thousand_spans_is_only_a_long_chain() {
    let id = |n: u64| SpanId(n.to_be_bytes());
    let chain =
        (1..=100_000).map(|n| Span { id: id(n), parent: (n > 1).then(|| id(n - 1)), start: n, end: 1_000_000 - n, ..Span::default() });
    let trace = trace(chain);
    let tree = Tree::new(&trace);
    assert_eq!(view(&tree, &Filter::default()).lines.last().map(|line| line.depth), Some(99_999));
}
