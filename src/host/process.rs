//! Processes, as the kernel shows them in `/proc`.
//!
//! Needs the node's PID namespace and nothing more: `cmdline` and `stat` are readable by everybody. Why this proof and not another: docs/security.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Error, Holder, Process, ProcessId};

/// The processes whose program (base name of `argv[0]`) is `program`, sorted by start.
///
/// A process that ends while it is read is left out, and so is a zombie: it has no argv any more.
pub fn find(proc: &Path, program: &str) -> Result<Vec<Process>, Error> {
    let mut found = Vec::new();
    each(proc, |folder, pid| {
        found.extend(read(folder, pid, program)?);
        Ok(())
    })?;
    found.sort_by_key(|p| (p.id.started, p.id.pid));
    Ok(found)
}

/// The processes of a user (effective, as sockets have it) that `counts` by their folder, by PID.
pub(super) fn of_user(proc: &Path, uid: u32, counts: impl Fn(&Path) -> bool) -> Result<Vec<Holder>, Error> {
    let mut found = Vec::new();
    each(proc, |folder, pid| {
        if effective_user(&file(folder, "status")?) != Some(uid) || !counts(folder) {
            return Ok(());
        }
        let argv = argv(&file(folder, "cmdline")?);
        // some programs write what they do where their argv was: `nginx: master process`
        let program = argv.first().and_then(|word| word.split([':', ' ']).next()?.rsplit('/').next());
        found.extend(program.map(|program| Holder { program: program.to_owned(), pid }));
        Ok(())
    })?;
    found.sort_by_key(|p| p.pid);
    Ok(found)
}

/// The second number of `Uid` in `status`.
fn effective_user(status: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(status);
    text.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Processes that start, and may end, while one looks. A container's program takes the place of the runtime's own in one process, some time after
/// that was made: so each young process is read again and again, and an old one never.
pub struct Starts<'a> {
    proc: &'a Path,
    old: BTreeSet<i32>,
    seen: BTreeMap<ProcessId, Process>,
}

/// Milliseconds within which a container's process runs its program: half a second, and ten times that on a busy node.
const YOUNG: u64 = 5_000;

impl<'a> Starts<'a> {
    /// From `now` (milliseconds since boot) on.
    pub fn new(proc: &'a Path, now: u64) -> Result<Self, Error> {
        let mut old = BTreeSet::new();
        each(proc, |folder, pid| {
            let started = times(&file(folder, "stat")?).map(|times| times.started);
            if started.is_some_and(|started| now.saturating_sub(started) > YOUNG) {
                old.insert(pid);
            }
            Ok(())
        })?;
        Ok(Self { proc, old, seen: BTreeMap::new() })
    }

    /// Looks once.
    pub fn look(&mut self, programs: &[&str]) -> Result<(), Error> {
        let (old, seen) = (&self.old, &mut self.seen);
        each(self.proc, |folder, pid| {
            if !old.contains(&pid) {
                let started = programs.iter().find_map(|program| read(folder, pid, program).transpose()).transpose()?;
                seen.extend(started.map(|process| (process.id, process)));
            }
            Ok(())
        })
    }

    /// All that were seen, by PID.
    pub fn seen(self) -> Vec<Process> {
        self.seen.into_values().collect()
    }
}

/// Whether a process of this pod is left. The sandbox's own (`pause`) is the last one to go.
pub fn pod_lives(proc: &Path, pod: &str) -> Result<bool, Error> {
    let mut lives = false;
    each(proc, |folder, _| {
        lives = lives || pod_of(&file(folder, "cgroup")?).as_deref() == Some(pod);
        Ok(())
    })?;
    Ok(lives)
}

/// Ends a process at once, if it is still the one that was meant. The node's own processes are of the agent's user: that needs no capability.
pub fn kill(proc: &Path, process: ProcessId) -> Result<(), Error> {
    let folder = proc.join(process.pid.to_string());
    let kill = || -> io::Result<()> {
        let pid = rustix::process::Pid::from_raw(process.pid).ok_or(io::ErrorKind::InvalidInput)?;
        // held before its start is read: whatever gets the number afterwards is not meant by the handle
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let started = times(&fs::read(folder.join("stat"))?).map(|times| times.started);
        if started == Some(process.started) {
            rustix::process::pidfd_send_signal(handle, rustix::process::Signal::KILL)?;
        }
        Ok(())
    };
    match kill() {
        Err(error) if !is_gone(&error) => Err(Error::Kernel { path: folder.display().to_string(), source: error }),
        _ => Ok(()),
    }
}

/// Why a process could not be read, and which of its files.
type Unread = (PathBuf, io::Error);

fn each(proc: &Path, mut read: impl FnMut(&Path, i32) -> Result<(), Unread>) -> Result<(), Error> {
    let failed = |source| Error::Kernel { path: proc.display().to_string(), source };
    for entry in fs::read_dir(proc).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
        match read(&proc.join(name), pid) {
            Ok(()) => {}
            Err((_, source)) if is_gone(&source) => {}
            Err((path, source)) => return Err(Error::Kernel { path: path.display().to_string(), source }),
        }
    }
    Ok(())
}

