//! How many spans the trace store takes for a second of CPU, beside the OpenTelemetry Collector that throws them away and Jaeger that keeps
//! them in memory: the same spans from the same sender over gRPC, one receiver after the other, round after round. And what the trace store
//! does with ten times as many as it can take. `docs/benchmarks.md` says how to read it.
//!
//! ```text
//! make bench-store                     rounds, then a minute of overload
//! make bench-store OVERLOAD=300        rounds, then five minutes of overload
//! make bench-store ROUNDS=0            overload alone
//! ```

#![expect(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot go on panics")]

mod overload;
mod receiver;
mod sender;
mod spans;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use receiver::{Receiver, Running};
use sender::Answered;
use spans::{BATCH, batches};

/// Batches that are made at a time, while nothing is measured.
const CHUNK: u64 = 100;
/// Chunks of a round: a million spans.
const CHUNKS: u64 = 20;
/// Requests at a time.
const REQUESTS: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let numbers: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    match (arguments.first().map(String::as_str), &numbers[..]) {
        (Some("serve"), &[otlp, http]) => {
            receiver::serve(otlp.try_into().unwrap(), http.try_into().unwrap()).await;
            ExitCode::SUCCESS
        }
        (_, &[count, overload]) => {
            let folder = std::env::temp_dir().join(format!("clustertracing-bench-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            if count > 0 {
                rounds(&folder, count).await;
            }
            let kept = overload == 0 || overload::overload(&folder, Duration::from_secs(overload)).await;
            std::fs::remove_dir_all(&folder).unwrap();
            if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => {
            eprintln!("usage: cargo bench --bench store -- ROUNDS SECONDS-OF-OVERLOAD");
            ExitCode::FAILURE
        }
    }
}

/// One round of one receiver.
struct Measured {
    /// Spans for a second of CPU.
    rate: f64,
    /// MiB that were resident at most.
    resident: f64,
    /// Spans that were not taken.
    dropped: u64,
}

async fn rounds(folder: &Path, count: u64) {
    let mut figures: [Vec<Measured>; 3] = Default::default();
    for round in 0..count {
        // Another one begins each time.
        for turn in 0..Receiver::ALL.len() {
            let which = (turn + usize::try_from(round).unwrap()) % Receiver::ALL.len();
            let measured = measure(Receiver::ALL[which], folder).await;
            let Measured { rate, resident, dropped } = measured;
            println!(
                "round {}: {:<28} {rate:>9.0} spans/CPU-s {resident:>5.0} MiB {dropped} dropped",
                round + 1,
                Receiver::ALL[which].name()
            );
            figures[which].push(measured);
        }
    }
    println!("\n| {:<28} | spans/CPU-s: min | median |    max | MiB resident | dropped | store's is |", "receiver");
    println!("| {} | ---: | ---: | ---: | ---: | ---: | ---: |", "-".repeat(28));
    let [ours, ..] = figures.each_ref().map(|figures| spread(figures, |measured| measured.rate)[1]);
    for (receiver, figures) in Receiver::ALL.iter().zip(&figures) {
        let [least, median, most] = spread(figures, |measured| measured.rate);
        let resident = spread(figures, |measured| measured.resident)[1];
        let dropped: u64 = figures.iter().map(|measured| measured.dropped).sum();
        println!(
            "| {:<28} | {least:>16.0} | {median:>6.0} | {most:>6.0} | {resident:>12.0} | {dropped:>7} | {:>9.1}× |",
            receiver.name(),
            ours / median
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures are rounded")]
async fn measure(receiver: Receiver, folder: &Path) -> Measured {
    let running = Running::start(receiver, folder).await;
    let channel = running.connect().await;
    // The first chunk warms it up.
    let mut sent = sender::send_all(&channel, batches(0..CHUNK), REQUESTS).await;
    let lost = running.settle(sent).await;
    let (before, cpu) = (sent.taken - lost, running.cpu());
    for chunk in 1..=CHUNKS {
        sent += sender::send_all(&channel, batches(chunk * CHUNK..(chunk + 1) * CHUNK), REQUESTS).await;
    }
    let lost = running.settle(sent).await;
    let Answered { taken, refused, rejected } = sent;
    assert_eq!(taken + refused + rejected, (CHUNKS + 1) * CHUNK * BATCH);
    let rate = (taken - lost - before) as f64 / (running.cpu() - cpu);
    Measured { rate, resident: running.most_resident(), dropped: refused + rejected + lost }
}

fn spread(figures: &[Measured], of: fn(&Measured) -> f64) -> [f64; 3] {
    let mut values: Vec<_> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
