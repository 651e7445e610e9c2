//! Writes what a render gives: all of it, or nothing.
//!
//! Everything is written to a temporary folder beside the output folder, which is then renamed. What was there before is replaced only when
//! it is nobody's work: nothing, or exactly what an earlier render wrote, as its list of digests says ([`LIST`]).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::node::Preview;
use crate::api::node_tracing::sha256_hex;

/// In the output folder: what was written, in the form that `sha256sum --check` reads. A kubelet reads no file whose name begins with a dot.
const LIST: &str = ".rendered.sha256";

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody's files are in the way.
    #[error("{path}: is there, and is not what an earlier render wrote: name an empty or a new folder for --output-dir")]
    InTheWay {
        /// What is in the way.
        path: String,
    },
    /// The output folder is, or is in, the input folder, where a node's folder would be taken for one more node.
    #[error("{path}: is within the folder of --manifests: name a folder outside of it for --output-dir")]
    Within {
        /// The output folder.
        path: String,
    },
    /// A path cannot be written, read or renamed.
    #[error("cannot {operation} {path}: --output-dir takes a folder that can be made, renamed and removed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io { operation, path, source }
}

/// A file to write: its text, and whose mode it gets.
type Files<'p> = BTreeMap<PathBuf, (&'p str, Option<&'p fs::Permissions>)>;

/// Writes the resulting files of all nodes below `out`, and names them.
pub(super) fn write(out: &Path, manifests: &Path, previews: &[Preview]) -> Result<Vec<PathBuf>, Error> {
    let (parent, name) = parts(out)?;
    let manifests = fs::canonicalize(manifests).map_err(failed("find", manifests))?;
    if parent.join(&name).starts_with(&manifests) {
        return Err(Error::Within { path: out.display().to_string() });
    }
    let target = parent.join(&name);
    let is_there = check(&target, out)?;
    let files = files(previews);

    let beside = |what: &str| parent.join(format!(".{}.{what}-{}", name.to_string_lossy(), std::process::id()));
    let (new, old) = (beside("new"), beside("old"));
    fs::create_dir_all(&parent).map_err(failed("make folder", &parent))?;
    let written = fill(&new, &files).and_then(|()| replace(&target, &new, &old, is_there));
    if written.is_err() && new.exists() {
        fs::remove_dir_all(&new).map_err(failed("remove", &new))?;
    }
    written?;
    Ok(files.into_keys().map(|file| out.join(file)).collect())
}

/// The resulting files: manifests under their own names, what they need under its path on the node.
fn files(previews: &[Preview]) -> Files<'_> {
    let mut files = Files::new();
    for preview in previews {
        let prefix = PathBuf::from(preview.folder.prefix());
        for change in &preview.changes {
            files.insert(prefix.join(&change.file), (&change.after, preview.folder.permissions.get(&change.file)));
            for (path, contents) in &change.needs {
                files.insert(prefix.join(path.trim_start_matches('/')), (contents, None));
            }
        }
    }
    files
}

/// The folder that holds `out`, and its name there; links are followed, so that what is renamed is the folder itself.
fn parts(out: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let absolute = match fs::canonicalize(out) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(out).map_err(failed("find", out))?;
            match (absolute.parent().map(fs::canonicalize), absolute.file_name()) {
                (Some(Ok(parent)), Some(name)) => parent.join(name),
                _ => absolute,
            }
        }
        Err(error) => return Err(failed("find", out)(error)),
    };
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), PathBuf::from(name))),
        _ => Err(Error::InTheWay { path: out.display().to_string() }),
    }
}

/// Whether the output folder is there; refused when it holds anything that an earlier render did not write just so.
fn check(target: &Path, out: &Path) -> Result<bool, Error> {
    if !target.exists() {
        return Ok(false);
    }
    let in_the_way = |path: &Path| Error::InTheWay { path: path.display().to_string() };
    if !target.is_dir() {
        return Err(in_the_way(out));
    }
    let list = match fs::read_to_string(target.join(LIST)) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("read", &out.join(LIST))(error)),
    };
    for file in walk(target, Path::new(""))? {
        let path = target.join(&file);
        let is_ours = file == Path::new(LIST) || {
            let bytes = fs::read(&path).map_err(failed("read", &out.join(&file)))?;
            list.lines().any(|line| line == line_of(&file, &bytes))
        };
        if !is_ours {
            return Err(in_the_way(&out.join(file)));
        }
    }
    Ok(true)
}

/// All files below a folder. What is neither file nor folder counts as a file: it is none that a render wrote.
fn walk(root: &Path, below: &Path) -> Result<Vec<PathBuf>, Error> {
    let folder = root.join(below);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
        let entry = entry.map_err(failed("list", &folder))?;
        let path = below.join(entry.file_name());
        if entry.file_type().map_err(failed("look at", &folder))?.is_dir() {
            found.extend(walk(root, &path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn fill(new: &Path, files: &Files<'_>) -> Result<(), Error> {
    fs::create_dir(new).map_err(failed("make folder", new))?;
    let mut list = String::new();
    for (file, (text, permissions)) in files {
        let path = new.join(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("make folder", folder))?;
        }
        fs::write(&path, text).map_err(failed("write", &path))?;
        if let Some(permissions) = permissions {
            fs::set_permissions(&path, (*permissions).clone()).map_err(failed("set the mode of", &path))?;
        }
        list += &line_of(file, text.as_bytes());
        list.push('\n');
    }
    let path = new.join(LIST);
    fs::write(&path, list).map_err(failed("write", &path))
}

fn line_of(file: &Path, bytes: &[u8]) -> String {
    format!("{}  {}", sha256_hex(bytes), file.display())
}

fn replace(target: &Path, new: &Path, old: &Path, is_there: bool) -> Result<(), Error> {
    if is_there {
        fs::rename(target, old).map_err(failed("rename", target))?;
    }
    if let Err(error) = fs::rename(new, target) {
        if is_there {
            fs::rename(old, target).map_err(failed("rename back", old))?;
        }
        return Err(failed("rename", new)(error));
    }
    if is_there {
        fs::remove_dir_all(old).map_err(failed("remove", old))?;
    }
    Ok(())
}
