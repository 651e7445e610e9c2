//! Requests that ask to be traced, by a `traceparent` header (<https://www.w3.org/TR/trace-context/>).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use clustertracing::api::node_tracing::sha256_hex;
use http::{HeaderValue, Request};

/// The caller's end of a trace: sampled, with an id that nobody else has.
pub(crate) struct Traceparent {
    /// The trace's id.
    pub(crate) trace: String,
    span: String,
}

impl Traceparent {
    /// A new trace.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let digits = sha256_hex(format!("{:?} {}", SystemTime::now(), NUMBER.fetch_add(1, Ordering::Relaxed)).as_bytes());
        Self { trace: digits[..32].to_owned(), span: digits[32..48].to_owned() }
    }

    /// The request, asking to be traced under this id.
    pub(crate) fn of<B>(&self, mut request: Request<B>) -> Request<B> {
        let value = HeaderValue::from_str(&format!("00-{}-{}-01", self.trace, self.span)).expect("hexadecimal digits make a header");
        request.headers_mut().insert("traceparent", value);
        request
    }
}
