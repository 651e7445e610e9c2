//! What the agent of a node would make of its folder. Pure.

use super::folder::NodeFolder;
use crate::api::node_tracing::NodeSettings;
use crate::api::{ComponentName, Reason, State};
use crate::component::{Change, Versions, change_with_versions, member_name};
use crate::manifest::position::Position;

/// Stands for the name of a node that nobody told, where no file would carry it.
const UNNAMED: &str = "unnamed.invalid";

/// The changes of one node.
pub(super) struct Preview {
    /// The node's name; `None` where nobody told it, and nothing needs it.
    node: Option<String>,
    /// Whether the name was taken from etcd's manifest.
    is_member_name: bool,
    /// What was read.
    pub(super) folder: NodeFolder,
    /// One for each component that has a manifest, unchanged ones too.
    pub(super) changes: Vec<Change>,
}

/// Why nothing can be said of a node.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Obstacle {
    /// The agent would refuse the change.
    #[error("refused: {reason}: {message}")]
    Refused { reason: Reason, message: String },
    /// Its name would be written, and is not known.
    #[error(
        "error: {path}: the node's name, which etcd's spans carry, is not known, as etcd's manifest does not name the member: give --node"
    )]
    Unnamed { path: String },
    /// A manifest holds bytes that are no text.
    #[error("error: {path}/{file}:{position}: not UTF-8: save the manifest as UTF-8")]
    NotText { path: String, file: String, position: Position },
}

impl Obstacle {
    pub(super) fn reason(&self) -> Option<Reason> {
        if let Self::Refused { reason, .. } = self { Some(*reason) } else { None }
    }
}

/// What `settings` make of a node's folder. `node` names it where the folder does not.
pub(super) fn preview(folder: NodeFolder, node: Option<&str>, settings: &NodeSettings, versions: Versions) -> Result<Preview, Obstacle> {
    let told = node.map(str::to_owned).or_else(|| folder.node.clone());
    let member = if told.is_none() { member_name(&folder.files) } else { None };
    let name = told.as_deref().or(member.as_deref());
    let changes = change_with_versions(&folder.files, settings, name.unwrap_or(UNNAMED), versions)
        .map_err(|refusal| Obstacle::Refused { reason: refusal.reason, message: told_name(&refusal.message) })?;
    let path = || folder.path.display().to_string();
    let writes_name = settings.etcd.state == State::Enabled && changes.iter().any(|change| change.component == ComponentName::Etcd);
    if name.is_none() && writes_name {
        return Err(Obstacle::Unnamed { path: path() });
    }
    if let Some((file, position)) = folder.garbled.iter().find(|(file, _)| changes.iter().any(|change| change.file == *file)) {
        return Err(Obstacle::NotText { path: path(), file: file.clone(), position: *position });
    }
    Ok(Preview { node: name.map(str::to_owned), is_member_name: writes_name && member.is_some(), folder, changes })
}

/// The message without the name of a node that has none.
fn told_name(message: &str) -> String {
    message.replacen(&format!(" on node {UNNAMED}"), "", 1)
}

impl Preview {
    /// What is said beside the change: what restarts, and what an administrator should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let whose = self.node.as_ref().map(|node| format!("node {node}: ")).unwrap_or_default();
        let mut notes = Vec::new();
        if let Some(node) = self.node.as_ref().filter(|_| self.is_member_name) {
            notes.push(format!("note: the node is called {node} by its etcd member's name; --node names it otherwise"));
        }
        let mut warnings: Vec<&String> = self.changes.iter().flat_map(|change| &change.warnings).collect();
        warnings.dedup();
        notes.extend(warnings.iter().map(|warning| format!("warning: {whose}{warning}")));
        let restarts: Vec<&str> = self.changes.iter().filter(|change| !change.is_made()).map(|change| change.component.as_str()).collect();
        notes.push(match &restarts[..] {
            [] => format!("{whose}nothing changes, and nothing restarts"),
            [one] => format!("{whose}{one} restarts"),
            all => format!("{whose}{} restart, together", all.join(" and ")),
        });
        notes
    }
}
