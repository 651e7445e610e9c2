//! The trace store: what it reads of spans is what prost reads, what it holds stays within its bytes, and both of its servers answer.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod kept;
mod servers;
mod spans;
mod wire;
