//! What is true on the node right now, as plain values: manifests, processes, probes. Reads only.

use std::time::Duration;

use futures::future::join_all;

use super::blockers::{Surroundings, kubelet, kubelet_probe};
use super::chain;
use super::receiver::Receiver;
use super::watchdog;
use crate::api::node_tracing::{EtcdMember, MemberHealth, sha256_hex};
use crate::api::{ComponentName, Reason};
use crate::component::member::{Endpoints, Metrics, READ_AGAIN_AFTER, health, member};
use crate::component::{Found, ManifestFile, Refusal, find};
use crate::host::{self, Folder, Host, Now, Permissions, Process};
use crate::manifest::Probe;

/// The program that sets control planes up and upgrades them.
const KUBEADM: &str = "kubeadm";
/// The program that runs the node's pods.
pub const KUBELET: &str = "kubelet";

/// What the names of tracing files begin with.
pub const TRACING_FILES: &str = "tracing-";

/// What is true on the node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The files of the static-pod folder that the kubelet reads.
    pub manifests: Vec<Manifest>,
    /// The components that run here.
    pub components: Vec<ComponentFacts>,
    /// The tracing files in our own folder.
    pub tracing_files: Vec<TracingFile>,
    /// Whether a kubeadm runs on the node: it writes manifests, one after the other.
    pub kubeadm_runs: bool,
    /// What else a change depends on; `None` when it was not looked at.
    pub surroundings: Option<Surroundings>,
    /// What was found where a change would send spans.
    pub receiver: Receiver,
    /// When the kubelet was started, by the wall clock; `None` when none was seen.
    pub kubelet_started: Option<jiff::Timestamp>,
    /// Why nothing can be changed, or not everything was seen.
    pub trouble: Option<Trouble>,
    /// When.
    pub now: Now,
}

/// A file of the static-pod folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Name and text.
    pub file: ManifestFile,
    /// Mode and owner.
    pub permissions: Permissions,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// When it came to be what it is, by the wall clock. It serves for «is somebody at work», and goes into no status: see [`Facts::is_fresh`].
    pub changed: jiff::Timestamp,
}

/// A tracing file in our own folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingFile {
    /// Its name.
    pub name: String,
    /// SHA-256 of its bytes; empty when it is no file that can be read.
    pub digest: String,
    /// Whether it has no bytes.
    pub is_empty: bool,
    /// Its mode.
    pub mode: u32,
}

/// One component on this node.
#[derive(Clone, Debug)]
pub struct ComponentFacts {
    /// What its manifest says.
    pub found: Found,
    /// The processes of its program.
    pub processes: Vec<Process>,
    /// Its probes that are green.
    pub green: Vec<Probe>,
    /// What etcd says of itself; nothing for kube-apiserver.
    pub member: Option<EtcdMember>,
}

/// Why nothing can be changed on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The reason code.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason, message: refusal.message }
    }
}

impl Facts {
    /// One component's facts.
    pub fn component(&self, name: ComponentName) -> Option<&ComponentFacts> {
        self.components.iter().find(|c| c.found.component == name)
    }

    /// A manifest by its name.
    pub fn manifest(&self, name: &str) -> Option<&Manifest> {
        self.manifests.iter().find(|m| m.file.name == name)
    }

    /// Whether a manifest has changed less than `within` ago: somebody, a person or an upgrade, may be at work on it. So does our own write
    /// make it fresh. A time in the future, which a clock that was set back makes, counts by its distance.
    pub fn is_fresh(&self, manifest: &Manifest, within: Duration) -> bool {
        self.now.wall.duration_since(manifest.changed).unsigned_abs() < within
    }

    /// Name and text of all manifests.
    pub fn files(&self) -> Vec<ManifestFile> {
        self.manifests.iter().map(|m| m.file.clone()).collect()
    }
}

impl ComponentFacts {
    /// The one process that runs with this argv.
    pub fn process(&self, argv: &[String]) -> Option<&Process> {
        let mut running = self.processes.iter().filter(|p| p.argv == argv);
        running.next().filter(|_| running.next().is_none())
    }

    /// Whether all of its own probes are answered.
    pub fn healthy(&self) -> bool {
        !self.found.probes.is_empty() && self.green.len() == self.found.probes.len()
    }
}

