//! How long a watch that failed waits before it is begun anew.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// The first wait.
const SHORTEST: Duration = Duration::from_millis(500);
/// The longest: kube-runtime's default is 30 s, doubled by its jitter, which is more than an API server's restart takes.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits twice as long after each failure, from half a second to five.
#[derive(Clone, Debug)]
pub struct Doubling {
    next: Duration,
}

impl Default for Doubling {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.next;
        self.next = (now * 2).min(LONGEST);
        Some(now)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Does not wait.
///
/// A [`kube::runtime::Controller`] puts one more backoff around all of its watches, and while that one waits none of them is listened to:
/// after a restart of the API server the failures of four watches added up to two and a half minutes of silence. Each watch waits by itself.
#[derive(Clone, Debug)]
pub struct AtOnce;

impl Iterator for AtOnce {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

impl Backoff for AtOnce {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Doubling::default();
        let waits: Vec<_> = backoff.by_ref().take(6).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next(), Some(SHORTEST));
    }
}
