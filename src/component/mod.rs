//! Everything that is known about the components that can be traced: flags, files, mounts, environment, by version.
//!
//! [`change`] is what agent, plugin and tests share: manifests and settings in, the exact new manifests out, or a refusal with its reason.
//! Pure, like all below it. Each component has one table, in a file of its own; no other module knows a flag's name:
//!
//! * a new name of an etcd flag is one row of `TABLE` in `etcd.rs`,
//! * a new version of the tracing file is one row of `TABLE` in `kube_apiserver.rs`,
//! * a flag or a gate that a new version refuses is one row in [`upgrade`],
//!
//! and [`reference()`] writes both tables for people, as docs/versions.md.

pub mod canary;
pub mod etcd;
mod folder;
pub mod kube_apiserver;
pub mod kubeadm;
pub mod member;
mod obstacle;
pub mod owner;
mod reference;
mod settings;
pub mod spans;
pub mod upgrade;
mod version;

use crate::api::node_tracing::{NodeSettings, TracingFound};
use crate::api::{ComponentName, Reason, SINGLETON, State};
use crate::manifest::{self, Edit, Probe};

use folder::Located;
use obstacle::{Obstacle, Placed};

pub use obstacle::leave_out;
pub use reference::reference;
pub use version::{NotARelease, Version};

/// The folder for our files on a node, which kube-apiserver's tracing file is mounted from.
pub const STATE_DIR: &str = "/etc/kubernetes/clustertracing";

/// A file of the static-pod folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Name in the folder.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a node's manifests say of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which component.
    pub component: ComponentName,
    /// Name of its manifest file.
    pub file: String,
    /// Its image, as its manifest names it.
    pub image: String,
    /// Version of its image, as the tag says it.
    pub version: Option<String>,
    /// Who configured tracing.
    pub tracing: TracingFound,
    /// What the process's argv is, or will be.
    pub argv: Vec<String>,
    /// How the component says that it is well.
    pub probes: Vec<Probe>,
    /// Where etcd tells of itself and of its cluster without a certificate; nothing for kube-apiserver.
    pub member: Option<member::Endpoints>,
}

impl Found {
    /// What an administrator should know of its version: known faults, and whether it is newer than known.
    pub fn about_version(&self) -> Vec<String> {
        let version = self.version.as_ref().and_then(|version| version.parse().ok());
        version.map(|version| about_version(self.component, version)).unwrap_or_default()
    }
}

/// The change that brings one component of one node to its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which component.
    pub component: ComponentName,
    /// Name of its manifest file.
    pub file: String,
    /// The manifest as it is.
    pub before: String,
    /// The manifest as it will be; equal to `before` where nothing changes.
    pub after: String,
    /// The manifest without anything of ours, as it is now: what switching off would give.
    pub original: String,
    /// Files that `after` needs: absolute path on the node, contents. They are written before the manifest.
    pub needs: Vec<(String, String)>,
    /// argv of the process that runs under `after`.
    pub argv: Vec<String>,
    /// Probes of the component under `after`.
    pub probes: Vec<Probe>,
    /// What an administrator should know, and what does not stand in the way.
    pub warnings: Vec<String>,
}

impl Change {
    /// Whether it is made already.
    pub fn is_made(&self) -> bool {
        self.before == self.after
    }
}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason code of conditions, Events and the command line.
    pub reason: Reason,
    /// Which component.
    pub component: ComponentName,
    /// For people: file, cause, what to do.
    pub message: String,
}

/// Versions that are known from elsewhere than the image's tag: from the running process, or from a person. They win over the tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// kube-apiserver's.
    pub kube_apiserver: Option<Version>,
    /// etcd's.
    pub etcd: Option<Version>,
}

/// Finds the components in a static-pod folder. Files of other pods are passed over.
pub fn find(files: &[ManifestFile]) -> Result<Vec<Found>, Refusal> {
    let located = folder::locate(files).map_err(|placed| placed.refusal(None))?;
    Ok(located.iter().map(Located::found).collect())
}

/// The name that the folder's etcd member gives itself: on kubeadm's nodes the node's own. `None` where no etcd is found, or its name is no
/// name of a node.
pub fn member_name(files: &[ManifestFile]) -> Option<String> {
    let located = folder::locate(files).ok()?;
    let etcd = located.iter().find(|located| located.component == ComponentName::Etcd)?;
    etcd::member_name(&etcd.manifest).filter(|name| settings::is_dns_name(name))
}

/// The changes that take everything of ours out of a node's manifests: [`change`] to settings that trace nothing, for which no settings need
/// to be known.
pub fn take_out(files: &[ManifestFile]) -> Result<Vec<Change>, Refusal> {
    let located = folder::locate(files).map_err(|placed| placed.refusal(None))?;
    Ok(located.into_iter().map(Located::without_ours).collect())
}

/// The changes that bring a node's manifests to `settings`: one entry for each component that has a manifest, unchanged ones too.
///
/// kube-apiserver must have a manifest, unless it is to be left alone. etcd need not: where it runs elsewhere, or as a service of the
/// node, kube-apiserver alone is changed, and a warning says so.
pub fn change(files: &[ManifestFile], settings: &NodeSettings, node_name: &str) -> Result<Vec<Change>, Refusal> {
    change_with_versions(files, settings, node_name, Versions::default())
}

/// [`change`], where `versions` knows better than the images' tags.
pub fn change_with_versions(
    files: &[ManifestFile],
    settings: &NodeSettings,
    node_name: &str,
    versions: Versions,
) -> Result<Vec<Change>, Refusal> {
    let request = Request { settings, node_name, versions };
    request.changes(files).map_err(|placed| placed.refusal(Some(node_name)))
}

/// What a node should get.
struct Request<'a> {
    settings: &'a NodeSettings,
    node_name: &'a str,
    versions: Versions,
}

