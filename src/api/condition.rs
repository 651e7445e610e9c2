//! The closed sets of condition types and reasons, and how a condition list is updated.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{EnumIter, EnumMessage, EnumString, IntoEnumIterator, IntoStaticStr};

/// The conditions of a `ClusterTracing`. `Reconciling` and `Stalled` are abnormal-true: present only while true (kstatus).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, EnumIter, EnumMessage)]
pub enum ConditionType {
    /// Summary: every selected node carries the requested settings, verified, and the collector takes spans.
    Ready,
    /// A change is under way, or is waited for. Present only while true.
    Reconciling,
    /// A person is needed: nothing further will happen by itself. Present only while true.
    Stalled,
    /// A collector is Ready on each node that sends spans to one.
    CollectorAvailable,
    /// Every API server runs with the requested tracing settings.
    KubeAPIServerTraced,
    /// Every etcd member runs with the requested tracing settings.
    EtcdTraced,
    /// Spans of every instance arrive.
    SpansFlowing,
    /// What stands in the manifests lets the next minor version start.
    UpgradeSafe,
}

/// Why a condition, an Event, a refusal or a node's outcome is what it is. One closed set, used by all of them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoStaticStr,
    EnumIter,
    EnumMessage,
    EnumString,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
pub enum Reason {
    // --- all is as requested
    /// Every selected node carries the requested settings.
    AsRequested,
    /// The component's tracing is switched off, and its manifest carries nothing of ours.
    Disabled,
    /// Preview mode: the plan was made and checked, nothing is written.
    Preview,

    // --- something is under way, or waited for
    /// Nodes are being changed, one at a time.
    RollingOut,
    /// The resource is being deleted, and nodes get their original manifests back, one at a time.
    Removing,
    /// A node carries out its grant.
    WaitingForNode,
    /// A node was granted a change and has not reported how it ended, for longer than any change takes. No other node is changed.
    NodeOverdue,
    /// A change failed for a cause that may pass. The node has its original manifests, and the same is tried again at the time that the
    /// message names: at most three times in all.
    RetryBackOff,
    /// A node's agent has not yet checked the target against its manifests.
    WaitingForPreflight,
    /// No agent reports for a control-plane node.
    WaitingForAgent,
    /// The new flags and files are tried on each node that would change, in a pod with the node's own images, before anything is written.
    WaitingForCanary,
    /// A new collector is tried in a pod, before it replaces one that works.
    WaitingForCollectorCheck,
    /// The collector is not yet Ready on a node.
    WaitingForCollector,
    /// A control-plane node is not Ready; a second one is not taken down beside it.
    NodeNotReady,
    /// A component does not answer its own probes before a change; nothing is changed beside it.
    ComponentUnhealthy,
    /// Files of a node are not as its agent left them: kubeadm rendered a manifest anew, or somebody changed it. They are put right by the rollout.
    Drifted,
    /// A node's files have drifted, and kubeadm runs there or somebody is still at work on them; they are healed once the node is quiet.
    WaitingForQuiet,
    /// An etcd member does not answer, or reads from no quorum; nothing is changed beside it.
    EtcdUnhealthy,
    /// An etcd member reports an alarm (its space is used up, or data are corrupt); nothing is changed before it is disarmed.
    EtcdAlarm,
    /// An etcd member is a learner: a change of membership is under way, and no member is restarted during it.
    EtcdLearner,
    /// etcd counts members that are not seen to be well, or does not say how many there are: restarting one more could end the quorum.
    QuorumAtRisk,
    /// A node's kubelet does not answer on its health port, or does not run: it would not act on a new manifest.
    KubeletNotAnswering,
    /// A file system that a change writes to has less room than a safe change needs. Nothing was written.
    NodeDiskFull,
    /// A node has too little memory left to start a new kube-apiserver. Nothing was written.
    NodeMemoryLow,
    /// kubeadm runs on a node, or somebody else changed a manifest there less than two minutes ago; nothing is changed beside it.
    UpgradeInProgress,
    /// The endpoint of somebody else, to which spans would be sent, takes no connection from a node; nothing is changed before it does.
    EndpointUnreachable,
    /// `rollout.paused` is set.
    Paused,
    /// The node that was changed last is watched before the next one is changed (`rollout.soakSeconds`).
    Soaking,

