//! The node that this process runs on.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::{
    Answer, Entry, Error, File, Folder, Host, Listener, MAX_FILE_BYTES, Now, Permissions, Process, ProcessId, Reach, Room, measure, probe,
    process, program, socket,
};
use crate::manifest::Probe;

/// Name of [`Folder::Backups`] in [`Folder::State`].
const BACKUPS: &str = "backup";

/// The node that this process runs on. The folders are opened once, and every file is reached from there without following a link:
/// whoever swaps a path later does not lead us elsewhere.
pub struct Local {
    manifests: OwnedFd,
    state: OwnedFd,
    proc: PathBuf,
    prober: probe::Prober,
}

impl Local {
    /// Opens the folders, and locks the state folder for as long as this value lives: two agents on a node would mix their writes.
    pub fn open(manifests: &Path, state: &Path, proc: &Path) -> Result<Self, Error> {
        let local = Self::unlocked(manifests, state, proc)?;
        let path = state.display().to_string();
        match rustix::fs::flock(&local.state, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(local),
            Err(Errno::WOULDBLOCK) => Err(Error::Locked { path }),
            Err(e) => Err(Error::Open { path, source: e.into() }),
        }
    }

    /// Opens the folders without the lock: for a look at a node that somebody else may be working on, and for leaving a request there.
    pub fn unlocked(manifests: &Path, state: &Path, proc: &Path) -> Result<Self, Error> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::Open { path: path.display().to_string(), source: e.into() })
        };
        Ok(Self { manifests: open(manifests)?, state: open(state)?, proc: proc.to_owned(), prober: probe::Prober::default() })
    }

    /// `None` when the folder is not there, which only [`Folder::Backups`] may be.
    fn folder(&self, folder: Folder) -> io::Result<Option<OwnedFd>> {
        match folder {
            Folder::Manifests => self.manifests.try_clone().map(Some),
            Folder::State => self.state.try_clone().map(Some),
            Folder::Backups => match open_beneath(&self.state, BACKUPS, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
                Ok(fd) => Ok(Some(fd)),
                Err(Errno::NOENT) => Ok(None),
                Err(e) => Err(e.into()),
            },
        }
    }

    fn existing(&self, folder: Folder) -> io::Result<OwnedFd> {
        self.folder(folder)?.ok_or_else(|| Errno::NOENT.into())
    }

    fn read_plain(&self, folder: Folder, name: &str) -> Result<Option<File>, Error> {
        let failed = |source| file_error("read", folder, name)(source);
        let Some(fd) = self.folder(folder).map_err(failed)? else { return Ok(None) };
        // NONBLOCK: opening a named pipe must not wait for its writer
        let opened = match open_beneath(fd, name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(Error::NotPlain { folder, name: name.to_owned() }),
            Err(e) => return Err(failed(e.into())),
        };
        let file = fs::File::from(opened);
        let metadata = file.metadata().map_err(failed)?;
        let mut bytes = Vec::new();
        if metadata.is_file() {
            // one byte more than allowed tells a file that is too large, even if it grew since
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        }
        if !metadata.is_file() || bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::NotPlain { folder, name: name.to_owned() });
        }
        let permissions = Permissions { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() };
        Ok(Some(File { bytes, permissions }))
    }

    fn create_durable(&self, folder: Folder, name: &str, file: &File) -> io::Result<()> {
        if folder == Folder::Backups && self.folder(folder)?.is_none() {
            rustix::fs::mkdirat(&self.state, BACKUPS, Mode::RWXU)?;
            rustix::fs::fsync(&self.state)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut new = fs::File::from(open_beneath(self.existing(folder)?, name, flags, Mode::RUSR | Mode::WUSR)?);
        new.write_all(&file.bytes)?;
        let Permissions { mode, uid, gid } = file.permissions;
        let made = new.metadata()?;
        // an agent without capabilities may write files of its own user, and only a foreign owner needs the call
        if (made.uid(), made.gid()) != (uid, gid) {
            std::os::unix::fs::fchown(&new, Some(uid), Some(gid))?;
        }
        new.set_permissions(fs::Permissions::from_mode(mode))?;
        new.sync_all()
    }
}

/// Milliseconds between two looks for a process that starts: a program that refuses a flag has ended 15 ms after its start (etcd 3.7).
const START_SEEN_WITHIN: u64 = 5;

impl Host for Local {
    fn list(&self, folder: Folder) -> Result<Vec<Entry>, Error> {
        let list = || -> io::Result<Vec<Entry>> {
            let Some(fd) = self.folder(folder)? else { return Ok(Vec::new()) };
            // a handle of its own: the position in a folder belongs to the open file
            let fd = open_beneath(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            entries(&fd)
        };
        list().map_err(file_error("list", folder, ""))
    }

    fn read(&self, folder: Folder, name: &str) -> Result<Option<File>, Error> {
        self.read_plain(folder, name)
    }

    fn changed(&self, folder: Folder, name: &str) -> Result<Option<jiff::Timestamp>, Error> {
        let changed = || -> io::Result<Option<jiff::Timestamp>> {
            let Some(fd) = self.folder(folder)? else { return Ok(None) };
            match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Ok(jiff::Timestamp::from_second(stat.st_ctime).ok()),
                Err(Errno::NOENT) => Ok(None),
                Err(e) => Err(e.into()),
            }
        };
        changed().map_err(file_error("look at", folder, name))
    }

