//! `sample`: another sampling rate, for good or for a while.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::cluster::{self, Connection};
use super::output::Output;
use super::status::rate;
use super::{Error, Report, rollout, show};
use crate::api::clustertracing::{ClusterTracingSpec, State};
use crate::api::{ClusterTracing, CollectorMode};

/// Change how many API requests are traced, for good or for a while
///
/// Says what it costs before it is done. With --for, the cluster itself goes back when the time is over: the end is written into the
/// ClusterTracing (spec.boost), and the controller keeps to it, whatever becomes of this machine. A boost during a boost replaces it; a rate
/// without --for ends one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # One request in a hundred
  kubectl tracing sample 1%

  # All of them for ten minutes, once every node has it, and wait until then
  kubectl tracing sample 100% --for 10m --wait

  # What that would cost
  kubectl tracing sample 100% --for 10m --dry-run")]
pub(super) struct Sample {
    /// Percentage of API requests to trace, from 0% to 100%, such as 1% or 0.05%
    #[arg(value_parser = rate::read)]
    rate: i32,
    /// Go back to the present rate after this time, such as 10m: from one minute to a day
    #[arg(long = "for", value_name = "DURATION", value_parser = boost)]
    duration: Option<Duration>,
    /// Only say what it would cost
    #[arg(long)]
    dry_run: bool,
    /// Wait until every node has it
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Not so short that it ends before it has begun, and not so long that it is forgotten.
fn boost(text: &str) -> Result<Duration, String> {
    let duration = show::duration(text)?;
    if (Duration::from_mins(1)..=Duration::from_hours(24)).contains(&duration) {
        Ok(duration)
    } else {
        Err("is not from 1m to 24h".to_owned())
    }
}

impl Sample {
    pub(super) async fn run(&self, output: &mut dyn Output) -> Result<Report, Error> {
        let cluster = self.connection.open().await.map_err(Error::Cluster)?;
        let resource = cluster.cluster_tracing().await.map_err(Error::Cluster)?;
        for line in cost(&resource, self.rate, self.duration.is_some()) {
            output.note(&line).map_err(Error::Output)?;
        }
        if self.dry_run {
            return Ok(Report::data("nothing was changed\n".to_owned()));
        }
        let (patch, said) = match self.duration {
            None => (
                json!({ "samplingRatePerMillion": self.rate, "boost": null }),
                format!("the sampling rate is to be {}; kubectl tracing rollout status watches it\n", rate::told(self.rate)),
            ),
            Some(duration) => {
                let until = end(Timestamp::now(), duration);
                (
                    json!({ "boost": { "samplingRatePerMillion": self.rate, "until": until } }),
                    format!(
                        "the sampling rate is to be {} until {until}, then {} again; kubectl tracing rollout status watches it\n",
                        rate::told(self.rate),
                        rate::told(resource.spec.sampling_rate_per_million)
                    ),
                )
            }
        };
        let changed = cluster.change(&json!({ "spec": patch })).await.map_err(Error::Cluster)?;
        if self.duration.is_some() && changed.spec.boost.is_none() {
            return Err(Error::Cluster(cluster::Error::OldOperator { action: "set the sampling rate".to_owned(), field: "spec.boost" }));
        }
        if !self.wait {
            return Ok(Report::data(said));
        }
        output.data(&said).map_err(Error::Output)?;
        rollout::watch(&cluster, None, output).await
    }
}

/// In whole seconds, as the API server keeps it.
fn end(now: Timestamp, duration: Duration) -> String {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    now.saturating_add(duration).unwrap_or(Timestamp::MAX).strftime("%FT%TZ").to_string()
}

/// What it costs, before it is done.
fn cost(resource: &ClusterTracing, rate: i32, ends: bool) -> Vec<String> {
    let ClusterTracingSpec { kube_api_server, sampling_rate_per_million, collector, .. } = &resource.spec;
    let status = resource.status.clone().unwrap_or_default();
    if kube_api_server.state == State::Disabled {
        return vec!["kube-apiserver is not traced (spec.kubeAPIServer.state): the rate has no effect until it is".to_owned()];
    }
    let in_force = status.sampling_rate_per_million;
    let nodes = status.nodes.len().max(1);
    let mut lines = Vec::new();
    if in_force == Some(rate) {
        lines.push(format!("{} is in force already: nothing restarts now", rate::told(rate)));
    } else {
        lines.push(format!(
            "restarts kube-apiserver on {}; etcd and the collectors go on",
            if nodes == 1 {
                "the one control-plane node: the API is away meanwhile, for some seconds to a minute".to_owned()
            } else {
                format!("{nodes} control-plane nodes, one at a time: the others answer meanwhile")
            }
        ));
    }
    if ends && rate != *sampling_rate_per_million {
        lines.push(format!("and once more at its end, to go back to {}", rate::told(*sampling_rate_per_million)));
    }
    let before = in_force.unwrap_or(*sampling_rate_per_million);
    if rate > before && before > 0 {
        lines.push(format!(
            "about {} times as many spans as now{}",
            f64::from(rate / before.max(1)).round(),
            if collector.mode == CollectorMode::External {
                ""
            } else {
                ": the trace store keeps traces for a shorter time, and what exporters cost grows"
            }
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_resource(nodes: usize, in_force: Option<i32>) -> ClusterTracing {
        let node = |n: usize| json!({"name": format!("cp-{n}"), "state": "UpToDate"});
        let resource = json!({
            "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing", "metadata": {"name": "cluster"}, "spec": {},
            "status": {"samplingRatePerMillion": in_force, "nodes": (0..nodes).map(node).collect::<Vec<_>>()},
        });
        serde_json::from_value(resource).unwrap()
    }

    #[test]
    fn what_it_costs_is_said_by_what_restarts() {
        let said = |nodes, in_force, rate, ends| cost(&mk_resource(nodes, in_force), rate, ends).join("\n");
        assert!(said(1, Some(10_000), 20_000, false).contains("the API is away meanwhile"));
        assert!(said(3, Some(10_000), 1_000_000, true).contains("3 control-plane nodes, one at a time"));
        assert!(said(3, Some(10_000), 1_000_000, true).contains("once more at its end, to go back to 1 %\nabout 100 times as many spans"));
        assert_eq!(said(3, Some(10_000), 10_000, false), "1 % is in force already: nothing restarts now");
    }

    #[test]
    fn a_boost_ends_at_a_time_of_whole_seconds() {
        assert_eq!(end("2026-11-21T09:01:43.5Z".parse().unwrap(), Duration::from_mins(10)), "2026-11-21T09:11:43Z");
        assert!(boost("59s").is_err() && boost("25h").is_err() && boost("1m").is_ok());
    }
}
