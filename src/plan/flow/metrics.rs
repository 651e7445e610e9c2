//! The same knowledge as Prometheus reads it: exact, where the status has categories.

use std::fmt::Write;

use k8s_openapi::jiff::Timestamp;
use strum::IntoEnumIterator;

use super::loss::{Share, measure};
use super::{Expected, Flow, Seen, instance_of};
use crate::api::clustertracing::SpanFlow;

/// The metrics in Prometheus' text format 0.0.4.
pub fn metrics_text(flow: &Flow, expected: &Expected, seen: &Seen, now: Timestamp) -> String {
    let measured = measure(expected, seen, now);
    let mut text = Text(String::new());
    text.family("clustertracing_spans_state", "Whether spans of an instance flow: 1 for the state that it is in.", "gauge");
    for (member, is) in &flow.members {
        for state in SpanFlow::iter() {
            let labels = [("component", member.component.as_str()), ("node", member.node.as_str()), ("state", state.into())];
            text.sample("clustertracing_spans_state", &labels, f64::from(u8::from(is.state == state)));
        }
    }
    text.family("clustertracing_last_span_age_seconds", "Seconds since the last span of an instance came to the trace store.", "gauge");
    for member in flow.members.keys() {
        let last = instance_of(expected, seen, member, now).and_then(|instance| seen.spans.get(&instance));
        if let Some(last) = last {
            let labels = [("component", member.component.as_str()), ("node", member.node.as_str())];
            text.sample("clustertracing_last_span_age_seconds", &labels, now.duration_since(*last).as_secs_f64());
        }
    }
    let exporting = measured.exporting.iter().map(|(name, share)| ("exporting", name.as_str(), share));
    let gateway = measured.gateway.iter().map(|(name, share)| ("gateway", name.as_str(), share));
    let shares: Vec<_> =
        [("receiving", "", &measured.receiving), ("probe", "", &measured.probes)].into_iter().chain(exporting).chain(gateway).collect();
    text.family("clustertracing_window_items", "What was seen in the last 10 minutes: spans, or probes, at each hop.", "gauge");
    text.shares("clustertracing_window_items", &shares, |share| Some(share.of));
    text.family("clustertracing_window_lost_items", "What of it was lost.", "gauge");
    text.shares("clustertracing_window_lost_items", &shares, |share| Some(share.lost));
    for (name, help, of) in [
        ("clustertracing_loss_ratio", "Share that was lost, between 0 and 1.", (|e| e.ratio) as fn(super::loss::Estimate) -> f64),
        ("clustertracing_loss_ratio_low", "Lower end of the share's interval (Wilson, 95 %).", |e| e.low),
        ("clustertracing_loss_ratio_high", "Upper end of the share's interval (Wilson, 95 %).", |e| e.high),
    ] {
        text.family(name, help, "gauge");
        for (hop, exporter, share) in &shares {
            if let Some(estimate) = share.estimate() {
                text.sample(name, &[("hop", hop), ("exporter", exporter)], of(estimate));
            }
        }
    }
    text.0
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String does not fail.
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap_or_default();
    }

    /// Labels without a value are left out. Values are names of nodes, components and exporters: nothing in them needs an escape.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> =
            labels.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")).unwrap_or_default();
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of ten minutes are far below 2^52")]
    fn shares(&mut self, name: &str, shares: &[(&str, &str, &Share)], of: impl Fn(&Share) -> Option<u64>) {
        for (hop, exporter, share) in shares {
            if let Some(value) = of(share) {
                self.sample(name, &[("hop", hop), ("exporter", exporter)], value as f64);
            }
        }
    }
}
