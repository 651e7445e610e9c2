//! What kubeadm's own configuration should hold, and whether the next minor version would start.
//!
//! The settings are put there once every node carries them, so that a rollout that fails leaves no trace; and taken out before the first
//! node gets its original manifests back, so that an upgrade in between does not bring them back.

use super::observed::{KubeadmConfig, Observed};
use super::report::{Done, NodeReport, Progress, Stalled};
use super::validate::{Goal, Validated};
use crate::api::condition::NewCondition;
use crate::api::node_tracing::UpgradeObstacle;
use crate::api::{ComponentName, ConditionType, Reason, RolloutMode, State};
use crate::component::kubeadm::{self, CONFIG_MAP, Intent, Kept, NAMESPACE};
use crate::component::{Version, upgrade};

/// What becomes of kubeadm's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It holds what it should, or will once `text` is written; `left_out` says what cannot stand there.
    Kept {
        /// The new text, where it changes.
        text: Option<String>,
        /// What cannot stand there, and why.
        left_out: Vec<String>,
    },
    /// Settings are not put there yet, or not at all.
    NotKept {
        /// The text without what should not stand there, where it changes.
        text: Option<String>,
        /// Why, for people; nothing where it is a matter of time, or where nothing is traced.
        why: Option<String>,
    },
    /// It cannot be changed.
    Refused {
        /// Why, for people.
        message: String,
    },
}

impl Keeping {
    /// What is to be written.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Kept { text, .. } | Self::NotKept { text, .. } => text.as_deref(),
            Self::Refused { .. } => None,
        }
    }
}

/// Decides what kubeadm's configuration should hold.
pub fn keeping(v: &Validated, o: &Observed, nodes: &[NodeReport], progress: &Progress) -> Keeping {
    let text = match &o.kubeadm_config {
        KubeadmConfig::Found(text) => text,
        KubeadmConfig::Absent => return not_kept(None, Some(format!("there is no configmap {NAMESPACE}/{CONFIG_MAP} to keep them in"))),
        KubeadmConfig::Forbidden => {
            return not_kept(None, Some(format!("the controller may not read configmap {NAMESPACE}/{CONFIG_MAP}")));
        }
    };
    let elsewhere = matches!(progress, Progress::Stalled(Stalled::Platform { .. } | Stalled::NoNodes { platform: Some(_), .. }));
    if elsewhere || (v.rollout.mode == RolloutMode::Preview && v.goal == Goal::Trace) {
        return not_kept(None, None);
    }
    let settings = v.target(true).settings;
    let on_every_node = nodes.iter().all(|node| node.selected);
    let intent = |component: ComponentName| {
        let wanted = v.goal == Goal::Trace && settings.of(component).state == State::Enabled && on_every_node;
        match (wanted, oldest(o, component)) {
            (false, _) => Intent::Remove,
            (true, Some(oldest)) if *progress == Progress::Done(Done::AsRequested) => Intent::Keep { settings: &settings, oldest },
            (true, _) => Intent::Leave,
        }
    };
    let intents = (intent(ComponentName::KubeApiserver), intent(ComponentName::Etcd));
    let Kept { text: after, left_out } = match kubeadm::keep(text, intents.0, intents.1) {
        Ok(kept) => kept,
        Err(refusal) => return Keeping::Refused { message: refusal.message },
    };
    let after = (after != *text).then_some(after);
    let keeps = |intent: &Intent<'_>| matches!(intent, Intent::Keep { .. });
    if keeps(&intents.0) || keeps(&intents.1) {
        return Keeping::Kept { text: after, left_out };
    }
    let why = (!on_every_node && v.traces_anything())
        .then(|| "rollout.nodeSelector leaves nodes out, and kubeadm's configuration is for all of them".to_owned());
    not_kept(after, why)
}

fn not_kept(text: Option<String>, why: Option<String>) -> Keeping {
    Keeping::NotKept { text, why }
}

