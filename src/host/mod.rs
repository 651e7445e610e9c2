//! The node: its files, processes, probes and clocks. No other module touches them.
//!
//! [`Host`] is the one trait seam of the project. Its methods are single steps that can fail, or be the last thing before a power cut;
//! the orders in which they make a safe change ([`stage`], [`replace`]) are written once, above the seam, so that tests can stop them at every step.
//! It decides nothing. Called by `crate::agent` only.

pub mod local;
mod measure;
pub mod probe;
pub mod process;
mod program;
mod socket;

use std::future::Future;
use std::io;

use crate::api::node_tracing::hex12;
use crate::manifest::Probe;

/// A file larger than this is not read: the largest static-pod manifest is a hundredth of it.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What every temporary file's name contains, after the leading dot that hides it from the kubelet.
const TEMPORARY_MARK: &str = ".clustertracing-";

/// The folders of a node that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr)]
pub enum Folder {
    /// The kubelet's static-pod folder.
    #[strum(serialize = "manifests")]
    Manifests,
    /// Our own folder: tracing files and the journal.
    #[strum(serialize = "state")]
    State,
    /// The folder `backup` in [`Folder::State`]: the manifests as they were before us. It is there only while it holds something.
    #[strum(serialize = "state/backup")]
    Backups,
}

impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.into())
    }
}

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Permissions {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Permissions {
    /// Of a file that belongs to this process's own user.
    pub fn own(mode: u32) -> Self {
        Self { mode, uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// A regular file's contents and permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// Mode and owner.
    pub permissions: Permissions,
}

/// What a folder's entry is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is a regular file; symbolic links and folders are not.
    pub regular: bool,
    /// Whether it is a folder.
    pub folder: bool,
}

/// Names one process for as long as the node is up: a PID alone may be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    /// Its PID.
    pub pid: i32,
    /// When it started, in milliseconds since the node's boot.
    pub started: u64,
}

/// A process of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Which one.
    pub id: ProcessId,
    /// Its argv, from the kernel.
    pub argv: Vec<String>,
    /// The pod that it belongs to, as its control group names it; `None` when it belongs to none, or that cannot be told.
    pub pod: Option<String>,
    /// CPU time that it has used, in milliseconds.
    pub cpu: u64,
}

impl Process {
    /// Whether its program (base name of `argv[0]`) is `program`.
    pub fn is_of(&self, program: &str) -> bool {
        self.argv.first().is_some_and(|path| path.rsplit('/').next() == Some(program))
    }
}

/// What came of asking an HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nobody listens there.
    Refused,
    /// There was no answer in time, or none that could be read.
    Silent,
    /// Status and body.
    Told(u16, String),
}

impl Answer {
    /// Status and body, if there was an answer.
    pub fn told(&self) -> Option<(u16, &str)> {
        match self {
            Self::Told(status, body) => Some((*status, body)),
            Self::Refused | Self::Silent => None,
        }
    }
}

/// Who listens where the loopback's listener would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The user of the socket.
    pub uid: u32,
    /// The process, where it can be told.
    pub holder: Option<Holder>,
}

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Base name of its program.
    pub program: String,
    /// Its PID.
    pub pid: i32,
}

/// What came of connecting to an endpoint, by category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum Reach {
    /// Somebody accepts connections.
    #[strum(serialize = "it accepts connections")]
    Connected,
    /// Nobody listens there.
    #[strum(serialize = "connection refused")]
    Refused,
    /// Nothing came back in time.
    #[strum(serialize = "no answer within 2 s")]
    Silent,
    /// The node knows no way there.
    #[strum(serialize = "no route to it")]
    NoRoute,
    /// The node's resolver does not know the name.
    #[strum(serialize = "the node's resolver does not know its name")]
    NotResolved,
    /// Something else of the node's own.
    #[strum(serialize = "the node cannot connect")]
    Failed,
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.into())
    }
}

/// What is left of a file system, for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Inodes; `None` where the file system makes them as they are needed.
    pub inodes: Option<u64>,
}

