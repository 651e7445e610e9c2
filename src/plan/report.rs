//! Why a plan is what it is: the closed set of answers to "what is it waiting for?".
//!
//! A report is data; [`super::status`] and [`super::events`] put it before people. Messages name the object, the cause and the next
//! command, and hold nothing that changes by itself (no elapsed time): the same situation gives the same bytes, so that nothing is
//! written where nothing changes.

use k8s_openapi::jiff::Timestamp;

use super::canary::{Canary, Refused};
use super::collector::{self, Lacking};
use super::collector_check;
use super::retry::TRIES;
use super::secret::SecretTrouble;
use super::validate::{Goal, Invalid, Validated};
use crate::api::node_tracing::{Blocker, Measurement, MemberHealth, OutcomeResult};
use crate::api::{ANNOTATION_RELEASE, ComponentName, Drift, LABEL_CONTROL_PLANE, Reason, SINGLETON};
use crate::component::owner::Platform;

/// What a plan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The rollout as a whole.
    pub progress: Progress,
    /// Each control-plane node, by name.
    pub nodes: Vec<NodeReport>,
    /// Where no Ready collector of the wanted configuration is; empty where no collector is wanted.
    pub lacking: Lacking,
    /// Every selected node has a Ready collector of another configuration, which is not replaced yet.
    pub earlier_collector: bool,
    /// What is wrong with a Secret of the wanted collector.
    pub secret: Option<SecretTrouble>,
}

/// The rollout as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left to do.
    Done(Done),
    /// Something is under way; it goes on by itself.
    Waiting(WaitingOn),
    /// A person is needed.
    Stalled(Stalled),
}

/// Nothing is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Every selected node carries the requested settings.
    AsRequested,
    /// Both components are switched off, and nothing of ours is left in any manifest.
    Disabled,
    /// The resource is being deleted, and every node has its original manifests back.
    Restored,
    /// The resource is being deleted, and a person asked not to wait for the nodes.
    Released,
}

/// What the rollout waits for. Each is one gate of [`super::rollout`], or a step before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitingOn {
    /// Agents check the target against their manifests.
    Preflight {
        /// Nodes without an answer.
        nodes: Vec<String>,
    },
    /// An agent has been silent for longer than a check takes.
    Agent {
        /// Its node.
        node: String,
    },
    /// What pending nodes would be given is tried there, in pods.
    Canary {
        /// Nodes without a verdict.
        nodes: Vec<String>,
        /// The first that cannot be tried: the node, and why, in its pod's words.
        held: Option<(String, String)>,
    },
    /// The collector comes first.
    Collector {
        /// Where it is not Ready.
        lacking: Lacking,
        /// The first that tells why: its node, or nothing for the gateway, and its pod's words.
        words: Option<(Option<String>, String)>,
    },
    /// A new collector is tried, before it replaces one that works.
    CollectorCheck {
        /// It cannot be tried: why, in the kubelet's words.
        held: Option<String>,
    },
    /// A node has a grant and no outcome.
    Node {
        /// The node.
        node: String,
        /// Since when.
        since: Option<Timestamp>,
        /// For longer than any change takes: its agent is gone, or cannot report.
        overdue: bool,
    },
    /// Something on a node stands in the way of a change, as its agent says.
    Blocked {
        /// The node.
        node: String,
        /// What, in the agent's words.
        blocker: Blocker,
        /// The node has a grant, and does not begin.
        granted: bool,
    },
    /// An etcd member that is not well; nothing is changed beside it.
    EtcdUnhealthy {
        /// Its node.
        node: String,
        /// What is wrong.
        health: MemberHealth,
    },
    /// A failed change is tried again.
    Retry {
        /// Its node.
        node: String,
        /// Why it failed.
        reason: Reason,
        /// In the agent's words.
        message: String,
        /// When it is tried again.
        at: Timestamp,
    },
    /// The first node is measured, after its soak time.
    Measurement {
        /// The node.
        node: String,
    },
    /// An alarm of etcd.
    EtcdAlarm {
        /// The node of a member that reports it.
        node: String,
    },
    /// An etcd member that does not vote yet.
    EtcdLearner {
        /// Its node.
        node: String,
    },
    /// etcd's members are not all accounted for.
    QuorumAtRisk {
        /// The node of a member that says so, or says nothing.
        node: String,
        /// How many members etcd counts, if it says.
        known: Option<usize>,
        /// How many are on the control-plane nodes.
        seen: usize,
    },
    /// A node's manifests match, and its processes do not yet.
    Processes {
        /// The node.
        node: String,
    },
    /// A node that is not Ready; a second one is not taken down beside it.
    NodeNotReady {
        /// The node.
        node: String,
    },
    /// A component that does not answer its probes; nothing is changed beside it.
    ComponentUnhealthy {
        /// Its node.
        node: String,
        /// The component.
        component: ComponentName,
    },
    /// The node that was changed last is watched before the next.
    Soak {
        /// The node that was changed last.
        node: String,
        /// Until when.
        until: Timestamp,
    },
    /// `rollout.paused` is set.
    Paused {
        /// The node that would be next.
        next: String,
    },
    /// The grant that this plan gives.
    Grant {
        /// Its node.
        node: String,
    },
}

