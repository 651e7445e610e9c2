//! Why a plan is what it is: the closed set of answers to "what is it waiting for?".
//!
//! A report is data; [`super::status`] and [`super::events`] put it before people. Messages name the object, the cause and the next
//! command, and hold nothing that changes by itself (no elapsed time): the same situation gives the same bytes, so that nothing is
//! written where nothing changes.

use k8s_openapi::jiff::Timestamp;

use super::validate::{Goal, Invalid, Validated};
use crate::api::node_tracing::OutcomeResult;
use crate::api::{ANNOTATION_RELEASE, ComponentName, LABEL_CONTROL_PLANE, Reason, SINGLETON};

/// What a plan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The rollout as a whole.
    pub progress: Progress,
    /// Each control-plane node, by name.
    pub nodes: Vec<NodeReport>,
    /// Selected nodes without a Ready collector of the wanted configuration; empty where no collector is wanted.
    pub without_collector: Vec<String>,
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
    /// The collector comes first.
    Collector {
        /// Nodes without it.
        nodes: Vec<String>,
    },
    /// A node has a grant and no outcome.
    Node {
        /// The node.
        node: String,
        /// Since when.
        since: Option<Timestamp>,
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
    /// `rollout.singleNodeDowntime: Refused`, and the change would interrupt the API.
    Downtime {
        /// How many control-plane nodes there are.
        nodes: usize,
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
    },
    /// A grant of this generation did not succeed.
    Failed {
        /// How it ended.
        result: OutcomeResult,
        /// Why.
        reason: Reason,
        /// In the agent's words.
        message: String,
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

impl WaitingOn {
    /// The reason code: `goal` tells a rollout from a removal.
    pub fn reason(&self, goal: Goal) -> Reason {
        match self {
            Self::Preflight { .. } => Reason::WaitingForPreflight,
            Self::Agent { .. } => Reason::WaitingForAgent,
            Self::Collector { .. } => Reason::WaitingForCollector,
            Self::Node { .. } | Self::Processes { .. } => Reason::WaitingForNode,
            Self::NodeNotReady { .. } => Reason::NodeNotReady,
            Self::ComponentUnhealthy { .. } => Reason::ComponentUnhealthy,
            Self::Soak { .. } => Reason::Soaking,
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
            | Self::Soak { node, .. }
            | Self::Paused { next: node }
            | Self::Grant { node } => Some(node),
            Self::Preflight { .. } | Self::Collector { .. } => None,
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
            Self::Collector { nodes } => format!(
                "the collector is not Ready on {}; no node is changed before it is; see its pods: \
                 kubectl -n {namespace} describe pods -l app.kubernetes.io/component=collector",
                nodes.join(", ")
            ),
            Self::Node { node, since } => {
                let since = since.map(|t| format!(" since {t}")).unwrap_or_default();
                format!("node {node} carries out its change{since}; follow it: kubectl get nodetracing {node} -w")
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
            Self::Refused { reason, .. } | Self::Failed { reason, .. } => *reason,
            Self::Downtime { .. } => Reason::DowntimeRefused,
            Self::Preview { .. } => Reason::Preview,
        }
    }

    /// The node that it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Refused { node, .. } | Self::Failed { node, .. } => Some(node),
            Self::Invalid(_) | Self::NoNodes { .. } | Self::Downtime { .. } | Self::Preview { .. } => None,
        }
    }

    fn message(&self, v: &Validated) -> String {
        match self {
            Self::Invalid(invalid) => invalid_message(invalid),
            Self::NoNodes { selector: false } => format!(
                "no node carries the label {LABEL_CONTROL_PLANE}: the control plane is run by somebody else, or the label is missing; \
                 see: kubectl get nodes --show-labels"
            ),
            Self::NoNodes { selector: true } => {
                "no control-plane node matches rollout.nodeSelector; see: kubectl get nodes --show-labels".to_owned()
            }
            Self::Refused { node, message, .. } => {
                format!("node {node}: {message}; nothing was written on any node; see: kubectl describe nodetracing {node}{}", let_go(v))
            }
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
            Self::Downtime { nodes } => format!(
                "with {nodes} control-plane node{} a change interrupts the API, and rollout.singleNodeDowntime is Refused; \
                 set it to Allowed to go on{}",
                if *nodes == 1 { "" } else { "s" },
                let_go(v)
            ),
            Self::Preview { changes, collector } => {
                let nodes = changes.iter().map(|(node, components)| {
                    let components: Vec<_> = components.iter().map(|c| c.as_str()).collect();
                    format!("{node} ({})", components.join(", "))
                });
                let all: Vec<_> = collector.then(|| "the collector".to_owned()).into_iter().chain(nodes).collect();
                format!("nothing was written; would change: {}; to make it so, set rollout.mode to Automatic", all.join("; "))
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

impl Report {
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
