//! How many spans get lost on the way, from what collectors count and from the share of probes whose traces arrive complete.
//!
//! KEP-647 hopes for at least 99 % of spans. What is lost is a share of what was seen, and so uncertain: each share has an interval
//! (Wilson's, 95 %), and a category or a figure in the status moves only when the interval leaves it.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::backend::{exporter, rise, steps};
use super::{Expected, Member, Seen, instance_of};
use crate::api::clustertracing::SpanLoss;
use crate::api::telemetry::Sample;

/// What is looked back on.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// A probe's trace is complete by then, or not at all: three times what spans take.
const COMPLETE_BY: SignedDuration = SignedDuration::from_secs(36);
/// What may get lost: 1 %.
const LIMIT: f64 = 0.01;
/// So many lost probes say something: a single one may fall into the restart of a collector.
const LOST_PROBES: u64 = 3;
/// The normal distribution's quantile of a two-sided interval of 95 %.
const Z: f64 = 1.96;

/// So many lost, of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many were lost.
    pub lost: u64,
    /// Of how many.
    pub of: u64,
}

/// A share between 0 and 1, and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// What was seen.
    pub ratio: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// What was counted in the [`WINDOW`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Instance → collector: spans that collectors refused, of those that reached them.
    pub receiving: Share,
    /// Collector → back end, or gateway, by exporter: spans that were given up or found the queue full.
    pub exporting: Vec<(String, Share)>,
    /// Gateway → back end, by exporter.
    pub gateway: Vec<(String, Share)>,
    /// Probes whose trace did not arrive complete, of those that had to.
    pub probes: Share,
}

/// What of it stands in the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Compared with 1 %.
    pub state: SpanLoss,
    /// Of a million, rounded to one digit.
    pub per_million: Option<i32>,
}

impl Share {
    fn add(&mut self, lost: u64, kept: u64) {
        self.lost = self.lost.saturating_add(lost);
        self.of = self.of.saturating_add(lost).saturating_add(kept);
    }

