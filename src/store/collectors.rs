//! What collectors count of spans: picks it out of the metrics that they push, and remembers the last quarter of an hour.
//!
//! The collector's `otlp` metrics reader sends its internal metrics under their own names (0.155; the `_total` of some is its Prometheus
//! exporter's), as cumulative sums and gauges. Everything else that comes here is dropped.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, metric, number_data_point};

use super::{ExporterSample, Sample};
use crate::api::telemetry::GATEWAY_PREFIX;

/// For how long a sample is remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(15);
/// Collectors push every five seconds. Of what comes faster, the last one counts.
const CLOSEST: SignedDuration = SignedDuration::from_secs(4);
/// Collectors that are remembered; those of a control plane and of a gateway are few.
const NODES: usize = 64;
/// Exporters of one collector that are remembered.
const EXPORTERS: usize = 12;
/// Bytes of an exporter's name, whose last part is a DNS label in our configuration.
const EXPORTER_NAME: usize = 96;
/// Bytes of a collector's name: the longest that a Kubernetes name can be, of a gateway's pod.
const NODE_NAME: usize = 253 + GATEWAY_PREFIX.len();

/// Why a collector's metrics were not remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No resource of the request names the node that it is from, or the gateway's pod.
    #[error("no resource has k8s.node.name or k8s.pod.name")]
    NoNode,
    /// None of the metrics counts spans.
    #[error("no metric is of the collector's own about spans")]
    NoSpans,
    /// More nodes than any control plane has, or a name that none has.
    #[error("no room for another node")]
    TooManyNodes,
}

/// The last samples of each node's collector.
#[derive(Debug, Default)]
pub(super) struct Collectors {
    nodes: BTreeMap<String, VecDeque<Sample>>,
}

impl Collectors {
    /// Remembers what a request of metrics says that arrived at `now`.
    pub(super) fn store(&mut self, request: &ExportMetricsServiceRequest, now: Timestamp) -> Result<(), Rejected> {
        let mut result = Err(Rejected::NoNode);
        for metrics in &request.resource_metrics {
            let attributes = metrics.resource.as_ref().map(|resource| resource.attributes.as_slice()).unwrap_or_default();
            let named = |key| attribute(attributes, key).filter(|name| !name.is_empty());
            let gateway = || named("k8s.pod.name").map(|pod| format!("{GATEWAY_PREFIX}{pod}"));
            let Some(name) = named("k8s.node.name").map(str::to_owned).or_else(gateway) else { continue };
            result = match sample(metrics, now) {
                Some(sample) => self.remember(&name, sample),
                None => Err(Rejected::NoSpans),
            };
        }
        result
    }

    fn remember(&mut self, node: &str, sample: Sample) -> Result<(), Rejected> {
        let now = sample.at;
        if !self.nodes.contains_key(node) {
            self.forget(now);
            if self.nodes.len() >= NODES || node.len() > NODE_NAME {
                return Err(Rejected::TooManyNodes);
            }
        }
        let samples = self.nodes.entry(node.to_owned()).or_default();
        // The last but one, so that a sender of many leaves one every now and then.
        if samples.len() >= 2 && now.duration_since(samples[samples.len() - 2].at) < CLOSEST {
            samples.pop_back();
        }
        samples.push_back(sample);
        forget_old(samples, now);
        Ok(())
    }

    fn forget(&mut self, now: Timestamp) {
        for samples in self.nodes.values_mut() {
            forget_old(samples, now);
        }
        self.nodes.retain(|_, samples| !samples.is_empty());
    }

    /// What is remembered at `now`.
    pub(super) fn samples(&mut self, now: Timestamp) -> BTreeMap<String, Vec<Sample>> {
        self.forget(now);
        self.nodes.iter().map(|(node, samples)| (node.clone(), samples.iter().cloned().collect())).collect()
    }
}

