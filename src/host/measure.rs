//! What is left on a node: room and memory.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::{fs, io};

use rustix::fs::fstatvfs;

use super::{Error, Room};

/// Of the file system that an open folder is in.
pub(super) fn room(folder: &OwnedFd) -> io::Result<Room> {
    let found = fstatvfs(folder)?;
    Ok(Room {
        bytes: found.f_bavail.saturating_mul(found.f_frsize),
        // btrfs and others have no fixed number of inodes, and say 0 of 0
        inodes: (found.f_files > 0).then_some(found.f_favail),
    })
}

/// `MemAvailable` of `/proc/meminfo`, which the kernel gives in KiB (`proc_meminfo(5)`, since Linux 3.14).
pub(super) fn memory_available(proc: &Path) -> Result<u64, Error> {
    let path = proc.join("meminfo");
    let failed = |source| Error::Kernel { path: path.display().to_string(), source };
    let text = fs::read_to_string(&path).map_err(failed)?;
    available(&text).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_this_very_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let found = room(&fs::File::open(folder.path()).unwrap().into()).unwrap();
        assert!(found.bytes > 0 && found.inodes != Some(0));
    }

    #[test]
    fn the_memory_that_is_available_is_one_line_of_meminfo() {
        assert_eq!(available("MemTotal:  16000 kB\nMemFree:  10 kB\nMemAvailable:    2048 kB\n"), Some(2048 * 1024));
        assert_eq!(available("MemTotal:  16000 kB\n"), None);
        assert!(memory_available(Path::new("/proc")).unwrap() > 0);
    }
}
