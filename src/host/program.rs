//! A copy of the program that this process runs.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::local::open_beneath;
use super::temporary_name;

/// The kernel's name for the program of whoever reads it.
const SELF: &str = "/proc/self/exe";
/// Whoever is root may start it, and nobody else may write it.
const MODE: u32 = 0o755;
/// Bytes that are compared at once.
const AT_ONCE: usize = 64 * 1024;

/// Makes the file `name` in `folder` a copy of this process's program, in one step. It is larger than what is held in memory elsewhere, and is
/// compared and copied piece by piece.
pub(super) fn keep(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match open_beneath(folder, name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).map(fs::File::from) {
        Ok(there) if is_program(&there)? => return Ok(()),
        Ok(_) | Err(Errno::NOENT | Errno::LOOP) => {}
        Err(e) => return Err(e.into()),
    }
    // one name whatever the bytes are: what a crash left there goes first
    let temporary = temporary_name(name, &[]);
    match rustix::fs::unlinkat(folder, &temporary, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut new = fs::File::from(open_beneath(folder, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut fs::File::open(SELF)?, &mut new)?;
    new.set_permissions(fs::Permissions::from_mode(MODE))?;
    new.sync_all()?;
    drop(new);
    rustix::fs::renameat(folder, &temporary, folder, name)?;
    Ok(rustix::fs::fsync(folder)?)
}

fn is_program(mut there: &fs::File) -> io::Result<bool> {
    let mut program = fs::File::open(SELF)?;
    let (found, wanted) = (there.metadata()?, program.metadata()?);
    if !found.is_file() || found.len() != wanted.len() || found.mode() & 0o7777 != MODE {
        return Ok(false);
    }
    let (mut one, mut other, mut left) = (vec![0; AT_ONCE], vec![0; AT_ONCE], wanted.len());
    while left > 0 {
        let length = AT_ONCE.min(usize::try_from(left).unwrap_or(AT_ONCE));
        there.read_exact(&mut one[..length])?;
        program.read_exact(&mut other[..length])?;
        if one[..length] != other[..length] {
            return Ok(false);
        }
        left -= length as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_copy_of_the_running_program_is_executable_and_made_again_only_when_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let folder = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let path = dir.path().join("program");
        let keep_and_compare = || {
            keep(&folder, "program").unwrap();
            assert!(is_program(&fs::File::open(&path).unwrap()).unwrap());
            let metadata = fs::symlink_metadata(&path).unwrap();
            assert_eq!((metadata.is_file(), metadata.mode() & 0o7777), (true, MODE));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
            metadata.ino()
        };
        assert_eq!(keep_and_compare(), keep_and_compare(), "it is there already");

        let spoilt: [fn(&Path); 5] = [
            |path| fs::write(path, "half").unwrap(),
            |path| {
                let mut bytes = fs::read(path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(path, bytes).unwrap();
            },
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap(),
            |path| {
                fs::remove_file(path).unwrap();
                symlink("elsewhere", path).unwrap();
            },
            |path| fs::write(path.with_file_name(temporary_name("program", &[])), "what a crash left").unwrap(),
        ];
        for spoil in &spoilt[..4] {
            spoil(&path);
            keep_and_compare();
        }
        fs::remove_file(&path).unwrap();
        spoilt[4](&path);
        keep_and_compare();
    }
}