    fn create(&self, folder: Folder, name: &str, file: &File) -> Result<(), Error> {
        self.create_durable(folder, name, file).map_err(file_error("create", folder, name))
    }

    fn rename(&self, folder: Folder, from: &str, to: &str) -> Result<(), Error> {
        let rename = || -> io::Result<()> {
            let fd = self.existing(folder)?;
            Ok(rustix::fs::renameat(&fd, from, &fd, to)?)
        };
        rename().map_err(file_error("replace", folder, to))
    }

    fn remove(&self, folder: Folder, name: &str) -> Result<(), Error> {
        let remove = || match self.folder(folder)? {
            Some(fd) => match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(e) => Err(e.into()),
            },
            None => Ok(()),
        };
        remove().map_err(file_error("remove", folder, name))
    }

    fn remove_empty(&self, folder: Folder) -> Result<(), Error> {
        if folder != Folder::Backups {
            return Ok(());
        }
        match rustix::fs::unlinkat(&self.state, BACKUPS, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            Err(e) => Err(file_error("remove", folder, "")(e.into())),
        }
    }

    fn keep_program(&self, name: &str) -> Result<(), Error> {
        program::keep(&self.state, name).map_err(file_error("copy this program to", Folder::State, name))
    }

    fn sync(&self, folder: Folder) -> Result<(), Error> {
        let sync = || match self.folder(folder)? {
            Some(fd) => Ok(rustix::fs::fsync(fd)?),
            None => Ok(()),
        };
        sync().map_err(file_error("sync", folder, ""))
    }

    fn processes(&self, program: &str) -> Result<Vec<Process>, Error> {
        process::find(&self.proc, program)
    }

    async fn starts_until(&self, programs: &[&str], moment: u64) -> Result<Vec<Process>, Error> {
        let mut starts = process::Starts::new(&self.proc, since_boot())?;
        loop {
            let now = since_boot();
            starts.look(programs)?;
            if now >= moment {
                return Ok(starts.seen());
            }
            tokio::time::sleep(Duration::from_millis(START_SEEN_WITHIN.min(moment - now))).await;
        }
    }

    fn pod_lives(&self, pod: &str) -> Result<bool, Error> {
        process::pod_lives(&self.proc, pod)
    }

    fn kill(&self, process: ProcessId) -> Result<(), Error> {
        process::kill(&self.proc, process)
    }

    async fn probe(&self, probe: &Probe) -> bool {
        self.prober.is_green(probe).await
    }

    fn now(&self) -> Result<Now, Error> {
        let path = self.proc.join("sys/kernel/random/boot_id");
        let boot_id = fs::read_to_string(&path).map_err(|source| Error::Kernel { path: path.display().to_string(), source })?;
        Ok(Now { since_boot: since_boot(), boot_id: boot_id.trim().to_owned(), wall: jiff::Timestamp::now() })
    }

    async fn sleep_until(&self, moment: u64) {
        tokio::time::sleep(Duration::from_millis(moment.saturating_sub(since_boot()))).await;
    }

    async fn get(&self, endpoint: &Probe) -> Answer {
        self.prober.get(endpoint).await
    }

    fn listener(&self, port: u16) -> Result<Option<Listener>, Error> {
        socket::listener(&self.proc, port)
    }

    async fn reach(&self, endpoint: &str) -> Reach {
        socket::reach(endpoint).await
    }

    fn room(&self, folder: Folder) -> Result<Room, Error> {
        self.existing(folder).and_then(|fd| measure::room(&fd)).map_err(file_error("measure", folder, ""))
    }

    fn memory_available(&self) -> Result<u64, Error> {
        measure::memory_available(&self.proc)
    }

    fn memory_of(&self, process: ProcessId) -> Result<Option<u64>, Error> {
        process::memory(&self.proc, process)
    }
}

fn since_boot() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

pub(super) fn open_beneath(folder: impl AsFd, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(folder, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode, resolve)
}

fn entries(folder: &OwnedFd) -> io::Result<Vec<Entry>> {
    let mut buffer = Vec::with_capacity(8192);
    let mut iterator = RawDir::new(folder, buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = iterator.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        // some file systems do not tell the type in the listing
        let kind = match entry.file_type() {
            FileType::Unknown => match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e.into()),
            },
            known => known,
        };
        let name = name.to_string_lossy().into_owned();
        found.push(Entry { name, regular: kind == FileType::RegularFile, folder: kind == FileType::Directory });
    }
    found.sort();
    Ok(found)
}

