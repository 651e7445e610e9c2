//! `traces` and `tail`: which traces the trace store holds, and which come in.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::cluster::{Cluster, Connection, Query, Summary};
use super::output::Output;
use super::table::table;
use super::trace::draw;
use super::trace::name;
use super::{Error, Report, json};

/// Between two looks at the store: what comes in is shown within three seconds.
const EVERY: Duration = Duration::from_secs(2);
/// What `tail` looks back at each time: a trace is in the store some seconds after it has begun, and ends later.
const LOOKS_BACK: &str = "1m";
/// Traces that are read whole to find those of a webhook.
const SEARCHED: u16 = 500;

/// List the traces that the operator's trace store holds
///
/// The latest first; draw one with kubectl tracing show ID. The store is the operator's own: it needs no back end, holds the traces of the
/// last minutes, slow and failed ones longer, and is read with your own rights (docs/trace-store.md). Exit code 0: listed; 1: there is none.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # What was slow in the last ten minutes
  kubectl tracing traces --slow --since 10m

  # Requests that failed, and requests that called a webhook
  kubectl tracing traces --errors
  kubectl tracing traces --webhook policy.shop.io")]
pub(super) struct Traces {
    #[command(flatten)]
    choice: Choice,
    /// No more than this many, the latest ones
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "NUMBER")]
    limit: u16,
    /// Began no longer ago than this, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = super::show::duration)]
    since: Option<Duration>,
    /// Instead of a table: json, as docs/schema/traces.json describes it
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT")]
    output: Option<json::Format>,
    #[command(flatten)]
    connection: Connection,
}

/// What `traces -o json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename = "Traces")]
pub(in crate::cli) struct List {
    /// The latest first.
    traces: Vec<Summary>,
    /// Whether there are more than the limit.
    more: bool,
}

/// Follow the traces that come into the operator's trace store
///
/// Prints one line for each trace, some seconds after it has ended, until you end it with Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # What takes half a second or more, as it happens
  kubectl tracing tail --slow

  # All that concerns pods
  kubectl tracing tail --name pods")]
pub(super) struct Tail {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    connection: Connection,
}

/// Which traces.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Which traces")]
struct Choice {
    /// Only those that took 500 ms or longer
    #[arg(long, conflicts_with = "min")]
    slow: bool,
    /// Only those that took this long or longer, such as 100ms
    #[arg(long, value_name = "DURATION", value_parser = super::show::duration)]
    min: Option<Duration>,
    /// Only those of which a span failed
    #[arg(long)]
    errors: bool,
    /// Only those whose first span's name contains this, such as pods
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only those with a span of this component, such as etcd
    #[arg(long, value_name = "COMPONENT")]
    only: Option<String>,
    /// Only those that called this admission webhook
    #[arg(long, value_name = "NAME")]
    webhook: Option<String>,
}

impl Choice {
    fn query(&self, since: Option<String>, limit: u16) -> Query {
        let min = self.min.or(self.slow.then_some(Duration::from_millis(500)));
        Query {
            since,
            min_duration: min.map(milliseconds),
            errors: self.errors,
            service: self.only.clone(),
            name: self.name.clone(),
            limit,
        }
    }
}

/// As the store reads it.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

impl Traces {
    pub(super) async fn run(&self) -> Result<Report, Error> {
        let cluster = self.connection.open().await.map_err(Error::Cluster)?;
        let asked = if self.choice.webhook.is_some() { SEARCHED.max(self.limit) } else { self.limit };
        let query = self.choice.query(self.since.map(milliseconds), asked);
        let found = cluster.summaries(&query).await.map_err(Error::Cluster)?;
        let mut traces = calling(&cluster, found.traces, self.choice.webhook.as_deref()).await?;
        let more = found.more || traces.len() > usize::from(self.limit);
        traces.truncate(self.limit.into());
        if let Some(json::Format::Json) = self.output {
            return Ok(Report::data(json::document(List { traces, more })));
        }
        if traces.is_empty() {
            return Ok(Report::nothing(
                "no such trace: the store holds those of the last minutes; kubectl tracing status tells whether spans flow, and at which rate"
                    .to_owned(),
            ));
        }
        let rows: Vec<_> = traces.iter().map(cells).collect();
        let mut report = Report::data(table(&HEADS, &rows));
        report.notes.extend(more.then(|| format!("there are more than these {}: --limit shows more of them", traces.len())));
        Ok(report)
    }
}

impl Tail {
    pub(super) async fn run(&self, output: &mut dyn Output) -> Result<Report, Error> {
        let cluster = self.connection.open().await.map_err(Error::Cluster)?;
        let query = self.choice.query(Some(LOOKS_BACK.to_owned()), 1000);
        // what was there before is not news
        let mut seen: BTreeSet<String> =
            cluster.summaries(&query).await.map_err(Error::Cluster)?.traces.into_iter().map(|t| t.trace_id).collect();
        output.note("following: Ctrl-C ends it").map_err(Error::Output)?;
        let mut is_away = false;
        loop {
            tokio::time::sleep(EVERY).await;
            let found = match cluster.summaries(&query).await {
                Ok(found) => found.traces,
                Err(error) if error.may_pass() => {
                    if !std::mem::replace(&mut is_away, true) {
                        output.note(&format!("{}; trying again", super::one_line(&error))).map_err(Error::Output)?;
                    }
                    continue;
                }
                Err(error) => return Err(Error::Cluster(error)),
            };
            is_away = false;
            let there: BTreeSet<String> = found.iter().map(|trace| trace.trace_id.clone()).collect();
            let mut new: Vec<Summary> = found.into_iter().filter(|trace| trace.complete && !seen.contains(&trace.trace_id)).collect();
            seen.retain(|id| there.contains(id));
            seen.extend(new.iter().map(|trace| trace.trace_id.clone()));
            new.reverse();
            for trace in calling(&cluster, new, self.choice.webhook.as_deref()).await? {
                output.data(&format!("{}\n", cells(&trace).join("   "))).map_err(Error::Output)?;
            }
        }
    }
}

/// Those of which a span is a call of this webhook; all of them where none is asked for.
async fn calling(cluster: &Cluster, traces: Vec<Summary>, webhook: Option<&str>) -> Result<Vec<Summary>, Error> {
    let Some(webhook) = webhook else { return Ok(traces) };
    let read = cluster.traces(traces.iter().map(|trace| trace.trace_id.clone())).await.map_err(Error::Cluster)?;
    let calls = |trace: &&super::trace::model::Trace| trace.spans().iter().any(|span| name::webhook(span) == Some(webhook));
    let calling: BTreeSet<String> = read.iter().filter(calls).map(|trace| trace.id().to_string()).collect();
    Ok(traces.into_iter().filter(|trace| calling.contains(&trace.trace_id)).collect())
}

const HEADS: [&str; 6] = ["TRACE", "BEGAN", "DURATION", "SPANS", "ERRORS", "REQUEST"];

fn cells(trace: &Summary) -> Vec<String> {
    vec![
        trace.trace_id.clone(),
        trace.start.strftime("%H:%M:%S").to_string(),
        draw::duration(trace.duration_nanos, "µs"),
        trace.spans.to_string(),
        trace.errors.to_string(),
        format!("{}{}", trace.root_name, if trace.complete { "" } else { " (parts are missing)" }),
    ]
}