fn forget_old(samples: &mut VecDeque<Sample>, now: Timestamp) {
    while samples.front().is_some_and(|sample| now.duration_since(sample.at) > REMEMBERED) {
        samples.pop_front();
    }
}

/// What a collector has counted, if it counts spans at all.
fn sample(metrics: &ResourceMetrics, now: Timestamp) -> Option<Sample> {
    let mut sample = Sample { at: now, accepted: 0, refused: 0, exporters: BTreeMap::new() };
    let mut counts_spans = false;
    for metric in metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
        let name = metric.name.strip_suffix("_total").unwrap_or(&metric.name);
        let points = points(metric).iter().filter(|point| attribute(&point.attributes, "data_type").is_none_or(|kind| kind == "traces"));
        match name {
            "otelcol_receiver_accepted_spans" => add(&mut sample.accepted, points),
            // An error of the pipeline is told to the sender like a refusal.
            "otelcol_receiver_refused_spans" | "otelcol_receiver_failed_spans" => add(&mut sample.refused, points),
            _ => {
                let Some(field) = field_of_exporter(name) else { continue };
                for point in points {
                    let Some(exporter) = attribute(&point.attributes, "exporter").filter(|name| name.len() <= EXPORTER_NAME) else {
                        continue;
                    };
                    if sample.exporters.len() < EXPORTERS || sample.exporters.contains_key(exporter) {
                        add(field(sample.exporters.entry(exporter.to_owned()).or_default()), std::iter::once(point));
                    }
                }
            }
        }
        counts_spans = true;
    }
    counts_spans.then_some(sample)
}

type Field = fn(&mut ExporterSample) -> &mut u64;

fn field_of_exporter(name: &str) -> Option<Field> {
    Some(match name {
        "otelcol_exporter_sent_spans" => |exporter| &mut exporter.sent,
        "otelcol_exporter_send_failed_spans" => |exporter| &mut exporter.failed,
        "otelcol_exporter_enqueue_failed_spans" => |exporter| &mut exporter.rejected,
        "otelcol_exporter_queue_size" => |exporter| &mut exporter.queued,
        "otelcol_exporter_queue_capacity" => |exporter| &mut exporter.capacity,
        _ => return None,
    })
}

/// One counter has a point for each of its other attributes: the receiver's transport, the back end's address.
fn add<'a>(sum: &mut u64, points: impl Iterator<Item = &'a NumberDataPoint>) {
    *sum = points.map(number).fold(*sum, u64::saturating_add);
}

fn points(metric: &Metric) -> &[NumberDataPoint] {
    match &metric.data {
        Some(metric::Data::Sum(sum)) => &sum.data_points,
        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
        _ => &[],
    }
}

