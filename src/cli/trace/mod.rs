//! From the spans of a trace to a picture of it: pure, and the same for every trace of the same spans.
//!
//! ```text
//! bytes ─model::read→ Trace ─Tree::new→ Tree ─tree::view→ View ─draw::draw→ Drawing      plain text, or coloured
//!                                         └─critical::path→ Path ──────────┘
//! ```
//!
//! - [`model`]: spans out of OTLP/JSON.
//! - [`tree`]: who is part of whom, on whose clock, and how much of its time is its own; which of them are shown.
//! - [`name`]: what a person calls a span of kube-apiserver or etcd.
//! - [`critical`]: what the request waited for.
//! - [`draw`]: the waterfall.
//! - [`document`]: the same for programs.

pub mod critical;
pub mod document;
pub mod draw;
pub mod model;
pub mod name;
pub mod tree;
