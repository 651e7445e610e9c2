//! What is known about spans on their way: who sends them, and what each collector counts. Plain values, given by the trace store
//! (`crate::store`) and decided upon by plans.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a gateway's pod is called among collectors: this, and the pod's name. No node's name has a slash.
pub const GATEWAY_PREFIX: &str = "gateway/";

/// One process that sends spans: `service.name` and `service.instance.id` of its resource (OpenTelemetry semantic conventions).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    /// `service.name`: `apiserver` of kube-apiserver, `etcd` of etcd unless its flags say otherwise. Empty where the resource has none.
    pub service: String,
    /// `service.instance.id`: the name of kube-apiserver's identity Lease, what its flags say of etcd. Empty where the resource has none.
    pub id: String,
}

/// The id of a trace: 16 bytes, not all zero (W3C Trace Context). Written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// Why a text or bytes are not a trace id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trace id is 32 hexadecimal digits, not all zero")]
pub struct NotATraceId;

impl TraceId {
    /// The id of these bytes; all zero is none.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// The bytes, as OTLP carries them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl FromStr for TraceId {
    type Err = NotATraceId;

    fn from_str(text: &str) -> Result<Self, NotATraceId> {
        // `from_str_radix` takes a sign.
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotATraceId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| NotATraceId)?;
        Self::new(number.to_be_bytes()).ok_or(NotATraceId)
    }
}

/// What one collector had counted at one moment: counters since its process began, so that they fall back when it is started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it arrived.
    pub at: Timestamp,
    /// Spans that its receivers took (`otelcol_receiver_accepted_spans`).
    pub accepted: u64,
    /// Spans that its pipelines refused, which were told to the sender (`otelcol_receiver_refused_spans`).
    pub refused: u64,
    /// Its exporters of spans, by their names in its configuration.
    pub exporters: BTreeMap<String, ExporterSample>,
}

/// What one exporter of a collector had counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExporterSample {
    /// Spans that the back end took (`otelcol_exporter_sent_spans`).
    pub sent: u64,
    /// Spans that were given up after the back end refused them or did not answer (`otelcol_exporter_send_failed_spans`).
    pub failed: u64,
    /// Spans that found the queue full (`otelcol_exporter_enqueue_failed_spans`).
    pub rejected: u64,
    /// What waits in the queue, in the queue's unit: requests, unless the exporter's `sizer` says items or bytes (`otelcol_exporter_queue_size`).
    pub queued: u64,
    /// What the queue can hold, in the same unit (`otelcol_exporter_queue_capacity`).
    pub capacity: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_read_as_it_is_written_and_nothing_else_is() {
        let text = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(text.parse::<TraceId>().unwrap().to_string(), text);
        assert_eq!(text.to_uppercase().parse(), text.parse::<TraceId>());
        for wrong in
            ["", "0af7651916cd43dd8448eb211c80319", &format!("{text}0"), &"0".repeat(32), &format!("+{}", &text[1..]), &"é".repeat(16)]
        {
            assert_eq!(wrong.parse::<TraceId>(), Err(NotATraceId), "{wrong}");
        }
    }
}
