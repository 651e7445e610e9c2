//! How long a waterfall of 2,000 spans takes, from OTLP/JSON to text: `make bench-waterfall`. The goal is 100 ms.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on panics")]

#[path = "../../tests/waterfall/generated.rs"]
mod generated;

use std::time::{Duration, Instant};

use clustertracing::cli::trace::draw::{Options, draw};
use clustertracing::cli::trace::tree::{self, Filter, Tree};
use clustertracing::cli::trace::{critical, model};

const SPANS: usize = 2_000;
const ROUNDS: usize = 50;

fn main() {
    let bytes = generated::otlp_json(&generated::trace(SPANS));
    for (what, fold_from) in [("folded", Filter::default().fold_from), ("every span on its line", usize::MAX)] {
        let filter = Filter { fold_from, ..Filter::default() };
        let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| round(&bytes, &filter)).collect();
        rounds.sort_unstable();
        let ms = |round: Duration| round.as_secs_f64() * 1e3;
        println!("{SPANS} spans, {what}: median {:.1} ms, max {:.1} ms of {ROUNDS}", ms(rounds[ROUNDS / 2]), ms(rounds[ROUNDS - 1]));
    }
}

fn round(bytes: &[u8], filter: &Filter) -> Duration {
    let began = Instant::now();
    let trace = model::read(bytes).unwrap().pop().unwrap();
    let tree = Tree::new(&trace);
    let drawing = draw(&tree, &tree::view(&tree, filter), critical::path(&tree).as_ref(), &Options::default());
    let text = drawing.coloured();
    let took = began.elapsed();
    assert!(text.contains("audit.shop.io"));
    took
}
