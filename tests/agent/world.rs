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

use clustertracing::agent::facts::KUBELET;
use clustertracing::agent::restore::Access;
use clustertracing::agent::watchdog;
use clustertracing::api::node_tracing::sha256_hex;
use clustertracing::component::{ManifestFile, find};
use clustertracing::host::local::Local;
use clustertracing::host::{
    Answer, Entry, Error, File, Folder, Host, Listener, Now, Permissions, Process, ProcessId, Reach, Room, is_temporary, permanent_name,
    replace,
};
use clustertracing::manifest::Probe;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

pub(crate) const FILES: [&str; 2] = ["etcd.yaml", API_SERVER];
const API_SERVER: &str = "kube-apiserver.yaml";

/// Of the only member of a cluster.
const METRICS: &str = "etcd_server_has_leader 1\netcd_server_is_leader 1\netcd_network_known_peers{Local=\"a\",Remote=\"a\"} 1\n";

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) digest: String,
    pub(crate) permissions: Permissions,
}

/// What becomes of a process that runs under a manifest that carries our edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It answers after two seconds.
    Healthy,
    /// It never answers, and does nothing.
    Silent,
    /// It works for that long, in milliseconds, before it answers.
    Works(u64),
    /// The kubelet does not start it.
    NeverStarts,
    /// It ends after 0.3 s, and is started again after 10 s, 20 s, …
    Exits,
}

/// Bytes and mode.
type OldFile = (Vec<u8>, u32);

/// Somebody else, who writes to the manifests folder.
type Rival = Box<dyn Fn(&Path)>;

/// Somebody who is told of an effect.
type Witness = Box<dyn Fn(&str)>;

/// argv and probes of a manifest's component.
type Component = (Vec<String>, Vec<Probe>);

/// Number, and change time in seconds and nanoseconds.
type Inode = (u64, i64, i64);

/// A running or ending pod.
#[derive(Clone)]
struct Running {
    /// Its component's process; `None` when it has ended, or waits to be started again.
    process: Option<Process>,
    bytes: Vec<u8>,
    /// When the process ends, because the manifest is another one, or none.
    stops: Option<u64>,
    /// When the sandbox ends, after its process.
    sandbox_stops: Option<u64>,
    /// When the process is started, or started again.
    starts: u64,
    exits: u32,
}

/// Everything that outlives a process of the agent.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) fate: Cell<Fate>,
    pub(crate) kubelet_works: Cell<bool>,
    /// What the kubelet answers on its health port.
    pub(crate) kubelet_says: RefCell<Answer>,
    pub(crate) kubeadm_runs: Cell<bool>,
    /// Bytes that each process holds.
    pub(crate) memory: Cell<u64>,
    /// Who listens on ports of the loopback.
    pub(crate) listeners: RefCell<BTreeMap<u16, Listener>>,
    /// What comes of connecting to an endpoint.
    pub(crate) reaches: Cell<Reach>,
    /// What is left of the file systems.
    pub(crate) room: Cell<Room>,
    /// The etcd member's answer to `/health`, when its process is well.
    pub(crate) member_says: RefCell<&'static str>,
    /// Run right before the effect of that number.
    pub(crate) fault: Cell<Option<(usize, Fault)>>,
    /// What somebody else does right before the rename of that number in the manifests folder.
    pub(crate) rival: RefCell<Option<(usize, Rival)>>,
    /// Hears of every effect right before it.
    pub(crate) before_effect: RefCell<Option<Witness>>,
    pub(crate) effects: Cell<usize>,
    pub(crate) trace: RefCell<Vec<String>>,
    clock: Cell<u64>,
    boot: Cell<u64>,
    next_pid: Cell<i32>,
    running: RefCell<BTreeMap<String, Running>>,
    /// When the kubelet looks again at a manifest that it could not start, because a pod of that name was still ending.
    next_try: RefCell<BTreeMap<String, u64>>,
    /// When the kubelet saw each of the watchdog's manifests for the first time.
    watchdog_appeared: RefCell<HashMap<String, u64>>,
    /// Whether the kubelet starts the watchdog.
    pub(crate) watchdog_starts: Cell<bool>,
    /// When starts of processes were last looked for in vain, if they cannot be looked for.
    pub(crate) starts_unseen: Cell<Option<u64>>,
    /// Whether control groups tell the pod of a process.
    pub(crate) pods_are_seen: Cell<bool>,
    /// Each manifest's inode and change time, and since when: the files' own times are not the world's.
    touched: RefCell<BTreeMap<String, (Inode, u64)>>,
    /// What was renamed over or removed, and is not synced: path, old bytes and mode.
    unsynced: RefCell<Vec<(PathBuf, Option<OldFile>)>>,
    /// The bytes that each manifest may hold.
    allowed: RefCell<BTreeMap<String, Vec<Vec<u8>>>>,
}

