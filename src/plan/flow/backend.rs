//! What a collector's counters tell: whether it refuses spans, and whether a back end takes them.
//!
//! Counters only grow, and begin anew with their process. So what matters is which of them rose since when: spans that came in and did not
//! go out for a while are stuck, whatever the exporter says of itself. Nothing is remembered between two looks but the samples.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::timing::STUCK;
use crate::api::telemetry::{ExporterSample, Sample};

/// So many batches in a row without one that is sent: a single one may be unlucky.
const BATCHES: u32 = 2;
/// An exporter that failed has to do without failing for so long: one that fails every other time does not come and go.
const RECOVERED: SignedDuration = SignedDuration::from_secs(30);

/// What an exporter does instead of sending. The order is that of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its queue is full, and spans are dropped.
    QueueFull,
    /// The back end refuses spans, or they were given up after many tries.
    Failed,
    /// Spans came in, and none goes out.
    NothingSent,
}

/// What shows that an exporter has something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comes {
    /// The collector took spans.
    Accepted,
    /// Spans are in the exporter's queue: the collector keeps some of those that it took to itself.
    Queued,
}

/// By how much a counter rose from one sample to the next. One that fell belongs to a new process: all of it is new.
pub(super) fn rise(old: u64, new: u64) -> u64 {
    new.checked_sub(old).unwrap_or(new)
}

/// Whether the collector began anew between two samples.
fn restarted(old: &Sample, new: &Sample) -> bool {
    let fell = |(name, old): (&String, &ExporterSample)| new.exporters.get(name).copied().unwrap_or_default().sent < old.sent;
    new.accepted < old.accepted || new.refused < old.refused || old.exporters.iter().any(fell)
}

/// When the collector began anew, as other counters or a silence show.
pub(super) fn began(samples: &[Sample], silence: SignedDuration) -> Option<Timestamp> {
    steps(samples).filter(|(old, new)| restarted(old, new) || new.at.duration_since(old.at) > silence).map(|(_, new)| new.at).last()
}

/// Samples in pairs.
pub(super) fn steps(samples: &[Sample]) -> impl Iterator<Item = (&Sample, &Sample)> {
    samples.iter().zip(samples.iter().skip(1))
}

/// Whether the collector refuses what comes: batches in a row, and takes none.
pub(super) fn refuses(samples: &[Sample]) -> bool {
    let refused =
        steps(samples).fold(0_u32, |refused, (old, new)| match (rise(old.accepted, new.accepted), rise(old.refused, new.refused)) {
            (0, 0) => refused,
            (0, _) => refused.saturating_add(1),
            (_, _) => 0,
        });
    refused >= BATCHES
}

/// What the exporter of this name does instead of sending, if it does not send.
pub fn failing(samples: &[Sample], name: &str, comes: Comes, now: Timestamp) -> Option<Cause> {
    let of = |sample: &Sample| exporter(sample, name);
    let mut state = Exporting::default();
    for (old, new) in steps(samples) {
        let came = match comes {
            Comes::Accepted => rise(old.accepted, new.accepted) > 0,
            Comes::Queued => of(new).queued > 0,
        };
        state.step(new.at, came, of(old), of(new));
    }
    let last = samples.last().map(of).unwrap_or_default();
    state.cause(last, now)
}

/// What a sample says of the exporter of this name; zeros where it has not begun to count.
pub(super) fn exporter(sample: &Sample, name: &str) -> ExporterSample {
    let is_it = |key: &str| key == name || key.split_once('/').is_some_and(|(_, given)| given == name);
    sample.exporters.iter().find(|(key, _)| is_it(key)).map(|(_, found)| *found).unwrap_or_default()
}

/// An exporter, sample by sample.
#[derive(Default)]
struct Exporting {
    /// The first spans that came in since the last that were sent.
    waiting: Option<Timestamp>,
    failed: u32,
    rejected: u32,
    /// What it did in a row, and when last.
    trouble: Option<(Cause, Timestamp)>,
    sent_since: bool,
}

impl Exporting {
    fn step(&mut self, at: Timestamp, accepted: bool, old: ExporterSample, new: ExporterSample) {
        if rise(old.sent, new.sent) > 0 {
            (self.waiting, self.failed, self.rejected, self.sent_since) = (None, 0, 0, true);
        } else if accepted {
            self.waiting.get_or_insert(at);
        }
        let failed = rise(old.failed, new.failed) > 0;
        let rejected = rise(old.rejected, new.rejected) > 0;
        self.failed += u32::from(failed);
        self.rejected += u32::from(rejected);
        let cause = if self.rejected >= BATCHES { Some(Cause::QueueFull) } else { (self.failed >= BATCHES).then_some(Cause::Failed) };
        match (cause, &mut self.trouble) {
            (Some(cause), _) => (self.trouble, self.sent_since) = (Some((cause, at)), false),
            // One more while it is in trouble.
            (None, Some((_, last))) if failed || rejected => *last = at,
            (None, _) => {}
        }
    }

    fn cause(&self, last: ExporterSample, now: Timestamp) -> Option<Cause> {
        let stuck = self.waiting.is_some_and(|since| now.duration_since(since) >= STUCK);
        if stuck && last.capacity > 0 && last.queued >= last.capacity {
            return Some(Cause::QueueFull);
        }
        let trouble = self.trouble.filter(|(_, last)| !self.sent_since || now.duration_since(*last) < RECOVERED);
        trouble.map(|(cause, _)| cause).or(stuck.then_some(Cause::NothingSent))
    }
}