    // --- a person is needed
    /// A manifest has a shape that cannot be edited safely. Nothing was written.
    UnsupportedManifest,
    /// The component's version cannot do what is asked. Nothing was written.
    UnsupportedVersion,
    /// Another platform than kubeadm renders the manifests, and would write them again. Nothing was written.
    UnsupportedPlatform,
    /// kube-apiserver sends its own connections through proxies, from where the endpoint is another machine. Nothing was written.
    EgressSelector,
    /// Tracing is already configured by somebody else. Nothing was written.
    Conflict,
    /// Another process holds a port of a node's loopback that the collector needs. Nothing was written, and a collector that runs stays as it is.
    PortTaken,
    /// No static pod manifest of the component is on the node. Nothing was written.
    ManifestNotFound,
    /// Two files in the manifests folder describe the same component. Nothing was written.
    DuplicateManifest,
    /// No node carries the control-plane label, or none matches `rollout.nodeSelector`.
    NoControlPlaneNodes,
    /// The settings are refused by the controller's or the agent's own check. Nothing was written.
    InvalidSettings,
    /// A component of a node did not start with its new flags, tried in a pod there; the message has its own words. Nothing was written on that node.
    CanaryRefused,
    /// The collector refuses its new configuration, tried in a pod; the message has its own words. The one that runs stays, and no node is changed.
    CollectorConfigRefused,
    /// A Secret that an exporter of the collector names is not there, or has no such key. The collector that runs stays, and no node is changed.
    SecretMissing,
    /// A key of a Secret that an exporter of the collector names holds no certificate. The collector that runs stays, and no node is changed.
    SecretInvalid,
    /// The change would interrupt the API, and `rollout.singleNodeDowntime` is `Refused`. Nothing was written.
    DowntimeRefused,
    /// The node's files could not be read or written before the change; nothing was changed.
    NodeFilesUnwritable,
    /// The record of a change that was under way on the node cannot be read. Nothing is done there until a person has looked.
    JournalDamaged,
    /// A manifest changed between the check and the write; nothing was written.
    ManifestChanged,
    /// The watchdog that would go on without the agent did not start; nothing was changed.
    WatchdogNotStarted,
    /// The kubelet has not been in contact with the API server since it was started: nothing begins until it has.
    KubeletNotSynced,
    /// A file that the new manifest needs does not hold what was written; nothing was changed, or the original manifests are back.
    TracingFileDamaged,
    /// The new process ended at once; the node's original manifests are back.
    NewProcessExited,
    /// The kubelet started no new process; the node's original manifests are back.
    NewProcessNotStarted,
    /// The change was interrupted again and again while manifests were away; the original manifests are back.
    Interrupted,
    /// A person gave the node its original manifests back.
    RestoredByHand,
    /// The new processes did not become healthy within `rollout.healthTimeoutSeconds`; the original manifests are back.
    HealthTimeout,
    /// The kubelet did not act on the new manifest; the original manifests are back.
    KubeletNotReacting,
    /// The change did not succeed, and the agent gave no closer reason; the original manifests are back.
    RolledBack,
    /// kube-apiserver needs much more memory or time on the first node that was changed than before. No other node is changed.
    Regressed,
    /// Going back failed: a person must look at the node now.
    RollbackFailed,

    // --- what happened (Events)
    /// A node was given permission to change, and is about to.
    NodeGranted,
    /// A node carries new settings, verified.
    NodeChanged,
    /// The resource is gone, and every node has its original manifests back.
    Restored,
    /// The resource is gone, and nodes were left as they are, as a person asked.
    Released,

    // --- etcd
    /// etcd does not run on the control-plane nodes: kube-apiserver alone is traced, and no change waits for etcd.
    ExternalEtcd,

    // --- the collector
    /// A collector takes spans on every selected node.
    CollectorReady,
    /// Spans go to an endpoint that somebody else runs; the operator does not watch it.
    ExternalEndpoint,

    /// The certificate that an exporter shows ends within 14 days.
    CertificateExpiring,
    /// The certificate that an exporter shows has ended: its destination takes no spans.
    CertificateExpired,

    // --- the next minor version
    /// The next minor version starts with all that is set.
    UpgradeSafe,
    /// The next minor version starts; an upgrade resets tracing of a node, which the operator then puts back.
    UpgradeResetsSettings,
    /// A flag or a feature gate that is set keeps the next minor version from starting.
    UpgradeWouldFail,

    // --- proof
    /// Spans of every instance arrive, and are sent on.
    SpansFlowing,
    /// Spans of every instance arrive at the operator's trace store, and go nowhere else, because no exporter is configured.
    StoreOnly,
    /// A node's collector runs and has no spans of an instance, though there should be: API server or etcd → collector.
    NoSpansReceived,
    /// Neither spans nor counters of a node's collector arrive: it does not run, or does not reach the operator.
    CollectorSilent,
    /// A node's collector refuses spans, as it does at its memory limit.
    CollectorRefusing,
    /// A collector has spans and a back end does not get them: collector → back end.
    ExporterFailing,
    /// Whether spans arrive cannot be told yet; the message says within which time it can.
    WaitingForSpans,
    /// Nothing is sampled at this rate, and no probe is possible or wanted: whether spans arrive cannot be told.
    NotSampled,
    /// Nothing is sampled at this rate but the operator's own probe, and that cannot be sent; the message has the cause.
    ProbeOff,
    /// An API server has no identity Lease that may be read, so that its spans cannot be told from others.
    IdentityUnknown,
    /// Not measured by this version.
    NotMeasured,
}

