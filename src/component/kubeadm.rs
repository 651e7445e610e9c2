//! kubeadm's own configuration: what it renders at the next upgrade, and on a node that joins.
//!
//! kubeadm makes a manifest from the ConfigMap `kube-system/kubeadm-config` and forgets what somebody wrote into the manifest. [`keep`] puts
//! the settings there too, so that what it makes carries them. What differs by node stays out: the agents complete it.
//!
//! What is ours is known by its note, a variable among `extraEnvs`; and, where the configuration's version has no place for one, by the
//! tracing file's path. The same holds for the manifest that kubeadm makes: see [`super::find`].

use super::obstacle::Obstacle;
use super::{Refusal, Version, etcd, kube_apiserver};
use crate::api::node_tracing::NodeSettings;
use crate::api::{ComponentName, Reason};
use crate::manifest::config::{self, Extras, Names, Section};

/// Where kubeadm keeps its configuration.
pub const NAMESPACE: &str = "kube-system";
/// Name of the ConfigMap.
pub const CONFIG_MAP: &str = "kubeadm-config";
/// The ConfigMap's key.
pub const KEY: &str = "ClusterConfiguration";

/// What becomes of one component's settings there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent<'a> {
    /// They stay as they are.
    Leave,
    /// Nothing of ours stays.
    Remove,
    /// They become these.
    Keep {
        /// The settings of every node.
        settings: &'a NodeSettings,
        /// The oldest version that runs: what is written is right for it and for all later ones.
        oldest: Version,
    },
}

/// The configuration with the settings in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The new text; equal to the old one where nothing changes.
    pub text: String,
    /// What cannot stand there, and why, for people.
    pub left_out: Vec<String>,
}

/// Brings the `ClusterConfiguration` to what is meant for each component. What somebody else wrote is never changed.
///
/// # Errors
/// `Conflict` where somebody else set a tracing flag there, `UnsupportedManifest` where the text cannot be edited safely.
pub fn keep(text: &str, kube_apiserver: Intent<'_>, etcd: Intent<'_>) -> Result<Kept, Refusal> {
    let mut kept = Kept { text: text.to_owned(), left_out: Vec::new() };
    for (component, intent) in [(ComponentName::KubeApiserver, kube_apiserver), (ComponentName::Etcd, etcd)] {
        keep_one(&mut kept, component, intent).map_err(|obstacle| refusal(component, obstacle))?;
    }
    Ok(kept)
}

fn keep_one(kept: &mut Kept, component: ComponentName, intent: Intent<'_>) -> Result<(), Obstacle> {
    let path = path(component);
    let (settings, oldest) = match intent {
        Intent::Leave => return Ok(()),
        Intent::Remove => (None, None),
        Intent::Keep { settings, oldest } => (Some(settings), Some(oldest)),
    };
    let Some(section) = config::section(&kept.text, path)? else {
        if settings.is_some() {
            kept.left_out.push(format!("there is no section {} for {component}", path.join(".")));
        }
        return Ok(());
    };
    let ours = ours(component, &section);
    let extras = match settings.zip(oldest).map(|(settings, oldest)| extras(component, &section, &ours, settings, oldest)) {
        None => Extras::default(),
        Some(Ok(extras)) => extras,
        Some(Err(why)) => {
            kept.left_out.push(why);
            Extras::default()
        }
    };
    if extras != Extras::default() {
        check_foreign(component, &section, &ours)?;
    }
    // kubeadm writes its entries in an order of its own: that is no reason to write them again.
    if !config::holds(&kept.text, path, &ours, &extras)? {
        kept.text = config::replace(&kept.text, path, &ours, &extras)?;
    }
    Ok(())
}

/// The section of a component.
pub(super) fn path(component: ComponentName) -> &'static [&'static str] {
    match component {
        ComponentName::KubeApiserver => &["apiServer"],
        ComponentName::Etcd => &["etcd", "local"],
    }
}

/// What of a section is ours.
fn ours(component: ComponentName, section: &Section) -> Names {
    match component {
        ComponentName::KubeApiserver => section.ours.clone().and(kube_apiserver::kept(section)),
        ComponentName::Etcd => section.ours.clone(),
    }
}

/// What is put there, or why nothing is.
fn extras(component: ComponentName, section: &Section, ours: &Names, settings: &NodeSettings, oldest: Version) -> Result<Extras, String> {
    let mut extras = match component {
        ComponentName::KubeApiserver => kube_apiserver::extras(oldest, settings)?,
        // Without a note nothing tells its flags from those that a person would write.
        ComponentName::Etcd if !section.has_envs => {
            return Err(format!("this version of kubeadm's configuration has no place for the environment of {component}"));
        }
        ComponentName::Etcd => etcd::extras(oldest, settings)?,
    };
    // A variable that somebody else set is left as it is, as in a manifest.
    extras.envs.retain(|(name, _)| !section.names.envs.iter().any(|there| there == name) || ours.envs.iter().any(|own| own == name));
    Ok(extras)
}

fn check_foreign(component: ComponentName, section: &Section, ours: &Names) -> Result<(), Obstacle> {
    let is_about_tracing = match component {
        ComponentName::KubeApiserver => kube_apiserver::is_about_tracing,
        ComponentName::Etcd => etcd::is_about_tracing,
    };
    let foreign = section.names.args.iter().filter(|name| is_about_tracing(name) && !ours.args.contains(name));
    let foreign: Vec<_> = foreign.map(|name| format!("--{name}")).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(Obstacle {
        reason: Reason::Conflict,
        cause: format!("somebody other than ClusterTracing set {}, which is never overwritten", foreign.join(" and ")),
        remedy: format!("remove it: kubectl -n {NAMESPACE} edit configmap {CONFIG_MAP}"),
    })
}

fn refusal(component: ComponentName, obstacle: Obstacle) -> Refusal {
    let Obstacle { reason, cause, remedy } = obstacle;
    let remedy = match reason {
        Reason::Conflict => remedy,
        _ => format!("see: kubectl -n {NAMESPACE} get configmap {CONFIG_MAP} -o yaml"),
    };
    Refusal { reason, component, message: format!("configmap {NAMESPACE}/{CONFIG_MAP}, {component}: {cause}; {remedy}") }
}
