//! What every long-running program here needs of its surroundings: leadership, log output, the end of the process.

pub mod lease;
pub mod shutdown;
pub mod telemetry;
