//! A machine: files, a kubelet that starts and stops processes as the manifests say, and processes that answer their probes, or do not.
//! Nothing happens between two looks at it: what the kubelet did meanwhile is worked out from the time.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use clustertracing::agent::facts::KUBELET;
use clustertracing::agent::{applied, journal};
use clustertracing::api::node_tracing::hex12;
use clustertracing::component::{ManifestFile, find};
use clustertracing::host::{File, Folder, Permissions, Process, ProcessId, is_temporary};
use clustertracing::manifest::Probe;

/// The static-pod manifests of a control-plane node.
pub(crate) const FILES: [&str; 2] = ["etcd.yaml", "kube-apiserver.yaml"];
/// From a changed manifest to the end of the old process.
const STOPS_AFTER: u64 = 1_500;
/// From the end of a process to the end of its pod.
const LET_GO_AFTER: u64 = 600;
/// From the end of a process to the start of the next.
const STARTS_AFTER: u64 = 700;
/// From the start of a process to its first answer.
const ANSWERS_AFTER: u64 = 900;

/// What becomes of processes that run under a manifest that carries our edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Healthy,
    /// kube-apiserver never answers.
    Silent,
}

/// A component as the kubelet sees it.
#[derive(Clone, Debug, Default)]
struct Pod {
    running: Option<Running>,
    /// When the manifest got the bytes that it has.
    changed: u64,
    /// No process starts before.
    next_start: u64,
    /// The pod that ended last, and when the last of it was gone.
    ended: Option<(String, u64)>,
}

#[derive(Clone, Debug)]
struct Running {
    process: Process,
    manifest: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) files: BTreeMap<(Folder, String), (File, u64)>,
    pub(crate) up: bool,
    pub(crate) fate: Fate,
    pub(crate) boots: u32,
    booted: u64,
    pods: BTreeMap<&'static str, Pod>,
    next_pid: i32,
}

impl Machine {
    /// A machine with these manifests, whose processes have run for a while.
    pub(crate) fn new(manifests: [String; 2]) -> Self {
        let mut machine = Self {
            files: BTreeMap::new(),
            up: true,
            fate: Fate::Healthy,
            boots: 1,
            booted: 0,
            pods: FILES.map(|file| (file, Pod::default())).into(),
            next_pid: 100,
        };
        for (file, text) in FILES.into_iter().zip(manifests) {
            let file = (Folder::Manifests, file.to_owned());
            machine.files.insert(file, (File { bytes: text.into_bytes(), permissions: Permissions { mode: 0o600, uid: 0, gid: 0 } }, 0));
        }
        machine.catch_up(10_000);
        machine
    }

    /// Milliseconds since boot, of a moment of the simulation's clock.
    pub(crate) fn since_boot(&self, now: u64) -> u64 {
        now - self.booted
    }

    /// The moment of the simulation's clock that is this long after boot.
    pub(crate) fn moment(&self, since_boot: u64) -> u64 {
        self.booted + since_boot
    }

    pub(crate) fn manifest(&self, file: &str) -> Option<&[u8]> {
        self.files.get(&(Folder::Manifests, file.to_owned())).map(|(file, _)| file.bytes.as_slice())
    }

    /// Changes the files, after the kubelet has done all that it had to do before.
    pub(crate) fn edit(&mut self, now: u64, edit: impl FnOnce(&mut BTreeMap<(Folder, String), (File, u64)>)) {
        self.catch_up(now);
        let before = FILES.map(|file| self.manifest(file).map(<[u8]>::to_vec));
        edit(&mut self.files);
        for (file, before) in FILES.into_iter().zip(before) {
            if self.manifest(file) != before.as_deref() {
                self.pods.entry(file).or_default().changed = now;
            }
        }
    }

