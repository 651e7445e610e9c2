//! A new collector is tried before it replaces one that works: the collector's own `validate`, in its image, on the new configuration.
//!
//! In one pod ([`pod`]) with the Secrets that the collectors get, so that one that is not there is told by the kubelet. What came of it
//! ([`observed`]) is kept on the configuration's `ConfigMap`, whose data alone are immutable: a verdict outlives its pod and the
//! controller. It holds for exactly what was tried, a refusal for its generation too: any edit of the resource tries again.
//!
//! What runs already is not tried. Where the installation does without canaries, because policies forbid their pods, this is left out too.

pub mod observed;
pub mod pod;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::observed::{CheckState, ObservedCheck};
use super::collector::CollectorObjects;
use super::observed::Observed;
use super::report::NodeReport;
use super::secret::{self, SecretTrouble};
use super::validate::Validated;
use crate::api::{RolloutMode, State};

/// Selects the pods in which a collector is tried.
pub const SELECTOR: &str = "app.kubernetes.io/name=clustertracing,app.kubernetes.io/component=collector-check";
/// On a `ConfigMap` of the collector: the last verdict, a [`Record`] as JSON.
pub const ANNOTATION_VERDICT: &str = "clustertracing.dev/collector-check";

/// The image may have to be pulled: some hundred megabytes.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_mins(1);
/// A pod that ended without a verdict (evicted, no room, killed) is made again after this.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// A verdict, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Revision of the collector that was tried.
    pub revision: String,
    /// `metadata.generation` of the `ClusterTracing` that it was tried for.
    pub generation: i64,
    /// Why it was refused, in the collector's own words; nothing where it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Where the trial of the wanted collector stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// It runs already, none is wanted, or none is tried here.
    #[default]
    NotNeeded,
    /// It is tried now.
    Trying {
        /// The pod, where there is none yet.
        pod: Option<Box<Value>>,
    },
    /// It cannot be tried now: why.
    Held {
        /// In the kubelet's own words.
        words: String,
    },
    /// It is not tried before a Secret that it needs is there.
    Lacks(SecretTrouble),
    /// It may replace the one that runs.
    Passed,
    /// It may not.
    Refused {
        /// In the collector's own words.
        words: String,
    },
}

/// What to write because of the trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckPlan {
    /// `ConfigMap` and pod to make.
    pub make: Option<Box<(Value, Value)>>,
    /// Verdict to record: name of the `ConfigMap`, verdict.
    pub record: Option<(String, Record)>,
    /// Pods to remove, after that: name and UID.
    pub remove: Vec<(String, String)>,
}

impl CheckPlan {
    /// Whether nothing is to be written.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

impl Check {
    /// Whether the wanted collector may replace the one that runs.
    pub fn lets_pass(&self) -> bool {
        matches!(self, Self::NotNeeded | Self::Passed)
    }

    /// Whether a pod should be there.
    fn tries(&self) -> bool {
        matches!(self, Self::Trying { .. } | Self::Held { .. } | Self::Lacks(_))
    }
}

/// Where the trial of `wanted` stands.
pub fn stand(v: &Validated, o: &Observed, nodes: &[NodeReport], wanted: Option<&CollectorObjects>, now: Timestamp) -> Check {
    let Some(wanted) = wanted.filter(|wanted| !wanted.are_in(&o.collector)) else { return Check::NotNeeded };
    if let Some(missing) = secret::trouble(v, o, now).filter(secret::SecretTrouble::stops) {
        return Check::Lacks(missing);
    }
    if v.rollout.mode == RolloutMode::Preview || v.installation.canary == State::Disabled {
        return Check::NotNeeded;
    }
    match o.collector.checks.get(&wanted.config_map_name).filter(|record| record.revision == wanted.revision) {
        Some(Record { refused: None, .. }) => return Check::Passed,
        Some(Record { refused: Some(words), generation, .. }) if *generation == v.generation => {
            return Check::Refused { words: words.clone() };
        }
        _ => {}
    }
    let Some(pod) = o.collector_checks.iter().find(|pod| pod.name == pod::name(&wanted.revision, v.generation)) else {
        let well = nodes.iter().find(|n| n.selected && o.nodes.get(&n.name).is_some_and(|node| node.ready));
        return well.map_or_else(
            || Check::Held { words: "no selected control-plane node is Ready".to_owned() },
            |node| Check::Trying { pod: Some(Box::new(pod::render(v, wanted, &node.name))) },
        );
    };
    match &pod.state {
        CheckState::Starting { words } if pod.is_older_than(STARTS_WITHIN, now) => Check::Held { words: words.clone() },
        CheckState::Lost { words } => Check::Held { words: words.clone() },
        CheckState::Starting { .. } | CheckState::Passed | CheckState::Refused { .. } => Check::Trying { pod: None },
    }
}

/// What to write: the pod is there while its verdict is waited for, and at no other time.
pub fn plan(v: &Validated, o: &Observed, wanted: Option<&CollectorObjects>, check: &Check, now: Timestamp) -> CheckPlan {
    let mut plan = CheckPlan::default();
    for pod in o.collector_checks.iter().filter(|pod| !pod.ending) {
        // A node that went away under it takes the verdict along.
        let well = o.nodes.get(&pod.node).is_some_and(|node| node.ready);
        let wanted = wanted.filter(|wanted| check.tries() && pod.name == pod::name(&wanted.revision, v.generation) && pod.owner == v.uid);
        let mut record = |wanted: &CollectorObjects, refused| {
            let record = Record { revision: wanted.revision.clone(), generation: v.generation, refused };
            plan.record = Some((wanted.config_map_name.clone(), record));
            false
        };
        let keep = match (wanted, &pod.state) {
            (None, _) => false,
            (Some(wanted), CheckState::Passed) => record(wanted, None),
            (Some(wanted), CheckState::Refused { words }) => record(wanted, Some(words.clone())),
            (Some(_), CheckState::Starting { .. }) => well,
            (Some(_), CheckState::Lost { .. }) => !pod.is_older_than(AGAIN_AFTER, now),
        };
        if !keep {
            plan.remove.push((pod.name.clone(), pod.uid.clone()));
        }
    }
    if let (Some(wanted), Check::Trying { pod: Some(pod) }) = (wanted, check) {
        plan.make = Some(Box::new((wanted.config_map.clone(), *pod.clone())));
    }
    plan
}

/// For people, while there is no verdict: why there is none, where the kubelet says.
pub fn waiting(held: Option<&str>, namespace: &str) -> String {
    let see = |verb: &str| format!("kubectl -n {namespace} {verb} pods -l app.kubernetes.io/component=collector-check");
    match held {
        None => {
            format!("the collector's new configuration is tried in a pod, before it replaces what runs; see: {}", see("get"))
        }
        Some(words) => format!(
            "the pod that tries the collector's new configuration gives no verdict: {words}; nothing is replaced before it does; see: {}",
            see("describe")
        ),
    }
}

impl ObservedCheck {
    fn is_older_than(&self, age: SignedDuration, now: Timestamp) -> bool {
        self.created.is_some_and(|created| now.duration_since(created) > age)
    }
}
