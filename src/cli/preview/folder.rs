//! Reads copies of static-pod folders, as the kubelet and the agent see the folders themselves: every file whose name does not begin with a
//! dot, whatever its suffix, and no folder within.
//!
//! A folder that holds a file is one node's. One that holds nothing but folders holds several nodes', each called after its node.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::api::Reason;
use crate::component::ManifestFile;
use crate::manifest::position::Position;

/// As much as the agent reads of a manifest, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What was read.
pub(super) struct Content {
    /// One folder for each node, by name.
    pub(super) nodes: Vec<NodeFolder>,
    /// What a person should know of it.
    pub(super) notes: Vec<String>,
    /// What it cannot tell.
    pub(super) untold: Vec<String>,
}

/// A copy of one node's static-pod folder.
pub(super) struct NodeFolder {
    /// The node's name, where the folder's name tells it.
    pub(super) node: Option<String>,
    /// Whether other nodes' folders may stand beside it: then its name is part of the names of files.
    pub(super) is_one_of_several: bool,
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its files, by name.
    pub(super) files: Vec<ManifestFile>,
    /// Files that are no text, and where they cease to be.
    pub(super) garbled: Vec<(String, Position)>,
    /// Mode of each file: what is written in its place should be no more readable.
    pub(super) permissions: BTreeMap<String, fs::Permissions>,
}

impl NodeFolder {
    /// What names of this node's files begin with, in a diff and below the output folder.
    pub(super) fn prefix(&self) -> String {
        self.node.as_ref().filter(|_| self.is_one_of_several).map(|name| format!("{name}/")).unwrap_or_default()
    }
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It, or a file in it, is not there, or may not be read.
    #[error("{path}: cannot be read")]
    Read {
        /// Which.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is a file.
    #[error("{path}: is no folder: --manifests takes a copy of a node's static-pod folder")]
    NotAFolder {
        /// Which.
        path: String,
    },
    /// There is nothing in it that a kubelet would read.
    #[error(
        "{path}: holds no manifest: --manifests takes a copy of a node's static-pod folder, /etc/kubernetes/manifests on kubeadm's nodes"
    )]
    Empty {
        /// Which.
        path: String,
    },
    /// It has no folder of the node that was asked for.
    #[error("{path}: has no folder for node {node}; there are: {there}")]
    NoSuchNode {
        /// Which.
        path: String,
        /// The node that was asked for.
        node: String,
        /// The nodes that there are.
        there: String,
    },
    /// The agent refuses a folder that holds this.
    #[error(
        "{path}: {}: is a link, or no file, or larger than {MAX_FILE_BYTES} bytes, and the agent reads no such manifest: put the file itself there",
        Reason::UnsupportedManifest
    )]
    NotPlain {
        /// Which.
        path: String,
    },
}

/// Reads the folders of all nodes, or, where there are several, of `node` alone.
pub(super) fn read(dir: &Path, node: Option<&str>) -> Result<Content, Error> {
    let entries = list(dir)?;
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|name| dir.join(name).is_dir());
    let mut notes = Vec::new();
    if !files.is_empty() {
        if !folders.is_empty() {
            notes.push(format!("note: {}: not looked into, as the kubelet does not: {}", dir.display(), folders.join(", ")));
        }
        let only = node_folder(dir.to_owned(), None, false, files)?;
        return Ok(Content { nodes: vec![only], notes, untold: Vec::new() });
    }
    if folders.is_empty() {
        return Err(Error::Empty { path: dir.display().to_string() });
    }
    let asked_for: Vec<&String> = folders.iter().filter(|name| node.is_none_or(|node| node == name.as_str())).collect();
    if let (true, Some(node)) = (asked_for.is_empty(), node) {
        return Err(Error::NoSuchNode { path: dir.display().to_string(), node: node.to_owned(), there: folders.join(", ") });
    }
    let read = |name: &String| {
        let path = dir.join(name);
        let files: Vec<String> = list(&path)?.into_iter().filter(|file| !path.join(file).is_dir()).collect();
        if files.is_empty() {
            return Err(Error::Empty { path: path.display().to_string() });
        }
        node_folder(path, Some(name.clone()), node.is_none(), files)
    };
    Ok(Content { nodes: asked_for.into_iter().map(read).collect::<Result<_, _>>()?, notes, untold: Vec::new() })
}

/// The names that a kubelet looks at, in order.
fn list(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read { path: dir.display().to_string(), source };
    if !fs::metadata(dir).map_err(failed)?.is_dir() {
        return Err(Error::NotAFolder { path: dir.display().to_string() });
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn node_folder(path: PathBuf, node: Option<String>, is_one_of_several: bool, names: Vec<String>) -> Result<NodeFolder, Error> {
    let mut folder = NodeFolder { node, is_one_of_several, path, files: Vec::new(), garbled: Vec::new(), permissions: BTreeMap::new() };
    for name in names {
        let path = folder.path.join(&name);
        let failed = |source| Error::Read { path: path.display().to_string(), source };
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
            return Err(Error::NotPlain { path: path.display().to_string() });
        }
        let bytes = fs::read(&path).map_err(failed)?;
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            folder.garbled.push((name.clone(), Position::of(&text, error.utf8_error().valid_up_to())));
            text
        });
        folder.permissions.insert(name.clone(), metadata.permissions());
        folder.files.push(ManifestFile { name, text });
    }
    Ok(folder)
}
