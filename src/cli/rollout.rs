//! `rollout`: watches a change, holds it, lets it go on, takes it back, begins a failed one again.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::cluster::{self, Cluster, Connection};
use super::output::Output;
use super::status::{Standing, condition};
use super::{Error, Exit, Report, show};
use crate::api::clustertracing::NodeState;
use crate::api::{ClusterTracing, ClusterTracingSpec, ConditionType};
use crate::plan::validate;

/// Between two looks: one small GET.
const EVERY: Duration = Duration::from_secs(1);
/// One that takes longer goes to an API server that is about to end.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Watch a change of the control plane, hold it, let it go on, take it back, or begin a failed one again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # Wait until every node carries the requested settings, at most ten minutes
  kubectl tracing rollout status --timeout 10m

  # Hold it before the next node, and let it go on
  kubectl tracing rollout pause
  kubectl tracing rollout resume")]
pub(super) struct Rollout {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Wait until the change has ended, and say what happens meanwhile
    ///
    /// One line for every change of what is reported. The API server may be away for a while: it is what is being changed. Exit code 0:
    /// every node carries the requested settings; 1: a person is needed; 4: the time is over.
    #[command(after_help = "\
Examples:
  # Until it has ended, however long that takes
  kubectl tracing rollout status

  # In a pipeline
  kubectl apply -f clustertracing.yaml && kubectl tracing rollout status --timeout 15m")]
    Status {
        /// Wait no longer than this, such as 10m
        #[arg(long, value_name = "DURATION", value_parser = show::duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Hold the change before the next node
    ///
    /// A node whose change has begun finishes it. Sets spec.rollout.paused.
    #[command(after_help = "\
Examples:
  # Hold it
  kubectl tracing rollout pause

  # See that it is held
  kubectl tracing status")]
    Pause {
        #[command(flatten)]
        connection: Connection,
    },
    /// Let a held change go on
    #[command(after_help = "\
Examples:
  # Let it go on
  kubectl tracing rollout resume

  # And watch it
  kubectl tracing rollout resume && kubectl tracing rollout status")]
    Resume {
        #[command(flatten)]
        connection: Connection,
    },
    /// Go back to the settings that every node carried before
    ///
    /// Those before the present ones, or, where these were never reached on every node, the last that were. A rollout like any other: nodes are
    /// changed one at a time. The settings are kept in status.history of the ClusterTracing; boosts are not among them. To take tracing away
    /// altogether, delete the ClusterTracing: every node gets its original manifests back, byte for byte.
    #[command(after_help = "\
Examples:
  # What would be changed in the ClusterTracing
  kubectl tracing rollout undo --dry-run

  # Go back, and wait until every node has
  kubectl tracing rollout undo && kubectl tracing rollout status")]
    Undo {
        /// Only show what would be changed in the ClusterTracing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Begin a change again that has failed or was refused
    ///
    /// Nodes that carry the requested settings are left alone: nothing is restarted for its own sake. Sets spec.rollout.restartedAt.
    #[command(after_help = "\
Examples:
  # After the cause of a failure is mended
  kubectl tracing rollout restart

  # What the cause was
  kubectl tracing status")]
    Restart {
        #[command(flatten)]
        connection: Connection,
    },
}

impl Rollout {
    pub(super) async fn run(&self, output: &mut dyn Output) -> Result<Report, Error> {
        match &self.command {
            Command::Status { timeout, connection } => {
                let cluster = connection.open().await.map_err(Error::Cluster)?;
                watch(&cluster, *timeout, output).await
            }
            Command::Pause { connection } => {
                set(connection, json!({ "paused": true })).await?;
                Ok(done("is held: a node whose change has begun finishes it, no other begins"))
            }
            Command::Resume { connection } => {
                set(connection, json!({ "paused": false })).await?;
                Ok(done("goes on; kubectl tracing rollout status watches it"))
            }
            Command::Undo { dry_run, connection } => undo(connection, *dry_run).await,
            Command::Restart { connection } => {
                let now = Timestamp::now().strftime("%FT%TZ").to_string();
                let said = "begins again where nodes are not as requested; kubectl tracing rollout status watches it";
                let changed = set(connection, json!({ "restartedAt": now })).await?;
                if changed.spec.rollout.restarted_at.is_none() {
                    let field = "spec.rollout.restartedAt";
                    return Err(Error::Cluster(cluster::Error::OldOperator { action: "begin the rollout again".to_owned(), field }));
                }
                Ok(done(said))
            }
        }
    }
}

async fn set(connection: &Connection, rollout: serde_json::Value) -> Result<ClusterTracing, Error> {
    let cluster = connection.open().await.map_err(Error::Cluster)?;
    cluster.change(&json!({ "spec": { "rollout": rollout } })).await.map_err(Error::Cluster)
}

fn done(said: &str) -> Report {
    Report::data(format!("the rollout {said}\n"))
}

async fn undo(connection: &Connection, dry_run: bool) -> Result<Report, Error> {
    let cluster = connection.open().await.map_err(Error::Cluster)?;
    let mut resource = cluster.cluster_tracing().await.map_err(Error::Cluster)?;
    let Some((spec, reached)) = before(&resource) else {
        return Ok(Report::nothing(
            "there is nothing to go back to: no other settings than these were carried by every node; \
             to take tracing away, delete the ClusterTracing"
                .to_owned(),
        ));
    };
    let difference = difference(&resource.spec, &spec);
    if dry_run {
        return Ok(Report { notes: vec!["nothing was changed".to_owned()], ..Report::data(difference) });
    }
    resource.spec = spec;
    resource.status = None;
    cluster.replace(&resource).await.map_err(Error::Cluster)?;
    let note =
        format!("goes back to what every node carried at {}; kubectl tracing rollout status watches it", reached.0.strftime("%F %TZ"));
    Ok(Report { notes: vec![note], ..Report::data(difference) })
}

/// The settings to go back to, and when they were reached: the latest that are other than the present ones.
fn before(resource: &ClusterTracing) -> Option<(ClusterTracingSpec, Time)> {
    let present = validate::kept(&resource.spec);
    let history = resource.status.iter().flat_map(|status| &status.history);
    // read anew, as another version of the operator may have written it
    let mut read =
        history.filter_map(|reached| Some((serde_json::from_str::<ClusterTracingSpec>(&reached.spec).ok()?, reached.time.clone())));
    read.find(|(spec, _)| validate::kept(spec) != present)
}

fn difference(present: &ClusterTracingSpec, before: &ClusterTracingSpec) -> String {
    let [present, before] = [present, before].map(|spec| serde_yaml::to_string(spec).unwrap_or_default());
    similar::TextDiff::from_lines(&present, &before).unified_diff().header("spec, as it is", "spec, to go back to").to_string()
}

/// Until the change has ended.
pub(super) async fn watch(cluster: &Cluster, timeout: Option<Duration>, output: &mut dyn Output) -> Result<Report, Error> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        let (line, ended) = match tokio::time::timeout(ANSWERED_WITHIN, cluster.cluster_tracing()).await.ok() {
            Some(Ok(resource)) => (progress(&resource), ended(&resource)),
            Some(Err(error)) if !error.may_pass() => return Err(Error::Cluster(error)),
            Some(Err(_)) | None => ("the API server does not answer: it may be the one that is being changed".to_owned(), None),
        };
        if line != said {
            output.data(&format!("{line}\n")).map_err(Error::Output)?;
            said = line;
        }
        if let Some(exit) = ended {
            return Ok(Report { data: String::new(), notes: Vec::new(), exit });
        }
        if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            let note = "the time is over, and the change goes on without this command: kubectl tracing status".to_owned();
            return Ok(Report { data: String::new(), notes: vec![note], exit: Exit::TimedOut });
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// How it ended, if it has.
fn ended(resource: &ClusterTracing) -> Option<Exit> {
    match Standing::of(resource) {
        Standing::Ready => Some(Exit::Ok),
        Standing::Stalled => Some(Exit::Findings),
        // held by a person: nothing follows until somebody lets it go on
        Standing::Reconciling | Standing::NotReady | Standing::Deleting => None,
    }
}

/// What happens, in one line.
fn progress(resource: &ClusterTracing) -> String {
    let status = resource.status.clone().unwrap_or_default();
    let nodes = status.nodes_ready.as_deref().unwrap_or("-");
    let at_work: Vec<String> =
        status.nodes.iter().filter(|n| n.state == NodeState::Changing).map(|n| format!("{} is being changed", n.name)).collect();
    let kind = match Standing::of(resource) {
        Standing::Ready => return format!("{nodes} nodes: every node carries the requested settings"),
        Standing::Reconciling if status.observed_generation != resource.metadata.generation => {
            return "the controller has not seen the last change of the spec yet".to_owned();
        }
        Standing::Stalled => ConditionType::Stalled,
        Standing::Reconciling => ConditionType::Reconciling,
        Standing::NotReady | Standing::Deleting => ConditionType::Ready,
    };
    let why = condition(resource, kind).map_or(String::new(), |c| format!("{}: {}", c.reason, c.message));
    format!("{nodes} nodes: {}", at_work.into_iter().chain([why]).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; "))
}