impl World {
    /// A node with kubeadm's manifests, both components up and well.
    pub(crate) fn new() -> Rc<Self> {
        Self::on_disk(1, |_| {})
    }

    /// The same on a disk of its own: `mount` puts it at the folder. What is on it already stays.
    pub(crate) fn on_disk(boot: u64, mount: impl FnOnce(&Path)) -> Rc<Self> {
        // in memory where that is possible: what a power cut leaves is pretended here anyway, and a sync costs nothing
        let dir = ["/dev/shm", "/tmp"].into_iter().find_map(|parent| TempDir::new_in(parent).ok()).unwrap();
        mount(dir.path());
        let is_used = dir.path().join("manifests").exists();
        fs::create_dir_all(dir.path().join("state")).unwrap();
        fs::create_dir_all(dir.path().join("manifests")).unwrap();
        let world = Self {
            dir,
            fate: Cell::new(Fate::Healthy),
            kubelet_works: Cell::new(true),
            kubelet_says: RefCell::new(Answer::Told(200, "ok".into())),
            kubeadm_runs: Cell::new(false),
            memory: Cell::new(300 << 20),
            listeners: RefCell::default(),
            reaches: Cell::new(Reach::Connected),
            room: Cell::new(Room { bytes: 1 << 30, inodes: None }),
            member_says: RefCell::new(r#"{"health":"true","reason":""}"#),
            fault: Cell::new(None),
            rival: RefCell::default(),
            before_effect: RefCell::default(),
            effects: Cell::new(0),
            trace: RefCell::default(),
            clock: Cell::new(1_000_000),
            boot: Cell::new(boot),
            next_pid: Cell::new(100),
            running: RefCell::default(),
            next_try: RefCell::default(),
            watchdog_appeared: RefCell::default(),
            watchdog_starts: Cell::new(true),
            starts_unseen: Cell::new(None),
            pods_are_seen: Cell::new(true),
            touched: RefCell::default(),
            unsynced: RefCell::default(),
            allowed: RefCell::default(),
        };
        for file in FILES.into_iter().filter(|_| !is_used) {
            let program = file.trim_end_matches(".yaml");
            let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/manifests/kubeadm/1.36.3/{program}/in.yaml"));
            let path = world.dir.path().join("manifests").join(file);
            fs::write(&path, fs::read(golden).unwrap()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        fs::write(world.dir.path().join("manifests/kube-scheduler.yaml"), "kind: Pod\n").unwrap();
        world.pass(10_000);
        world.settle();
        Rc::new(world)
    }

    /// The node as a process of the agent sees it.
    pub(crate) fn open(self: &Rc<Self>) -> Node {
        self.access(Access::Locked).unwrap()
    }

    /// The same, as a person's command opens it.
    pub(crate) fn access(self: &Rc<Self>, access: Access) -> Result<Node, Error> {
        let (manifests, state, proc) = (self.dir.path().join("manifests"), self.dir.path().join("state"), Path::new("/proc"));
        let local = match access {
            Access::Locked => Local::open(&manifests, &state, proc)?,
            Access::Unlocked => Local::unlocked(&manifests, &state, proc)?,
        };
        Ok(Node { local, world: Rc::clone(self) })
    }

    pub(crate) fn manifest(&self, file: &str) -> Vec<u8> {
        self.read(file).unwrap()
    }

    fn read(&self, file: &str) -> Option<Vec<u8>> {
        match fs::read(self.dir.path().join("manifests").join(file)) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::NotFound);
                None
            }
        }
    }

    /// Where a manifest lies.
    pub(crate) fn path_of(&self, file: &str) -> PathBuf {
        self.path(Folder::Manifests, file)
    }

