//! Everything that is known about the components that can be traced: flags, files, mounts, environment, by version.
//!
//! [`change`] is what agent, plugin and tests share: manifests and settings in, the exact new manifests out, or a refusal with its reason.
//! Pure, like all below it. Each component has one table, in a file of its own; no other module knows a flag's name:
//!
//! * a new name of an etcd flag is one row of `TABLE` in `etcd.rs`,
//! * a new version of the tracing file is one row of `TABLE` in `kube_apiserver.rs`,
//!
//! and [`reference()`] writes both tables for people, as docs/versions.md.

pub mod etcd;
pub mod kube_apiserver;
mod reference;
mod settings;
mod version;

use strum::IntoEnumIterator;

use crate::api::node_tracing::{ComponentSettings, NodeSettings, TracingFound};
use crate::api::{ComponentName, Reason, SINGLETON, State};
use crate::manifest::{self, Edit, Manifest, Probe, Unsupported};

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
    /// Version of its image, as the tag says it.
    pub version: Option<String>,
    /// Who configured tracing.
    pub tracing: TracingFound,
    /// What the process's argv is, or will be.
    pub argv: Vec<String>,
    /// How the component says that it is well.
    pub probes: Vec<Probe>,
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
    /// Files that `after` needs: absolute path on the node, contents. They are written before the manifest.
    pub needs: Vec<(String, String)>,
    /// argv of the process that runs under `after`.
    pub argv: Vec<String>,
    /// Probes of the component under `after`.
    pub probes: Vec<Probe>,
    /// What an administrator should know, and what does not stand in the way.
    pub warnings: Vec<String>,
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
    let located = locate(files).map_err(|obstacle| obstacle.refusal(None))?;
    Ok(located.iter().map(Located::found).collect())
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
    plan(files, settings, node_name, versions).map_err(|obstacle| obstacle.refusal(Some(node_name)))
}

fn plan(files: &[ManifestFile], settings: &NodeSettings, node_name: &str, versions: Versions) -> Result<Vec<Change>, Placed> {
    settings::check(settings, node_name).map_err(|(component, cause)| {
        let remedy = format!("correct it: kubectl edit clustertracing {SINGLETON}");
        Obstacle { reason: Reason::InvalidSettings, cause, remedy }.at(component, "")
    })?;
    let located = locate(files)?;
    let is_located = |component| located.iter().any(|l| l.component == component);
    if settings.kube_api_server.state == State::Enabled && !is_located(ComponentName::KubeApiserver) {
        return Err(not_found(files).or_left_out(ComponentName::KubeApiserver).at(ComponentName::KubeApiserver, ""));
    }
    let etcd_is_elsewhere = settings.etcd.state == State::Enabled && !is_located(ComponentName::Etcd);

    let mut changes = Vec::with_capacity(located.len());
    for l in &located {
        let (of, version) = match l.component {
            ComponentName::KubeApiserver => (&settings.kube_api_server, versions.kube_apiserver),
            ComponentName::Etcd => (&settings.etcd, versions.etcd),
        };
        let mut change = l.change(of, settings, node_name, version).map_err(|obstacle| obstacle.at(l.component, &l.file.name))?;
        if etcd_is_elsewhere {
            change.warnings.push("no static pod of this node runs etcd: kube-apiserver is traced, etcd is not".to_owned());
        }
        changes.push(change);
    }
    Ok(changes)
}

/// What one component should get.
struct Wanted<'a> {
    version: Version,
    rate: i32,
    settings: &'a NodeSettings,
    node_name: &'a str,
}

/// What a component's table makes of what is wanted.
struct Addition {
    edit: Edit,
    needs: Vec<(String, String)>,
    warnings: Vec<String>,
}

/// A component's manifest, as it is and as it is without us.
struct Located<'a> {
    component: ComponentName,
    file: &'a ManifestFile,
    manifest: Manifest,
    original: String,
    original_manifest: Manifest,
    /// Tracing flags that somebody else set, as people write them.
    foreign: Vec<String>,
}

