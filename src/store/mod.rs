//! The trace store: receives spans and collectors' metrics by OTLP, keeps what fits into a given number of bytes, and answers questions about it.
//!
//! In the memory of the controller that leads, and nowhere else: a new leader begins with an empty one, which fills within seconds.
//!
//! ```text
//! grpc ─→ wire ─→ memory ─→ log     bytes of spans: walked, indexed by trace, appended; never decoded
//!   └───→ collectors                what collectors count: decoded, a sample every five seconds
//! http ─→ query ─→ memory           decodes what is asked for
//! ```

mod collectors;
mod connection;
pub mod grpc;
pub mod http;
mod log;
mod memory;
pub mod query;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use serde::Serialize;

pub use crate::api::telemetry::{ExporterSample, Instance, Sample, TraceId};
use collectors::{Collectors, Rejected};
use memory::Memory;
pub use memory::{Counters, Held};
use wire::{Batch, Malformed};

/// The port that OTLP/gRPC is received on, by convention.
pub const GRPC_PORT: u16 = 4317;
/// The port of the JSON API.
pub const HTTP_PORT: u16 = 8080;

/// The store. Shared by reference; each method holds its lock for microseconds.
#[derive(Debug)]
pub struct Store {
    memory: Mutex<Memory>,
    collectors: Mutex<Collectors>,
    refused_requests: AtomicU64,
}

/// What a store holds, and what it has counted since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// What it holds.
    #[serde(flatten)]
    pub held: Held,
    /// What it has counted of spans.
    #[serde(flatten)]
    pub counters: Counters,
    /// Requests of spans or metrics that were refused as a whole: malformed, too many at a time, or too slow.
    pub refused_requests: u64,
}

impl Store {
    /// An empty store, whose traces never take more than `limit` bytes of the heap (from 2 MiB on).
    pub fn new(limit: usize) -> Self {
        Self { memory: Mutex::new(Memory::new(limit)), collectors: Mutex::default(), refused_requests: AtomicU64::new(0) }
    }

    /// Stores an encoded `ExportTraceServiceRequest` that arrived at `now`, and returns how many of its spans were not stored.
    ///
    /// # Errors
    /// When the bytes are none; nothing of them is stored then.
    pub fn store_spans(&self, request: &[u8], now: Timestamp) -> Result<u64, Malformed> {
        let batch = Batch::read(request)?;
        Ok(self.memory().store(&batch, now))
    }

    /// Remembers what collectors tell of themselves in a request that arrived at `now`.
    ///
    /// # Errors
    /// When it is not from a collector of a known node; nothing of it is remembered then.
    pub fn store_metrics(&self, request: &ExportMetricsServiceRequest, now: Timestamp) -> Result<(), Rejected> {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).store(request, now)
    }

    /// The instances that spans came from, and when the last one of each arrived.
    pub fn instances(&self) -> BTreeMap<Instance, Timestamp> {
        self.memory().instances()
    }

    /// The instances that this trace has spans of. None where the store does not (or no longer) hold it.
    pub fn instances_of(&self, trace: TraceId) -> BTreeSet<Instance> {
        self.memory().instances_of(trace)
    }

    /// What each node's collector told within the last 15 minutes, by `k8s.node.name`, oldest first.
    pub fn collectors(&self) -> BTreeMap<String, Vec<Sample>> {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).samples(Timestamp::now())
    }

    /// What is held, and what was counted.
    pub fn stats(&self) -> Stats {
        let memory = self.memory();
        Stats { held: memory.held(), counters: memory.counters, refused_requests: self.refused_requests.load(Ordering::Relaxed) }
    }

    fn count_refused_request(&self) {
        self.refused_requests.fetch_add(1, Ordering::Relaxed);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