/// The node's clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the node's boot, suspended time included. Never set back; budgets are measured with it.
    pub since_boot: u64,
    /// Names the boot that `since_boot` counts from.
    pub boot_id: String,
    /// The wall clock, for people.
    pub wall: jiff::Timestamp,
}

impl Now {
    /// The wall-clock time of a moment given in milliseconds since boot, in whole seconds.
    pub fn wall_time_of(&self, since_boot: u64) -> jiff::Timestamp {
        let milliseconds = i64::try_from(self.since_boot.saturating_sub(since_boot)).unwrap_or(i64::MAX);
        let second = self.wall.as_millisecond().saturating_sub(milliseconds).div_euclid(1000);
        jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

/// Why a step on the node failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{operation} {folder}/{name}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// Where.
        folder: Folder,
        /// Name in the folder; empty for the folder itself.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file is not one that is read or written here: a symbolic link, a device, a folder, or too large.
    #[error("{folder}/{name} is not a regular file of at most {MAX_FILE_BYTES} bytes")]
    NotPlain {
        /// Where.
        folder: Folder,
        /// Name in the folder.
        name: String,
    },
    /// One of the folders could not be opened.
    #[error("open folder {path}")]
    Open {
        /// Its path.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another agent works on this node.
    #[error("another agent holds the lock of {path}")]
    Locked {
        /// The locked folder's path.
        path: String,
    },
    /// The node's processes or clocks could not be read.
    #[error("read {path}")]
    Kernel {
        /// The kernel's file.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A node, one step at a time. Each method that writes is durable or undone only as its comment says.
pub trait Host {
    /// The entries of a folder, sorted by name. A folder that is not there has none.
    fn list(&self, folder: Folder) -> Result<Vec<Entry>, Error>;
    /// A regular file; `None` when it is not there.
    fn read(&self, folder: Folder, name: &str) -> Result<Option<File>, Error>;
    /// When a file came to be what it is, by the wall clock: its contents, mode, owner or name (the inode's change time, which nobody can set,
    /// and which a file that was renamed into place has too). `None` when it is not there.
    fn changed(&self, folder: Folder, name: &str) -> Result<Option<jiff::Timestamp>, Error>;
    /// Makes a new file and syncs its contents. The name must be free. The folder is made if it is not there.
    fn create(&self, folder: Folder, name: &str, file: &File) -> Result<(), Error>;
    /// Renames a file within its folder, over an existing one. Durable after [`Host::sync`].
    fn rename(&self, folder: Folder, from: &str, to: &str) -> Result<(), Error>;
    /// Removes a file; it may be gone already. Durable after [`Host::sync`].
    fn remove(&self, folder: Folder, name: &str) -> Result<(), Error>;
    /// Removes a folder of ours when it is empty.
    fn remove_empty(&self, folder: Folder) -> Result<(), Error>;
    /// Keeps a copy of the program that this process runs in [`Folder::State`] under `name`, executable: what a person starts where the
    /// container runtime cannot start our image. Nothing is written where the same bytes are there already; durable.
    fn keep_program(&self, name: &str) -> Result<(), Error>;
    /// Syncs a folder: makes its renames and removals durable.
    fn sync(&self, folder: Folder) -> Result<(), Error>;
    /// The processes whose program (base name of `argv[0]`) is `program`.
    fn processes(&self, program: &str) -> Result<Vec<Process>, Error>;
    /// The processes of `programs` that are seen between now and a moment given in milliseconds since boot, those too that have ended by then: a
    /// program that refuses a flag lives for 20 ms. Looks every few milliseconds, so it is not for long waits. A host whose processes do not
    /// come and go between two looks has none to tell of, at once.
    fn starts_until(&self, _programs: &[&str], _since_boot: u64) -> impl Future<Output = Result<Vec<Process>, Error>> {
        std::future::ready(Ok(Vec::new()))
    }
    /// Whether a process of this pod ([`Process::pod`]) is left: its containers', or the one that holds its namespaces.
    fn pod_lives(&self, pod: &str) -> Result<bool, Error>;
    /// Ends a process at once; it may have ended already.
    fn kill(&self, process: ProcessId) -> Result<(), Error>;
    /// Whether a probe is answered as the kubelet wants it.
    fn probe(&self, probe: &Probe) -> impl Future<Output = bool>;
    /// The clocks.
    fn now(&self) -> Result<Now, Error>;
    /// Returns at a moment given in milliseconds since boot, or later.
    fn sleep_until(&self, since_boot: u64) -> impl Future<Output = ()>;
    /// Asks an HTTP endpoint of the node.
    fn get(&self, endpoint: &Probe) -> impl Future<Output = Answer>;
    /// Who keeps the loopback's address 127.0.0.1 from being listened on at a TCP port of the node; nothing when it is free.
    fn listener(&self, port: u16) -> Result<Option<Listener>, Error>;
    /// Connects to `host:port` from the node, and closes.
    fn reach(&self, endpoint: &str) -> impl Future<Output = Reach>;
    /// The room that is left in a folder's file system.
    fn room(&self, folder: Folder) -> Result<Room, Error>;
    /// Bytes of memory that the node can give to new processes.
    fn memory_available(&self) -> Result<u64, Error>;
    /// Bytes of memory that a process holds; `None` when it is gone.
    fn memory_of(&self, process: ProcessId) -> Result<Option<u64>, Error>;
}

/// The hidden name under which `bytes` wait for their rename to `name`: the kubelet passes over dot files.
pub fn temporary_name(name: &str, bytes: &[u8]) -> String {
    format!(".{name}{TEMPORARY_MARK}{}", hex12(bytes))
}

/// Whether a name is one of [`temporary_name`]'s.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.contains(TEMPORARY_MARK)
}

/// The name that a file of such a name waits to be renamed to.
pub fn permanent_name(name: &str) -> Option<&str> {
    Some(name.strip_prefix('.')?.rsplit_once(TEMPORARY_MARK)?.0)
}

/// Writes `file` under its hidden name, so that [`replace`] needs no more room on the disk. Nothing is written when it is there already.
pub fn stage(host: &impl Host, folder: Folder, name: &str, file: &File) -> Result<String, Error> {
    let temporary = temporary_name(name, &file.bytes);
    match host.read(folder, &temporary)? {
        Some(there) if there == *file => return Ok(temporary),
        // half a file that a crash left, or one with other permissions
        Some(_) => host.remove(folder, &temporary)?,
        None => {}
    }
    host.create(folder, &temporary, file)?;
    Ok(temporary)
}

/// Gives a file new contents in one step: at every moment, and after a power cut, it has the old bytes or the new ones.
pub fn replace(host: &impl Host, folder: Folder, name: &str, file: &File) -> Result<(), Error> {
    let temporary = stage(host, folder, name, file)?;
    host.rename(folder, &temporary, name)?;
    // without it a power cut could bring the old bytes back after the change was reported
    host.sync(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_is_hidden_from_the_kubelet_and_known_to_us() {
        let name = temporary_name("etcd.yaml", b"new");
        assert!(name.starts_with('.') && is_temporary(&name));
        assert!(!is_temporary("etcd.yaml") && !is_temporary(".etcd.yaml.swp") && !is_temporary("tracing-0.yaml"));
        assert_eq!(permanent_name(&name), Some("etcd.yaml"));
        assert_ne!(name, temporary_name("etcd.yaml", b"old"));
    }

    #[test]
    fn start_times_are_whole_seconds_of_the_wall_clock() {
        let now = Now { since_boot: 10_500, boot_id: String::new(), wall: jiff::Timestamp::constant(1_000, 700_000_000) };
        assert_eq!(now.wall_time_of(10_500).as_second(), 1_000);
        assert_eq!(now.wall_time_of(500).as_second(), 990);
    }
}
