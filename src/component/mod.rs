//! Everything that is known about the components that can be traced: flags, files, mounts, environment, by version.
//!
//! [`change`] is what agent, plugin and tests share: manifests and settings in, the exact new manifests out, or a refusal with its reason.
//! Pure, like all below it.

use crate::api::node_tracing::{NodeSettings, TracingFound};
use crate::api::{ComponentName, Reason};
use crate::manifest::Probe;

/// The folder for our files on a node, which kube-apiserver's tracing file is mounted from.
pub const STATE_DIR: &str = "/etc/kubernetes/clustertracing";

/// A file of the static-pod folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Name in the folder.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a node's manifests say of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which component.
    pub component: ComponentName,
    /// Name of its manifest file.
    pub file: String,
    /// Version of its image, as the tag says it.
    pub version: Option<String>,
    /// Who configured tracing.
    pub tracing: TracingFound,
    /// What the process's argv is, or will be.
    pub argv: Vec<String>,
    /// How the component says that it is well.
    pub probes: Vec<Probe>,
}

/// The change that brings one component of one node to its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which component.
    pub component: ComponentName,
    /// Name of its manifest file.
    pub file: String,
    /// The manifest as it is.
    pub before: String,
    /// The manifest as it will be; equal to `before` where nothing changes.
    pub after: String,
    /// Files that `after` needs: absolute path on the node, contents. They are written before the manifest.
    pub needs: Vec<(String, String)>,
    /// argv of the process that runs under `after`.
    pub argv: Vec<String>,
    /// Probes of the component under `after`.
    pub probes: Vec<Probe>,
}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason code of conditions, Events and the command line.
    pub reason: Reason,
    /// Which component.
    pub component: ComponentName,
    /// For people: file, cause, what to do.
    pub message: String,
}

/// Finds the components in a static-pod folder. Files of other pods are passed over.
pub fn find(files: &[ManifestFile]) -> Result<Vec<Found>, Refusal> {
    let _ = files;
    todo!()
}

/// The changes that bring a node's manifests to `settings`: one entry for each component that has a manifest, unchanged ones too.
pub fn change(files: &[ManifestFile], settings: &NodeSettings, node_name: &str) -> Result<Vec<Change>, Refusal> {
    let _ = (files, settings, node_name);
    todo!()
}
