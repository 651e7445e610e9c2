//! `bundle`: one archive for a ticket.

mod archive;
mod redact;

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt as _};
use serde::Serialize;

use super::cluster::{self, Cluster, Connection, Query};
use super::output::Output;
use super::{Report, one_line};
use archive::Archive;

pub(super) use archive::Error;

/// Lines of each container's log.
const LOG_LINES: i64 = 1000;
/// The latest traces that are taken along.
const TRACES: u16 = 20;

/// Gather what a ticket needs into one archive
///
/// The ClusterTracing and what each agent reports, Events, the operator's pods and their logs, what each node's manifests carry of ours, what the
/// trace store has counted, and the latest traces as they left the nodes (redacted). No Secret is read; values of extraConfig are left
/// out, and so is all of the manifests but our own lines. What could not be read is named in errors.txt. Look through it before you send it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # Into clustertracing-bundle.tar.gz, here
  kubectl tracing bundle

  # Elsewhere
  kubectl tracing bundle --output-file /tmp/ticket-4711.tar.gz")]
pub(super) struct Bundle {
    /// The archive: a new file, which only you can read
    #[arg(long, value_name = "FILE", default_value = "clustertracing-bundle.tar.gz")]
    output_file: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

impl Bundle {
    pub(super) async fn run(&self, output: &mut dyn Output) -> Result<Report, super::Error> {
        let cluster = self.connection.open().await.map_err(super::Error::Cluster)?;
        let version = cluster.client.apiserver_version().await;
        let version = version.map_err(|error| super::Error::Cluster(cluster::Error::of("get the version of the API server", error)))?;
        let mut archive = Archive::create(&self.output_file).map_err(super::Error::Archive)?;
        let about = format!("kubectl-tracing {}\nkube-apiserver {}\n", env!("CARGO_PKG_VERSION"), version.git_version);
        archive.add("version.txt", &about).map_err(super::Error::Archive)?;
        let mut errors = Vec::new();
        output.note("reading the cluster").map_err(super::Error::Output)?;
        let parts = [resource(&cluster).await, nodes(&cluster).await, operator(&cluster).await, store(&cluster).await];
        for part in parts.into_iter().flatten() {
            match part.text {
                Ok(text) => archive.add(&part.file, &text).map_err(super::Error::Archive)?,
                Err(error) => errors.push(format!("{}: {}", part.file, one_line(&error))),
            }
        }
        archive.add("errors.txt", &(errors.join("\n") + "\n")).map_err(super::Error::Archive)?;
        archive.finish().map_err(super::Error::Archive)?;
        let notes = errors.iter().map(|error| format!("not in it: {error}")).collect();
        Ok(Report { notes, ..Report::data(format!("{}\n", self.output_file.display())) })
    }
}

/// A file of the archive, or why it is not there.
struct Part {
    file: String,
    text: Result<String, cluster::Error>,
}

impl Part {
    fn new(file: impl Into<String>, text: Result<String, cluster::Error>) -> Self {
        Self { file: file.into(), text }
    }
}

fn yaml(value: &impl Serialize) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

async fn resource(cluster: &Cluster) -> Vec<Part> {
    let text = cluster.cluster_tracing().await.map(|resource| yaml(&redact::resource(resource)));
    vec![Part::new("clustertracing.yaml", text)]
}

/// What each agent reports, and what of ours its manifests carry.
async fn nodes(cluster: &Cluster) -> Vec<Part> {
    match cluster.node_tracings().await {
        Err(error) => vec![Part::new("nodetracings", Err(error))],
        Ok(reports) => {
            let of_node = |report: crate::api::NodeTracing| {
                let name = report.name_any();
                let added = redact::added(&report);
                let report = yaml(&redact::report(report));
                [
                    Part::new(format!("nodetracings/{name}.yaml"), Ok(report)),
                    Part::new(format!("nodetracings/{name}.added.diff"), Ok(added)),
                ]
            };
            reports.into_iter().flat_map(of_node).collect()
        }
    }
}

/// Its pods, their logs, and Events.
async fn operator(cluster: &Cluster) -> Vec<Part> {
    let Cluster { client, namespace, .. } = cluster;
    let read = |what: &str| format!("list the {what} of namespace {namespace}");
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut parts = Vec::new();
    match pods.list(&ListParams::default()).await {
        Err(error) => parts.push(Part::new("pods.yaml", Err(cluster::Error::of(read("pods"), error)))),
        Ok(list) => {
            for pod in &list.items {
                for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
                    let params = LogParams {
                        container: Some(container.name.clone()),
                        tail_lines: Some(LOG_LINES),
                        timestamps: true,
                        ..LogParams::default()
                    };
                    let name = pod.name_any();
                    let log = pods.logs(&name, &params).await;
                    let log = log.map_err(|error| cluster::Error::of(format!("read the log of {name}"), error));
                    parts.push(Part::new(format!("logs/{name}.{}.txt", container.name), log));
                }
            }
            let items: Vec<_> = list.items.into_iter().map(redact::pod).collect();
            parts.push(Part::new("pods.yaml", Ok(yaml(&items))));
        }
    }
    for (file, namespace) in [("events/operator.yaml", namespace.as_str()), ("events/clustertracing.yaml", "default")] {
        let events = Api::<Event>::namespaced(client.clone(), namespace);
        // of resources without a namespace, Events are in `default`, among others'
        let params = if file.ends_with("clustertracing.yaml") {
            ListParams::default().fields("involvedObject.kind=ClusterTracing")
        } else {
            ListParams::default()
        };
        let events =
            events.list(&params).await.map_err(|error| cluster::Error::of(format!("list the Events of namespace {namespace}"), error));
        parts.push(Part::new(file, events.map(|list| yaml(&list.items.into_iter().map(redact::event).collect::<Vec<_>>()))));
    }
    parts
}

/// What the store has counted, and the latest traces.
async fn store(cluster: &Cluster) -> Vec<Part> {
    let mut parts = Vec::new();
    for what in ["stats", "instances", "collectors"] {
        parts.push(Part::new(format!("store/{what}.json"), cluster.ask_store(&format!("/api/v1/{what}")).await));
    }
    match cluster.summaries(&Query { limit: TRACES, ..Query::default() }).await {
        Err(error) => parts.push(Part::new("traces", Err(error))),
        Ok(found) => {
            for trace in found.traces {
                parts.push(Part::new(format!("traces/{}.json", trace.trace_id), cluster.trace_as_otlp(&trace.trace_id).await));
            }
        }
    }
    parts
}
