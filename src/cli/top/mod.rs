//! `top`: what is slow, over many traces.

mod etcd;
mod figures;
mod instances;
mod requests;
mod webhooks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use strum::IntoEnumIterator as _;

use super::cluster::{Connection, Query};
use super::table::table;
use super::trace::draw;
use super::trace::model::{Span, Trace};
use super::trace::name::Part;
use super::trace::tree::Tree;
use super::{Error, Report, json, show};
use figures::Spread;

/// Longer spans are no answers: watches and sessions last as long as their clients want. kube-apiserver's `--request-timeout` of 60 s, and
/// what its end takes.
const LONGEST: u64 = 65_000_000_000;

/// Show what is slow: webhooks, requests, calls to etcd, instances
///
/// Reads the latest traces of the operator's trace store, or of a file, and sums them up; n is always how many a figure is made of. At a
/// sampling rate below 100 % these are a sample of what happened. Exit code 0: shown; 1: there is no trace of that kind.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # Which admission webhooks requests wait for
  kubectl tracing top webhooks

  # Where the time of the slowest requests goes, in the last half hour
  kubectl tracing top requests --since 30m

  # Which API server or etcd member is slower than the others at the same work
  kubectl tracing top instances")]
pub(super) struct Top {
    /// What to sum up
    #[arg(value_enum, default_value_t = Subject::Requests, value_name = "WHAT")]
    subject: Subject,
    /// Traces that began no longer ago than this
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = show::duration)]
    since: Duration,
    /// No more than so many traces, the latest ones
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "NUMBER")]
    limit: u16,
    /// Instead of the trace store, a file with OTLP/JSON; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "limit"])]
    file: Option<PathBuf>,
    /// Instead of a table: json, as docs/schema/top.json describes it
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT")]
    output: Option<json::Format>,
    #[command(flatten)]
    connection: Connection,
}

/// What is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// Admission webhooks, by configuration, resource and operation
    Webhooks,
    /// Requests, by verb and resource, and what their time went into
    Requests,
    /// Calls to etcd, by method
    Etcd,
    /// API servers and etcd members, compared with each other
    Instances,
}

/// What `top -o json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind")]
pub(in crate::cli) enum Summary {
    /// `top webhooks`
    #[serde(rename = "TopWebhooks")]
    Webhooks {
        /// How many traces were read.
        traces: usize,
        /// Those first that took most time in all.
        items: Vec<webhooks::Webhook>,
    },
    /// `top requests`
    #[serde(rename = "TopRequests")]
    Requests {
        /// How many traces were read.
        traces: usize,
        /// The kind first that took most time in all.
        items: Vec<requests::Request>,
    },
    /// `top etcd`
    #[serde(rename = "TopEtcd")]
    Etcd {
        /// How many traces were read.
        traces: usize,
        /// The method first that took most time in all.
        items: Vec<etcd::EtcdCall>,
    },
    /// `top instances`
    #[serde(rename = "TopInstances")]
    Instances {
        /// How many traces were read.
        traces: usize,
        /// The slowest first.
        items: Vec<instances::Instance>,
    },
}

impl Top {
    pub(super) async fn run(&self) -> Result<Report, Error> {
        let (traces, hosts, more) = self.read().await?;
        let summary = summary(self.subject, &traces, &hosts);
        if let Some(json::Format::Json) = self.output {
            return Ok(Report::data(json::document(&summary)));
        }
        let (data, mut notes) = shown(&summary);
        if data.is_empty() {
            return Ok(Report::nothing(format!(
                "nothing of that kind in {} traces: a longer --since, or a higher sampling rate (kubectl tracing status), finds more",
                traces.len()
            )));
        }
        notes.insert(0, format!("of {} traces{}", traces.len(), if more { ", the latest ones: --limit takes more" } else { "" }));
        Ok(Report { notes, ..Report::data(data) })
    }

    async fn read(&self) -> Result<(Vec<Trace>, BTreeMap<String, String>, bool), Error> {
        if let Some(file) = &self.file {
            return Ok((show::traces_of(file).map_err(Error::Show)?, BTreeMap::new(), false));
        }
        let cluster = self.connection.open().await.map_err(Error::Cluster)?;
        let query = Query { since: Some(super::traces::milliseconds(self.since)), limit: self.limit, ..Query::default() };
        let (found, hosts) = tokio::join!(cluster.summaries(&query), cluster.hosts());
        let found = found.map_err(Error::Cluster)?;
        let traces = cluster.traces(found.traces.into_iter().map(|trace| trace.trace_id)).await.map_err(Error::Cluster)?;
        Ok((traces, hosts, found.more))
    }
}

