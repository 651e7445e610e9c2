//! Finds the components in a static-pod folder: whose manifest each file is, and what of it is ours.

use strum::IntoEnumIterator;

use super::obstacle::{Obstacle, Placed};
use super::{Change, Found, ManifestFile, etcd, kube_apiserver, member, owner, version};
use crate::api::node_tracing::TracingFound;
use crate::api::{ComponentName, Reason};
use crate::manifest::{self, Manifest, Unsupported};

/// A component's manifest, as it is and as it is without us.
pub(super) struct Located<'a> {
    pub(super) component: ComponentName,
    pub(super) file: &'a ManifestFile,
    pub(super) manifest: Manifest,
    /// Whether it carries something of ours.
    is_ours: bool,
    /// Its text without our additions.
    pub(super) original: String,
    pub(super) original_manifest: Manifest,
    /// Tracing flags that somebody else set, as people write them.
    pub(super) foreign: Vec<String>,
}

impl<'a> Located<'a> {
    fn new(component: ComponentName, file: &'a ManifestFile, manifest: Manifest) -> Result<Self, Obstacle> {
        if let Some(platform) = owner::owner_of(&manifest) {
            return Err(Obstacle {
                reason: Reason::UnsupportedPlatform,
                cause: format!("{} renders this manifest", platform.name),
                remedy: platform.remedy.to_owned(),
            });
        }
        // kubeadm renders what stands in its configuration, without our annotation: it is ours all the same.
        let note = match component {
            ComponentName::KubeApiserver if !manifest.is_ours() => kube_apiserver::note_of_kubeadm(&manifest),
            _ => None,
        };
        let original = match &note {
            Some(note) => manifest::remove(&file.text, component.as_str(), note)?,
            None => manifest::revert(&file.text, component.as_str())?,
        };
        let is_ours = manifest.is_ours() || note.is_some();
        let original_manifest = parse_own(&original, component)?;
        // What is left once our own additions are out of the way is foreign, whatever the annotation says.
        let foreign = match component {
            ComponentName::KubeApiserver => kube_apiserver::tracing_flags(&original_manifest),
            ComponentName::Etcd => etcd::tracing_flags(&original_manifest),
        };
        Ok(Self { component, file, manifest, is_ours, original, original_manifest, foreign })
    }

    /// What takes our additions out.
    pub(super) fn without_ours(self) -> Change {
        Change {
            component: self.component,
            file: self.file.name.clone(),
            before: self.file.text.clone(),
            after: self.original.clone(),
            original: self.original,
            needs: Vec::new(),
            argv: self.original_manifest.argv(),
            probes: self.original_manifest.probes(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn found(&self) -> Found {
        let tracing = match (self.foreign.is_empty(), self.is_ours) {
            (false, _) => TracingFound::Foreign,
            (true, true) => TracingFound::Ours,
            (true, false) => TracingFound::NotConfigured,
        };
        let probes = self.manifest.probes();
        Found {
            component: self.component,
            file: self.file.name.clone(),
            image: self.manifest.image().to_owned(),
            version: version::tag(self.manifest.image()).map(str::to_owned),
            tracing,
            argv: self.manifest.argv(),
            member: (self.component == ComponentName::Etcd).then(|| member::Endpoints::beside(&probes)).flatten(),
            probes,
        }
    }
}

/// Finds each component's one manifest.
pub(super) fn locate(files: &[ManifestFile]) -> Result<Vec<Located<'_>>, Placed> {
    let mut located: Vec<Located> = Vec::new();
    for component in ComponentName::iter() {
        let Some((file, manifest)) = manifest_of(component, files)? else { continue };
        if let Some(other) = located.iter().find(|other| other.file.name == file.name) {
            let obstacle = Obstacle {
                reason: Reason::UnsupportedManifest,
                cause: format!("one pod runs both {} and {component}", other.component),
                remedy: "give each a manifest of its own".to_owned(),
            };
            return Err(obstacle.at(component, &file.name));
        }
        located.push(Located::new(component, file, manifest).map_err(|obstacle| obstacle.at(component, &file.name))?);
    }
    Ok(located)
}

/// The one file that runs the component.
fn manifest_of(component: ComponentName, files: &[ManifestFile]) -> Result<Option<(&ManifestFile, Manifest)>, Placed> {
    let mut runs: Option<(&ManifestFile, Manifest)> = None;
    for file in pods(files) {
        match (Manifest::parse(&file.text, component.as_str()), &runs) {
            (Ok(Some(manifest)), None) => runs = Some((file, manifest)),
            (Ok(Some(_)), Some((first, _))) => {
                let obstacle = Obstacle {
                    reason: Reason::DuplicateManifest,
                    cause: format!("both files run {component}, and which of them the kubelet starts is undefined"),
                    remedy: "move one of them out of the static-pod folder: the kubelet reads every file there, whatever its extension"
                        .to_owned(),
                };
                return Err(obstacle.at(component, &format!("{} and {}", first.name, file.name)));
            }
            // A file that cannot be read may be anybody's, unless its name says whose it is.
            (Err(error), _) if is_named_after(file, component) => return Err(Obstacle::from(error).at(component, &file.name)),
            (Ok(None) | Err(_), _) => {}
        }
    }
    Ok(runs)
}

/// The files that the kubelet reads.
fn pods(files: &[ManifestFile]) -> impl Iterator<Item = &ManifestFile> {
    files.iter().filter(|file| !file.name.starts_with('.'))
}

fn is_named_after(file: &ManifestFile, component: ComponentName) -> bool {
    file.name.split('.').next() == Some(component.as_str())
}

/// No file runs the component. Says which files could not be looked into: the one that is missed may be among them.
pub(super) fn not_found(files: &[ManifestFile], component: ComponentName) -> Obstacle {
    let unreadable: Vec<String> = pods(files)
        .filter_map(|file| Manifest::parse(&file.text, component.as_str()).err().map(|error| format!("{} ({error})", file.name)))
        .collect();
    let unreadable = if unreadable.is_empty() { String::new() } else { format!("; not readable: {}", unreadable.join(", ")) };
    Obstacle {
        reason: Reason::ManifestNotFound,
        cause: format!("no file of the static-pod folder runs it{unreadable}"),
        remedy: "put its manifest back".to_owned(),
    }
}

/// A manifest that has been recognised as the component's before.
pub(super) fn parse_own(text: &str, component: ComponentName) -> Result<Manifest, Unsupported> {
    Manifest::parse(text, component.as_str())?.ok_or_else(|| Unsupported::Unproven(format!("no container runs {component} any more")))
}
