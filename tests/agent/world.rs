//! A node in a temporary folder: real files through the real `Local`, a clock that only moves when somebody sleeps, a kubelet that
//! starts and stops processes as the manifests say, and faults: a crash, a power cut or an I/O error at the n-th effect.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clustertracing::api::node_tracing::sha256_hex;
use clustertracing::component::{ManifestFile, find};
use clustertracing::host::local::Local;
use clustertracing::host::{Entry, Error, File, Folder, Host, Now, Permissions, Process, ProcessId, is_temporary};
use clustertracing::manifest::Probe;
use tempfile::TempDir;

pub(crate) const FILES: [&str; 2] = ["etcd.yaml", "kube-apiserver.yaml"];

/// What happens at an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is killed right before the effect; a file that is being made is half written.
    Crash,
    /// The same for the whole node, and what was renamed or removed and not synced is as it was.
    PowerCut,
    /// The effect fails with this error, once.
    Once(i32),
    /// This effect and all later ones fail.
    FromNowOn(i32),
}

/// What the agent's process dies of: caught by the test.
pub(crate) struct Killed;

/// A manifest in few words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) digest: String,
    pub(crate) permissions: Permissions,
}

/// What becomes of a process that runs under a manifest that carries our edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It answers after two seconds.
    Healthy,
    /// It never answers.
    Silent,
    /// It ends after 0.3 s, and is started again after 10 s, 20 s, …
    Exits,
}

/// Bytes and mode.
type OldFile = (Vec<u8>, u32);

/// Somebody else, who writes to the manifests folder.
type Rival = Box<dyn Fn(&Path)>;

/// argv and probes of a manifest's component.
type Component = (Vec<String>, Vec<Probe>);

/// A running or ending process.
#[derive(Clone)]
struct Running {
    process: Process,
    bytes: Vec<u8>,
    stops: Option<u64>,
}

/// Everything that outlives a process of the agent.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) fate: Cell<Fate>,
    pub(crate) kubelet_works: Cell<bool>,
    /// Run right before the effect of that number.
    pub(crate) fault: Cell<Option<(usize, Fault)>>,
    /// What somebody else does right before the first rename of a manifest.
    pub(crate) rival: RefCell<Option<Rival>>,
    pub(crate) effects: Cell<usize>,
    pub(crate) trace: RefCell<Vec<String>>,
    clock: Cell<u64>,
    boot: Cell<u64>,
    next_pid: Cell<i32>,
    running: RefCell<BTreeMap<String, Running>>,
    starts: RefCell<BTreeMap<String, (u64, u32)>>,
    /// What was renamed over or removed, and is not synced: path, old bytes and mode.
    unsynced: RefCell<Vec<(PathBuf, Option<OldFile>)>>,
    /// The bytes that each manifest may hold.
    allowed: RefCell<BTreeMap<String, Vec<Vec<u8>>>>,
}

