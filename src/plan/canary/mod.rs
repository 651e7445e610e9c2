//! The canary: what a node would be given is tried there first, in an ordinary pod that is thrown away.
//!
//! Before any node is granted, each node whose change starts something new gets one pod with its own images ([`pod`]), and what came of it
//! ([`observed`]) is recorded on its `NodeTracing`, so that the pod can go: a verdict outlives its pod, and the controller. It holds for
//! exactly what was tried ([`Wanted::key`]): another image, flag or file is tried anew. A refusal holds for its generation too: any edit of
//! the resource tries again.
//!
//! Giving a node back what ran there before needs no canary.

pub mod observed;
pub mod pod;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::observed::{CanaryState, ObservedCanary};
use super::observed::{Observed, ObservedNodeTracing};
use super::report::{NodeReport, Progress, Stand, WaitingOn};
use super::validate::{Goal, Validated};
use crate::api::node_tracing::hex12;
use crate::api::{ComponentName, State, Target};
use crate::component::canary::trial;

/// Selects canary pods.
pub const SELECTOR: &str = "app.kubernetes.io/name=clustertracing,app.kubernetes.io/component=canary";
/// On a `NodeTracing`: the last verdict, a [`Record`] as JSON.
pub const ANNOTATION_VERDICT: &str = "clustertracing.dev/canary";

/// A pod whose image is on its node starts within seconds.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_mins(1);
/// A pod that ended without a verdict (evicted, no room, killed) is made again after this.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// A verdict, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`Wanted::key`] of what was tried.
    pub key: String,
    /// `metadata.generation` of the `ClusterTracing` that it was tried for.
    pub generation: i64,
    /// Why it was refused; nothing where it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// Why what was tried was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Whose flags, file or image.
    pub component: ComponentName,
    /// Its own last words, on one line.
    pub words: String,
}

/// Where a node's canary stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Canary {
    /// Nothing is started that did not run before, or the canary is switched off.
    #[default]
    NotNeeded,
    /// It is tried now.
    Trying(Wanted),
    /// It cannot be tried now: why.
    Held {
        /// What was to be tried, unless that is what cannot be told.
        wanted: Option<Wanted>,
        /// In the pod's own words.
        words: String,
    },
    /// It was tried, and started well.
    Passed,
    /// It was tried, and did not start.
    Refused(Refused),
}

/// A canary pod that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Digest of everything that decides what is tried: node, images, settings, and the version of this program, whose tables make flags of them.
    pub key: String,
    /// The pod, where there is none yet.
    pub pod: Option<Value>,
}

impl Wanted {
    fn pod_name(&self) -> String {
        pod::name(&self.key)
    }
}

/// What to write because of canaries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CanaryPlan {
    /// Pods to make.
    pub make: Vec<Value>,
    /// Verdicts to record: `NodeTracing`, verdict.
    pub record: Vec<(String, Record)>,
    /// Pods to remove, after that: name and UID.
    pub remove: Vec<(String, String)>,
}

impl CanaryPlan {
    /// Whether nothing is to be written.
    pub fn is_idle(&self) -> bool {
        self.make.is_empty() && self.record.is_empty() && self.remove.is_empty()
    }
}

impl Canary {
    fn wanted(&self) -> Option<&Wanted> {
        match self {
            Self::Trying(wanted) | Self::Held { wanted: Some(wanted), .. } => Some(wanted),
            _ => None,
        }
    }
}