/// Why a person is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// The spec cannot be used.
    Invalid(Invalid),
    /// There is no node to change.
    NoNodes {
        /// There are control-plane nodes, and the selector matches none of them.
        selector: bool,
        /// Who runs the control plane, if the other nodes tell.
        platform: Option<Platform>,
    },
    /// Somebody else than kubeadm renders a node's manifests. Nothing is written, not even in the cluster.
    Platform {
        /// The node.
        node: String,
        /// Who.
        platform: Platform,
    },
    /// An agent refused the target. Nothing was written.
    Refused {
        /// Its node.
        node: String,
        /// The agent's reason.
        reason: Reason,
        /// The agent's words.
        message: String,
    },
    /// What a node would be given did not start there. Nothing was written on it.
    CanaryRefused {
        /// The node.
        node: String,
        /// Whose flags, and in its words why.
        refused: Refused,
    },
    /// The collector does not take its new configuration. What runs was not replaced.
    CollectorRefused {
        /// In its own words.
        words: String,
    },
    /// A Secret that the collector needs is not there. What runs was not replaced.
    Secret(SecretTrouble),
    /// A node's change of this generation did not succeed.
    Failed {
        /// The node.
        node: String,
        /// How it ended.
        result: OutcomeResult,
        /// The agent's reason.
        reason: Reason,
        /// The agent's words.
        message: String,
    },
    /// The first node does worse than before.
    Regressed {
        /// The node.
        node: String,
        /// Before the change.
        before: Measurement,
        /// After the soak time.
        after: Measurement,
    },
    /// `rollout.singleNodeDowntime: Refused`, and the change would interrupt the API.
    Downtime {
        /// How many control-plane nodes there are.
        nodes: usize,
        /// How many etcd members vote.
        voters: usize,
    },
    /// Preview mode: the change was checked on every node, and waits for a person to want it.
    ///
    /// Stalled is the true answer here: nothing further will happen by itself. Neither Ready (nodes do not carry the settings) nor
    /// Reconciling (which tools wait on until their timeout) would be.
    Preview {
        /// Nodes that would be changed, with the components that would restart.
        changes: Vec<(String, Vec<ComponentName>)>,
        /// Whether the collector would be made or changed.
        collector: bool,
        /// Whether what the nodes would be given was tried on them, and started.
        tried: bool,
    },
}

/// One control-plane node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Whether `rollout.nodeSelector` matches it.
    pub selected: bool,
    /// Where it stands.
    pub stand: Stand,
    /// What is known of trying there what it would be given.
    pub canary: Canary,
    /// What of its files is not as its agent left it.
    pub drift: Vec<Drift>,
}

/// Where a node stands, from its `NodeTracing` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Its agent has not answered the target.
    Unanswered {
        /// For longer than a check takes.
        silent: bool,
    },
    /// Its agent refused the target.
    Refused {
        /// Why.
        reason: Reason,
        /// In the agent's words.
        message: String,
    },
    /// It has a grant and no outcome.
    InFlight {
        /// Since when.
        since: Option<Timestamp>,
        /// For longer than any change takes.
        overdue: bool,
        /// Why its agent does not begin.
        blocked: Option<Blocker>,
    },
    /// A grant of this generation did not succeed.
    Failed {
        /// How it ended.
        result: OutcomeResult,
        /// Why.
        reason: Reason,
        /// In the agent's words.
        message: String,
        /// When it is tried again by itself.
        retry: Option<Timestamp>,
    },
    /// It has what it should have, and does worse with it.
    Regressed {
        /// Before the change.
        before: Measurement,
        /// After the soak time.
        after: Measurement,
    },
    /// A change is needed.
    Pending {
        /// What would restart.
        changes: Vec<ComponentName>,
    },
    /// The manifests match, the processes not yet.
    Settling,
    /// The manifests match, and a component does not answer its probes.
    Unhealthy {
        /// The component.
        component: ComponentName,
    },
    /// It has what it should have.
    UpToDate,
}

