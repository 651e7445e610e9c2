//! Clocks of different programs disagree: the called one may seem to begin before its caller, or to end after it.
//!
//! Jaeger's way (`jaegerquery/internal/adjuster/clockskew.go`): a call's two sides cannot both be right when the called one lies outside its
//! caller, so it is moved into it, with the rest of the time split evenly between the way there and the way back. What ran in the same program below
//! moves with it. Unlike there, only the two sides of one call are compared: other children may run on after their parents. And the move is
//! bounded: what is off by more than [`MOST`] is no skew but a wrong clock, and is left alone.

use std::collections::BTreeMap;

use super::Node;
use crate::cli::trace::model::{Kind, Span};

/// The largest disagreement that is evened out, in nanoseconds: a minute. Clocks that NTP keeps are off by milliseconds.
const MOST: u64 = 60_000_000_000;

/// Two programs whose clocks disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skew {
    /// `service.name` and `service.instance.id` of the caller.
    pub client: (String, String),
    /// The same of the one that is called.
    pub server: (String, String),
    /// By how much at the most, in nanoseconds.
    pub nanos: u64,
    /// Whether the spans were moved by it.
    pub adjusted: bool,
}

/// Moves nodes onto their callers' clocks; `order` has parents before their children.
pub(super) fn adjust(spans: &[Span], nodes: &mut [Node], order: &[usize]) -> Vec<Skew> {
    let mut skews = BTreeMap::new();
    // By how much each node was moved.
    let mut moved = vec![0; nodes.len()];
    for &node in order {
        let Some(parent) = nodes[node].parent else { continue };
        if program(&spans[node]) == program(&spans[parent]) {
            moved[node] = moved[parent];
        } else if (spans[parent].kind, spans[node].kind) == (Kind::Client, Kind::Server) {
            let delta = delta(&nodes[parent], &nodes[node]);
            let adjusted = delta.unsigned_abs() <= MOST;
            moved[node] = if adjusted { delta } else { 0 };
            if delta != 0 {
                let skew = skews.entry((program(&spans[parent]), program(&spans[node]))).or_insert((0, true));
                *skew = (delta.unsigned_abs().max(skew.0), skew.1 && adjusted);
            }
        }
        nodes[node].start = nodes[node].start.saturating_add_signed(moved[node]);
        nodes[node].end = nodes[node].end.saturating_add_signed(moved[node]);
    }
    let owned = |(component, instance): (&str, &str)| (component.to_owned(), instance.to_owned());
    skews
        .into_iter()
        .map(|((client, server), (nanos, adjusted))| Skew { client: owned(client), server: owned(server), nanos, adjusted })
        .collect()
}

fn program(span: &Span) -> (&str, &str) {
    (&span.component, &span.instance)
}

/// By how many nanoseconds a called span has to be moved to lie within its caller: none where it does.
fn delta(client: &Node, server: &Node) -> i64 {
    let (longest, duration) = (client.end - client.start, server.end - server.start);
    let target = if duration > longest {
        // The caller gave up before it was answered: only the beginning can be told.
        server.start.max(client.start)
    } else if server.start >= client.start && server.end <= client.end {
        server.start
    } else {
        client.start + (longest - duration) / 2
    };
    // Beyond 292 years a clock is wrong by any measure.
    i64::try_from(i128::from(target) - i128::from(server.start)).unwrap_or(i64::MAX)
}