/// Looks at the node.
///
/// # Errors
/// Only when the clocks cannot be read; what else cannot be seen is [`Facts::trouble`].
pub async fn gather<H: Host>(host: &H) -> Result<Facts, host::Error> {
    let mut facts = Facts {
        manifests: Vec::new(),
        components: Vec::new(),
        tracing_files: tracing_files(host),
        kubeadm_runs: false,
        surroundings: None,
        receiver: Receiver::Fine,
        kubelet_started: None,
        trouble: None,
        now: host.now()?,
    };
    match manifests(host) {
        Ok(manifests) => facts.manifests = manifests,
        Err(trouble) => {
            facts.trouble = Some(trouble);
            return Ok(facts);
        }
    }
    let found = match find(&facts.files()) {
        Ok(found) => found,
        Err(refusal) => {
            facts.trouble = Some(refusal.into());
            return Ok(facts);
        }
    };
    match kubelet_started(host, &facts.now) {
        Ok(started) => facts.kubelet_started = started,
        Err(error) => facts.trouble = Some(unreadable(&error)),
    }
    match host.processes(KUBEADM) {
        Ok(running) => facts.kubeadm_runs = !running.is_empty(),
        Err(error) => facts.trouble = Some(unreadable(&error)),
    }
    for found in found {
        let processes = host.processes(found.component.as_str()).unwrap_or_else(|error| {
            facts.trouble = Some(unreadable(&error));
            Vec::new()
        });
        let answers = join_all(found.probes.iter().map(|p| host.probe(p))).await;
        let green = found.probes.iter().zip(answers).filter(|(_, green)| *green).map(|(p, _)| p.clone()).collect();
        let member = match found.component {
            ComponentName::Etcd => Some(ask(host, found.member.as_ref()).await?),
            ComponentName::KubeApiserver => None,
        };
        facts.components.push(ComponentFacts { found, processes, green, member });
    }
    match surroundings(host, &facts).await {
        Ok(surroundings) => facts.surroundings = Some(surroundings),
        Err(error) => facts.trouble = Some(unreadable(&error)),
    }
    Ok(facts)
}

/// When the node's kubelet was started, by the wall clock; `None` when none runs.
pub fn kubelet_started(host: &impl Host, now: &Now) -> Result<Option<jiff::Timestamp>, host::Error> {
    Ok(host.processes(KUBELET)?.last().map(|kubelet| now.wall_time_of(kubelet.id.started)))
}

/// Asks an etcd member how it and its cluster are.
async fn ask<H: Host>(host: &H, endpoints: Option<&Endpoints>) -> Result<EtcdMember, host::Error> {
    let Some(endpoints) = endpoints else { return Ok(member(MemberHealth::Unknown, None, None)) };
    let health = health(host.get(&endpoints.health).await.told());
    let metrics = async || host.get(&endpoints.metrics).await.told().and_then(|(_, text)| Metrics::parse(text));
    let first = metrics().await;
    if first.as_ref().is_some_and(Metrics::should_be_read_again) {
        host.sleep_until(host.now()?.since_boot + READ_AGAIN_AFTER).await;
        return Ok(member(health, first.as_ref(), metrics().await.as_ref()));
    }
    Ok(member(health, None, first.as_ref()))
}

async fn surroundings<H: Host>(host: &H, facts: &Facts) -> Result<Surroundings, host::Error> {
    let apiserver = facts.component(ComponentName::KubeApiserver).and_then(|c| c.process(&c.found.argv));
    let memory_of_apiserver = apiserver.map(|process| host.memory_of(process.id)).transpose()?.flatten();
    Ok(Surroundings {
        kubelet: kubelet(&host.get(&kubelet_probe()).await, &host.processes("kubelet")?, facts.now.since_boot),
        room: vec![(Folder::Manifests, host.room(Folder::Manifests)?), (Folder::State, host.room(Folder::State)?)],
        memory_available: host.memory_available()?,
        memory_of_apiserver: memory_of_apiserver.unwrap_or(0),
    })
}

/// The files that the kubelet reads, but for our own: all but dot files and folders, whatever their suffix.
fn manifests(host: &impl Host) -> Result<Vec<Manifest>, Trouble> {
    let mut manifests = Vec::new();
    for entry in host.list(Folder::Manifests).map_err(|e| unreadable(&e))? {
        if entry.name.starts_with('.') || entry.folder || entry.name == watchdog::FILE {
            continue;
        }
        match host.read(Folder::Manifests, &entry.name) {
            Ok(Some(file)) => manifests.push(Manifest {
                changed: host.changed(Folder::Manifests, &entry.name).map_err(|e| unreadable(&e))?.unwrap_or_default(),
                digest: sha256_hex(&file.bytes),
                permissions: file.permissions,
                // Bytes that are no text never equal a text, so such a file is never replaced.
                file: ManifestFile { name: entry.name, text: String::from_utf8_lossy(&file.bytes).into_owned() },
            }),
            Ok(None) => {} // removed since it was listed
            Err(error @ host::Error::NotPlain { .. }) => {
                return Err(Trouble { reason: Reason::UnsupportedManifest, message: chain(&error) });
            }
            Err(error) => return Err(unreadable(&error)),
        }
    }
    Ok(manifests)
}

