//! The agent on file systems of its own: what a power cut really leaves, a disk that is full, one that is read-only, a file that may not be
//! changed. `make files` runs these: they mount loop devices, in a mount namespace that takes every mount with it when the tests end.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use clustertracing::api::NodeTracing;
use clustertracing::api::Reason;
use clustertracing::api::node_tracing::OutcomeResult;

use crate::world::{FILES, World};
use crate::{live, mk_reached, off, on, result};

/// Something that is mounted until this goes.
struct Mounted(PathBuf);

impl Mounted {
    fn new(options: &[&str], at: &Path) -> Self {
        run(Command::new("mount").args(options).arg(at));
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // lazily: a test that fails may still have files open
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system in a file.
struct FileSystem {
    kind: &'static str,
    /// The smallest that the program makes with a journal.
    size: u64,
    mount: &'static str,
}

const FILE_SYSTEMS: [FileSystem; 2] =
    [FileSystem { kind: "ext4", size: 8 << 20, mount: "loop" }, FileSystem { kind: "xfs", size: 300 << 20, mount: "loop,nouuid" }];

impl FileSystem {
    /// `None` when there is no program to make it.
    fn make(&self, image: &Path) -> Option<()> {
        let program = format!("mkfs.{}", self.kind);
        Command::new(&program).arg("-V").output().ok()?;
        fs::File::create(image).unwrap().set_len(self.size).unwrap();
        run(Command::new(&program).arg("-q").arg(image));
        Some(())
    }

    fn mount(&self, image: &Path, at: &Path) -> Mounted {
        Mounted::new(&["-t", self.kind, "-o", self.mount, image.to_str().unwrap()], at)
    }

    /// A node whose files are on this image.
    fn node(&self, boot: u64, image: &Path) -> (Rc<World>, Mounted) {
        let mut mounted = None;
        let world = World::on_disk(boot, |folder| mounted = Some(self.mount(image, folder)));
        (world, mounted.unwrap())
    }
}

fn copy(image: &Path, to: &Path) {
    run(Command::new("cp").arg("--sparse=always").args([image, to]));
}

/// Copies the disk under a change before its first effect, between all others, and after the last: what a power cut leaves there. Each copy
/// is mounted, which replays the file system's own journal, and the agent goes on.
async fn survives_a_power_cut_anywhere(file_system: &FileSystem, setup: &[NodeTracing], object: NodeTracing) {
    let images = tempfile::tempdir().unwrap();
    let image = images.path().join("disk");
    if file_system.make(&image).is_none() {
        println!("mkfs.{} is not there: not tried", file_system.kind);
        return;
    }
    let desired = mk_reached(&[setup, std::slice::from_ref(&object)].concat()).await;
    let copies = Rc::new(RefCell::new(Vec::new()));
    let (old, new) = {
        let (world, mounted) = file_system.node(1, &image);
        for object in setup {
            live(&world, &mut object.clone()).await;
        }
        let old = FILES.map(|file| world.manifest(file));
        run(Command::new("sync").arg("--file-system").arg(world.dir.path()));
        let take = {
            let (copies, image, folder) = (Rc::clone(&copies), image.clone(), images.path().to_owned());
            move |effect: &str| {
                let to = folder.join(format!("copy-{}", copies.borrow().len()));
                copy(&image, &to);
                copies.borrow_mut().push((to, effect.to_owned()));
            }
        };
        *world.before_effect.borrow_mut() = Some(Box::new(take.clone()));
        live(&world, &mut object.clone()).await;
        world.before_effect.take();
        take("the end");
        let new = FILES.map(|file| world.manifest(file));
        drop(mounted);
        (old, new)
    };
    let copies = copies.take();
    assert!(copies.len() >= 20, "only {} moments were tried", copies.len());
    for (number, (copy, effect)) in copies.iter().enumerate() {
        let context = format!("{}: power cut before effect {number}, {effect}", file_system.kind);
        let (world, mounted) = file_system.node(2, copy);
        for (file, (old, new)) in FILES.iter().zip(old.iter().zip(&new)) {
            if let Ok(bytes) = fs::read(world.dir.path().join("manifests").join(file)) {
                assert!(bytes == *old || bytes == *new, "{context}: {file} holds neither the old nor the new bytes");
            } else {
                assert!(world.leftovers().contains(&"journal".to_owned()), "{context}: {file} is away, and no journal says why");
            }
        }
        for folder in ["state", "state/backup"] {
            let files = fs::read_dir(world.dir.path().join(folder)).into_iter().flatten().map(|entry| entry.unwrap());
            let visible = files.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
            let empty: Vec<_> = visible.filter(|entry| entry.metadata().unwrap().len() == 0).map(|entry| entry.path()).collect();
            assert!(empty.is_empty(), "{context}: {empty:?} are empty");
        }
        let mut object = object.clone();
        live(&world, &mut object).await;
        assert_eq!(result(&object), (OutcomeResult::Succeeded, None), "{context}");
        assert_eq!(world.manifests(), desired.manifests(), "{context}");
        assert_eq!(world.ours(), desired.ours(), "{context}");
        drop(mounted);
        fs::remove_file(copy).unwrap();
    }
}

#[tokio::test]
#[ignore = "mounts file systems, which needs root: make files"]
async fn a_power_cut_between_any_two_effects_leaves_a_disk_from_which_the_change_ends_well() {
    for file_system in &FILE_SYSTEMS {
        survives_a_power_cut_anywhere(file_system, &[], on(1)).await;
        survives_a_power_cut_anywhere(file_system, &[on(1)], off(2)).await;
    }
}

#[tokio::test]
#[ignore = "mounts file systems, which needs root: make files"]
async fn a_full_disk_refuses_the_change_or_has_room_for_all_of_it() {
    let (old, new) = (World::new().manifests(), mk_reached(&[on(1)]).await.manifests());
    let mut seen = Vec::new();
    for pages in (0..64).step_by(4) {
        let mut mounted = None;
        let world = World::on_disk(1, |folder| mounted = Some(Mounted::new(&["-t", "tmpfs", "-o", "size=320k", "tmpfs"], folder)));
        let disk = rustix::fs::statvfs(world.dir.path()).unwrap();
        let filler = disk.f_bavail.saturating_sub(pages) * disk.f_frsize;
        fs::write(world.dir.path().join("filler"), vec![1; usize::try_from(filler).unwrap()]).unwrap();
        let mut object = on(1);
        live(&world, &mut object).await;
        let result = result(&object);
        let expected = if result.0 == OutcomeResult::Succeeded { &new } else { &old };
        assert_eq!(world.manifests(), *expected, "{result:?} with {pages} free pages");
        assert!(result.1.is_none_or(|reason| reason == Reason::NodeFilesUnwritable), "{result:?} with {pages} free pages");
        seen.push(result.0);
    }
    assert!(seen.contains(&OutcomeResult::Succeeded) && seen.contains(&OutcomeResult::Refused), "{seen:?}");
}

#[tokio::test]
#[ignore = "mounts file systems, which needs root: make files"]
async fn a_read_only_disk_and_a_manifest_that_may_not_be_changed_refuse_the_change_until_they_can_be_written() {
    type Switch = fn(&Path);
    let cases: [(Switch, Switch); 2] = [
        (
            |folder| run(Command::new("mount").args(["-o", "remount,ro"]).arg(folder)),
            |folder| run(Command::new("mount").args(["-o", "remount,rw"]).arg(folder)),
        ),
        (
            |folder| run(Command::new("chattr").arg("+i").arg(folder.join("manifests/etcd.yaml"))),
            |folder| run(Command::new("chattr").arg("-i").arg(folder.join("manifests/etcd.yaml"))),
        ),
    ];
    let new = mk_reached(&[on(1)]).await.manifests();
    for (lock, unlock) in cases {
        let images = tempfile::tempdir().unwrap();
        let image = images.path().join("disk");
        FILE_SYSTEMS[0].make(&image).expect("mkfs.ext4 is there");
        let (world, mounted) = FILE_SYSTEMS[0].node(1, &image);
        let old = world.manifests();
        lock(world.dir.path());
        let mut object = on(1);
        live(&world, &mut object).await;
        let (ended, reason) = result(&object);
        assert!(matches!(ended, OutcomeResult::Refused | OutcomeResult::RolledBack), "{ended:?}");
        assert_eq!((reason, world.manifests()), (Some(Reason::NodeFilesUnwritable), old));
        unlock(world.dir.path());
        let mut object = on(2);
        live(&world, &mut object).await;
        assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
        assert_eq!(world.manifests(), new);
        drop(mounted);
    }
}
