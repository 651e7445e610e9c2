//! What is true on the node right now, as plain values: manifests, processes, probes. Reads only.

use futures::future::join_all;

use super::chain;
use crate::api::node_tracing::sha256_hex;
use crate::api::{ComponentName, Reason};
use crate::component::{Found, ManifestFile, Refusal, find};
use crate::host::{self, Folder, Host, Now, Permissions, Process};
use crate::manifest::Probe;

/// What is true on the node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The files of the static-pod folder that the kubelet reads.
    pub manifests: Vec<Manifest>,
    /// The components that run here.
    pub components: Vec<ComponentFacts>,
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
    let mut facts = Facts { manifests: Vec::new(), components: Vec::new(), trouble: None, now: host.now()? };
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
    for found in found {
        let processes = host.processes(found.component.as_str()).unwrap_or_else(|error| {
            facts.trouble = Some(unreadable(&error));
            Vec::new()
        });
        let answers = join_all(found.probes.iter().map(|p| host.probe(p))).await;
        let green = found.probes.iter().zip(answers).filter(|(_, green)| *green).map(|(p, _)| p.clone()).collect();
        facts.components.push(ComponentFacts { found, processes, green });
    }
    Ok(facts)
}

/// The files that the kubelet reads: all but dot files and folders, whatever their suffix.
fn manifests(host: &impl Host) -> Result<Vec<Manifest>, Trouble> {
    let mut manifests = Vec::new();
    for entry in host.list(Folder::Manifests).map_err(|e| unreadable(&e))? {
        if entry.name.starts_with('.') || entry.folder {
            continue;
        }
        match host.read(Folder::Manifests, &entry.name) {
            Ok(Some(file)) => manifests.push(Manifest {
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

fn unreadable(error: &host::Error) -> Trouble {
    Trouble { reason: Reason::NodeFilesUnwritable, message: chain(error) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::node_tracing::TracingFound;
    use crate::host::ProcessId;

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
        };
        let manifests: Vec<_> = texts.into_iter().map(manifest).collect();
        let files: Vec<_> = manifests.iter().map(|m| m.file.clone()).collect();
        let component = |found: Found| ComponentFacts {
            processes: vec![Process { id: ProcessId { pid: 10, started: 5_000 }, argv: found.argv.clone() }],
            green: found.probes.clone(),
            found,
        };
        let components = find(&files).unwrap().into_iter().map(component).collect();
        let now = Now { since_boot: 60_000, boot_id: "boot".into(), wall: jiff::Timestamp::constant(1_700_000_060, 0) };
        Facts { manifests, components, trouble: None, now }
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
