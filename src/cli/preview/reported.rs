//! The manifests of nodes, as their agents report them. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::folder::{Content, NodeFolder};
use crate::api::NodeTracing;
use crate::component::ManifestFile;

/// Why nothing can be said of a cluster's nodes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No agent has reported anything.
    #[error(
        "no agent reports a node: a ClusterTracing has to be there (rollout.mode Preview changes nothing), and its agents have to run: kubectl get nodetracings"
    )]
    Nobody,
    /// There is no report of the node that was asked for.
    #[error("no agent reports node {node}; there are reports of: {there}")]
    UnknownNode {
        /// The node that was asked for.
        node: String,
        /// The nodes that there are.
        there: String,
    },
    /// A manifest is there, and its text is not.
    #[error(
        "the agent of node {node} does not report the text of {file}: it is no UTF-8, or has more than 65536 characters, or the agent is older than this program: use --manifests"
    )]
    Textless {
        /// The node.
        node: String,
        /// The manifest.
        file: String,
    },
}

/// What only the node itself can tell.
const UNTOLD: &str = "note: which other files, ports and health a node has is checked by its agent, and platform and rollout.nodeSelector by the \
                      operator, before anything is written";

/// The manifests of all nodes, or of `node` alone.
pub(super) fn content(mut reports: Vec<NodeTracing>, node: Option<&str>) -> Result<Content, Error> {
    reports.retain(|report| report.metadata.name.is_some());
    reports.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    if reports.is_empty() {
        return Err(Error::Nobody);
    }
    let names = || reports.iter().filter_map(|report| report.metadata.name.as_deref());
    if let Some(node) = node.filter(|node| names().all(|name| name != *node)) {
        return Err(Error::UnknownNode { node: node.to_owned(), there: names().collect::<Vec<_>>().join(", ") });
    }
    let wanted = reports.iter().filter(|report| node.is_none() || report.metadata.name.as_deref() == node);
    Ok(Content { nodes: wanted.map(of_node).collect::<Result<_, _>>()?, notes: Vec::new(), untold: vec![UNTOLD.to_owned()] })
}

fn of_node(report: &NodeTracing) -> Result<NodeFolder, Error> {
    let name = report.metadata.name.clone().unwrap_or_default();
    let components = report.status.iter().flat_map(|status| &status.components);
    let manifests = components.filter_map(|component| Some((component.manifest.clone()?, component.manifest_text.clone())));
    let file = |(file, text): (String, Option<String>)| match text {
        Some(text) => Ok(ManifestFile { name: file, text }),
        None => Err(Error::Textless { node: name.clone(), file }),
    };
    let files = manifests.map(file).collect::<Result<_, _>>()?;
    Ok(NodeFolder {
        path: PathBuf::from(format!("nodetracing/{name}")),
        node: Some(name),
        is_one_of_several: true,
        files,
        garbled: Vec::new(),
        permissions: BTreeMap::new(),
    })
}