/// Versions of a component on all nodes that have it; nothing where one is not known.
fn versions(o: &Observed, component: ComponentName) -> Option<Vec<Version>> {
    let components = o.node_tracings.values().flat_map(|node| &node.status.components);
    let versions = components.filter(|c| c.name == component && c.manifest.is_some()).map(|c| c.version.as_ref()?.parse().ok());
    versions.collect()
}

fn oldest(o: &Observed, component: ComponentName) -> Option<Version> {
    versions(o, component)?.into_iter().min()
}

/// Whether what stands in the manifests, and in what kubeadm makes them of, lets the next minor version start.
pub fn upgrade_safe(v: &Validated, o: &Observed, keeping: &Keeping) -> NewCondition {
    let condition = |status, reason, message| NewCondition { condition: ConditionType::UpgradeSafe, status, reason, message };
    let obstacles = obstacles(o, keeping);
    if let Some(first) = obstacles.first() {
        let more = if obstacles.len() > 1 { format!(" (and {} more)", obstacles.len() - 1) } else { String::new() };
        return condition(Some(false), Reason::UpgradeWouldFail, format!("{first}{more}"));
    }
    let known = [ComponentName::KubeApiserver, ComponentName::Etcd].map(|component| Some((component, versions(o, component)?)));
    let [Some(kube_apiserver), Some(etcd)] = known else {
        return condition(None, Reason::NotMeasured, "the versions that run are not known on every node".to_owned());
    };
    if kube_apiserver.1.is_empty() {
        return condition(None, Reason::NotMeasured, "no agent has reported a kube-apiserver yet".to_owned());
    }
    let unknown = [kube_apiserver, etcd].into_iter().find_map(|(component, versions)| {
        let version = versions.into_iter().find(|version| !upgrade::is_next_known(component, *version))?;
        Some(format!("{component} {version} runs, and this release does not know what the next minor version refuses"))
    });
    if let Some(unknown) = unknown {
        return condition(None, Reason::NotMeasured, unknown);
    }
    let starts = "the next minor version takes every flag and feature gate that is set";
    match keeping {
        Keeping::Kept { left_out, .. } if left_out.is_empty() => {
            condition(Some(true), Reason::UpgradeSafe, format!("{starts}, and kubeadm's configuration keeps the settings"))
        }
        Keeping::NotKept { why: None, .. } => condition(Some(true), Reason::UpgradeSafe, starts.to_owned()),
        _ if !v.traces_anything() => condition(Some(true), Reason::UpgradeSafe, starts.to_owned()),
        Keeping::Kept { left_out: why, .. } => condition(Some(true), Reason::UpgradeResetsSettings, resets(starts, &why.join("; "))),
        Keeping::NotKept { why: Some(why), .. } => condition(Some(true), Reason::UpgradeResetsSettings, resets(starts, why)),
        Keeping::Refused { message } => condition(Some(true), Reason::UpgradeResetsSettings, resets(starts, message)),
    }
}

fn resets(starts: &str, why: &str) -> String {
    format!(
        "{starts}; kubeadm's configuration does not keep all settings, so that an upgrade takes a node's tracing away until it is given back: {why}"
    )
}

/// In words, by node.
fn obstacles(o: &Observed, keeping: &Keeping) -> Vec<String> {
    let of_nodes = o.node_tracings.iter().flat_map(|(name, node)| {
        let words = move |obstacle: &UpgradeObstacle| format!("node {name}: {}", obstacle.message);
        node.status.upgrade_obstacles.iter().map(words)
    });
    let KubeadmConfig::Found(found) = &o.kubeadm_config else { return of_nodes.collect() };
    let text = keeping.text().unwrap_or(found);
    let of_kubeadm = upgrade::obstacles_of_kubeadm(text, oldest(o, ComponentName::KubeApiserver), oldest(o, ComponentName::Etcd));
    of_nodes.chain(of_kubeadm.into_iter().map(|obstacle| obstacle.message)).collect()
}