impl ConditionType {
    /// The condition's `type`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Reason {
    /// The machine-readable code: a condition's or Event's `reason`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word of the two sets, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Which set it is of.
    pub kind: WordKind,
    /// The word.
    pub name: &'static str,
    /// What it means, in one paragraph.
    pub text: String,
}

/// What a word stands for. A word may be in both sets, as `SpansFlowing` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum WordKind {
    /// A condition's type.
    Condition,
    /// Why a condition, an Event, a refusal or an outcome is what it is.
    Reason,
}

/// Both sets with their meanings, conditions first, each in the order of its enum: what docs/reasons.md and the command line say.
pub fn meanings() -> Vec<Meaning> {
    // A comment of several lines is one paragraph: a line end would also end the row of a table.
    fn meaning(kind: WordKind, name: &'static str, documentation: Option<&str>) -> Meaning {
        Meaning { kind, name, text: documentation.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ") }
    }
    let conditions = ConditionType::iter().map(|c| meaning(WordKind::Condition, c.as_str(), c.get_documentation()));
    conditions.chain(Reason::iter().map(|r| meaning(WordKind::Reason, r.as_str(), r.get_documentation()))).collect()
}

/// Both sets in words, as Markdown: docs/reasons.md.
pub fn reference() -> String {
    let rows = |kind| -> String {
        let words = meanings().into_iter().filter(|word| word.kind == kind);
        words.map(|word| format!("| `{}` | {} |\n", word.name, word.text)).collect::<Vec<_>>().concat()
    };
    let (conditions, reasons) = (rows(WordKind::Condition), rows(WordKind::Reason));
    format!(
        "# Conditions and reasons\n\n<!-- Generated from src/api/condition.rs by `make generate`: do not edit. -->\n\nA condition, an Event, a node's refusal and a node's outcome use the same reason. The message beside it names the object, the cause \
         and the next command. Which check of `kubectl tracing check` a reason belongs to: [checks.md](checks.md).\n\n## Conditions of a ClusterTracing\n\n| type | True means |\n| --- | --- |\n{conditions}\n## Reasons\n\n| reason | means |\n\
         | --- | --- |\n{reasons}"
    )
}

/// A condition's new state, before it is merged into a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCondition {
    /// Which one.
    pub condition: ConditionType,
    /// `Some(true)` True, `Some(false)` False, `None` Unknown.
    pub status: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// For people: object, cause, next command.
    pub message: String,
}

/// Merges `new` into `old`: types that are absent from `new` are removed, and `lastTransitionTime` moves only when the status does.
pub fn merge_conditions(old: &[Condition], new: &[NewCondition], generation: i64, now: jiff::Timestamp) -> Vec<Condition> {
    new.iter()
        .map(|n| {
            let status = match n.status {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let since = old
                .iter()
                .find(|o| o.type_ == n.condition.as_str() && o.status == status)
                .map_or_else(|| Time(now), |o| o.last_transition_time.clone());
            Condition {
                type_: n.condition.as_str().to_owned(),
                status: status.to_owned(),
                reason: n.reason.as_str().to_owned(),
                message: n.message.clone(),
                observed_generation: Some(generation),
                last_transition_time: since,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: Option<bool>) -> Vec<NewCondition> {
        vec![NewCondition { condition: ConditionType::Ready, status, reason: Reason::RollingOut, message: String::new() }]
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let (t1, t2, t3) = (jiff::Timestamp::constant(1, 0), jiff::Timestamp::constant(2, 0), jiff::Timestamp::constant(3, 0));
        let first = merge_conditions(&[], &ready(Some(false)), 1, t1);
        let same = merge_conditions(&first, &ready(Some(false)), 2, t2);
        assert_eq!((same[0].last_transition_time.0, same[0].observed_generation), (t1, Some(2)));
        let moved = merge_conditions(&same, &ready(Some(true)), 2, t3);
        assert_eq!(moved[0].last_transition_time.0, t3);
    }

    #[test]
    fn a_reason_that_takes_several_lines_to_explain_is_one_row_of_the_table() {
        let table = reference();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        assert!(rows.clone().all(|row| row.ends_with(" |")), "{table}");
        assert_eq!(rows.count(), ConditionType::iter().count() + Reason::iter().count());
    }

    #[test]
    fn a_condition_that_is_not_given_is_removed() {
        let old = merge_conditions(&[], &ready(None), 1, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(old[0].status, "Unknown");
        assert!(merge_conditions(&old, &[], 1, jiff::Timestamp::UNIX_EPOCH).is_empty());
    }
}