impl Done {
    /// The reason code.
    pub fn reason(self) -> Reason {
        match self {
            Self::AsRequested => Reason::AsRequested,
            Self::Disabled => Reason::Disabled,
            Self::Restored => Reason::Restored,
            Self::Released => Reason::Released,
        }
    }
}

fn waiting_for_collector(lacking: &Lacking, words: Option<&(Option<String>, String)>, namespace: &str) -> String {
    let told = match words {
        Some((Some(node), words)) => format!(" (node {node}: {words})"),
        Some((None, words)) => format!(" (gateway: {words})"),
        None => String::new(),
    };
    let pods = if lacking.gateway { collector::GATEWAY_SELECTOR } else { "app.kubernetes.io/component=collector" };
    format!(
        "the collector is not Ready {lacking}{told}; no node is changed before it is; see its pods: \
         kubectl -n {namespace} describe pods -l {pods}"
    )
}

impl WaitingOn {
    /// The reason code: `goal` tells a rollout from a removal.
    pub fn reason(&self, goal: Goal) -> Reason {
        match self {
            Self::Preflight { .. } => Reason::WaitingForPreflight,
            Self::Agent { .. } => Reason::WaitingForAgent,
            Self::Canary { .. } => Reason::WaitingForCanary,
            Self::Collector { .. } => Reason::WaitingForCollector,
            Self::CollectorCheck { .. } => Reason::WaitingForCollectorCheck,
            Self::Node { overdue: true, .. } => Reason::NodeOverdue,
            Self::Node { .. } | Self::Processes { .. } => Reason::WaitingForNode,
            Self::Blocked { blocker, .. } => blocker.reason,
            Self::Retry { .. } => Reason::RetryBackOff,
            Self::EtcdUnhealthy { .. } => Reason::EtcdUnhealthy,
            Self::EtcdAlarm { .. } => Reason::EtcdAlarm,
            Self::EtcdLearner { .. } => Reason::EtcdLearner,
            Self::QuorumAtRisk { .. } => Reason::QuorumAtRisk,
            Self::NodeNotReady { .. } => Reason::NodeNotReady,
            Self::ComponentUnhealthy { .. } => Reason::ComponentUnhealthy,
            Self::Soak { .. } | Self::Measurement { .. } => Reason::Soaking,
            Self::Paused { .. } => Reason::Paused,
            Self::Grant { .. } if goal == Goal::Trace => Reason::RollingOut,
            Self::Grant { .. } => Reason::Removing,
        }
    }