impl World {
    /// A node with kubeadm's manifests, both components up and well.
    pub(crate) fn new() -> Rc<Self> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("state")).unwrap();
        fs::create_dir_all(dir.path().join("manifests")).unwrap();
        let world = Self {
            dir,
            fate: Cell::new(Fate::Healthy),
            kubelet_works: Cell::new(true),
            fault: Cell::new(None),
            rival: RefCell::default(),
            effects: Cell::new(0),
            trace: RefCell::default(),
            clock: Cell::new(1_000_000),
            boot: Cell::new(1),
            next_pid: Cell::new(100),
            running: RefCell::default(),
            starts: RefCell::default(),
            unsynced: RefCell::default(),
            allowed: RefCell::default(),
        };
        for file in FILES {
            let program = file.trim_end_matches(".yaml");
            let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/manifests/kubeadm/1.36.3/{program}/in.yaml"));
            let path = world.dir.path().join("manifests").join(file);
            fs::write(&path, fs::read(golden).unwrap()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        fs::write(world.dir.path().join("manifests/kube-scheduler.yaml"), "kind: Pod\n").unwrap();
        world.pass(10_000);
        Rc::new(world)
    }

    /// The node as a process of the agent sees it.
    pub(crate) fn open(self: &Rc<Self>) -> Node {
        let local = Local::open(&self.dir.path().join("manifests"), &self.dir.path().join("state"), Path::new("/proc")).unwrap();
        Node { local, world: Rc::clone(self) }
    }

    pub(crate) fn manifest(&self, file: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("manifests").join(file)).unwrap()
    }

    /// Contents, mode and owner of both manifests.
    pub(crate) fn manifests(&self) -> Vec<Standing> {
        let one = |file| {
            let metadata = fs::metadata(self.dir.path().join("manifests").join(file)).unwrap();
            let permissions = Permissions { mode: metadata.mode(), uid: metadata.uid(), gid: metadata.gid() };
            Standing { digest: sha256_hex(&self.manifest(file)), permissions }
        };
        FILES.map(one).into()
    }

    /// From now on, each manifest may hold what it holds now, or what `other` holds now.
    pub(crate) fn allow(&self, other: &World) {
        let both = |file: &str| (file.to_owned(), vec![self.manifest(file), other.manifest(file)]);
        *self.allowed.borrow_mut() = FILES.map(both).into();
    }

    /// A second node in the same state: what is expensive to reach is reached once.
    pub(crate) fn fork(&self) -> Rc<Self> {
        let copy = Self::new();
        for folder in ["manifests", "state", "state/backup"] {
            fs::create_dir_all(copy.dir.path().join(folder)).unwrap();
            for entry in fs::read_dir(self.dir.path().join(folder)).into_iter().flatten().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    fs::copy(entry.path(), copy.dir.path().join(folder).join(entry.file_name())).unwrap();
                }
            }
        }
        fs::remove_dir(copy.dir.path().join("state/backup")).unwrap_or_default();
        copy.clock.set(self.clock.get());
        copy.next_pid.set(self.next_pid.get());
        copy.running.borrow_mut().clone_from(&self.running.borrow());
        copy.starts.borrow_mut().clone_from(&self.starts.borrow());
        copy
    }

    /// Names of all files below the state folder, and of all hidden ones in the manifests folder.
    pub(crate) fn ours(&self) -> Vec<String> {
        let names = |folder: &str| {
            let entries = fs::read_dir(self.dir.path().join(folder)).into_iter().flatten();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let mut ours = [names("state"), names("state/backup")].concat();
        ours.extend(names("manifests").into_iter().filter(|n| n.starts_with('.')));
        ours.sort();
        ours
    }

    /// Names of the files that a crash may leave and a start must remove.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.ours().into_iter().filter(|n| is_temporary(n) || n == "journal").collect()
    }

    /// PID of each component's process.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.running.borrow().values().map(|r| r.process.id.pid).collect()
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.clock.get() / 1000
    }

    /// Time passes, and the kubelet works.
    pub(crate) fn pass(&self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(50) {
            self.clock.set(self.clock.get() + 50);
            for file in FILES {
                self.kubelet(file);
            }
        }
    }

    fn is_ours(bytes: &[u8]) -> bool {
        String::from_utf8_lossy(bytes).contains("clustertracing.dev/added")
    }

    fn kubelet(&self, file: &str) {
        let (now, bytes) = (self.clock.get(), self.manifest(file));
        let mut running = self.running.borrow_mut();
        if let Some(process) = running.get_mut(file) {
            let exits = Self::is_ours(&process.bytes) && self.fate.get() == Fate::Exits && now >= process.process.id.started + 300;
            if process.bytes != bytes && process.stops.is_none() && self.kubelet_works.get() {
                process.stops = Some(now + 1_200);
            }
            if exits || process.stops.is_some_and(|stops| now >= stops) {
                let mut starts = self.starts.borrow_mut();
                let (next, exited) = starts.entry(file.to_owned()).or_default();
                *exited = if exits { *exited + 1 } else { 0 };
                *next = now + if exits { 10_000 << (*exited - 1).min(5) } else { 500 };
                running.remove(file);
            }
            return;
        }
        let mut starts = self.starts.borrow_mut();
        let (next, _) = starts.entry(file.to_owned()).or_default();
        if now < *next {
            return;
        }
        let argv = found(&bytes).0;
        self.next_pid.set(self.next_pid.get() + 1);
        let id = ProcessId { pid: self.next_pid.get(), started: now };
        running.insert(file.to_owned(), Running { process: Process { id, argv }, bytes, stops: None });
    }

    fn answers(&self, probe: &Probe) -> bool {
        self.running.borrow().values().any(|r| {
            let well = self.fate.get() != Fate::Silent || !Self::is_ours(&r.bytes);
            found(&r.bytes).1.contains(probe) && well && self.clock.get() >= r.process.id.started + 2_000
        })
    }

    fn path(&self, folder: Folder, name: &str) -> PathBuf {
        let folder = match folder {
            Folder::Manifests => "manifests",
            Folder::State => "state",
            Folder::Backups => "state/backup",
        };
        self.dir.path().join(folder).join(name)
    }

    /// What the kubelet could read at any moment: old bytes or new bytes, and no file that was not there before.
    fn check_manifests(&self) {
        for (file, allowed) in self.allowed.borrow().iter() {
            assert!(allowed.contains(&self.manifest(file)), "{file} holds neither the old nor the new bytes");
        }
        let visible = fs::read_dir(self.dir.path().join("manifests")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(visible.filter(|n| !n.starts_with('.')).count(), FILES.len() + 1);
    }

    fn die(&self, fault: Fault) -> ! {
        if fault == Fault::PowerCut {
            for (path, old) in self.unsynced.borrow_mut().drain(..).rev() {
                match old {
                    Some((bytes, mode)) => {
                        fs::write(&path, bytes).unwrap();
                        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                    }
                    None => fs::remove_file(&path).unwrap_or_default(),
                }
            }
            self.boot.set(self.boot.get() + 1);
            self.clock.set(20_000);
            self.running.borrow_mut().clear();
            self.starts.borrow_mut().clear();
        }
        self.check_manifests();
        resume_unwind(Box::new(Killed))
    }

    fn remember(&self, path: PathBuf) {
        let old = fs::read(&path).ok().map(|bytes| (bytes, fs::metadata(&path).unwrap().mode()));
        self.unsynced.borrow_mut().push((path, old));
    }
}

