//! What the store holds, and what it gives up first: a pure structure, whose clock is its callers'.
//!
//! Spans go into one of two [logs](super::log) and are found through an index by trace id. Every trace begins among the *recent* ones. When its
//! oldest span is at the end of that log, the trace goes as a whole, unless it failed or was slow: then it is copied to the *kept* ones, which
//! have a log of a third of the bytes to themselves. So a burst of ordinary traces cannot push out what somebody will look for, and a burst of
//! failures cannot push out what is going on now. Spans that come later join their trace where it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::log::{Location, Log, SEGMENT, Segment, Stored};
use super::wire::{Batch, Sender, Span};
use super::{Instance, TraceId};

/// Nanoseconds from which a span makes its trace a slow one, up to those of a request that is not slow but long by nature: kube-apiserver
/// ends every other request after a minute (its default), and watches, logs and sessions after minutes to hours.
const SLOW: Range<u64> = 1_000_000_000..65_000_000_000;
/// Bytes of a trace's spans. Decoding them may take thirty times as much, which is for whoever reads the trace.
const LARGEST_TRACE: u32 = 1024 * 1024;
/// Instances that are remembered. A control plane has two on each node.
const INSTANCES: usize = 256;
/// Bytes of each of an instance's two names.
const NAME: usize = 256;
/// An instance that has been silent for so long gives its place to a new one when there is no other.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(15);

/// What is known of a trace without reading its spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    newest: Location,
    oldest: Location,
    /// Nanoseconds since 1970: when the first span began.
    pub(super) start: u64,
    /// Nanoseconds since 1970: when the last span ended.
    pub(super) end: u64,
    /// How many spans it has.
    pub(super) spans: u32,
    bytes: u32,
    /// Whether a span failed.
    pub(super) failed: bool,
    slow: bool,
    kept: bool,
}

impl Trace {
    fn begin(span: &Span<'_>, at: Location, length: usize) -> Self {
        let mut trace =
            Self { newest: at, oldest: at, start: span.start, end: span.end, spans: 0, bytes: 0, failed: false, slow: false, kept: false };
        trace.join(span, at, length);
        trace
    }

    fn join(&mut self, span: &Span<'_>, at: Location, length: usize) {
        self.newest = at;
        self.start = self.start.min(span.start);
        self.end = self.end.max(span.end);
        self.spans += 1;
        self.bytes = self.bytes.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        self.failed |= span.failed;
        self.slow |= SLOW.contains(&span.duration());
    }

    /// Nanoseconds from the first span's beginning to the last one's end.
    pub(super) fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Counters since the store began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Spans that were stored.
    pub accepted_spans: u64,
    /// Spans that were not, because they or their traces are too large or they belong to no trace.
    pub rejected_spans: u64,
    /// Spans that were given up for newer ones.
    pub evicted_spans: u64,
    /// Traces that were given up for newer ones.
    pub evicted_traces: u64,
    /// Instances that were not remembered, because there are too many.
    pub rejected_instances: u64,
}

/// What a store holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Traces.
    pub traces: usize,
    /// Of these, slow or failed ones that have outlived their time among the recent ones.
    pub kept_traces: usize,
    /// Spans that can be read.
    pub spans: u64,
    /// Bytes of the heap that traces take, with their index and what is allocated for the next ones.
    pub bytes: usize,
    /// What `bytes` never exceeds.
    pub limit_bytes: usize,
}

/// The traces in memory.
#[derive(Debug)]
pub(super) struct Memory {
    limit: usize,
    index: HashMap<TraceId, Trace>,
    most_traces: usize,
    largest_trace: u32,
    recent: Log,
    kept: Log,
    kept_traces: usize,
    spans: u64,
    instances: BTreeMap<String, BTreeMap<String, Timestamp>>,
    pub(super) counters: Counters,
    resource: Vec<u8>,
    scope: Vec<u8>,
}

/// What one bucket of the index takes: key, value and a byte of the table's own (hashbrown's control byte).
const BUCKET: usize = size_of::<(TraceId, Trace)>() + 1;

/// Buckets of a table that holds this many: it fills seven of eight.
fn buckets(capacity: usize) -> usize {
    capacity.saturating_mul(8) / 7
}

