//! Waiting: always for something that can be seen, always with a deadline, and with what was seen last when it passes.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How often a state is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks until `probe` is content and gives its value; an `Err` says what is still missing.
///
/// Panics after `budget`, with `what` and the last `Err`.
pub(crate) async fn until<T>(what: &str, budget: Duration, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(missing) => assert!(start.elapsed() < budget, "waited {budget:?} until {what}; still: {missing}"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Looks for all of `span` and panics as soon as `look` gives something else than at first.
pub(crate) async fn holds<T: PartialEq + Debug>(what: &str, span: Duration, mut look: impl AsyncFnMut() -> T) {
    let start = Instant::now();
    let first = look().await;
    while start.elapsed() < span {
        tokio::time::sleep(INTERVAL).await;
        let now = look().await;
        assert_eq!(first, now, "{what}: it changed after {:?}", start.elapsed());
    }
}
