//! What the programs here need of their surroundings: leadership, watches that come back, log output, a certificate, the end of the process.

pub mod backoff;
pub mod client_certificate;
pub mod lease;
pub mod shutdown;
pub mod telemetry;