/// Where the canary of a node stands that stands so.
pub fn stand(
    v: &Validated,
    node_tracing: Option<&ObservedNodeTracing>,
    pods: &[ObservedCanary],
    node: &str,
    selected: bool,
    stand: &Stand,
    now: Timestamp,
) -> Canary {
    let (Some(node_tracing), Stand::Pending { changes }) = (node_tracing, stand) else { return Canary::NotNeeded };
    if v.goal != Goal::Trace || v.installation.canary == State::Disabled {
        return Canary::NotNeeded;
    }
    let Target { revision, settings } = v.target(selected);
    let starts = changes.iter().filter(|component| settings.of(**component).state == State::Enabled);
    let mut images = Vec::new();
    for component in starts {
        let found = node_tracing.status.components.iter().find(|c| c.name == *component);
        let Some(image) = found.and_then(|c| c.image.as_deref()) else {
            let words = format!("its agent does not report the image of {component}: it is of an earlier version");
            return Canary::Held { wanted: None, words };
        };
        images.push((*component, image));
    }
    if images.is_empty() {
        return Canary::NotNeeded;
    }
    let key = hex12(format!("{}\n{node}\n{revision}\n{images:?}", env!("CARGO_PKG_VERSION")).as_bytes());
    judge(&key, node_tracing.canary.as_ref(), pods, v.generation, now).unwrap_or_else(|| {
        let trials: Result<Vec<_>, _> = images.iter().filter_map(|(component, image)| trial(*component, image, &settings, node)).collect();
        match trials {
            Ok(trials) => Canary::Trying(Wanted { pod: Some(pod::render(v, node, &key, &trials)), key }),
            // The agent has said yes to the same: it knows a version's table that this program does not.
            Err(refusal) => Canary::Refused(Refused { component: refusal.component, words: refusal.message }),
        }
    })
}

/// What is known of what is wanted; nothing when it has not been tried.
fn judge(key: &str, record: Option<&Record>, pods: &[ObservedCanary], generation: i64, now: Timestamp) -> Option<Canary> {
    match record.filter(|record| record.key == key) {
        Some(Record { refused: None, .. }) => return Some(Canary::Passed),
        Some(Record { refused: Some(refused), generation: of, .. }) if *of == generation => return Some(Canary::Refused(refused.clone())),
        _ => {}
    }
    let wanted = Wanted { key: key.to_owned(), pod: None };
    let pod = pods.iter().find(|pod| pod.name == wanted.pod_name())?;
    let words = match &pod.state {
        CanaryState::Starting { words } if pod.is_older_than(STARTS_WITHIN, now) => words.clone(),
        CanaryState::Lost { words } => words.clone(),
        CanaryState::Starting { .. } | CanaryState::Passed | CanaryState::Refused(_) => return Some(Canary::Trying(wanted)),
    };
    Some(Canary::Held { wanted: Some(wanted), words })
}

/// Pods are there while the rollout waits for them, and at no other time: whatever else it does, they go.
pub fn plan(v: &Validated, o: &Observed, nodes: &[NodeReport], progress: &Progress, now: Timestamp) -> CanaryPlan {
    let waiting = matches!(progress, Progress::Waiting(WaitingOn::Canary { .. }));
    let wanted: Vec<_> = nodes.iter().filter(|_| waiting).filter_map(|n| Some((n.name.as_str(), n.canary.wanted()?))).collect();
    let mut plan = CanaryPlan::default();
    for pod in o.canaries.iter().filter(|pod| !pod.ending) {
        let node = wanted.iter().find(|(_, wanted)| wanted.pod_name() == pod.name && pod.owner == v.uid).map(|(node, _)| *node);
        let keep = match (&pod.state, node) {
            (_, None) => false,
            (CanaryState::Starting { .. }, Some(_)) => true,
            (CanaryState::Lost { .. }, Some(_)) => !pod.is_older_than(AGAIN_AFTER, now),
            (CanaryState::Passed, Some(node)) => {
                plan.record.push((node.to_owned(), pod.record(v.generation, None)));
                false
            }
            (CanaryState::Refused(refused), Some(node)) => {
                plan.record.push((node.to_owned(), pod.record(v.generation, Some(refused.clone()))));
                false
            }
        };
        if !keep {
            plan.remove.push((pod.name.clone(), pod.uid.clone()));
        }
    }
    plan.make = wanted.into_iter().filter_map(|(_, wanted)| wanted.pod.clone()).collect();
    plan
}