/// argv and probes under a manifest; remembered, because the kubelet asks all the time.
fn found(manifest: &[u8]) -> Component {
    thread_local!(static FOUND: RefCell<HashMap<Vec<u8>, Component>> = RefCell::default());
    FOUND.with_borrow_mut(|known| {
        let find = || {
            let file = ManifestFile { name: "pod.yaml".into(), text: String::from_utf8(manifest.to_vec()).unwrap() };
            let found = find(&[file]).unwrap().remove(0);
            (found.argv, found.probes)
        };
        known.entry(manifest.to_vec()).or_insert_with(find).clone()
    })
}

/// The node as one process of the agent sees it.
pub(crate) struct Node {
    local: Local,
    world: Rc<World>,
}

impl Node {
    fn effect(&self, operation: &'static str, folder: Folder, name: &str, torn: impl Fn()) -> Result<(), Error> {
        let number = self.world.effects.replace(self.world.effects.get() + 1);
        self.world.trace.borrow_mut().push(format!("{operation} {folder}/{name}"));
        let errno = match self.world.fault.get() {
            Some((at, fault @ (Fault::Crash | Fault::PowerCut))) if number == at => {
                torn();
                self.world.die(fault)
            }
            Some((at, Fault::Once(errno))) if number == at => errno,
            Some((at, Fault::FromNowOn(errno))) if number >= at => errno,
            _ => return Ok(()),
        };
        Err(Error::File { operation, folder, name: name.to_owned(), source: io::Error::from_raw_os_error(errno) })
    }
}

impl Host for Node {
    fn list(&self, folder: Folder) -> Result<Vec<Entry>, Error> {
        self.local.list(folder)
    }

    fn read(&self, folder: Folder, name: &str) -> Result<Option<File>, Error> {
        self.local.read(folder, name)
    }

    fn create(&self, folder: Folder, name: &str, file: &File) -> Result<(), Error> {
        let half = File { bytes: file.bytes[..file.bytes.len() / 2].to_vec(), permissions: file.permissions };
        self.effect("create", folder, name, || self.local.create(folder, name, &half).unwrap())?;
        self.local.create(folder, name, file)
    }

    fn rename(&self, folder: Folder, from: &str, to: &str) -> Result<(), Error> {
        if folder == Folder::Manifests
            && let Some(rival) = self.world.rival.take()
        {
            rival(&self.world.path(folder, ""));
        }
        self.effect("rename", folder, to, || {})?;
        self.world.remember(self.world.path(folder, to));
        self.world.remember(self.world.path(folder, from));
        self.local.rename(folder, from, to)?;
        self.world.check_manifests();
        Ok(())
    }

    fn remove(&self, folder: Folder, name: &str) -> Result<(), Error> {
        self.effect("remove", folder, name, || {})?;
        self.world.remember(self.world.path(folder, name));
        self.local.remove(folder, name)
    }

    fn remove_empty(&self, folder: Folder) -> Result<(), Error> {
        self.effect("remove", folder, "", || {})?;
        self.local.remove_empty(folder)
    }

    fn sync(&self, folder: Folder) -> Result<(), Error> {
        self.effect("sync", folder, "", || {})?;
        let folder_path = self.world.path(folder, "x");
        self.world.unsynced.borrow_mut().retain(|(path, _)| path.parent() != folder_path.parent());
        self.local.sync(folder)
    }

    fn processes(&self, program: &str) -> Result<Vec<Process>, Error> {
        let running = self.world.running.borrow();
        Ok(running.iter().filter(|(file, _)| file.trim_end_matches(".yaml") == program).map(|(_, r)| r.process.clone()).collect())
    }

    async fn probe(&self, probe: &Probe) -> bool {
        self.world.answers(probe)
    }

    fn now(&self) -> Result<Now, Error> {
        let since_boot = self.world.clock.get();
        let wall =
            jiff::Timestamp::from_second(1_700_000_000).unwrap() + jiff::SignedDuration::from_millis(i64::try_from(since_boot).unwrap());
        Ok(Now { since_boot, boot_id: self.world.boot.get().to_string(), wall })
    }

    async fn sleep_until(&self, moment: u64) {
        self.world.pass(moment.saturating_sub(self.world.clock.get()));
    }
}
