//! What every long-running program here needs of its surroundings: leadership, watches that come back, log output, the end of the process.

pub mod backoff;
pub mod lease;
pub mod shutdown;
pub mod telemetry;