fn file(folder: &Path, name: &str) -> Result<Vec<u8>, Unread> {
    fs::read(folder.join(name)).map_err(|e| (folder.join(name), e))
}

fn read(folder: &Path, pid: i32, program: &str) -> Result<Option<Process>, Unread> {
    let process = Process { argv: argv(&file(folder, "cmdline")?), ..Process::default() };
    if !process.is_of(program) {
        return Ok(None);
    }
    let times = times(&file(folder, "stat")?).ok_or_else(|| (folder.join("stat"), io::Error::from(io::ErrorKind::InvalidData)))?;
    // where it cannot be read, a fixed wait takes the place of what it tells
    let pod = file(folder, "cgroup").ok().as_deref().and_then(pod_of);
    Ok(Some(Process { id: ProcessId { pid, started: times.started }, pod, cpu: times.cpu, ..process }))
}

/// The pod's UID in the path of a control group: `…/pod<uid>/<container>` (driver cgroupfs) or `…-pod<uid>.slice/<container>.scope`
/// (driver systemd, which writes `_` for `-`). A static pod's UID is the kubelet's hash of its manifest, 32 hexadecimal digits.
fn pod_of(cgroup: &[u8]) -> Option<String> {
    let is_uid = |uid: &str| uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_'));
    let text = String::from_utf8_lossy(cgroup);
    let mut parts = text.lines().flat_map(|line| line.split('/'));
    parts.find_map(|part| {
        let (before, uid) = part.strip_suffix(".slice").unwrap_or(part).rsplit_once("pod")?;
        (is_uid(uid) && (before.is_empty() || before.ends_with('-'))).then(|| uid.to_owned())
    })
}

/// Bytes of memory that a process holds; `None` when it is gone, or another one has its PID.
pub fn memory(proc: &Path, process: ProcessId) -> Result<Option<u64>, Error> {
    let folder = proc.join(process.pid.to_string());
    let read = |name: &str| match fs::read(folder.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(Error::Kernel { path: folder.join(name).display().to_string(), source }),
    };
    let (Some(stat), Some(statm)) = (read("stat")?, read("statm")?) else { return Ok(None) };
    if times(&stat).map(|times| times.started) != Some(process.started) {
        return Ok(None);
    }
    let pages = resident(&statm)
        .ok_or_else(|| Error::Kernel { path: folder.join("statm").display().to_string(), source: io::ErrorKind::InvalidData.into() })?;
    Ok(Some(pages.saturating_mul(rustix::param::page_size() as u64)))
}

