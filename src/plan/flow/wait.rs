//! How long an instance's spans may stay away without meaning anything, where chance alone decides which requests are sampled.

use std::time::Duration;

use crate::api::ComponentName;
use crate::component::spans::least_requests_per_second;

/// Sampled requests that have to be expected in a time before their absence counts: of independent requests, none is sampled once in a
/// million such times (`-ln(1e-6)`).
const EXPECTED_SAMPLES: f64 = 13.8;

/// The time within which a span has to come, at this rate and the least traffic of a component. Rounded up to minutes, or from an hour on to
/// hours. `None` where none has to come at all: at rate 0, or while the rate in force is not known.
pub fn for_a_span(component: ComponentName, rate_per_million: Option<i32>) -> Option<Duration> {
    let rate = f64::from(rate_per_million.filter(|rate| *rate > 0)?) / 1e6;
    let seconds = EXPECTED_SAMPLES / (rate * least_requests_per_second(component));
    let unit = if seconds <= 3600.0 { 60.0 } else { 3600.0 };
    Duration::try_from_secs_f64((seconds / unit).ceil() * unit).ok()
}

/// In words, without fractions: `24 min`, `4 h`.
pub fn in_words(wait: Duration) -> String {
    let minutes = wait.as_secs().div_ceil(60);
    if minutes < 60 { format!("{minutes} min") } else { format!("{} h", minutes.div_ceil(60)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_computed_from_rate_and_least_traffic() {
        use ComponentName::{Etcd, KubeApiserver};
        for (component, rate, expected) in [
            (KubeApiserver, Some(1_000_000), Some("1 min")),
            (KubeApiserver, Some(10_000), Some("23 min")),
            (KubeApiserver, Some(100), Some("39 h")),
            (Etcd, Some(1_000_000), Some("3 min")),
            (Etcd, Some(10_000), Some("4 h")),
            (KubeApiserver, Some(0), None),
            (Etcd, None, None),
        ] {
            assert_eq!(for_a_span(component, rate).map(in_words).as_deref(), expected, "{component} at {rate:?}");
        }
    }
}
