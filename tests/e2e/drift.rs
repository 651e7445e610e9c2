//! A person changes a manifest that the operator has edited: healed once, and not fought over.

use std::time::Duration;

use clustertracing::api::Reason;

use crate::checks;
use crate::support::clients::{Access, get};
use crate::support::cluster::Cluster;
use crate::support::files;
use crate::support::operator::{Operator, at_rate};
use crate::support::process;
use crate::support::step::note;
use crate::support::wait::{holds, until};

/// From a changed manifest to a server that answers.
const RESTART: Duration = Duration::from_mins(3);
/// Longer than the agent's look, the quiet time of this cluster, and a grant.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// Takes our flag out of the manifest of a traced node, twice; leaves the cluster traced at `rate`.
pub(crate) async fn run(cluster: &Cluster, access: &Access, operator: &Operator, rate: i32) {
    let node = cluster.nodes().remove(0);
    let healthy = files::manifests(cluster);
    take_the_flag_out(cluster, access, &node).await;
    until("the flag is back by itself", RESTART, async || {
        match process::try_the_one(cluster, &node, "kube-apiserver")?.flag("tracing-config-file") {
            Some(_) => Ok(()),
            None => Err("it runs without".to_owned()),
        }
    })
    .await;
    operator.until_recovered().await;
    assert_eq!(files::manifests(cluster), healthy, "healed: bytes, mode, owner");

    take_the_flag_out(cluster, access, &node).await;
    let message = operator.until_stalled(&[Reason::Conflict]).await;
    note(&message);
    let left = files::manifests(cluster);
    holds("a second change soon after is left alone", LEFT_ALONE, async || files::manifests(cluster) == left).await;

    // a person edits the spec: the line goes on
    operator.apply(&at_rate(rate)).await;
    operator.until_recovered().await;
    checks::assert_traced(cluster, rate);
}

async fn take_the_flag_out(cluster: &Cluster, access: &Access, node: &str) {
    files::edit_manifest(cluster, node, "kube-apiserver.yaml", "/--tracing-config-file/d");
    until("the API server runs without the flag", RESTART, async || {
        let process = process::try_the_one(cluster, node, "kube-apiserver")?;
        match process.flag("tracing-config-file") {
            None => access.at(node).client().request_text(get("/readyz")).await.map(drop).map_err(|error| error.to_string()),
            Some(_) => Err("it still has it".to_owned()),
        }
    })
    .await;
}
