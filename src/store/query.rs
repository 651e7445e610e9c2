//! Questions about traces: which there are, and the spans of one.

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, TracesData};
use prost::Message;
use serde::Serialize;

use super::log::Stored;
use super::memory::{Memory, Trace};
use super::wire::{Sender, Span};
use super::{Store, TraceId};

/// Which traces are asked for: those that meet all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// That began at this time, or later.
    pub since: Option<Timestamp>,
    /// That took so long, or longer.
    pub min_duration: SignedDuration,
    /// Of which a span failed.
    pub errors: bool,
    /// That have a span of this `service.name`.
    pub service: Option<String>,
    /// Whose root's name contains this.
    pub name: Option<String>,
    /// No more than this many, the latest ones.
    pub limit: usize,
}

/// A trace in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// Name of the span that the others belong to: the first one whose parent is not there.
    pub root_name: String,
    /// When the first span began.
    pub start: Timestamp,
    /// From there to the end of the last one.
    pub duration_nanos: u64,
    /// How many spans there are.
    pub spans: usize,
    /// How many of them failed.
    pub errors: usize,
    /// Their `service.name`s.
    pub services: BTreeSet<String>,
    /// Whether all of them belong to one root: no parent is missing but the root's own.
    pub complete: bool,
}

/// What a list of traces is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summaries {
    /// The latest first.
    pub traces: Vec<Summary>,
    /// Whether there may be more than the limit.
    pub more: bool,
}

impl Store {
    /// The traces that meet `query`, the latest first.
    pub fn traces(&self, query: &Query) -> Summaries {
        let mut found: Vec<_> = {
            let memory = self.memory();
            memory.traces().filter(|(_, trace)| query.may_meet(trace)).map(|(id, trace)| (trace.start, id)).collect()
        };
        found.sort_unstable_by(|a, b| b.cmp(a));
        let mut summaries = Summaries { traces: Vec::new(), more: false };
        for (_, id) in found {
            if summaries.traces.len() >= query.limit {
                summaries.more = true;
                break;
            }
            // The lock is taken for each: spans come in between.
            let summary = Summary::of(&self.memory(), id);
            summaries.traces.extend(summary.filter(|summary| query.meets(summary)));
        }
        summaries
    }

    /// The spans of one trace, by their resources and scopes, in the order in which they began, or else came.
    pub fn trace(&self, id: TraceId) -> Option<TracesData> {
        // Decoded after the lock is given back.
        let mut encoded: Vec<_> = {
            let memory = self.memory();
            memory.spans_of(id).map(|stored| [stored.resource, stored.scope, stored.span].map(<[u8]>::to_vec)).collect()
        };
        encoded.reverse();
        (!encoded.is_empty()).then(|| decode(&encoded))
    }
}

impl Query {
    /// What is known without reading the trace.
    fn may_meet(&self, trace: &Trace) -> bool {
        let since = self.since.map_or(0, nanos);
        trace.start >= since && i128::from(trace.duration()) >= self.min_duration.as_nanos() && (!self.errors || trace.failed)
    }

    fn meets(&self, summary: &Summary) -> bool {
        self.service.as_ref().is_none_or(|service| summary.services.contains(service))
            && self.name.as_ref().is_none_or(|name| summary.root_name.contains(name.as_str()))
    }
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or(0)
}

impl Summary {
    fn of(memory: &Memory, id: TraceId) -> Option<Self> {
        let trace = memory.trace(id)?;
        let stored: Vec<_> = memory.spans_of(id).collect();
        let spans: Vec<_> = stored.iter().filter_map(|stored| Span::read(stored.span).ok()).collect();
        let ids: HashSet<_> = spans.iter().map(|span| span.span_id).collect();
        let tops = || spans.iter().filter(|span| span.parent.is_empty() || !ids.contains(span.parent));
        let missing: HashSet<_> = tops().map(|span| span.parent).filter(|parent| !parent.is_empty()).collect();
        let roots = tops().filter(|span| span.parent.is_empty()).count();
        // A root comes before what waits for a missing parent, whatever their clocks say.
        let root = tops().min_by_key(|span| (!span.parent.is_empty(), span.start));
        Some(Self {
            trace_id: id.to_string(),
            root_name: root.map(|span| span.name.to_owned()).unwrap_or_default(),
            start: Timestamp::from_nanosecond(i128::from(trace.start)).unwrap_or_default(),
            duration_nanos: trace.duration(),
            spans: spans.len(),
            errors: spans.iter().filter(|span| span.failed).count(),
            services: services(&stored),
            complete: roots + missing.len() == 1,
        })
    }
}

fn services(stored: &[Stored<'_>]) -> BTreeSet<String> {
    let senders = stored.iter().filter_map(|stored| Sender::read(stored.resource).ok());
    senders.map(|sender| sender.service).filter(|service| !service.is_empty()).map(str::to_owned).collect()
}

/// Joins what was sent under the same resource and scope. What no OTLP library would read (a name that is no text) is left out.
fn decode(encoded: &[[Vec<u8>; 3]]) -> TracesData {
    let mut sorted: Vec<_> = encoded.iter().filter_map(|stored| Some((stored, OtlpSpan::decode(stored[2].as_slice()).ok()?))).collect();
    sorted.sort_by_key(|(_, span)| span.start_time_unix_nano);
    let mut data = TracesData::default();
    let mut places: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
    for ([resource, scope, _], span) in sorted {
        let at = places.iter().position(|(known, _)| known == resource).unwrap_or_else(|| {
            places.push((resource, Vec::new()));
            data.resource_spans.push(ResourceSpans::decode(resource.as_slice()).unwrap_or_default());
            places.len() - 1
        });
        let (scopes, scope_spans) = (&mut places[at].1, &mut data.resource_spans[at].scope_spans);
        let at = scopes.iter().position(|known| known == scope).unwrap_or_else(|| {
            scopes.push(scope);
            scope_spans.push(ScopeSpans::decode(scope.as_slice()).unwrap_or_default());
            scopes.len() - 1
        });
        scope_spans[at].spans.push(span);
    }
    data
}