/// Field 2 of `statm`, in pages.
fn resident(statm: &[u8]) -> Option<u64> {
    std::str::from_utf8(statm).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn is_gone(error: &io::Error) -> bool {
    // ESRCH: the process ended between open and read
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn argv(cmdline: &[u8]) -> Vec<String> {
    let text = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// What `stat` says of time, in milliseconds.
struct Times {
    /// Since boot.
    started: u64,
    /// In user and kernel mode.
    cpu: u64,
}

/// Fields 14, 15 and 22 of `stat`. The second field may hold spaces and brackets: counting starts after its last one.
fn times(stat: &[u8]) -> Option<Times> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    let fields: Vec<_> = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().collect();
    let milliseconds = |field: usize| -> Option<u64> {
        let ticks: u64 = fields.get(field - 3)?.parse().ok()?;
        Some(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1))
    };
    Some(Times { started: milliseconds(22)?, cpu: milliseconds(14)?.saturating_add(milliseconds(15)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "0123456789abcdef0123456789abcdef";

    fn mk_process(proc: &Path, pid: &str, cmdline: &[u8], comm: &str, ticks: u64) {
        let folder = proc.join(pid);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cmdline"), cmdline).unwrap();
        // the fields from the third on, each with its number for a value
        let stat = format!("{pid} ({comm}) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 {ticks} 23 24\n");
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("cgroup"), format!("4:pids:/kubepods/burstable/pod{POD}/{pid}\n0::/system.slice\n")).unwrap();
    }

    #[test]
    fn finds_the_program_by_the_base_name_of_its_first_word() {
        let proc = tempfile::tempdir().unwrap();
        mk_process(proc.path(), "10", b"etcd\0--name=a b\0--empty=\0\0", "etcd", 500);
        mk_process(proc.path(), "11", b"/usr/local/bin/etcd\0", "evil) R (", 200);
        mk_process(proc.path(), "12", b"etcdctl\0get\0", "etcdctl", 1);
        mk_process(proc.path(), "13", b"", "etcd", 1); // a zombie
        fs::create_dir(proc.path().join("14")).unwrap(); // ended in between
        fs::create_dir(proc.path().join("sys")).unwrap();
        let tick = 1000 / rustix::param::clock_ticks_per_second();
        let found = find(proc.path(), "etcd").unwrap();
        let process = |pid, started: u64, argv: &[&str]| Process {
            id: ProcessId { pid, started: started * tick },
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            pod: Some(POD.to_owned()),
            cpu: (14 + 15) * tick,
        };
        assert_eq!(found, [process(11, 200, &["/usr/local/bin/etcd"]), process(10, 500, &["etcd", "--name=a b", "--empty=", ""])]);
    }

    #[test]
    fn a_process_that_has_ended_by_the_next_look_was_seen_to_start() {
        let proc = tempfile::tempdir().unwrap();
        let tick = 1000 / rustix::param::clock_ticks_per_second();
        let at = |seconds: u64| seconds * 1000 / tick;
        mk_process(proc.path(), "10", b"etcd\0--old\0", "etcd", at(1));
        mk_process(proc.path(), "11", b"runc\0init\0", "runc", at(8));
        let mut starts = Starts::new(proc.path(), 10_000).unwrap();
        starts.look(&["etcd"]).unwrap();
        // the runtime's process becomes the program's, and ends; another one comes with a number of its own
        fs::write(proc.path().join("11/cmdline"), b"etcd\0--new\0").unwrap();
        starts.look(&["etcd"]).unwrap();
        fs::remove_dir_all(proc.path().join("11")).unwrap();
        mk_process(proc.path(), "12", b"etcd\0--new\0", "etcd", at(11));
        starts.look(&["etcd"]).unwrap();
        let seen: Vec<_> = starts.seen().into_iter().map(|p| (p.id.pid, p.argv)).collect();
        let argv = vec!["etcd".to_owned(), "--new".to_owned()];
        assert_eq!(seen, [(11, argv.clone()), (12, argv)]);
    }

    #[test]
    fn finds_this_very_process() {
        let program = std::env::args().next().unwrap();
        let found = find(Path::new("/proc"), program.rsplit('/').next().unwrap()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(found.iter().any(|p| p.id.pid == own && p.argv[0] == program));
    }

    #[test]
    fn the_pod_is_read_from_the_control_group_of_either_driver_and_version() {
        let uuid = "0a1b2c3d-0000-4000-8000-0123456789ab";
        let cases = [
            (format!("4:memory:/kubepods/burstable/pod{POD}/f00d\n3:cpu:/kubepods/burstable/pod{POD}/f00d\n"), Some(POD)),
            (
                format!("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD}.slice/cri-containerd-f00d.scope\n"),
                Some(POD),
            ),
            (format!("0::/kubepods.slice/kubepods-pod{POD}.slice/cri-containerd-f00d.scope\n"), Some(POD)),
            // seen from within another control group namespace
            (format!("0::/../../kubepods-burstable-pod{POD}.slice/cri-containerd-f00d.scope\n"), Some(POD)),
            (format!("0::/kubepods/besteffort/pod{uuid}/f00d\n"), Some(uuid)),
            ("0::/system.slice/containerd.service\n".to_owned(), None),
            ("0::/user.slice/podman-1.scope/pod\n".to_owned(), None),
            (String::new(), None),
        ];
        for (cgroup, pod) in cases {
            assert_eq!(pod_of(cgroup.as_bytes()).as_deref(), pod, "{cgroup}");
        }
    }

    #[test]
    fn a_pod_lives_as_long_as_its_last_process() {
        let proc = tempfile::tempdir().unwrap();
        mk_process(proc.path(), "10", b"/pause\0", "pause", 1);
        assert!(pod_lives(proc.path(), POD).unwrap());
        assert!(!pod_lives(proc.path(), "fedcba9876543210fedcba9876543210").unwrap());
        fs::remove_dir_all(proc.path().join("10")).unwrap();
        assert!(!pod_lives(proc.path(), POD).unwrap());
    }

    #[test]
    fn a_process_is_ended_only_if_it_is_the_one_that_was_meant() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let proc = Path::new("/proc");
        let started = times(&fs::read(proc.join(pid.to_string()).join("stat")).unwrap()).unwrap().started;
        kill(proc, ProcessId { pid, started: started + 1_000 }).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "another process of that number");
        kill(proc, ProcessId { pid, started }).unwrap();
        assert!(!child.wait().unwrap().success());
        kill(proc, ProcessId { pid, started }).unwrap();
    }

    #[test]
    fn the_memory_is_that_of_the_very_process() {
        let name = std::env::args().next().unwrap();
        let own = find(Path::new("/proc"), name.rsplit('/').next().unwrap()).unwrap();
        let own = own.iter().find(|p| p.id.pid == i32::try_from(std::process::id()).unwrap()).unwrap().id;
        assert!(memory(Path::new("/proc"), own).unwrap().unwrap() > 1024 * 1024);
        assert_eq!(memory(Path::new("/proc"), ProcessId { started: own.started + 1_000, ..own }).unwrap(), None);
        assert_eq!(memory(Path::new("/proc"), ProcessId { pid: i32::MAX, started: 1 }).unwrap(), None);
        assert_eq!(resident(b"42087 9212 5512 1 0 20000 0\n"), Some(9212));
    }

    #[test]
    fn an_unreadable_proc_is_an_error_and_not_an_empty_node() {
        assert!(find(Path::new("/nowhere"), "etcd").is_err());
    }
}
