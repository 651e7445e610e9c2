//! A bounded log of encoded spans: appended at one end, given up at the other, a whole segment at a time.
//!
//! Segments are allocated once, at their full size, and used again for as long as the process lives. So what the log takes of the heap is
//! what its limit says, and nothing is given to or asked of the allocator while spans come in.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::Range;

/// Bytes of spans that a segment holds: some 500 spans of kube-apiserver.
const BYTES: usize = 256 * 1024;
/// Spans that it holds at most. A span of kube-apiserver has about 500 bytes; one of less than 256 leaves bytes unused.
const SPANS: usize = 1024;
/// Resources and scopes that it holds at most. Six processes of a few scopes each are a control plane of three nodes.
const CONTEXTS: usize = 128;
/// How many of the latest contexts are looked through before one is written again.
const CONTEXTS_COMPARED: usize = 16;

/// What one segment takes of the heap.
pub(super) const SEGMENT: usize = BYTES + SPANS * size_of::<Entry>() + CONTEXTS * size_of::<Context>() + size_of::<Segment>();
/// What one span may have, with its resource and its scope: a quarter of a segment, so that no more than that is left unused.
pub(super) const LARGEST: usize = BYTES / 4;

/// Where a span lies in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location(NonZeroU64);

impl Location {
    /// Bits of the span's number within its segment; the segment's number is above. 2⁴⁸ segments are more than any process writes.
    const INDEX_BITS: u32 = 16;
    /// From one segment to the next.
    const STEP: NonZeroU64 = NonZeroU64::MIN.saturating_add((1 << Self::INDEX_BITS) - 1);

    fn new(segment: NonZeroU64, index: usize) -> Self {
        Self(segment.saturating_mul(Self::STEP) | u64::from(narrow(index)))
    }

    fn segment(self) -> u64 {
        self.0.get() >> Self::INDEX_BITS
    }

    fn index(self) -> usize {
        usize::try_from(self.0.get() & (Self::STEP.get() - 1)).unwrap_or(usize::MAX)
    }
}

/// A number within a segment.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A span as it lies in a segment.
#[derive(Debug)]
struct Entry {
    /// The span of the same trace that came before; none of the first.
    previous: Option<Location>,
    at: u32,
    length: u32,
    context: u32,
}

/// The resource and the scope that spans were sent under, and where their bytes lie.
#[derive(Debug)]
struct Context {
    resource: Range<u32>,
    scope: Range<u32>,
}

/// A span with what it was sent under, as OTLP encodes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    /// The `ResourceSpans` message without its scopes.
    pub(super) resource: &'a [u8],
    /// The `ScopeSpans` message without its spans.
    pub(super) scope: &'a [u8],
    /// The `Span` message.
    pub(super) span: &'a [u8],
}

impl Stored<'_> {
    pub(super) fn len(&self) -> usize {
        self.resource.len() + self.scope.len() + self.span.len()
    }

    /// Whether no segment takes it.
    pub(super) fn is_too_large(&self) -> bool {
        self.len() > LARGEST
    }
}

/// A part of a log, given up as a whole.
#[derive(Debug)]
pub(super) struct Segment {
    number: NonZeroU64,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    contexts: Vec<Context>,
}

impl Segment {
    fn new(number: NonZeroU64) -> Self {
        let (bytes, entries) = (Vec::with_capacity(BYTES), Vec::with_capacity(SPANS));
        Self { number, bytes, entries, contexts: Vec::with_capacity(CONTEXTS) }
    }

    /// Whether `length` bytes fit, under a context that is not there yet.
    fn has_room(&self, length: usize) -> bool {
        self.bytes.len() + length <= BYTES && self.entries.len() < SPANS && self.contexts.len() < CONTEXTS
    }

    fn write(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        narrow(start)..narrow(self.bytes.len())
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn context(&mut self, resource: &[u8], scope: &[u8]) -> u32 {
        let latest = self.contexts.len().saturating_sub(CONTEXTS_COMPARED);
        let mut same_resource = None;
        for (number, context) in self.contexts.iter().enumerate().skip(latest).rev() {
            if self.slice(&context.resource) == resource {
                if self.slice(&context.scope) == scope {
                    return narrow(number);
                }
                same_resource = Some(context.resource.clone());
            }
        }
        let resource = same_resource.unwrap_or_else(|| self.write(resource));
        let scope = self.write(scope);
        self.contexts.push(Context { resource, scope });
        narrow(self.contexts.len() - 1)
    }

    fn append(&mut self, stored: Stored<'_>, previous: Option<Location>) -> Location {
        let context = self.context(stored.resource, stored.scope);
        let span = self.write(stored.span);
        self.entries.push(Entry { previous, at: span.start, length: span.end - span.start, context });
        Location::new(self.number, self.entries.len() - 1)
    }

    fn stored(&self, entry: &Entry) -> Stored<'_> {
        let context = &self.contexts[entry.context as usize];
        let span = self.slice(&(entry.at..entry.at + entry.length));
        Stored { resource: self.slice(&context.resource), scope: self.slice(&context.scope), span }
    }

    /// The spans that begin a trace here.
    pub(super) fn first_spans(&self) -> impl Iterator<Item = (Location, Stored<'_>)> {
        let first = self.entries.iter().enumerate().filter(|(_, entry)| entry.previous.is_none());
        first.map(|(index, entry)| (Location::new(self.number, index), self.stored(entry)))
    }
}

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    segments: VecDeque<Segment>,
    /// Number of segments at most.
    limit: usize,
    /// A segment that was given up, kept for the next one.
    spare: Option<Segment>,
    next: NonZeroU64,
}