    /// The node that it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Agent { node }
            | Self::Node { node, .. }
            | Self::Processes { node }
            | Self::NodeNotReady { node }
            | Self::ComponentUnhealthy { node, .. }
            | Self::Blocked { node, .. }
            | Self::Retry { node, .. }
            | Self::Measurement { node }
            | Self::EtcdUnhealthy { node, .. }
            | Self::EtcdAlarm { node }
            | Self::EtcdLearner { node }
            | Self::QuorumAtRisk { node, .. }
            | Self::Soak { node, .. }
            | Self::Paused { next: node }
            | Self::Grant { node }
            | Self::Canary { held: Some((node, _)), .. }
            | Self::Collector { words: Some((Some(node), _)), .. } => Some(node),
            Self::Canary { held: None, .. }
            | Self::Preflight { .. }
            | Self::Collector { words: None | Some((None, _)), .. }
            | Self::CollectorCheck { .. } => None,
        }
    }

    fn message(&self, v: &Validated) -> String {
        let namespace = &v.installation.namespace;
        match self {
            Self::Preflight { nodes } => format!("the agents check the settings against the manifests of {}", nodes.join(", ")),
            Self::Agent { node } => format!(
                "node {node}: no agent answers; see its pod: kubectl -n {namespace} get pods \
                 -l app.kubernetes.io/component=agent --field-selector spec.nodeName={node}{}",
                let_go(v)
            ),
            Self::Canary { nodes, held: None } => format!(
                "the new flags are tried in a pod on {}, before anything is written; see: kubectl -n {namespace} get pods \
                 -l app.kubernetes.io/component=canary",
                nodes.join(", ")
            ),
            Self::Canary { held: Some((node, words)), .. } => format!(
                "node {node}: the pod that tries the new flags gives no verdict: {words}; nothing is written before it does; see: \
                 kubectl -n {namespace} describe pods -l app.kubernetes.io/component=canary"
            ),
            Self::Collector { lacking, words } => waiting_for_collector(lacking, words.as_ref(), namespace),
            Self::CollectorCheck { held } => collector_check::waiting(held.as_deref(), namespace),
            Self::Node { node, since, overdue } => {
                let since = since.map(|t| format!(" since {t}")).unwrap_or_default();
                if *overdue {
                    format!(
                        "node {node} was granted a change{since} and has not reported how it ended, for longer than any change takes; no \
                         other node is changed; see its agent's pod: kubectl -n {namespace} get pods -l app.kubernetes.io/component=agent \
                         --field-selector spec.nodeName={node}; if the node does not come back: docs/break-glass.md{}",
                        let_go(v)
                    )
                } else {
                    format!("node {node} carries out its change{since}; follow it: kubectl get nodetracing {node} -w")
                }
            }
            Self::Blocked { node, blocker, granted } => {
                let stands = if *granted { "its change is granted and not begun" } else { "no change is begun" };
                format!("node {node}: {stands}: {}{}", blocker.message, let_go(v))
            }
            Self::Retry { node, reason, message, at } => format!(
                "node {node}: the change did not succeed ({reason}: {message}) and the node has its original manifests; the cause may pass, so \
                 that the same is tried again at {at}, at most {TRIES} times in all; no other node is changed; any edit of the spec tries \
                 at once{}",
                let_go(v)
            ),
            Self::Measurement { node } => format!("node {node} is measured, to compare it with what it was before its change"),
            Self::EtcdUnhealthy { node, health } => {
                let what = if *health == MemberHealth::NoLeader { "knows no leader" } else { "does not read from a quorum" };
                format!(
                    "the etcd member of node {node} {what}, and nothing is changed beside it; see: kubectl -n kube-system logs etcd-{node}{}",
                    let_go(v)
                )
            }
            Self::EtcdAlarm { node } => format!(
                "the etcd member of node {node} reports an alarm, and nothing is changed before it is disarmed; see, with etcd's \
                 certificates: etcdctl alarm list{}",
                let_go(v)
            ),
            Self::EtcdLearner { node } => format!(
                "the etcd member of node {node} is a learner: a change of membership is under way, and no member is restarted during it; \
                 see, with etcd's certificates: etcdctl member list{}",
                let_go(v)
            ),
            Self::QuorumAtRisk { node, known, seen } => {
                let what = match known {
                    Some(known) if known != seen => {
                        format!("etcd counts {known} members, and {seen} of them are on the control-plane nodes")
                    }
                    Some(_) => format!("the etcd member of node {node} is not connected to every other member"),
                    None => format!("the etcd member of node {node} does not tell how its cluster is"),
                };
                format!(
                    "{what}; no member is restarted, because the quorum could end; see, with etcd's certificates: etcdctl member list{}",
                    let_go(v)
                )
            }
            Self::Processes { node } => {
                format!(
                    "node {node}: the manifests match, the running processes do not yet; see: kubectl describe nodetracing {node}{}",
                    let_go(v)
                )
            }
            Self::NodeNotReady { node } => {
                format!("node {node} is not Ready, and no other is changed beside it; see: kubectl describe node {node}{}", let_go(v))
            }
            Self::ComponentUnhealthy { node, component } => format!(
                "{component} on node {node} does not answer its probes, and nothing is changed beside it; see: kubectl -n kube-system \
                 logs {component}-{node}{}",
                let_go(v)
            ),
            Self::Soak { node, until } => format!("node {node} is watched until {until} before the next is changed (rollout.soakSeconds)"),
            Self::Paused { next } => format!(
                "rollout.paused is set; node {next} is next; go on: kubectl patch clustertracing {SINGLETON} --type merge \
                 -p '{{\"spec\":{{\"rollout\":{{\"paused\":false}}}}}}'"
            ),
            Self::Grant { node } => format!("node {node} is next; follow it: kubectl get nodetracing {node} -w"),
        }
    }
}

