//! Whatever the spans, and whatever the bytes that they are read from.

use clustertracing::cli::trace::draw::{LEAST_WIDTH, Options};
use clustertracing::cli::trace::model::{self, Event, Kind, Span, SpanId, Status, Trace, TraceId};
use clustertracing::cli::trace::tree::{self, Filter, Item, Tree};
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::drawn;

/// Names that spans of API servers have, and such as only somebody hostile gives them.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("authorization".to_owned()),
        Just("etcdserverpb.KV/Txn".to_owned()),
        Just("GET /api/v1/namespaces/{:namespace}/pods/{:name}/log".to_owned()),
        Just("HTTP POST".to_owned()),
        Just("a".repeat(300)),
        "[a-z大ß\u{1b}\u{202e}\u{301}\n ]{0,12}",
        any::<String>(),
    ]
}

/// A moment of a trace of a second, of years, or any.
fn moment() -> impl Strategy<Value = u64> {
    let start = 1_795_251_703_000_000_000_u64;
    prop_oneof![8 => start..start + 1_000_000_000, 1 => 1..2 * start, 1 => any::<u64>()]
}

/// Spans of few identities: parents that are there and that are not, circles, and spans that come twice.
fn span() -> impl Strategy<Value = Span> {
    let who = (0..40_u64, 0..60_u64, prop::sample::select(vec!["apiserver", "etcd", "kubelet", ""]), "[ab]?", name());
    let what =
        (prop::sample::select(vec![Kind::Internal, Kind::Client, Kind::Server]), moment(), moment(), prop::option::weighted(0.1, name()));
    (who, what, prop::collection::vec((name(), moment()), 0..3)).prop_map(
        |((id, parent, component, instance, name), (kind, start, end, error), events)| Span {
            id: SpanId((id + 1).to_be_bytes()),
            parent: (parent > 0).then(|| SpanId(parent.to_be_bytes())),
            component: component.to_owned(),
            instance,
            name,
            kind,
            start,
            end,
            status: error.map_or(Status::Ok, Status::Error),
            attributes: [("resource".to_owned(), "pods".to_owned())].into(),
            events: events.into_iter().map(|(name, at)| Event { name, at }).collect(),
        },
    )
}

fn trace() -> impl Strategy<Value = Trace> {
    prop::collection::vec(span(), 0..60).prop_map(|spans| Trace::new(TraceId([1; 16]), spans))
}

fn filter() -> impl Strategy<Value = Filter> {
    let only = prop::option::weighted(0.2, Just("etcd".to_owned()));
    (prop_oneof![Just(0), any::<u64>()], prop::option::weighted(0.3, 0..5_usize), only, 0..6_usize, any::<bool>())
        .prop_map(|(min, depth, only, fold_from, all_steps)| Filter { min, depth, only, fold_from, all_steps })
}

