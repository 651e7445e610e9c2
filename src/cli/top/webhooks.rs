//! Which admission webhooks requests waited for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::figures::{Spread, per_mille};
use crate::cli::trace::name;
use crate::cli::trace::tree::Tree;

/// Calls of one webhook for one kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Webhook {
    /// Name of the the `MutatingWebhookConfiguration` or `ValidatingWebhookConfiguration`.
    pub configuration: String,
    /// The webhook's name in it.
    pub name: String,
    /// What the request was about: `pods`, `deployments.apps`.
    pub resource: String,
    /// CREATE, UPDATE, DELETE or CONNECT.
    pub operation: String,
    /// How long the calls took.
    #[serde(flatten)]
    pub spread: Spread,
    /// What part of the time of the requests that called it they spent in it: per mille.
    pub share_per_mille: u16,
    /// Calls that gave no answer: refused, broken off, or past `timeoutSeconds`.
    pub failed: usize,
}

#[derive(Default)]
struct Calls {
    nanos: Vec<u64>,
    failed: usize,
    /// Of the requests that called.
    whole: u64,
}

/// All webhooks that these traces call, those first that took most time in all.
pub(super) fn webhooks(trees: &[Tree<'_>]) -> Vec<Webhook> {
    let mut found = BTreeMap::<[String; 4], Calls>::new();
    for tree in trees {
        let mut counted = BTreeSet::new();
        for &node in tree.order() {
            let span = tree.span(node);
            let Some(webhook) = name::webhook(span) else { continue };
            let text = |key| span.attribute(&[key]).unwrap_or_default();
            let key = [text("configuration"), webhook, &resource(text("resource")), text("operation")].map(str::to_owned);
            let request = request_of(tree, node);
            let calls = found.entry(key.clone()).or_default();
            calls.nanos.push(span.duration());
            calls.failed += usize::from(failed(tree, node));
            // a request that calls it twice has its time once
            if counted.insert((request, key)) {
                calls.whole += tree.span(request).duration();
            }
        }
    }
    let total = |calls: &Calls| calls.nanos.iter().sum::<u64>();
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, calls)| std::cmp::Reverse(total(calls)));
    let row = |([configuration, name, resource, operation], calls): ([String; 4], Calls)| Webhook {
        configuration,
        name,
        resource,
        operation,
        share_per_mille: per_mille(total(&calls), calls.whole),
        failed: calls.failed,
        spread: Spread::of(calls.nanos),
    };
    found.into_iter().map(row).collect()
}

/// The request that a span is part of: the nearest one, or the outermost span that is there.
fn request_of(tree: &Tree<'_>, node: usize) -> usize {
    let mut at = node;
    while let Some(parent) = tree.node(at).parent {
        at = parent;
        if name::is_request(tree.span(at)) {
            break;
        }
    }
    at
}

/// Whether a call came to nothing. The span of the call itself tells only since some version; the one of its HTTP request always does.
fn failed(tree: &Tree<'_>, call: usize) -> bool {
    tree.span(call).failed() || tree.node(call).children.iter().any(|child| tree.span(*child).failed())
}

/// `apps/v1, Resource=deployments` as people write it: `deployments.apps`.
fn resource(gvr: &str) -> String {
    let Some((version, resource)) = gvr.split_once(", Resource=") else { return gvr.to_owned() };
    match version.split_once('/') {
        Some((group, _)) if !group.is_empty() => format!("{resource}.{group}"),
        _ => resource.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_called_as_people_call_them() {
        for (gvr, called) in [("/v1, Resource=pods", "pods"), ("apps/v1, Resource=deployments", "deployments.apps"), ("", ""), ("x", "x")] {
            assert_eq!(resource(gvr), called);
        }
    }
}
