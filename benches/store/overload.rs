//! Ten times as many spans as the trace store can take: it drops and counts, and does not grow.
//!
//! No sender on the same machine is ten times as fast as the store, so the store is slowed down instead: its process is stopped for nine tenths
//! of the time. How much it takes then is measured first; ten times that is offered after, by the clock and not by its answers, as programs
//! that are traced offer their spans. Every connection has as many requests under way as the store lets it have; what comes when there are as
//! many is dropped by the sender, as a collector drops what its queue does not take.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::transport::Channel;

use crate::receiver::{Receiver, Running, STORE_MIB};
use crate::sender::{Answered, send};
use crate::spans::{BATCH, batch};

/// How many times more than it takes.
const OVERLOAD: f64 = 10.0;
/// The store's process runs for this, and then stands still for nine times as long.
const RUN: Duration = Duration::from_millis(5);
/// All the connections that the store takes, and all the requests that each may have under way.
const CONNECTIONS: usize = 64;
const REQUESTS: usize = 8;
/// What the chart lets the whole controller have.
const LIMIT_MIB: f64 = 192.0;
/// How long is measured what the store takes.
const CALIBRATION: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(30);

/// Runs it for so long, and returns whether the bound was kept.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures are rounded")]
pub(crate) async fn overload(folder: &Path, time: Duration) -> bool {
    let running = Running::start(Receiver::Store, folder).await;
    let slowed = tokio::spawn(slow_down(running.pid()));
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push((running.connect().await, Arc::new(Semaphore::new(REQUESTS))));
    }

    let (mut number, mut answered) = saturate(&channels).await;
    let takes = answered.taken as f64 / CALIBRATION.as_secs_f64();
    println!("\nOverload: the store runs for a tenth of the time and takes {takes:.0} spans/s; {:.0} are offered.", OVERLOAD * takes);

    let mut requests = JoinSet::new();
    let (mut offered, mut not_sent) = (answered.taken + answered.refused + answered.rejected, 0);
    let (mut most_heap, mut reported) = (0, Instant::now());
    let mut tick = interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let start = Instant::now();
    let offered_before = offered;
    while start.elapsed() < time {
        tick.tick().await;
        let due = (start.elapsed().as_secs_f64() * OVERLOAD * takes) as u64;
        while offered - offered_before < due {
            offered += BATCH;
            number += 1;
            let (channel, places) = &channels[number as usize % CONNECTIONS];
            let Ok(place) = places.clone().try_acquire_owned() else {
                not_sent += BATCH;
                continue;
            };
            let channel = channel.clone();
            requests.spawn(async move {
                let answered = send(channel, batch(number)).await;
                drop(place);
                answered
            });
        }
        while let Some(done) = requests.try_join_next() {
            answered += done.unwrap();
        }
        if reported.elapsed() > REPORT {
            reported = Instant::now();
            let heap = running.stats().await["bytes"].as_u64().unwrap();
            most_heap = most_heap.max(heap);
            println!(
                "{:>4} s: {:.0} spans/s offered, {} taken, {} refused, {not_sent} not sent; {:.1} MiB of traces, {:.0} MiB resident",
                start.elapsed().as_secs(),
                (offered - offered_before) as f64 / start.elapsed().as_secs_f64(),
                answered.taken,
                answered.refused + answered.rejected,
                heap as f64 / 1024.0 / 1024.0,
                running.resident()
            );
        }
    }
    for done in requests.join_all().await {
        answered += done;
    }
    let stats = running.stats().await;
    slowed.abort();
    let counted = |name: &str| stats[name].as_u64().unwrap();
    let most_resident = running.most_resident();
    let kept = most_heap.max(counted("bytes")) <= counted("limitBytes") && most_resident <= LIMIT_MIB;
    let accounted =
        offered == answered.taken + answered.refused + answered.rejected + not_sent && answered.taken == counted("acceptedSpans");
    println!(
        "{offered} spans offered = {} taken + {} refused + {} rejected + {not_sent} not sent; the store has counted {} taken, {} requests refused.\n\
         At most {most_resident:.0} MiB resident, of {LIMIT_MIB:.0} that the chart gives, with {STORE_MIB} MiB of traces: the bound was {}kept. Every span is {}accounted for.",
        answered.taken,
        answered.refused,
        answered.rejected,
        counted("acceptedSpans"),
        counted("refusedRequests"),
        if kept { "" } else { "NOT " },
        if accounted { "" } else { "NOT " },
    );
    kept && accounted
}

/// Sends as much as the store takes for a while: the number of the next batch, and what has become of those before.
async fn saturate(channels: &[(Channel, Arc<Semaphore>)]) -> (u64, Answered) {
    let (next, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + CALIBRATION);
    let mut senders = JoinSet::new();
    for (channel, _) in channels.iter().cycle().take(channels.len() * REQUESTS) {
        let (channel, next) = (channel.clone(), next.clone());
        senders.spawn(async move {
            let mut answered = Answered::default();
            while Instant::now() < end {
                answered += send(channel.clone(), batch(next.fetch_add(1, Ordering::Relaxed))).await;
            }
            answered
        });
    }
    let mut answered = Answered::default();
    while let Some(sender) = senders.join_next().await {
        answered += sender.unwrap();
    }
    (next.load(Ordering::Relaxed), answered)
}

async fn slow_down(process: Pid) {
    loop {
        for (signal, time) in [(Signal::CONT, RUN), (Signal::STOP, 9 * RUN)] {
            if kill_process(process, signal).is_err() {
                return;
            }
            sleep(time).await;
        }
    }
}
