//! The archive's file: whole, or not there.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};
use tempfile::NamedTempFile;

/// Folder that everything in the archive is in.
const FOLDER: &str = "clustertracing-bundle";

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
#[error("write {path}: name a new file with --output-file")]
pub struct Error {
    path: String,
    source: io::Error,
}

/// An archive that is being written, beside its place and under another name.
pub(super) struct Archive {
    path: PathBuf,
    builder: Builder<GzEncoder<NamedTempFile>>,
}

impl Archive {
    /// A file which its owner alone can read.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        if path.exists() {
            return Err(failed(path)(io::ErrorKind::AlreadyExists.into()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(folder).map_err(failed(path))?;
        Ok(Self { path: path.to_owned(), builder: Builder::new(GzEncoder::new(file, Compression::default())) })
    }

    /// Puts a file into it.
    pub(super) fn add(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        self.builder.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes()).map_err(failed(&self.path))
    }

    /// Closes it, and gives it its name. None is replaced.
    pub(super) fn finish(self) -> Result<(), Error> {
        let mut file = self.builder.into_inner().and_then(GzEncoder::finish).map_err(failed(&self.path))?;
        file.flush().map_err(failed(&self.path))?;
        file.persist_noclobber(&self.path).map(drop).map_err(|error| failed(&self.path)(error.error))
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_archive_is_the_owners_alone_and_holds_what_was_put_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar.gz");
        let mut archive = Archive::create(&path).unwrap();
        archive.add("logs/a.txt", "x\n").unwrap();
        archive.finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut read = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        let mut entry = read.entries().unwrap().next().unwrap().unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!((entry.path().unwrap().display().to_string().as_str(), text.as_str()), ("clustertracing-bundle/logs/a.txt", "x\n"));
        assert!(Archive::create(&path).is_err(), "nobody's file is replaced");
    }

    #[test]
    fn an_archive_that_was_not_finished_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.tar.gz");
        drop(Archive::create(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