impl<'a> Located<'a> {
    fn new(component: ComponentName, file: &'a ManifestFile, manifest: Manifest) -> Result<Self, Obstacle> {
        let program = component.as_str();
        let original = manifest::revert(&file.text, program).map_err(|error| unsupported(&error))?;
        let original_manifest = parse_own(&original, program)?;
        // What is left once our own additions are out of the way is foreign, whatever the annotation says.
        let foreign = match component {
            ComponentName::KubeApiserver => kube_apiserver::tracing_flags(&original_manifest),
            ComponentName::Etcd => etcd::tracing_flags(&original_manifest),
        };
        Ok(Self { component, file, manifest, original, original_manifest, foreign })
    }

    fn found(&self) -> Found {
        let tracing = match (self.foreign.is_empty(), self.manifest.is_ours()) {
            (false, _) => TracingFound::Foreign,
            (true, true) => TracingFound::Ours,
            (true, false) => TracingFound::Off,
        };
        Found {
            component: self.component,
            file: self.file.name.clone(),
            version: version::tag(self.manifest.image()).map(str::to_owned),
            tracing,
            argv: self.manifest.argv(),
            probes: self.manifest.probes(),
        }
    }

    /// From what it is, over what it was without us, to what it should be: so that any change of settings is the same step, and the
    /// way back is never longer than one.
    fn change(
        &self,
        of: &ComponentSettings,
        settings: &NodeSettings,
        node_name: &str,
        version: Option<Version>,
    ) -> Result<Change, Obstacle> {
        let program = self.component.as_str();
        let (after, addition) = match of.state {
            State::Disabled => (self.original.clone(), Addition { edit: Edit::default(), needs: Vec::new(), warnings: Vec::new() }),
            State::Enabled => self.enabled(of, settings, node_name, version).map_err(|obstacle| obstacle.or_left_out(self.component))?,
        };
        let manifest = parse_own(&after, program)?;
        Ok(Change {
            component: self.component,
            file: self.file.name.clone(),
            before: self.file.text.clone(),
            after,
            needs: addition.needs,
            argv: manifest.argv(),
            probes: manifest.probes(),
            warnings: addition.warnings,
        })
    }

    fn enabled(
        &self,
        of: &ComponentSettings,
        settings: &NodeSettings,
        node_name: &str,
        version: Option<Version>,
    ) -> Result<(String, Addition), Obstacle> {
        if !self.foreign.is_empty() {
            return Err(Obstacle {
                reason: Reason::Conflict,
                cause: format!("{} is set, not by ClusterTracing, and is not overwritten", self.foreign.join(", ")),
                remedy:
                    "remove it from the manifest and from kubeadm's configuration (kubectl -n kube-system edit configmap kubeadm-config)"
                        .to_owned(),
            });
        }
        let version = version.map_or_else(|| version_of(self.original_manifest.image()), Ok)?;
        let wanted = Wanted { version, rate: of.sampling_rate_per_million, settings, node_name };
        let (newest_known, addition) = match self.component {
            ComponentName::KubeApiserver => (kube_apiserver::NEWEST_KNOWN, kube_apiserver::addition(&wanted, &self.original_manifest)),
            ComponentName::Etcd => (etcd::NEWEST_KNOWN, etcd::addition(&wanted, &self.original_manifest)),
        };
        let mut addition = addition?;
        if version.is_newer_minor_than(newest_known) {
            addition.warnings.push(format!(
                "{} {version} is newer than this release of ClusterTracing knows: it is treated like {}.{}",
                self.component, newest_known.major, newest_known.minor
            ));
        }
        let after = manifest::apply(&self.original, self.component.as_str(), &addition.edit).map_err(|error| unsupported(&error))?;
        Ok((after, addition))
    }
}