impl Memory {
    /// An empty memory that never takes more than `limit` bytes, of which it needs two million to be of use.
    pub(super) fn new(limit: usize) -> Self {
        // A quarter at most for the index. A table has a power of two buckets; a smaller number wastes nothing.
        let most_buckets = 1_usize << (limit / 4 / BUCKET).max(16).ilog2();
        let index = HashMap::with_capacity(most_buckets / 8 * 7);
        let segments = limit.saturating_sub(buckets(index.capacity()) * BUCKET) / SEGMENT;
        let kept = (segments / 3).max(1);
        Self {
            limit,
            // Half of it, because a table that is fuller is doubled, instead of tidied up, when removed entries have used it up.
            most_traces: index.capacity() / 2,
            index,
            largest_trace: u32::try_from((kept / 4).max(1) * SEGMENT).map_or(LARGEST_TRACE, |share| share.min(LARGEST_TRACE)),
            recent: Log::new(segments.saturating_sub(kept).max(1)),
            kept: Log::new(kept),
            kept_traces: 0,
            spans: 0,
            instances: BTreeMap::new(),
            counters: Counters::default(),
            resource: Vec::new(),
            scope: Vec::new(),
        }
    }

    /// Stores a batch that arrived at `now`, and returns how many of its spans were not stored.
    pub(super) fn store(&mut self, batch: &Batch<'_>, now: Timestamp) -> u64 {
        for sender in &batch.senders {
            self.see(*sender, now);
        }
        let rejected_before = self.counters.rejected_spans;
        let (mut resource, mut scope) = (std::mem::take(&mut self.resource), std::mem::take(&mut self.scope));
        let mut current = None;
        for (group, span, bytes) in &batch.spans {
            if current != Some(*group) {
                resource.clear();
                scope.clear();
                batch.groups[*group].write_resource(&mut resource);
                batch.groups[*group].write_scope(&mut scope);
                current = Some(*group);
            }
            let stored = Stored { resource: &resource, scope: &scope, span: bytes };
            if self.store_span(span, stored) {
                self.counters.accepted_spans += 1;
            } else {
                self.counters.rejected_spans += 1;
            }
        }
        (self.resource, self.scope) = (resource, scope);
        self.counters.rejected_spans - rejected_before
    }

    fn store_span(&mut self, span: &Span<'_>, stored: Stored<'_>) -> bool {
        let Some(id) = span.trace_id.filter(|_| !stored.is_too_large()) else { return false };
        // Room in both logs and in the index before the trace is looked up: making room may give it up, or move it.
        while !self.recent.has_room(stored.len()) || self.index.len() >= self.most_traces {
            if !self.evict_recent() && !self.evict_kept() {
                return false;
            }
        }
        while !self.kept.has_room(stored.len()) {
            self.evict_kept();
        }
        let length = stored.span.len();
        match self.index.entry(id) {
            std::collections::hash_map::Entry::Occupied(mut found) => {
                let trace = found.get_mut();
                if trace.bytes as usize + length > self.largest_trace as usize {
                    return false;
                }
                let log = if trace.kept { &mut self.kept } else { &mut self.recent };
                let at = log.append(stored, Some(trace.newest));
                trace.join(span, at, length);
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                let at = self.recent.append(stored, None);
                free.insert(Trace::begin(span, at, length));
            }
        }
        self.spans += 1;
        true
    }

    /// Gives up the oldest segment of the recent traces. What of it is slow or failed is copied to the kept ones.
    fn evict_recent(&mut self) -> bool {
        let Some(segment) = self.recent.pop_oldest() else { return false };
        for (id, trace) in self.traces_that_begin_in(&segment, false) {
            if trace.failed || trace.slow {
                self.keep(id, &trace, &segment);
            } else {
                self.forget(id, &trace);
            }
        }
        self.recent.recycle(segment);
        true
    }

    fn evict_kept(&mut self) -> bool {
        let Some(segment) = self.kept.pop_oldest() else { return false };
        for (id, trace) in self.traces_that_begin_in(&segment, true) {
            self.forget(id, &trace);
            self.kept_traces -= 1;
        }
        self.kept.recycle(segment);
        true
    }

    /// Also of traces that were given up before are spans found there: they are in the index no more, or with another beginning.
    fn traces_that_begin_in(&self, segment: &Segment, kept: bool) -> Vec<(TraceId, Trace)> {
        let begins = |(at, stored): (Location, Stored<'_>)| {
            let id = Span::read(stored.span).ok()?.trace_id?;
            let trace = self.index.get(&id).filter(|trace| trace.oldest == at && trace.kept == kept)?;
            Some((id, *trace))
        };
        segment.first_spans().filter_map(begins).collect()
    }