proptest! {
    #[test]
    fn no_line_is_wider_than_it_may_be(trace in trace(), filter in filter(), width in 0..200_usize, ascii in any::<bool>()) {
        let drawing = drawn(&trace, &filter, &Options { width, ascii, ..Options::default() });
        for line in drawing.plain().lines() {
            prop_assert!(line.width() <= width.max(LEAST_WIDTH), "{} cells of {width}: {line}", line.width());
            prop_assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
            prop_assert!(!ascii || line.is_ascii(), "{line}");
        }
    }

    #[test]
    fn every_span_that_is_kept_stands_once(trace in trace(), filter in filter()) {
        let tree = Tree::new(&trace);
        let view = tree::view(&tree, &filter);
        let mut shown = vec![0; trace.spans().len()];
        for line in &view.lines {
            match &line.item {
                Item::Span(node) => shown[*node] += 1,
                Item::Folded(folded) => folded.members.iter().for_each(|node| shown[*node] += 1),
                Item::Orphans => {}
            }
        }
        prop_assert!(shown.iter().all(|times| *times <= 1));
        let everything = Filter { fold_from: usize::MAX, all_steps: true, ..Filter::default() };
        let all = tree::view(&tree, &everything);
        prop_assert_eq!(all.lines.iter().filter(|line| line.item != Item::Orphans).count(), trace.spans().len());
        prop_assert_eq!((all.hidden, all.passed), (0, 0));
    }

    #[test]
    fn bars_lie_within_the_axis(trace in trace(), width in 96..200_usize) {
        let everything = Filter { fold_from: usize::MAX, all_steps: true, ..Filter::default() };
        let drawing = drawn(&trace, &everything, &Options { width, ..Options::default() });
        let bar = |c: char| "·▏▎▍▌▋▊▉█▓▐▕┃".contains(c);
        let plain = drawing.plain();
        let (bars, heads): (Vec<_>, Vec<_>) = plain.lines().map(|line| line.split(" ◀ ").next().unwrap_or_default()).partition(|line| line.ends_with(bar));
        let axis = heads.iter().find(|line| line.starts_with("COMPONENT"));
        prop_assert_eq!(axis.is_some(), !trace.spans().is_empty());
        for line in bars {
            prop_assert_eq!(line.width(), axis.unwrap().width(), "{}", line);
            prop_assert!(line.chars().rev().take_while(|c| bar(*c)).any(|c| c != '·'), "{}", line);
        }
    }

    #[test]
    fn the_path_is_the_whole_request_without_gaps(trace in trace()) {
        let tree = Tree::new(&trace);
        let Some(path) = clustertracing::cli::trace::critical::path(&tree) else { return Ok(()) };
        let (main, told) = (tree.node(tree.main().unwrap()), path.sections.iter().map(|section| section.end - section.start).sum::<u64>());
        prop_assert_eq!(told, path.whole);
        prop_assert!(path.sections.windows(2).all(|pair| pair[0].end == pair[1].start));
        prop_assert!(path.sections.first().is_none_or(|first| first.start == main.start));
        prop_assert!(path.sections.iter().all(|section| tree.node(section.node).start <= section.start && section.end <= tree.node(section.node).end));
        prop_assert_eq!(path.steps().iter().map(|step| step.nanos).sum::<u64>(), path.whole);
    }

    #[test]
    fn bytes_that_somebody_changed_give_traces_or_an_error(changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..12)) {
        let mut bytes = include_bytes!("webhook-unreachable.json").to_vec();
        for (place, how, byte) in changes {
            let place = place.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                2 => drop(bytes.drain(place..bytes.len().min(place + usize::from(byte)))),
                _ => bytes[place] = b"0123456789\"{}[],:"[usize::from(byte) % 17],
            }
            if bytes.is_empty() {
                break;
            }
        }
        for trace in model::read(&bytes).unwrap_or_default() {
            prop_assert!(!drawn(&trace, &Filter::default(), &Options::default()).lines.is_empty());
        }
    }

    #[test]
    fn values_that_somebody_changed_give_traces_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec!["0", "-1", "1e99", "18446744073709551615", "null", "true", "\"\"", "[]", "{}", "\"18446744073709551615\"", "\"ffffffffffffffff\""])), 1..6),
    ) {
        let mut document: serde_json::Value = serde_json::from_slice(include_bytes!("webhook-unreachable.json")).unwrap();
        for (place, value) in changes {
            let mut leaves = Vec::new();
            collect(&document, &mut String::new(), &mut leaves);
            let leaf = &leaves[place.index(leaves.len())];
            *document.pointer_mut(leaf).unwrap() = serde_json::from_str(value).unwrap();
        }
        for trace in model::read(document.to_string().as_bytes()).unwrap_or_default() {
            prop_assert!(!drawn(&trace, &Filter::default(), &Options::default()).lines.is_empty());
        }
    }
}

/// The JSON pointers of all that stands in a value.
fn collect(value: &serde_json::Value, at: &mut String, leaves: &mut Vec<String>) {
    leaves.push(at.clone());
    let children: Vec<(String, &serde_json::Value)> = match value {
        serde_json::Value::Array(list) => list.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
        serde_json::Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in children {
        let length = at.len();
        at.push('/');
        at.push_str(&key);
        collect(value, at, leaves);
        at.truncate(length);
    }
}
