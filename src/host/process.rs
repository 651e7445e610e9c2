//! Processes, as the kernel shows them in `/proc`.
//!
//! Needs the node's PID namespace and nothing more: `cmdline` and `stat` are readable by everybody. Why this proof and not another: docs/security.md.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Error, Process, ProcessId};

/// The processes whose program (base name of `argv[0]`) is `program`, sorted by start.
///
/// A process that ends while it is read is left out, and so is a zombie: it has no argv any more.
pub fn find(proc: &Path, program: &str) -> Result<Vec<Process>, Error> {
    let failed = |source| Error::Kernel { path: proc.display().to_string(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(proc).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
        match read(&proc.join(name), pid, program) {
            Ok(process) => found.extend(process),
            Err((_, source)) if is_gone(&source) => {}
            Err((path, source)) => return Err(Error::Kernel { path: path.display().to_string(), source }),
        }
    }
    found.sort_by_key(|p| (p.id.started, p.id.pid));
    Ok(found)
}

fn read(folder: &Path, pid: i32, program: &str) -> Result<Option<Process>, (PathBuf, io::Error)> {
    let file = |name: &str| fs::read(folder.join(name)).map_err(|e| (folder.join(name), e));
    let argv = argv(&file("cmdline")?);
    if argv.first().is_none_or(|a| a.rsplit('/').next() != Some(program)) {
        return Ok(None);
    }
    let stat = file("stat")?;
    let started = started(&stat).ok_or_else(|| (folder.join("stat"), io::Error::from(io::ErrorKind::InvalidData)))?;
    Ok(Some(Process { id: ProcessId { pid, started }, argv }))
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

/// Field 22 of `stat`, in milliseconds since boot. The second field may hold spaces and brackets: counting starts after its last one.
fn started(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    let ticks: u64 = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_process(proc: &Path, pid: &str, cmdline: &[u8], comm: &str, ticks: u64) {
        let folder = proc.join(pid);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cmdline"), cmdline).unwrap();
        let stat = format!("{pid} ({comm}) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {ticks} 20 21\n");
        fs::write(folder.join("stat"), stat).unwrap();
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
        assert_eq!(
            found,
            [
                Process { id: ProcessId { pid: 11, started: 200 * tick }, argv: vec!["/usr/local/bin/etcd".into()] },
                Process {
                    id: ProcessId { pid: 10, started: 500 * tick },
                    argv: vec!["etcd".into(), "--name=a b".into(), "--empty=".into(), String::new()]
                },
            ]
        );
    }

    #[test]
    fn finds_this_very_process() {
        let program = std::env::args().next().unwrap();
        let found = find(Path::new("/proc"), program.rsplit('/').next().unwrap()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(found.iter().any(|p| p.id.pid == own && p.argv[0] == program));
    }

    #[test]
    fn an_unreadable_proc_is_an_error_and_not_an_empty_node() {
        assert!(find(Path::new("/nowhere"), "etcd").is_err());
    }
}
