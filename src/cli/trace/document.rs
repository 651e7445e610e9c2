//! A trace for programs: what the picture shows, as plain values.

use serde::Serialize;

use super::critical::Path;
use super::model::Status;
use super::tree::Tree;

/// What `show -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename = "Trace", rename_all = "camelCase")]
pub struct Document {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// When its first span began: nanoseconds since 1970.
    pub start_nanos: u64,
    /// From there to the end of its last span: nanoseconds.
    pub duration_nanos: u64,
    /// What the main request waited for, in the order of time.
    pub critical_path: Vec<Step>,
    /// Its spans, parents before their parts.
    pub spans: Vec<Span>,
}

/// Some part of a request that it waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Step {
    /// `webhook policy.shop.io`
    pub name: String,
    /// How long: nanoseconds.
    pub nanos: u64,
}

/// A span, on the clock of its trace's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// Place of the span that it is part of, in this list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<usize>,
    /// `apiserver`, `etcd`, or what others call themselves.
    pub component: String,
    /// Its `service.instance.id`.
    pub instance: String,
    /// What a person calls it.
    pub name: String,
    /// From the trace's beginning to its own: nanoseconds.
    pub offset_nanos: u64,
    /// How long it took: nanoseconds.
    pub duration_nanos: u64,
    /// How much of that none of its parts ran: nanoseconds.
    pub self_nanos: u64,
    /// How long the main request waited for it alone: nanoseconds. Absent where it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_nanos: Option<u64>,
    /// What was said of its failure; absent where it did not fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A trace as plain values.
pub fn document(tree: &Tree<'_>, path: Option<&Path>) -> Document {
    let (start, end) = tree.extent().unwrap_or_default();
    let mut places = vec![0; tree.order().len()];
    tree.order().iter().enumerate().for_each(|(place, node)| places[*node] = place);
    let span = |&node: &usize| {
        let (span, of) = (tree.span(node), tree.node(node));
        Span {
            parent: of.parent.map(|parent| places[parent]),
            component: span.component.clone(),
            instance: span.instance.clone(),
            name: of.name.clone(),
            offset_nanos: of.start - start,
            duration_nanos: of.end - of.start,
            self_nanos: of.own,
            waited_nanos: path.and_then(|path| path.waited(node)),
            error: if let Status::Error(text) = &span.status { Some(text.clone()) } else { None },
        }
    };
    let steps = path.iter().flat_map(|path| path.steps()).filter(|step| step.nanos > 0);
    Document {
        trace_id: tree.trace().id().to_string(),
        start_nanos: start,
        duration_nanos: end - start,
        critical_path: steps.map(|step| Step { name: step.name.clone(), nanos: step.nanos }).collect(),
        spans: tree.order().iter().map(span).collect(),
    }
}