    /// Wilson's score interval; `None` of nothing.
    #[expect(clippy::cast_precision_loss, reason = "counts of ten minutes are far below 2^52")]
    pub fn estimate(self) -> Option<Estimate> {
        if self.of == 0 {
            return None;
        }
        let (n, ratio) = (self.of as f64, self.lost as f64 / self.of as f64);
        let z2 = Z * Z;
        let middle = (ratio + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let reach = Z * (ratio * (1.0 - ratio) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
        Some(Estimate { ratio, low: (middle - reach).max(0.0), high: (middle + reach).min(1.0) })
    }
}

impl Estimate {
    /// Of two hops, one after the other.
    fn then(self, other: Self) -> Self {
        let both = |a: f64, b: f64| 1.0 - (1.0 - a) * (1.0 - b);
        Self { ratio: both(self.ratio, other.ratio), low: both(self.low, other.low), high: both(self.high, other.high) }
    }
}

/// Counts what collectors told and what probes brought.
pub fn measure(expected: &Expected, seen: &Seen, now: Timestamp) -> Measured {
    let of = |names: &[String]| names.iter().map(|name| (name.clone(), Share::default())).collect();
    let mut measured = Measured {
        exporting: of(&expected.exporters),
        gateway: expected.gateway.as_ref().map(|gateway| of(&gateway.exporters)).unwrap_or_default(),
        ..Measured::default()
    };
    let recent = |at: Timestamp| now.duration_since(at) <= WINDOW;
    let window = |samples: &'_ [Sample]| samples.iter().position(|sample| recent(sample.at)).unwrap_or(samples.len());
    for samples in expected.nodes.keys().filter_map(|node| seen.collectors.get(node)) {
        for (old, new) in steps(samples.get(window(samples)..).unwrap_or_default()) {
            measured.receiving.add(rise(old.refused, new.refused), rise(old.accepted, new.accepted));
            for (name, share) in &mut measured.exporting {
                add_exporter(share, name, old, new);
            }
        }
    }
    for samples in seen.gateways().filter(|_| expected.gateway.is_some()) {
        for (old, new) in steps(samples.get(window(samples)..).unwrap_or_default()) {
            for (name, share) in &mut measured.gateway {
                add_exporter(share, name, old, new);
            }
        }
    }
    for (node, probes) in &seen.probes {
        let Some(n) = expected.nodes.get(node) else { continue };
        let due = probes.iter().filter(|p| recent(p.at) && now.duration_since(p.at) >= COMPLETE_BY);
        for probe in due {
            let asked = n.components.keys().filter(|component| probe.asked(**component));
            // One whose spans cannot be told from others is not missed.
            let known = asked.filter_map(|component| {
                let member = Member { component: *component, node: node.clone() };
                instance_of(expected, seen, &member, now)
            });
            let known: Vec<_> = known.collect();
            if !known.is_empty() {
                let complete = known.iter().all(|instance| probe.instances.contains(instance));
                measured.probes.add(u64::from(!complete), u64::from(complete));
            }
        }
    }
    measured
}

fn add_exporter(share: &mut Share, name: &str, old: &Sample, new: &Sample) {
    let (old, new) = (exporter(old, name), exporter(new, name));
    share.add(rise(old.failed, new.failed).saturating_add(rise(old.rejected, new.rejected)), rise(old.sent, new.sent));
}

impl Measured {
    /// All hops together, with the worst exporter of each: what of the spans that reached a collector did not get to that back end.
    pub fn total(&self) -> Option<Estimate> {
        let worst = |exporters: &[(String, Share)]| {
            exporters.iter().filter_map(|(_, share)| share.estimate()).max_by(|a, b| a.ratio.total_cmp(&b.ratio))
        };
        let receiving = self.receiving.estimate()?;
        if self.exporting.is_empty() {
            return Some(receiving);
        }
        let exporting = receiving.then(worst(&self.exporting)?);
        // A gateway that chooses may have had nothing to send.
        Some(worst(&self.gateway).map_or(exporting, |gateway| exporting.then(gateway)))
    }

    /// What stands in the status, given what stood there: that stays as long as the interval holds it.
    pub fn category(&self, before: Loss) -> Loss {
        let lost_probes = self.probes.estimate().filter(|probes| self.probes.lost >= LOST_PROBES && probes.low > LIMIT);
        let Some(estimate) = lost_probes.or_else(|| self.total()) else { return Loss::default() };
        let state = match before.state {
            _ if estimate.low > LIMIT => SpanLoss::Exceeded,
            _ if estimate.high <= LIMIT => SpanLoss::Within,
            before => before,
        };
        let holds = |per_million: &i32| (estimate.low..=estimate.high).contains(&(f64::from(*per_million) / 1e6));
        let figure = || before.per_million.filter(holds).unwrap_or_else(|| one_digit(estimate.ratio));
        Loss { state, per_million: (state != SpanLoss::Unknown).then(figure) }
    }
}

/// Of a million, rounded to one significant digit.
#[expect(clippy::cast_possible_truncation, reason = "between 0 and a million")]
fn one_digit(ratio: f64) -> i32 {
    let per_million = (ratio * 1e6).clamp(0.0, 1e6);
    if per_million < 1.0 {
        return per_million.round() as i32;
    }
    let unit = 10_f64.powf(per_million.log10().floor());
    ((per_million / unit).round() * unit).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_wilsons() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (lost, of, low, high) in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)] {
            let Estimate { low: is_low, high: is_high, .. } = Share { lost, of }.estimate().unwrap();
            assert!((is_low - low).abs() < 1e-4 && (is_high - high).abs() < 1e-4, "{lost} of {of}: {is_low} to {is_high}");
        }
        assert_eq!(Share::default().estimate(), None);
    }

    #[test]
    fn one_digit_is_left_of_a_figure() {
        for (ratio, expected) in
            [(0.0, 0), (0.000_000_4, 0), (0.000_017, 20), (0.009_4, 9_000), (0.012, 10_000), (0.96, 1_000_000), (1.0, 1_000_000)]
        {
            assert_eq!(one_digit(ratio), expected, "{ratio}");
        }
    }

    #[test]
    fn a_category_moves_only_when_the_interval_leaves_it() {
        let category = |lost, of, before| {
            let measured = Measured { receiving: Share { lost, of }, ..Measured::default() };
            measured.category(before)
        };
        let (within, exceeded) =
            (Loss { state: SpanLoss::Within, per_million: Some(1_000) }, Loss { state: SpanLoss::Exceeded, per_million: Some(20_000) });
        let new = Loss::default();
        assert_eq!(category(0, 0, within), new, "nothing was seen");
        assert_eq!(category(0, 100, new), Loss { state: SpanLoss::Unknown, per_million: None }, "too few to tell");
        assert_eq!(category(0, 1_000, new), Loss { state: SpanLoss::Within, per_million: Some(0) });
        assert_eq!(category(5, 5_000, new), Loss { state: SpanLoss::Within, per_million: Some(1_000) });
        assert_eq!(category(7, 5_000, within), within, "1400 and 1000 of a million are not told apart by 5000 spans");
        assert_eq!(category(100, 5_000, new), exceeded);
        assert_eq!(category(55, 5_000, within).state, SpanLoss::Within, "1.1 % of 5000 may as well be 0.9 %");
        assert_eq!(category(55, 5_000, exceeded).state, SpanLoss::Exceeded);
        let lost_probes = Measured { probes: Share { lost: 10, of: 40 }, receiving: Share { lost: 0, of: 1_000 }, ..Measured::default() };
        assert_eq!(lost_probes.category(within).state, SpanLoss::Exceeded, "what never reaches a collector is seen by the probe alone");
    }

    #[test]
    fn hops_are_combined_with_the_worst_exporter() {
        let share = |lost| Share { lost, of: 1_000 };
        let measured =
            Measured { receiving: share(100), exporting: vec![("a".into(), share(0)), ("b".into(), share(500))], ..Measured::default() };
        assert!((measured.total().unwrap().ratio - 0.55).abs() < 1e-9);
    }
}