    /// The kubelet's work until now.
    pub(crate) fn catch_up(&mut self, now: u64) {
        if !self.up {
            return;
        }
        for file in FILES {
            let manifest = self.files.get(&(Folder::Manifests, file.to_owned())).map(|(file, _)| file.bytes.clone());
            let booted = self.booted;
            let pod = self.pods.entry(file).or_default();
            loop {
                if let Some(running) = &pod.running {
                    let ends = pod.changed + STOPS_AFTER;
                    if manifest.as_deref() == Some(&running.manifest) || ends > now {
                        break;
                    }
                    pod.ended = running.process.pod.clone().map(|pod| (pod, ends + LET_GO_AFTER));
                    (pod.running, pod.next_start) = (None, ends + STARTS_AFTER);
                } else {
                    let starts = pod.next_start.max(pod.changed);
                    let Some(manifest) = manifest.as_ref().filter(|_| starts <= now) else { break };
                    self.next_pid += 1;
                    let id = ProcessId { pid: self.next_pid, started: starts - booted };
                    let process = Process { id, argv: found(manifest).0, pod: Some(hex12(manifest)), cpu: 0 };
                    pod.running = Some(Running { process, manifest: manifest.clone() });
                }
            }
        }
    }

    pub(crate) fn processes(&mut self, program: &str, now: u64) -> Vec<Process> {
        self.catch_up(now);
        if program == KUBELET {
            return vec![Process::default()];
        }
        let of_program = self.pods.iter().filter(|(file, _)| file.trim_end_matches(".yaml") == program);
        of_program.filter_map(|(_, pod)| Some(pod.running.as_ref()?.process.clone())).collect()
    }

    /// Whether anything of a pod is left.
    pub(crate) fn pod_lives(&mut self, name: &str, now: u64) -> bool {
        self.catch_up(now);
        self.pods.values().any(|pod| {
            let runs = pod.running.as_ref().is_some_and(|running| running.process.pod.as_deref() == Some(name));
            runs || pod.ended.as_ref().is_some_and(|(ended, gone)| ended == name && now < *gone)
        })
    }

    pub(crate) fn answers(&mut self, probe: &Probe, now: u64) -> bool {
        self.catch_up(now);
        FILES.iter().any(|file| self.is_well(file, now) && self.running(file).is_some_and(|r| found(&r.manifest).1.contains(probe)))
    }

    /// Whether a component answers. The kubelet's work is done until `now`.
    pub(crate) fn is_well(&self, file: &str, now: u64) -> bool {
        let fails = |r: &Running| self.fate == Fate::Silent && file == "kube-apiserver.yaml" && is_ours(&r.manifest);
        self.up && self.running(file).is_some_and(|r| self.moment(r.process.id.started) + ANSWERS_AFTER <= now && !fails(r))
    }

    fn running(&self, file: &str) -> Option<&Running> {
        self.pods.get(file)?.running.as_ref()
    }

    pub(crate) fn power_off(&mut self, now: u64) {
        self.catch_up(now);
        self.up = false;
        self.pods.values_mut().for_each(|pod| *pod = Pod::default());
    }

    pub(crate) fn power_on(&mut self, now: u64) {
        (self.up, self.booted) = (true, now - 1_000);
        self.boots += 1;
        self.pods.values_mut().for_each(|pod| pod.next_start = now + 2_000);
    }

    /// What the disk holds, in short: folder, name, mode, and the digest of what has no times in it, of all that is not on its way.
    pub(crate) fn standing(&self) -> Vec<String> {
        let is_record = |name: &str| [journal::NAME, applied::NAME].contains(&name);
        let one = |(folder, name): &(Folder, String), file: &File| {
            let digest = if is_record(name) { String::new() } else { hex12(&file.bytes) };
            format!("{folder}/{name} {:o} {digest}", file.permissions.mode)
        };
        self.files.iter().filter(|((_, name), _)| !is_temporary(name)).map(|(key, (file, _))| one(key, file)).collect()
    }
}

fn is_ours(manifest: &[u8]) -> bool {
    String::from_utf8_lossy(manifest).contains("clustertracing.dev/added")
}

/// argv and probes under a manifest; remembered, because the kubelet asks all the time.
fn found(manifest: &[u8]) -> (Vec<String>, Vec<Probe>) {
    type Known = HashMap<Vec<u8>, (Vec<String>, Vec<Probe>)>;
    thread_local!(static FOUND: RefCell<Known> = RefCell::default());
    FOUND.with_borrow_mut(|known| {
        let find = || {
            let file = ManifestFile { name: "pod.yaml".into(), text: String::from_utf8(manifest.to_vec()).expect("a manifest is text") };
            let found = find(&[file]).expect("a manifest that was put in place is understood").remove(0);
            (found.argv, found.probes)
        };
        known.entry(manifest.to_vec()).or_insert_with(find).clone()
    })
}
