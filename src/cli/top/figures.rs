//! Durations of many spans as a few figures. Pure.

use serde::Serialize;

/// How long operations of one kind took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Spread {
    /// How many there were.
    pub n: usize,
    /// Half of them took no longer: nanoseconds.
    pub p50_nanos: u64,
    /// 99 % of them took no longer: nanoseconds. The longest one's where there are fewer than 100.
    pub p99_nanos: u64,
}

impl Spread {
    /// Of durations in nanoseconds, in whatever order.
    pub(super) fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        Self { n: nanos.len(), p50_nanos: percentile(&nanos, 50), p99_nanos: percentile(&nanos, 99) }
    }
}

/// By the nearest rank, so that it is a duration that was measured; 0 of none. `sorted`: the shortest first.
pub(super) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

/// A part of a whole in per mille; 0 of nothing.
pub(super) fn per_mille(part: u64, whole: u64) -> u16 {
    let share = u128::from(part) * 1000 / u128::from(whole).max(1);
    u16::try_from(share).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_durations_that_were_measured() {
        for (nanos, p50, p99) in
            [(vec![], 0, 0), (vec![7], 7, 7), (vec![3, 1], 1, 3), ((1..=100).rev().collect(), 50, 99), ((1..=200).collect(), 100, 198)]
        {
            let spread = Spread::of(nanos.clone());
            assert_eq!((spread.n, spread.p50_nanos, spread.p99_nanos), (nanos.len(), p50, p99), "{nanos:?}");
        }
    }

    #[test]
    fn a_share_of_nothing_is_nothing_and_no_share_overflows() {
        assert_eq!((per_mille(5, 1), per_mille(0, 0), per_mille(1, 3), per_mille(u64::MAX, u64::MAX)), (5000, 0, 333, 1000));
    }
}