impl Stalled {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Invalid(_) => Reason::InvalidSettings,
            Self::NoNodes { .. } => Reason::NoControlPlaneNodes,
            Self::Platform { .. } => Reason::UnsupportedPlatform,
            Self::Refused { reason, .. } | Self::Failed { reason, .. } => *reason,
            Self::CanaryRefused { .. } => Reason::CanaryRefused,
            Self::CollectorRefused { .. } => Reason::CollectorConfigRefused,
            Self::Secret(trouble) => trouble.reason(),
            Self::Regressed { .. } => Reason::Regressed,
            Self::Downtime { .. } => Reason::DowntimeRefused,
            Self::Preview { .. } => Reason::Preview,
        }
    }

    /// The node that it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Refused { node, .. }
            | Self::CanaryRefused { node, .. }
            | Self::Failed { node, .. }
            | Self::Regressed { node, .. }
            | Self::Platform { node, .. } => Some(node),
            Self::CollectorRefused { .. }
            | Self::Secret(_)
            | Self::Invalid(_)
            | Self::NoNodes { .. }
            | Self::Downtime { .. }
            | Self::Preview { .. } => None,
        }
    }

    fn message(&self, v: &Validated) -> String {
        match self {
            Self::Invalid(invalid) => invalid_message(invalid),
            Self::NoNodes { platform: Some(platform), .. } => {
                format!("no control-plane node is visible, and the other nodes are of {}: {}", platform.name, platform.remedy)
            }
            Self::Platform { node, platform } => {
                format!("node {node}: {} renders its manifests, so that nothing was written; {}", platform.name, platform.remedy)
            }
            Self::NoNodes { selector: false, .. } => format!(
                "no node carries the label {LABEL_CONTROL_PLANE}: the control plane is run by somebody else, or the label is missing; \
                 see: kubectl get nodes --show-labels"
            ),
            Self::NoNodes { selector: true, .. } => {
                "no control-plane node matches rollout.nodeSelector; see: kubectl get nodes --show-labels".to_owned()
            }
            // the rest may have been changed before, and what was written on this node a person has taken back
            Self::Refused { node, reason: Reason::RestoredByHand, message } => {
                format!("node {node}: {message}; no other node is changed; see: kubectl describe nodetracing {node}{}", let_go(v))
            }
            // no node of this port or without it was changed; the others may have been, at another time
            Self::Refused { node, reason: Reason::PortTaken, message } => {
                format!("node {node}: {message}; nothing is changed before that, and it goes on by itself then{}", let_go(v))
            }
            Self::Refused { node, message, .. } => {
                format!("node {node}: {message}; nothing was written on any node; see: kubectl describe nodetracing {node}{}", let_go(v))
            }
            Self::CanaryRefused { node, refused } => {
                let Refused { component, words } = refused;
                format!(
                    "node {node}: {component} did not start with its new flags in a pod there: {words}; nothing was written on the node, \
                     and no other is changed; see: kubectl describe nodetracing {node}; any edit of the spec tries again"
                )
            }
            Self::CollectorRefused { words } => format!(
                "the collector refuses its new configuration: {words}; what runs stays as it is, and no node is changed; correct it: \
                 kubectl edit clustertracing {SINGLETON}; any edit of the spec tries again"
            ),
            Self::Secret(trouble) => format!(
                "{}; the collector that runs stays as it is, no node is changed, and it goes on by itself then",
                trouble.message(&v.installation.namespace)
            ),
            Self::Failed { node, result, message, .. } => {
                let (ended, next) = match result {
                    OutcomeResult::Failed => (
                        "the change failed, and so did going back",
                        format!("look at the node now; see: kubectl describe nodetracing {node}"),
                    ),
                    OutcomeResult::RolledBack => (
                        "the change failed, and the original manifests are back",
                        format!("see: kubectl describe nodetracing {node}; any edit of the spec tries again"),
                    ),
                    OutcomeResult::Refused | OutcomeResult::Succeeded => {
                        ("nothing was written", format!("see: kubectl describe nodetracing {node}; any edit of the spec tries again"))
                    }
                };
                format!("node {node}: {ended}: {message}; no other node is changed; {next}{}", let_go(v))
            }
            Self::Regressed { node, before, after } => format!(
                "node {node}: kube-apiserver held {} MiB and answered in {} ms before its change, and holds {} MiB and answers in {} ms after \
                 its soak time; no other node is changed; undo it: kubectl patch clustertracing {SINGLETON} --type merge -p \
                 '{{\"spec\":{{\"kubeAPIServer\":{{\"state\":\"Disabled\"}},\"etcd\":{{\"state\":\"Disabled\"}}}}}}'; any other edit of the \
                 spec goes on",
                before.memory_mib, before.latency_milliseconds, after.memory_mib, after.latency_milliseconds
            ),
            Self::Downtime { nodes, voters } => format!(
                "with {nodes} control-plane node{} and {voters} voting etcd member{} a change interrupts the API, and \
                 rollout.singleNodeDowntime is Refused; set it to Allowed to go on{}",
                if *nodes == 1 { "" } else { "s" },
                if *voters == 1 { "" } else { "s" },
                let_go(v)
            ),
            Self::Preview { changes, collector, tried } => {
                let nodes = changes.iter().map(|(node, components)| {
                    let components: Vec<_> = components.iter().map(|c| c.as_str()).collect();
                    format!("{node} ({})", components.join(", "))
                });
                let all: Vec<_> = collector.then(|| "the collector".to_owned()).into_iter().chain(nodes).collect();
                let tried = if *tried { "the new flags start on every node that would get them; " } else { "" };
                format!("nothing was written; {tried}would change: {}; to make it so, set rollout.mode to Automatic", all.join("; "))
            }
        }
    }
}

