//! A scenario's steps: each has a name, which is printed with its time.

use std::time::Instant;

/// Runs one step, and says how it ended.
pub(crate) async fn step<T>(name: &str, body: impl AsyncFnOnce() -> T) -> T {
    eprintln!("e2e: {name} …");
    let report = Report { name, start: Instant::now() };
    let value = body().await;
    drop(report);
    value
}

/// Tells something that was measured in a step.
pub(crate) fn note(text: &str) {
    eprintln!("e2e:     {text}");
}

/// How often a step that repeats something does so: `E2E_ROUNDS` times, if that says a number (`make nightly`: 50).
pub(crate) fn rounds(otherwise: usize) -> usize {
    std::env::var("E2E_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(otherwise)
}

struct Report<'a> {
    name: &'a str,
    start: Instant,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        let result = if std::thread::panicking() { "FAILED" } else { "ok" };
        eprintln!("e2e: {} … {result} ({:.1} s)", self.name, self.start.elapsed().as_secs_f64());
    }
}