fn file_error(operation: &'static str, folder: Folder, name: &str) -> impl Fn(io::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::File { operation, folder, name: name.clone(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::host::replace;

    fn mk_local() -> (TempDir, Local) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        let local = open(&dir).unwrap();
        (dir, local)
    }

    fn open(dir: &TempDir) -> Result<Local, Error> {
        Local::open(&dir.path().join("manifests"), &dir.path().join("state"), Path::new("/proc"))
    }

    fn mk_file(bytes: &[u8], mode: u32) -> File {
        File { bytes: bytes.to_vec(), permissions: Permissions::own(mode) }
    }

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_permissions_and_leaves_no_temporary_one() {
        let (dir, local) = mk_local();
        fs::write(dir.path().join("manifests/etcd.yaml"), "old").unwrap();
        replace(&local, Folder::Manifests, "etcd.yaml", &mk_file(b"new", 0o640)).unwrap();
        assert_eq!(local.read(Folder::Manifests, "etcd.yaml").unwrap(), Some(mk_file(b"new", 0o640)));
        assert_eq!(local.list(Folder::Manifests).unwrap().len(), 1);
    }

    #[test]
    fn a_second_agent_is_kept_out_until_the_first_one_ends() {
        let (dir, local) = mk_local();
        assert!(matches!(open(&dir), Err(Error::Locked { .. })));
        let state = dir.path().join("state");
        assert!(Local::unlocked(&dir.path().join("manifests"), &state, Path::new("/proc")).is_ok(), "for a look");
        drop(local);
        assert!(open(&dir).is_ok());
    }

    #[test]
    fn links_folders_pipes_and_large_files_are_refused() {
        let (dir, local) = mk_local();
        let manifests = dir.path().join("manifests");
        fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("../secret", manifests.join("link.yaml")).unwrap();
        fs::create_dir(manifests.join("folder.yaml")).unwrap();
        fs::write(manifests.join("large.yaml"), vec![b' '; usize::try_from(MAX_FILE_BYTES).unwrap() + 1]).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, manifests.join("pipe.yaml"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        for name in ["link.yaml", "folder.yaml", "large.yaml", "pipe.yaml"] {
            assert!(matches!(local.read(Folder::Manifests, name), Err(Error::NotPlain { .. })), "{name}");
        }
        let regular: Vec<_> = local.list(Folder::Manifests).unwrap().into_iter().filter(|e| e.regular).map(|e| e.name).collect();
        assert_eq!(regular, ["large.yaml"]);
    }

    #[test]
    fn no_name_leads_out_of_its_folder() {
        let (dir, local) = mk_local();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        assert!(local.read(Folder::Manifests, "../secret").is_err());
        assert!(local.create(Folder::Manifests, "../new", &mk_file(b"x", 0o600)).is_err());
        assert!(!dir.path().join("new").exists());
    }

    #[test]
    fn the_backup_folder_is_there_only_while_it_holds_something() {
        let (dir, local) = mk_local();
        assert_eq!(local.read(Folder::Backups, "etcd.yaml").unwrap(), None);
        assert_eq!(local.list(Folder::Backups).unwrap(), []);
        replace(&local, Folder::Backups, "etcd.yaml", &mk_file(b"old", 0o600)).unwrap();
        local.remove_empty(Folder::Backups).unwrap();
        assert_eq!(fs::read(dir.path().join("state/backup/etcd.yaml")).unwrap(), b"old");
        local.remove(Folder::Backups, "etcd.yaml").unwrap();
        local.remove_empty(Folder::Backups).unwrap();
        assert_eq!(local.list(Folder::State).unwrap(), []);
    }

    #[test]
    fn a_file_that_is_moved_into_place_has_changed_now_however_old_its_contents_are() {
        let (dir, local) = mk_local();
        let path = dir.path().join("manifests/.prepared");
        fs::write(&path, "long prepared").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::rename(&path, dir.path().join("manifests/etcd.yaml")).unwrap();
        let changed = local.changed(Folder::Manifests, "etcd.yaml").unwrap().unwrap();
        assert!(jiff::Timestamp::now().duration_since(changed).as_secs() < 60, "{changed}");
        assert_eq!(local.changed(Folder::Manifests, "gone.yaml").unwrap(), None);
        assert_eq!(local.changed(Folder::Backups, "etcd.yaml").unwrap(), None);
    }

    #[test]
    fn an_existing_name_is_not_written_over_in_place() {
        let (dir, local) = mk_local();
        fs::write(dir.path().join("manifests/etcd.yaml"), "old").unwrap();
        assert!(local.create(Folder::Manifests, "etcd.yaml", &mk_file(b"new", 0o600)).is_err());
        assert_eq!(fs::read(dir.path().join("manifests/etcd.yaml")).unwrap(), b"old");
    }
}