/// The message of a spec that cannot be used.
pub fn invalid_message(invalid: &Invalid) -> String {
    format!("{invalid}; nothing was changed; correct it: kubectl edit clustertracing {SINGLETON}")
}

/// The way out of a removal that cannot end.
fn let_go(v: &Validated) -> String {
    if v.goal == Goal::Trace {
        String::new()
    } else {
        format!(
            "; to let the resource go and leave the nodes as they are: kubectl annotate clustertracing {SINGLETON} {ANNOTATION_RELEASE}=true"
        )
    }
}

impl NodeReport {
    /// What has drifted, in words; nothing where nothing has.
    pub fn drifted(&self) -> Option<String> {
        let words: Vec<_> = self.drift.iter().map(ToString::to_string).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

impl Report {
    /// Which nodes have drifted, and how; nothing where none has.
    pub fn drifted(&self) -> Option<String> {
        let nodes: Vec<_> = self.nodes.iter().filter_map(|n| Some(format!("node {}: {}", n.name, n.drifted()?))).collect();
        (!nodes.is_empty()).then(|| nodes.join("; "))
    }

    /// The reason code of the whole.
    pub fn reason(&self, goal: Goal) -> Reason {
        match &self.progress {
            Progress::Done(done) => done.reason(),
            Progress::Waiting(waiting) => waiting.reason(goal),
            Progress::Stalled(stalled) => stalled.reason(),
        }
    }

    /// The node that the whole is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match &self.progress {
            Progress::Done(_) => None,
            Progress::Waiting(waiting) => waiting.node(),
            Progress::Stalled(stalled) => stalled.node(),
        }
    }

    /// For people.
    pub fn message(&self, v: &Validated) -> String {
        match &self.progress {
            Progress::Done(Done::AsRequested) => {
                format!("{} of {} nodes carry the requested settings", self.up_to_date(), self.selected())
            }
            Progress::Done(Done::Disabled) => "tracing is switched off, and no manifest carries anything of ours".to_owned(),
            Progress::Done(Done::Restored) => "every node has its original manifests back".to_owned(),
            Progress::Done(Done::Released) => {
                format!("let go without restoring the nodes, as the annotation {ANNOTATION_RELEASE} asks")
            }
            Progress::Waiting(waiting) => waiting.message(v),
            Progress::Stalled(stalled) => stalled.message(v),
        }
    }

    /// Selected nodes that carry the requested settings.
    pub fn up_to_date(&self) -> usize {
        self.nodes.iter().filter(|n| n.selected && n.stand == Stand::UpToDate).count()
    }

    /// Selected nodes.
    pub fn selected(&self) -> usize {
        self.nodes.iter().filter(|n| n.selected).count()
    }
}