impl Log {
    /// An empty log of at most `limit` segments, which are allocated when they are first needed.
    pub(super) fn new(limit: usize) -> Self {
        Self { segments: VecDeque::with_capacity(limit), limit, spare: None, next: NonZeroU64::MIN }
    }

    /// What it takes of the heap now.
    pub(super) fn allocated(&self) -> usize {
        (self.segments.len() + usize::from(self.spare.is_some())) * SEGMENT
    }

    /// Whether [`append`](Self::append) takes so many bytes without a segment being given up before.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.segments.len() < self.limit || self.segments.back().is_some_and(|segment| segment.has_room(length))
    }

    /// Appends a span of a trace whose latest one lies at `previous`. The caller has asked whether there is room.
    pub(super) fn append(&mut self, stored: Stored<'_>, previous: Option<Location>) -> Location {
        match self.segments.back_mut() {
            Some(segment) if segment.has_room(stored.len()) => segment.append(stored, previous),
            _ => {
                let number = self.next;
                self.next = number.saturating_add(1);
                let mut segment = self.spare.take().unwrap_or_else(|| Segment::new(number));
                segment.number = number;
                let location = segment.append(stored, previous);
                self.segments.push_back(segment);
                location
            }
        }
    }

    /// Takes the oldest segment out. What lies in it is read from there for as long as it has not been [recycled](Self::recycle).
    pub(super) fn pop_oldest(&mut self) -> Option<Segment> {
        self.segments.pop_front()
    }

    /// Takes a segment back for the next one.
    pub(super) fn recycle(&mut self, mut segment: Segment) {
        segment.bytes.clear();
        segment.entries.clear();
        segment.contexts.clear();
        self.spare = Some(segment);
    }

    /// The span at a place that this log gave, unless it was given up; also from a segment that was just taken out.
    pub(super) fn get<'a>(&'a self, location: Location, taken: Option<&'a Segment>) -> Option<Stored<'a>> {
        self.find(location, taken).map(|(segment, entry)| segment.stored(entry))
    }

    /// Where the spans of the trace whose latest one lies at `newest` are, latest first.
    pub(super) fn locations(&self, newest: Location, taken: Option<&Segment>) -> Vec<Location> {
        std::iter::successors(Some(newest), |at| self.find(*at, taken).and_then(|(_, entry)| entry.previous)).collect()
    }

    fn find<'a>(&'a self, location: Location, taken: Option<&'a Segment>) -> Option<(&'a Segment, &'a Entry)> {
        let segment = if let Some(taken) = taken.filter(|taken| taken.number.get() == location.segment()) {
            taken
        } else {
            let oldest = self.segments.front()?.number.get();
            self.segments.get(usize::try_from(location.segment().checked_sub(oldest)?).ok()?)?
        };
        Some((segment, segment.entries.get(location.index())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored<'a>(resource: &'a str, span: &'a [u8]) -> Stored<'a> {
        Stored { resource: resource.as_bytes(), scope: b"scope", span }
    }

    #[test]
    fn a_chain_leads_through_segments_and_one_that_was_taken_out() {
        let mut log = Log::new(3);
        let large = vec![7; LARGEST - 100];
        let mut newest = None;
        let mut segments = 0;
        for _ in 0..12 {
            assert!(log.has_room(stored("api", &large).len()));
            newest = Some(log.append(stored("api", &large), newest));
            segments = segments.max(log.segments.len());
        }
        assert_eq!((segments, log.has_room(stored("api", &large).len())), (3, false));
        let newest = newest.unwrap();
        let taken = log.pop_oldest().unwrap();
        assert_eq!(taken.first_spans().count(), 1);
        let found = |taken| log.locations(newest, taken).into_iter().filter_map(|at| log.get(at, taken)).collect::<Vec<_>>();
        assert_eq!(found(Some(&taken)), [stored("api", &large); 12]);
        assert_eq!(found(None).len(), 8, "what was given up is not found");
        let full = log.allocated() + SEGMENT;
        log.recycle(taken);
        assert_eq!(log.allocated(), full, "a segment that waits for use counts");
        log.append(stored("api", &large), None);
        assert_eq!(log.allocated(), full, "and is used");
    }

    #[test]
    fn one_resource_is_written_once_into_a_segment() {
        let mut log = Log::new(1);
        let names: Vec<_> = (0..CONTEXTS_COMPARED).map(|n| format!("instance-{n:04}")).collect();
        let mut last = None;
        for turn in 0..10 {
            for name in &names {
                last = Some(log.append(stored(name, &[turn]), None));
            }
        }
        let segment = &log.segments[0];
        assert_eq!(segment.contexts.len(), names.len());
        assert_eq!(segment.bytes.len(), names.len() * ("instance-0000".len() + "scope".len() + 10));
        assert_eq!(log.get(last.unwrap(), None), Some(stored(&names[CONTEXTS_COMPARED - 1], &[9])));
    }

    #[test]
    fn a_segment_never_grows_beyond_what_was_allocated() {
        let mut log = Log::new(2);
        let span = vec![1; 300];
        let mut number = 0_u64;
        for length in (0..300).cycle().take(20_000) {
            number += 1;
            let resource = format!("{}", number % 37);
            let stored = stored(&resource, &span[..length]);
            while !log.has_room(stored.len()) {
                let oldest = log.pop_oldest().unwrap();
                log.recycle(oldest);
            }
            log.append(stored, None);
        }
        for segment in log.segments.iter().chain(&log.spare) {
            assert_eq!((segment.bytes.capacity(), segment.entries.capacity(), segment.contexts.capacity()), (BYTES, SPANS, CONTEXTS));
        }
    }
}