fn summary(subject: Subject, traces: &[Trace], hosts: &BTreeMap<String, String>) -> Summary {
    let trees: Vec<_> = traces.iter().map(Tree::new).collect();
    let traces = traces.len();
    match subject {
        Subject::Webhooks => Summary::Webhooks { traces, items: webhooks::webhooks(&trees) },
        Subject::Requests => Summary::Requests { traces, items: requests::requests(&trees) },
        Subject::Etcd => Summary::Etcd { traces, items: etcd::calls(&trees) },
        Subject::Instances => Summary::Instances { traces, items: instances::instances(&trees, hosts) },
    }
}

/// Whether a span's time can be compared with others'.
fn is_answered(span: &Span) -> bool {
    span.duration() <= LONGEST
}

/// A table, and what to say of it. Empty where there is nothing.
fn shown(summary: &Summary) -> (String, Vec<String>) {
    match summary {
        Summary::Webhooks { items, .. } => (if_any(&WEBHOOKS, items.iter().map(webhook)), Vec::new()),
        Summary::Requests { items, .. } => {
            let parts: Vec<Part> = Part::iter().filter(|part| items.iter().any(|item| item.split_per_mille.contains_key(part))).collect();
            let heads: Vec<&str> = REQUESTS.iter().copied().chain(parts.iter().map(|part| (*part).into())).collect();
            let note = "SLOWEST: so many, the slowest tenth, are what the columns behind it are made of".to_owned();
            (if_any(&heads, items.iter().map(|item| request(item, &parts))), vec![note])
        }
        Summary::Etcd { items, .. } => (if_any(&ETCD, items.iter().map(etcd_call)), Vec::new()),
        Summary::Instances { items, .. } => {
            let slow = items.iter().filter(|item| item.is_slow()).map(|item| {
                let times = item.times_the_others.unwrap_or_default();
                format!(
                    "{} on {} takes {times:.1} times as long as the others for the same operations (n {})",
                    item.component, item.name, item.compared
                )
            });
            (if_any(&INSTANCES, items.iter().map(instance)), slow.collect())
        }
    }
}

fn if_any(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { String::new() } else { table(heads, &rows) }
}

const WEBHOOKS: [&str; 9] = ["WEBHOOK", "CONFIGURATION", "RESOURCE", "OPERATION", "N", "P50", "P99", "SHARE", "FAILED"];

fn webhook(item: &webhooks::Webhook) -> Vec<String> {
    let names = [&item.name, &item.configuration, &item.resource, &item.operation].map(Clone::clone);
    let rest = [share(item.share_per_mille), item.failed.to_string()];
    [names.to_vec(), spread(item.spread), rest.to_vec()].concat()
}

const REQUESTS: [&str; 8] = ["REQUEST", "N", "P50", "P99", "FAILED", "SLOWEST", "WAITED FOR", "SHARE"];

fn request(item: &requests::Request, parts: &[Part]) -> Vec<String> {
    let rest = [item.failed.to_string(), item.slowest.to_string(), item.waited_for.clone(), share(item.waited_per_mille)];
    let parts = parts.iter().map(|part| share(item.split_per_mille.get(part).copied().unwrap_or_default()));
    [vec![item.name.clone()], spread(item.spread), rest.to_vec(), parts.collect()].concat()
}

const ETCD: [&str; 8] = ["METHOD", "N", "P50", "P99", "FAILED", "N AT ETCD", "P50 AT ETCD", "P99 AT ETCD"];

fn etcd_call(item: &etcd::EtcdCall) -> Vec<String> {
    [vec![item.method.clone()], spread(item.spread), vec![item.failed.to_string()], spread(item.at_etcd)].concat()
}

const INSTANCES: [&str; 7] = ["COMPONENT", "INSTANCE", "N", "P50", "P99", "TIMES THE OTHERS", "COMPARED"];

fn instance(item: &instances::Instance) -> Vec<String> {
    let times = item.times_the_others.map_or_else(|| "-".to_owned(), |times| format!("{times:.1}"));
    [vec![item.component.clone(), item.name.clone()], spread(item.spread), vec![times, item.compared.to_string()]].concat()
}

/// Three cells.
fn spread(spread: Spread) -> Vec<String> {
    let duration = |nanos| if spread.n == 0 { "-".to_owned() } else { draw::duration(nanos, "µs") };
    vec![spread.n.to_string(), duration(spread.p50_nanos), duration(spread.p99_nanos)]
}

fn share(per_mille: u16) -> String {
    match (per_mille + 5) / 10 {
        0 if per_mille > 0 => "<1 %".to_owned(),
        percent => format!("{percent} %"),
    }
}