    fn forget(&mut self, id: TraceId, trace: &Trace) {
        self.index.remove(&id);
        self.spans -= u64::from(trace.spans);
        self.counters.evicted_traces += 1;
        self.counters.evicted_spans += u64::from(trace.spans);
    }

    /// Copies a trace to the kept ones, of which the oldest make room. `taken` is where it begins.
    fn keep(&mut self, id: TraceId, trace: &Trace, taken: &Segment) {
        while self.kept_traces >= self.most_traces / 3 && self.evict_kept() {}
        let mut moved: Option<Trace> = None;
        for from in self.recent.locations(trace.newest, Some(taken)).into_iter().rev() {
            let Some(length) = self.recent.get(from, Some(taken)).map(|stored| stored.len()) else { continue };
            while !self.kept.has_room(length) {
                self.evict_kept();
            }
            let Some(stored) = self.recent.get(from, Some(taken)) else { continue };
            let at = self.kept.append(stored, moved.map(|trace| trace.newest));
            moved = Some(match moved {
                None => Trace { newest: at, oldest: at, kept: true, ..*trace },
                Some(begun) => Trace { newest: at, ..begun },
            });
        }
        // One that is larger than the log, by many resources, has pushed out its own beginning.
        match moved.filter(|moved| self.kept.get(moved.oldest, None).is_some()) {
            Some(moved) => {
                self.index.insert(id, moved);
                self.kept_traces += 1;
            }
            None => self.forget(id, trace),
        }
    }

    fn see(&mut self, sender: Sender<'_>, now: Timestamp) {
        if let Some(at) = self.instances.get_mut(sender.service).and_then(|ids| ids.get_mut(sender.id)) {
            *at = now;
            return;
        }
        let nameless = sender.service.is_empty() && sender.id.is_empty();
        if nameless || sender.service.len() > NAME || sender.id.len() > NAME || !self.has_place_for_an_instance(now) {
            self.counters.rejected_instances += 1;
            return;
        }
        self.instances.entry(sender.service.to_owned()).or_default().insert(sender.id.to_owned(), now);
    }

    fn has_place_for_an_instance(&mut self, now: Timestamp) -> bool {
        let count = |instances: &BTreeMap<String, BTreeMap<String, Timestamp>>| instances.values().map(BTreeMap::len).sum::<usize>();
        if count(&self.instances) >= INSTANCES {
            for ids in self.instances.values_mut() {
                ids.retain(|_, at| now.duration_since(*at) < FORGOTTEN);
            }
            self.instances.retain(|_, ids| !ids.is_empty());
        }
        count(&self.instances) < INSTANCES
    }

    /// See [`super::Store::instances`].
    pub(super) fn instances(&self) -> BTreeMap<Instance, Timestamp> {
        let of = |(service, ids): (&String, &BTreeMap<String, Timestamp>)| {
            let instance = |(id, at): (&String, &Timestamp)| (Instance { service: service.clone(), id: id.clone() }, *at);
            ids.iter().map(instance).collect::<Vec<_>>()
        };
        self.instances.iter().flat_map(of).collect()
    }

    /// See [`super::Store::instances_of`].
    pub(super) fn instances_of(&self, id: TraceId) -> BTreeSet<Instance> {
        let senders = self.spans_of(id).filter_map(|stored| Sender::read(stored.resource).ok());
        senders.map(|sender| Instance { service: sender.service.to_owned(), id: sender.id.to_owned() }).collect()
    }

    /// Every trace, in no order.
    pub(super) fn traces(&self) -> impl Iterator<Item = (TraceId, &Trace)> {
        self.index.iter().map(|(id, trace)| (*id, trace))
    }

    /// What is known of one trace.
    pub(super) fn trace(&self, id: TraceId) -> Option<&Trace> {
        self.index.get(&id)
    }

    /// A trace's spans, the one that arrived last first.
    pub(super) fn spans_of(&self, id: TraceId) -> impl Iterator<Item = Stored<'_>> {
        let found = self.index.get(&id).map(|trace| (if trace.kept { &self.kept } else { &self.recent }, trace.newest));
        found.into_iter().flat_map(|(log, newest)| log.locations(newest, None).into_iter().filter_map(move |at| log.get(at, None)))
    }

    /// What is held.
    pub(super) fn held(&self) -> Held {
        Held {
            traces: self.index.len(),
            kept_traces: self.kept_traces,
            spans: self.spans,
            bytes: buckets(self.index.capacity()) * BUCKET + self.recent.allocated() + self.kept.allocated(),
            limit_bytes: self.limit,
        }
    }
}