/// Counts are not negative.
fn number(point: &NumberDataPoint) -> u64 {
    match point.value {
        Some(number_data_point::Value::AsInt(number)) => u64::try_from(number).unwrap_or(0),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates, which is what is wanted of garbage")]
        Some(number_data_point::Value::AsDouble(number)) => number as u64,
        None => 0,
    }
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed() -> ExportMetricsServiceRequest {
        serde_json::from_str(include_str!("../../tests/store/collector-0.155.0.json")).unwrap()
    }

    fn of_node(name: &str) -> ExportMetricsServiceRequest {
        let mut request = pushed();
        request.resource_metrics[0].resource.as_mut().unwrap().attributes[0].value.as_mut().unwrap().value =
            Some(any_value::Value::StringValue(name.to_owned()));
        request
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn what_a_real_collector_pushes_is_understood() {
        let mut collectors = Collectors::default();
        collectors.store(&pushed(), at(0)).unwrap();
        let exporters = [
            ("otlp_grpc/clustertracing-store", ExporterSample { sent: 0, failed: 1, rejected: 0, queued: 0, capacity: 100 }),
            ("otlp_grpc/tempo", ExporterSample { sent: 0, failed: 0, rejected: 0, queued: 1, capacity: 1000 }),
        ];
        let exporters = exporters.map(|(name, sample)| (name.to_owned(), sample)).into();
        let expected = Sample { at: at(0), accepted: 1, refused: 0, exporters };
        assert_eq!(collectors.samples(at(0)), BTreeMap::from([("cp-0".to_owned(), vec![expected])]));
    }

    #[test]
    fn a_quarter_of_an_hour_is_remembered_and_no_more() {
        let mut collectors = Collectors::default();
        for second in (0..3600).step_by(5) {
            collectors.store(&pushed(), at(second)).unwrap();
        }
        let samples = &collectors.samples(at(3600))["cp-0"];
        assert_eq!((samples.len(), samples[0].at, samples[179].at), (180, at(2700), at(3595)));
        assert_eq!(collectors.samples(at(4600)), BTreeMap::new());
    }

    #[test]
    fn a_collector_that_pushes_without_a_pause_is_sampled() {
        let mut collectors = Collectors::default();
        for millisecond in 0..20_000 {
            let now = at(0) + SignedDuration::from_millis(millisecond);
            collectors.store(&pushed(), now).unwrap();
        }
        let samples = &collectors.samples(at(20))["cp-0"];
        assert!(samples.len() <= 7, "{}", samples.len());
        assert_eq!(samples.last().unwrap().at, at(0) + SignedDuration::from_millis(19_999));
    }

    #[test]
    fn more_nodes_than_a_control_plane_has_are_refused_until_others_are_forgotten() {
        let mut collectors = Collectors::default();
        for node in 0..NODES {
            collectors.store(&of_node(&format!("cp-{node}")), at(0)).unwrap();
        }
        assert_eq!(collectors.store(&of_node("garbage"), at(1)), Err(Rejected::TooManyNodes));
        assert_eq!(collectors.store(&of_node("cp-7"), at(600)), Ok(()));
        assert_eq!(collectors.store(&of_node("new"), at(1000)), Ok(()));
        assert_eq!(collectors.samples(at(1000)).into_keys().collect::<Vec<_>>(), ["cp-7", "new"]);
    }

    #[test]
    fn garbage_is_refused_with_its_reason() {
        let mut collectors = Collectors::default();
        let mut nameless = pushed();
        nameless.resource_metrics[0].resource = None;
        let mut others = pushed();
        others.resource_metrics[0].scope_metrics.truncate(1);
        let cases = [
            (ExportMetricsServiceRequest::default(), Rejected::NoNode),
            (nameless, Rejected::NoNode),
            (others, Rejected::NoSpans),
            (of_node(&"n".repeat(NODE_NAME + 1)), Rejected::TooManyNodes),
        ];
        for (request, reason) in cases {
            assert_eq!(collectors.store(&request, at(0)), Err(reason));
        }
        assert_eq!(collectors.samples(at(0)), BTreeMap::new());
    }

    #[test]
    fn exporters_beyond_a_number_are_left_out() {
        let mut request = pushed();
        let mut metrics = request.resource_metrics[0].scope_metrics.iter_mut().flat_map(|scope| &mut scope.metrics);
        let metric = metrics.find(|metric| metric.name == "otelcol_exporter_sent_spans").unwrap();
        let Some(metric::Data::Sum(sum)) = &mut metric.data else { panic!("a sum") };
        let point = sum.data_points[0].clone();
        for n in 0..100 {
            let mut point = point.clone();
            for attribute in point.attributes.iter_mut().filter(|a| a.key == "exporter") {
                attribute.value.as_mut().unwrap().value = Some(any_value::Value::StringValue(format!("otlp/{n}")));
            }
            sum.data_points.push(point);
        }
        let mut collectors = Collectors::default();
        collectors.store(&request, at(0)).unwrap();
        assert_eq!(collectors.samples(at(0))["cp-0"][0].exporters.len(), EXPORTERS);
    }
}