    /// Where a file of ours lies.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.path(Folder::State, name)
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
        copy.settle();
        copy
    }

    /// The manifests have been what they are for long.
    pub(crate) fn settle(&self) {
        for file in FILES {
            self.touch(file);
        }
        self.touched.borrow_mut().values_mut().for_each(|(_, since)| *since = 0);
    }

    /// Names of all files below the state folder, and of all hidden ones in the manifests folder.
    pub(crate) fn ours(&self) -> Vec<String> {
        let names = |folder: &str| {
            let entries = fs::read_dir(self.dir.path().join(folder)).into_iter().flatten();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let mut ours = [names("state"), names("state/backup")].concat();
        ours.extend(names("manifests").into_iter().filter(|n| n.starts_with('.') || n == watchdog::FILE));
        ours.sort();
        ours
    }

    /// Names of the files that a crash may leave and a start must remove.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.ours().into_iter().filter(|n| is_temporary(n) || n == "journal").collect()
    }

    /// PID of each component's process.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.running.borrow().values().filter_map(|pod| pod.process.as_ref()).map(|process| process.id.pid).collect()
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.clock.get() / 1000
    }

    /// Time passes, and the kubelet works.
    pub(crate) fn pass(&self, milliseconds: u64) {
        for file in FILES {
            self.touch(file);
        }
        // nobody writes while time passes
        let manifests = FILES.map(|file| (file, self.read(file)));
        for _ in 0..milliseconds.div_ceil(50) {
            self.clock.set(self.clock.get() + 50);
            for (file, manifest) in &manifests {
                self.kubelet(file, manifest.as_ref());
            }
        }
    }

    fn touch(&self, file: &str) {
        let Ok(metadata) = fs::metadata(self.dir.path().join("manifests").join(file)) else { return };
        let inode = (metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
        let mut touched = self.touched.borrow_mut();
        if touched.get(file).is_none_or(|(known, _)| *known != inode) {
            touched.insert(file.to_owned(), (inode, self.clock.get()));
        }
    }

    fn is_ours(bytes: &[u8]) -> bool {
        String::from_utf8_lossy(bytes).contains("clustertracing.dev/added")
    }

    fn kubelet(&self, file: &str, manifest: Option<&Vec<u8>>) {
        let (now, mut running) = (self.clock.get(), self.running.borrow_mut());
        let api_server_runs = running.get(API_SERVER).is_some_and(|pod| pod.process.is_some());
        let Some(pod) = running.get_mut(file) else {
            let (Some(bytes), true) = (manifest, self.kubelet_works.get()) else { return };
            if now >= self.next_try.borrow().get(file).copied().unwrap_or_default() {
                let pod = Running { process: None, bytes: bytes.clone(), stops: None, sandbox_stops: None, starts: now + 400, exits: 0 };
                running.insert(file.to_owned(), pod);
            }
            return;
        };
        let unwanted = manifest != Some(&pod.bytes);
        if unwanted && pod.sandbox_stops.is_some_and(|stops| now >= stops) {
            running.remove(file);
            return;
        }
        if unwanted && manifest.is_some() && self.kubelet_works.get() {
            self.next_try.borrow_mut().insert(file.to_owned(), now + 10_000);
        }
        if let Some(process) = &pod.process {
            let exits = Self::is_ours(&pod.bytes) && self.fate.get() == Fate::Exits && now >= process.id.started + 300;
            if unwanted && pod.stops.is_none() && self.kubelet_works.get() {
                // etcd waits for its clients
                pod.stops = Some(now + if file == API_SERVER || !api_server_runs { 1_200 } else { 25_000 });
            }
            if exits || pod.stops.is_some_and(|stops| now >= stops) {
                pod.process = None;
                pod.exits = if exits { pod.exits + 1 } else { 0 };
                pod.starts = now + if exits { 10_000 << (pod.exits - 1).min(5) } else { 500 };
                pod.stops = None;
            }
        } else if unwanted {
            if self.kubelet_works.get() {
                pod.sandbox_stops.get_or_insert(now + 600);
            }
        } else if now >= pod.starts && self.starts(&pod.bytes) {
            pod.sandbox_stops = None;
            self.next_pid.set(self.next_pid.get() + 1);
            let id = ProcessId { pid: self.next_pid.get(), started: now };
            let pod_of = self.pods_are_seen.get().then(|| sha256_hex(&pod.bytes));
            pod.process = Some(Process { id, argv: found(&pod.bytes).0, pod: pod_of, cpu: 0 });
        }
    }

    fn starts(&self, bytes: &[u8]) -> bool {
        self.kubelet_works.get() && !(Self::is_ours(bytes) && self.fate.get() == Fate::NeverStarts)
    }

    fn answers(&self, probe: &Probe) -> bool {
        self.running.borrow().values().any(|pod| {
            let Some(process) = &pod.process else { return false };
            let takes = match self.fate.get() {
                Fate::Silent if Self::is_ours(&pod.bytes) => return false,
                Fate::Works(milliseconds) if Self::is_ours(&pod.bytes) => milliseconds,
                _ => 2_000,
            };
            found(&pod.bytes).1.contains(probe) && self.clock.get() >= process.id.started + takes
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

    /// What the kubelet could read at any moment: the old bytes or the new ones; nothing only while the watchdog is there and hidden copies
    /// are; and no file that was not there before.
    fn check_manifests(&self) {
        let names = fs::read_dir(self.dir.path().join("manifests")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let (hidden, visible): (Vec<_>, Vec<_>) = names.partition(|n| n.starts_with('.'));
        for (file, allowed) in self.allowed.borrow().iter() {
            match self.read(file) {
                Some(bytes) => assert!(allowed.contains(&bytes), "{file} holds neither the old nor the new bytes"),
                None => assert!(hidden.iter().any(|name| permanent_name(name) == Some(file)), "{file} is gone"),
            }
        }
        assert!(visible.iter().all(|n| FILES.contains(&n.as_str()) || n == "kube-scheduler.yaml" || n == watchdog::FILE), "{visible:?}");
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
            self.next_try.borrow_mut().clear();
        }
        self.check_manifests();
        resume_unwind(Box::new(Killed))
    }

    /// The watchdog's processes, as the kubelet starts them: a second after the manifest is there.
    fn watchdogs(&self) -> Vec<Process> {
        let path = self.dir.path().join("manifests").join(watchdog::FILE);
        let Ok(text) = fs::read_to_string(&path) else { return Vec::new() };
        let appeared = *self.watchdog_appeared.borrow_mut().entry(text.clone()).or_insert(self.clock.get());
        if !self.watchdog_starts.get() || self.clock.get() < appeared + 1_000 {
            return Vec::new();
        }
        let pod: serde_json::Value = serde_json::from_str(&text).unwrap();
        let container = &pod["spec"]["containers"][0];
        let argv =
            ["command", "args"].iter().flat_map(|key| container[key].as_array().unwrap()).map(|word| word.as_str().unwrap().to_owned());
        vec![Process { id: ProcessId { pid: 7, started: appeared + 1_000 }, argv: argv.collect(), ..Process::default() }]
    }

    fn remember(&self, path: PathBuf) {
        let old = fs::read(&path).ok().map(|bytes| (bytes, fs::metadata(&path).unwrap().mode()));
        self.unsynced.borrow_mut().push((path, old));
    }
}

/// The wall clock of the world's clock.
fn wall(clock: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap() + SignedDuration::from_millis(i64::try_from(clock).unwrap())
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
        // a hidden name ends in a digest
        let name_of = if is_temporary(name) { name.trim_end_matches(|c: char| c.is_ascii_hexdigit()) } else { name };
        let effect = format!("{operation} {folder}/{name_of}");
        self.world.before_effect.borrow().iter().for_each(|hears| hears(&effect));
        self.world.trace.borrow_mut().push(effect);
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

    fn changed(&self, folder: Folder, name: &str) -> Result<Option<Timestamp>, Error> {
        let is_there = self.local.changed(folder, name)?.is_some();
        let changed = self.world.touched.borrow().get(name).map_or(0, |(_, since)| *since);
        Ok(is_there.then(|| if changed == 0 { Timestamp::UNIX_EPOCH } else { wall(changed) }))
    }

    fn create(&self, folder: Folder, name: &str, file: &File) -> Result<(), Error> {
        let half = File { bytes: file.bytes[..file.bytes.len() / 2].to_vec(), permissions: file.permissions };
        self.effect("create", folder, name, || self.local.create(folder, name, &half).unwrap())?;
        self.local.create(folder, name, file)
    }

    fn rename(&self, folder: Folder, from: &str, to: &str) -> Result<(), Error> {
        if folder == Folder::Manifests {
            match self.world.rival.take() {
                Some((0, rival)) => rival(&self.world.path(folder, "")),
                Some((later, rival)) => *self.world.rival.borrow_mut() = Some((later - 1, rival)),
                None => {}
            }
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

    fn keep_program(&self, name: &str) -> Result<(), Error> {
        let file = File { bytes: b"the agent's program".to_vec(), permissions: Permissions::own(0o755) };
        if self.local.read(Folder::State, name)? == Some(file.clone()) { Ok(()) } else { replace(self, Folder::State, name, &file) }
    }

    fn sync(&self, folder: Folder) -> Result<(), Error> {
        self.effect("sync", folder, "", || {})?;
        let folder_path = self.world.path(folder, "x");
        self.world.unsynced.borrow_mut().retain(|(path, _)| path.parent() != folder_path.parent());
        self.local.sync(folder)
    }

    fn processes(&self, program: &str) -> Result<Vec<Process>, Error> {
        match program {
            KUBELET => return Ok(vec![Process::default()]),
            watchdog::PROGRAM => return Ok(self.world.watchdogs()),
            "kubeadm" if self.world.kubeadm_runs.get() => return Ok(vec![Process::default()]),
            _ => {}
        }
        let running = self.world.running.borrow();
        let pod = running.get(&format!("{program}.yaml"));
        let works = matches!(self.world.fate.get(), Fate::Works(_));
        let cpu = |process: &Process| if works { self.world.clock.get() - process.id.started } else { 0 };
        let process = pod.and_then(|pod| pod.process.as_ref()).map(|process| Process { cpu: cpu(process), ..process.clone() });
        Ok(process.into_iter().collect())
    }

    async fn starts_until(&self, _: &[&str], _: u64) -> Result<Vec<Process>, Error> {
        let Some(before) = self.world.starts_unseen.get() else { return Ok(Vec::new()) };
        let now = self.world.clock.get();
        assert!(before < now, "starts are looked for again at the same moment");
        self.world.starts_unseen.set(Some(now));
        Err(Error::Kernel { path: "/proc".to_owned(), source: io::Error::other("unreadable") })
    }

    fn pod_lives(&self, pod: &str) -> Result<bool, Error> {
        Ok(self.world.running.borrow().values().any(|running| sha256_hex(&running.bytes) == pod))
    }

    fn kill(&self, process: ProcessId) -> Result<(), Error> {
        let mut running = self.world.running.borrow_mut();
        let killed = running.values_mut().find(|pod| pod.process.as_ref().is_some_and(|p| p.id == process));
        if let Some(pod) = killed {
            pod.stops = Some(self.world.clock.get());
        }
        Ok(())
    }

    async fn probe(&self, probe: &Probe) -> bool {
        self.world.answers(probe)
    }

    fn now(&self) -> Result<Now, Error> {
        let since_boot = self.world.clock.get();
        Ok(Now { since_boot, boot_id: self.world.boot.get().to_string(), wall: wall(since_boot) })
    }

    async fn sleep_until(&self, moment: u64) {
        self.world.pass(moment.saturating_sub(self.world.clock.get()));
        // to whoever else lives on the node
        tokio::task::yield_now().await;
    }

    async fn get(&self, endpoint: &Probe) -> Answer {
        let etcd_runs = self.world.running.borrow().contains_key("etcd.yaml");
        match endpoint.path.as_str() {
            "/healthz" => self.world.kubelet_says.borrow().clone(),
            "/health" if etcd_runs => Answer::Told(200, (*self.world.member_says.borrow()).into()),
            "/metrics" if etcd_runs => Answer::Told(200, METRICS.into()),
            _ if self.world.answers(endpoint) => Answer::Told(200, "ok".into()),
            _ => Answer::Refused,
        }
    }

    fn listener(&self, port: u16) -> Result<Option<Listener>, Error> {
        Ok(self.world.listeners.borrow().get(&port).cloned())
    }

    async fn reach(&self, _: &str) -> Reach {
        self.world.reaches.get()
    }

    fn room(&self, folder: Folder) -> Result<Room, Error> {
        self.local.room(folder).map(|_| self.world.room.get())
    }

    fn memory_available(&self) -> Result<u64, Error> {
        Ok(1 << 30)
    }

    fn memory_of(&self, process: ProcessId) -> Result<Option<u64>, Error> {
        Ok(self
            .world
            .running
            .borrow()
            .values()
            .any(|r| r.process.as_ref().is_some_and(|p| p.id == process))
            .then_some(self.world.memory.get()))
    }
}
