//! The trace store: receives spans and collectors' metrics by OTLP, keeps what fits into a given number of bytes, and answers questions about it.
//!
//! In the memory of the controller that leads, and nowhere else: a new leader begins with an empty one, which fills within seconds.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

pub use crate::api::telemetry::{ExporterSample, Instance, Sample, TraceId};

/// The store. Shared by reference; each method locks for microseconds.
#[derive(Debug, Default)]
pub struct Store {}

impl Store {
    /// The instances that spans came from, and when the last one of each arrived.
    pub fn instances(&self) -> BTreeMap<Instance, Timestamp> {
        BTreeMap::new()
    }

    /// The instances that this trace has spans of. None where the store does not (or no longer) hold it.
    pub fn instances_of(&self, _trace: TraceId) -> BTreeSet<Instance> {
        BTreeSet::new()
    }

    /// What each node's collector told within the last 15 minutes, by `k8s.node.name`, oldest first.
    pub fn collectors(&self) -> BTreeMap<String, Vec<Sample>> {
        BTreeMap::new()
    }
}