/// What one component should get.
struct Wanted<'a> {
    version: Version,
    rate: i32,
    settings: &'a NodeSettings,
    node_name: &'a str,
}

/// What a component's table makes of it.
struct Addition {
    edit: Edit,
    needs: Vec<(String, String)>,
    warnings: Vec<String>,
}

/// A fault of a few releases that is no reason to refuse: it is told.
struct Fault {
    from: Version,
    fixed_in: Version,
    what: &'static str,
}

impl Request<'_> {
    fn check_settings(&self) -> Result<(), Placed> {
        settings::check(self.settings, self.node_name).map_err(|(component, cause)| {
            let remedy = format!("correct it: kubectl edit clustertracing {SINGLETON}");
            Obstacle { reason: Reason::InvalidSettings, cause, remedy }.at(component, "")
        })
    }

    fn changes(&self, files: &[ManifestFile]) -> Result<Vec<Change>, Placed> {
        self.check_settings()?;
        let located = folder::locate(files)?;
        let is_missing = |component| {
            self.settings.of(component).state == State::Enabled && !located.iter().any(|located| located.component == component)
        };
        if is_missing(ComponentName::KubeApiserver) {
            let obstacle = folder::not_found(files, ComponentName::KubeApiserver);
            return Err(obstacle.or_left_out(ComponentName::KubeApiserver).at(ComponentName::KubeApiserver, ""));
        }
        let change = |located: &Located| self.change(located).map_err(|obstacle| obstacle.at(located.component, &located.file.name));
        let mut changes = located.iter().map(change).collect::<Result<Vec<_>, _>>()?;
        if is_missing(ComponentName::Etcd) {
            for change in &mut changes {
                change.warnings.push("no static pod of this node runs etcd: kube-apiserver is traced, etcd is not".to_owned());
            }
        }
        Ok(changes)
    }

    /// From what it is, over what it was without us, to what it should be: so every change of settings is the same step, and the way
    /// back does not depend on the way here.
    fn change(&self, located: &Located) -> Result<Change, Obstacle> {
        let component = located.component;
        let of = self.settings.of(component);
        let (after, needs, warnings) = match of.state {
            State::Disabled => (located.original.clone(), Vec::new(), Vec::new()),
            State::Enabled => {
                let Addition { edit, needs, warnings } =
                    self.addition(located, of.sampling_rate_per_million).map_err(|obstacle| obstacle.or_left_out(component))?;
                let after = manifest::apply(&located.original, component.as_str(), &edit)?;
                let is_there = manifest::same::add_the_same(&located.file.text, &after);
                (if is_there { located.file.text.clone() } else { after }, needs, warnings)
            }
        };
        let manifest = folder::parse_own(&after, component)?;
        Ok(Change {
            component,
            file: located.file.name.clone(),
            before: located.file.text.clone(),
            after,
            original: located.original.clone(),
            needs,
            argv: manifest.argv(),
            probes: manifest.probes(),
            warnings,
        })
    }

    fn addition(&self, located: &Located, rate: i32) -> Result<Addition, Obstacle> {
        if !located.foreign.is_empty() {
            return Err(Obstacle {
                reason: Reason::Conflict,
                cause: format!("somebody other than ClusterTracing set {}, which is never overwritten", located.foreign.join(" and ")),
                remedy: format!("remove it from the manifest and {}", obstacle::FROM_KUBEADM),
            });
        }
        let manifest = &located.original_manifest;
        let known = match located.component {
            ComponentName::KubeApiserver => self.versions.kube_apiserver,
            ComponentName::Etcd => self.versions.etcd,
        };
        let version = known.map_or_else(|| version_of(manifest.image()), Ok)?;
        let wanted = Wanted { version, rate, settings: self.settings, node_name: self.node_name };
        let mut addition = match located.component {
            ComponentName::KubeApiserver => kube_apiserver::addition(&wanted, manifest)?,
            ComponentName::Etcd => etcd::addition(&wanted, manifest)?,
        };
        addition.warnings.extend(about_version(located.component, version));
        Ok(addition)
    }
}

/// What an administrator should know of the version that is traced.
fn about_version(component: ComponentName, version: Version) -> Vec<String> {
    let (newest_known, faults) = match component {
        ComponentName::KubeApiserver => (kube_apiserver::NEWEST_KNOWN, kube_apiserver::FAULTS),
        ComponentName::Etcd => (etcd::NEWEST_KNOWN, etcd::FAULTS),
    };
    let faults = faults.iter().filter(|fault| (fault.from..fault.fixed_in).contains(&version));
    let mut warnings: Vec<String> =
        faults.map(|fault| format!("{component} {version} {}: upgrade to {} or later", fault.what, fault.fixed_in)).collect();
    if version.is_newer_minor_than(newest_known) {
        let Version { major, minor, .. } = newest_known;
        warnings
            .push(format!("{component} {version} is newer than this release of ClusterTracing knows: it is treated like {major}.{minor}"));
    }
    warnings
}

fn version_of(image: &str) -> Result<Version, Obstacle> {
    let cause = match version::tag(image).map(str::parse::<Version>) {
        Some(Ok(version)) => return Ok(version),
        Some(Err(error)) => format!("the version cannot be read from the image {image}: {error}"),
        None => format!("the version cannot be read from the image {image}: it has no tag"),
    };
    let remedy = "give the image a tag that names its release, before a digest or without one".to_owned();
    Err(Obstacle { reason: Reason::UnsupportedVersion, cause, remedy })
}

/// The row of a version: the last one that begins at it or before.
fn row<R>(table: &'static [R], since: impl Fn(&R) -> Version, version: Version) -> Option<&'static R> {
    table.iter().rev().find(|row| since(row) <= version)
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