/// What cannot be read is there with other contents than it should have: it is written again.
fn tracing_files(host: &impl Host) -> Vec<TracingFile> {
    let names = host.list(Folder::State).unwrap_or_default().into_iter().map(|entry| entry.name);
    let look = |name: String| {
        let file = host.read(Folder::State, &name).ok().flatten();
        TracingFile {
            digest: file.as_ref().map_or(String::new(), |file| sha256_hex(&file.bytes)),
            is_empty: file.as_ref().is_some_and(|file| file.bytes.is_empty()),
            mode: file.map_or(0, |file| file.permissions.mode),
            name,
        }
    };
    names.filter(|name| name.starts_with(TRACING_FILES)).map(look).collect()
}

/// The node cannot be seen.
pub(super) fn unreadable(error: &host::Error) -> Trouble {
    Trouble { reason: Reason::NodeFilesUnwritable, message: chain(error) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::node_tracing::{KubeletHealth, MemberRole, TracingFound};
    use crate::host::{ProcessId, Room};

    fn mk_member() -> EtcdMember {
        EtcdMember { health: MemberHealth::Healthy, role: Some(MemberRole::Follower), members: Some(3), connected: Some(3) }
    }

    /// A sound node: nothing stands in the way.
    fn mk_surroundings() -> Surroundings {
        let room = Room { bytes: 1 << 30, inodes: Some(100_000) };
        Surroundings {
            kubelet: KubeletHealth::Healthy,
            room: vec![(Folder::Manifests, room), (Folder::State, room)],
            memory_available: 1 << 30,
            memory_of_apiserver: 400 << 20,
        }
    }

    /// A node whose two components run as kubeadm's manifests say, and answer.
    pub(crate) fn mk_facts() -> Facts {
        let texts = [
            ("kube-apiserver.yaml", include_str!("../../tests/manifests/kubeadm/1.36.3/kube-apiserver/in.yaml")),
            ("etcd.yaml", include_str!("../../tests/manifests/kubeadm/1.36.3/etcd/in.yaml")),
        ];
        let permissions = Permissions { mode: 0o600, uid: 0, gid: 0 };
        let manifest = |(name, text): (&str, &str)| Manifest {
            file: ManifestFile { name: name.to_owned(), text: text.to_owned() },
            permissions,
            digest: sha256_hex(text.as_bytes()),
            changed: jiff::Timestamp::UNIX_EPOCH,
        };
        let manifests: Vec<_> = texts.into_iter().map(manifest).collect();
        let files: Vec<_> = manifests.iter().map(|m| m.file.clone()).collect();
        let component = |found: Found| ComponentFacts {
            processes: vec![Process {
                id: ProcessId { pid: 10, started: 5_000 },
                argv: found.argv.clone(),
                pod: Some(format!("pod of {}", found.component)),
                cpu: 0,
            }],
            green: found.probes.clone(),
            member: (found.component == ComponentName::Etcd).then(mk_member),
            found,
        };
        let components = find(&files).unwrap().into_iter().map(component).collect();
        let now = Now { since_boot: 60_000, boot_id: "boot".into(), wall: jiff::Timestamp::constant(1_700_000_060, 0) };
        let surroundings = Some(mk_surroundings());
        let kubelet_started = Some(now.wall_time_of(0));
        Facts {
            manifests,
            components,
            tracing_files: Vec::new(),
            kubeadm_runs: false,
            surroundings,
            receiver: Receiver::Fine,
            kubelet_started,
            trouble: None,
            now,
        }
    }

    pub(crate) fn mk_trouble() -> Trouble {
        Trouble { reason: Reason::UnsupportedManifest, message: "etcd.yaml: a shape of its own".into() }
    }

    #[test]
    fn a_component_is_healthy_when_all_of_its_own_probes_are_green() {
        let mut facts = mk_facts();
        let component = &mut facts.components[0];
        assert!(component.healthy());
        component.green.pop();
        assert!(!component.healthy());
        component.green.clear();
        component.found.probes.clear();
        assert!(!component.healthy(), "nothing tells that it is well");
    }

    #[test]
    fn a_manifest_is_fresh_for_as_long_as_somebody_may_be_at_work_on_it() {
        let mut facts = mk_facts();
        for (seconds, fresh) in [(-120, false), (-119, true), (0, true), (119, true), (120, false)] {
            facts.manifests[0].changed = facts.now.wall - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(facts.is_fresh(&facts.manifests[0], Duration::from_mins(2)), fresh, "{seconds} s ago");
        }
    }

    #[test]
    fn a_process_is_the_only_one_with_exactly_this_argv() {
        let mut facts = mk_facts();
        let component = &mut facts.components[0];
        let argv = component.found.argv.clone();
        assert_eq!(component.process(&argv).map(|p| p.id.pid), Some(10));
        assert_eq!(component.process(&argv[1..]), None);
        component.processes.push(component.processes[0].clone());
        assert_eq!(component.process(&argv), None);
        assert_eq!(facts.component(ComponentName::Etcd).map(|c| c.found.tracing), Some(TracingFound::NotConfigured));
    }
}