/// Finds each component's one manifest.
fn locate(files: &[ManifestFile]) -> Result<Vec<Located<'_>>, Placed> {
    let mut located: Vec<Located> = Vec::new();
    for component in ComponentName::iter() {
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
                (Err(error), _) if is_named_after(file, component) => return Err(unsupported(&error).at(component, &file.name)),
                (Ok(None) | Err(_), _) => {}
            }
        }
        let Some((file, manifest)) = runs else { continue };
        if let Some(other) = located.iter().find(|l| l.file.name == file.name) {
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

/// The files that the kubelet reads.
fn pods(files: &[ManifestFile]) -> impl Iterator<Item = &ManifestFile> {
    files.iter().filter(|file| !file.name.starts_with('.'))
}

fn is_named_after(file: &ManifestFile, component: ComponentName) -> bool {
    file.name.split('.').next() == Some(component.as_str())
}

/// Says which files could not be looked into: the manifest that is missed may be one of them.
fn not_found(files: &[ManifestFile]) -> Obstacle {
    let component = ComponentName::KubeApiserver;
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
fn parse_own(text: &str, program: &str) -> Result<Manifest, Obstacle> {
    let manifest = Manifest::parse(text, program).map_err(|error| unsupported(&error))?;
    manifest.ok_or_else(|| unsupported(&Unsupported::Unproven(format!("no container runs {program} any more"))))
}

fn version_of(image: &str) -> Result<Version, Obstacle> {
    let cause = match version::tag(image).map(str::parse) {
        Some(Ok(version)) => return Ok(version),
        Some(Err(error)) => format!("the version cannot be read from the image {image}: {error}", error = error as NotARelease),
        None => format!("the version cannot be read from the image {image}: it has no tag"),
    };
    let remedy = "give the image a tag that names its release, before a digest or without one".to_owned();
    Err(Obstacle { reason: Reason::UnsupportedVersion, cause, remedy })
}

fn unsupported(error: &Unsupported) -> Obstacle {
    let remedy = "bring it to the shape that kubeadm writes, and leave the rest as it is".to_owned();
    Obstacle { reason: Reason::UnsupportedManifest, cause: error.to_string(), remedy }
}

/// What stands in the way of a change, and what to do about it.
#[derive(Debug)]
struct Obstacle {
    reason: Reason,
    cause: String,
    remedy: String,
}

/// An obstacle, and where it stands.
struct Placed {
    component: ComponentName,
    file: String,
    obstacle: Obstacle,
}

impl Obstacle {
    fn at(self, component: ComponentName, file: &str) -> Placed {
        Placed { component, file: file.to_owned(), obstacle: self }
    }

    /// Offers the other way out: to do without this component.
    fn or_left_out(mut self, component: ComponentName) -> Self {
        let field = match component {
            ComponentName::KubeApiserver => "kubeAPIServer",
            ComponentName::Etcd => "etcd",
        };
        let command = patch(&format!(r#"{{"{field}":{{"state":"Disabled"}}}}"#));
        self.remedy = format!("{}, or leave {component} untraced: {command}", self.remedy);
        self
    }
}

impl Placed {
    fn refusal(self, node_name: Option<&str>) -> Refusal {
        let Self { component, file, obstacle: Obstacle { reason, cause, remedy } } = self;
        let node = node_name.map(|name| format!(" on node {name}")).unwrap_or_default();
        let file = if file.is_empty() { file } else { format!(", {file}") };
        Refusal { reason, component, message: format!("{component}{node}{file}: {cause}; {remedy}") }
    }
}

/// The command that changes the resource's spec.
fn patch(spec: &str) -> String {
    format!("kubectl patch clustertracing {SINGLETON} --type merge -p '{{\"spec\":{spec}}}'")
}

/// The row of a version: the last one that begins at it or before.
fn row<R>(table: &'static [R], since: impl Fn(&R) -> Version, version: Version) -> Option<&'static R> {
    table.iter().rev().find(|row| since(row) <= version)
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
