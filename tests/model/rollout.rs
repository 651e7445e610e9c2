//! The cluster: the API server's objects, the controllers that read and write them, and everything that can happen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use clustertracing::agent::machine::Flight;
use clustertracing::api::{ClusterTracing, FINALIZER, LABEL_CONTROL_PLANE, NodeTracing, NodeTracingSpec, SINGLETON, State, Target};
use clustertracing::plan::observed::{ANNOTATION_TERM, Observed, ObservedNode, ObservedNodeTracing};
use clustertracing::plan::validate::{Goal, Installation, Validated, validate};
use clustertracing::plan::{GrantPlan, TargetPlan, plan};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde_json::json;
use stateright::Model;

use crate::hashed::Hashed;
use crate::node::{Agent, BAD_RATE, Node, Turned, is_failure};

/// A rate that every process is well with.
const GOOD_RATE: i32 = 100;
/// Sooner after every outcome than a failed change is tried again.
const NOW: jiff::Timestamp = jiff::Timestamp::constant(1_700_000_300, 0);

/// What may happen, and how often.
#[derive(Default)]
pub(crate) struct Rollout {
    /// Control-plane nodes.
    pub(crate) nodes: usize,
    /// Changes of the resource by a person.
    pub(crate) edits: u8,
    /// Crashes, power cuts, sleeping leaders, late reads, lost time: of whatever kind, or of one that is chosen.
    pub(crate) misfortunes: u8,
    kinds: Option<fn(&Cluster, &Action) -> bool>,
    /// Plans are pure: what was planned once of the same is not planned again.
    plans: Mutex<HashMap<Seen, Vec<Write>>>,
}

/// Everything that the model knows at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cluster {
    pub(crate) resource: Option<Hashed<ClusterTracing>>,
    /// The `NodeTracing` of each node.
    pub(crate) objects: Vec<Option<Hashed<NodeTracing>>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) leader: Leader,
    /// A leader of an earlier term that does not know it yet.
    pub(crate) sleeper: Option<Leader>,
    edits: u8,
    misfortunes: u8,
    /// Generations with a change that did not succeed.
    failed: BTreeSet<i64>,
    /// A grant was given for one of them.
    pub(crate) granted_after_failure: bool,
}

/// A controller in its term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    term: u8,
    /// Read for this turn: the resource and the Nodes. The `NodeTracing`s are read after them.
    read: Option<(Hashed<ClusterTracing>, Vec<bool>)>,
    /// What this turn has still to write, and whether the object is as it was read: what a `resourceVersion` tells.
    writes: Vec<(Write, bool)>,
}

/// Everything that a turn of the controller reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seen {
    resource: Hashed<ClusterTracing>,
    nodes: Vec<bool>,
    objects: Vec<Option<Hashed<NodeTracing>>>,
    term: u8,
}

/// One write, as `controller::apply` makes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    /// Puts the finalizer on, or takes it off, if the resource is as it was read.
    Finalizer(bool),
    /// Makes an object that was not there, or gives one another target, if it is as it was read.
    Target { node: usize, plan: Hashed<TargetPlan>, was_there: bool },
    /// Grants, if the object is as it was read.
    Grant { node: usize, plan: Hashed<GrantPlan> },
    /// Removes an object.
    Remove(usize),
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Leader,
    Sleeper,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The leader reads and plans.
    Plan,
    /// A controller makes its next write.
    Write(Who),
    /// An agent looks, checks, acts on a grant, reports.
    Turn(usize),
    /// An agent takes the next step of its flight.
    Fly(usize),
    /// An agent hears that its outcome is known.
    Forget(usize),
    /// The kubelet ends or starts a component.
    Kubelet(usize, usize),
    /// A flight's budget is used up, and its processes are not well.
    Timeout(usize),
    /// An agent is started.
    StartAgent(usize),
    /// A machine is started.
    PowerOn(usize),
    /// The Node object follows the machine.
    Notice(usize),
    /// A person asks for a rate.
    Edit(i32),
    /// A person deletes the resource.
    Delete,
    /// The leader's process ends between two writes; the next one has a new term.
    CrashLeader,
    /// The leader stops in the middle of its turn, another one takes over, and it may go on at any later time.
    Sleep,
    /// The leader has read the resource and the Nodes, and reads the rest later.
    ReadLate,
    /// An agent's process ends.
    CrashAgent(usize),
    /// An agent acts on an object that its watch has not brought up to date.
    TurnLate(usize),
    /// A machine loses its power.
    PowerOff(usize),
    /// A flight's budget is used up before the kubelet has done its part.
    Slow(usize),
    /// Somebody takes our edit out of a node's manifests.
    Drift(usize),
}

impl Action {
    /// Whether it happens by itself, so that what can still do so has not come to rest.
    fn goes_on(&self) -> bool {
        use Action::{Fly, Forget, Kubelet, Notice, Plan, PowerOn, StartAgent, Timeout, Turn, Write};
        matches!(self, Plan | Write(_) | Turn(_) | Fly(_) | Forget(_) | Kubelet(..) | Timeout(_) | StartAgent(_) | PowerOn(_) | Notice(_))
    }

    fn is_edit(&self) -> bool {
        matches!(self, Self::Edit(_) | Self::Delete)
    }
}

impl Leader {
    fn new(term: u8) -> Self {
        Self { term, read: None, writes: Vec::new() }
    }
}

fn name_of(node: usize) -> String {
    format!("cp{node}")
}

fn uid_of(node: usize) -> String {
    format!("uid-{node}")
}

fn resource(rate: i32, generation: i64) -> ClusterTracing {
    let spec = json!({
        "samplingRatePerMillion": rate,
        "collector": { "mode": "External", "endpoint": "10.96.0.20:4317" },
        "rollout": { "soakSeconds": 0 },
    });
    let mut resource = ClusterTracing::new(SINGLETON, serde_json::from_value(spec).expect("it is a spec"));
    resource.metadata.generation = Some(generation);
    resource.metadata.uid = Some("uid-of-the-resource".to_owned());
    resource
}

fn validated(resource: &ClusterTracing) -> Validated {
    // Without the canary there are more grants, and fewer states before them.
    let installation = Installation {
        namespace: "clustertracing".to_owned(),
        collector_image: "otelcol:0.155.0".to_owned(),
        canary: State::Disabled,
        probe: State::Enabled,
    };
    validate(resource, &installation).expect("the model's specs are valid")
}

impl Rollout {
    pub(crate) fn new(nodes: usize, edits: u8, misfortunes: u8) -> Self {
        Self { nodes, edits, misfortunes, ..Self::default() }
    }

    /// Only these misfortunes, and settings that are good.
    pub(crate) fn of_kinds(self, kinds: fn(&Cluster, &Action) -> bool) -> Self {
        Self { kinds: Some(kinds), ..self }
    }

    /// Whether nothing is asked for that fails.
    pub(crate) fn all_is_well(&self) -> bool {
        self.kinds.is_some()
    }

    /// The writes of a turn that has read this, in `controller::apply`'s order.
    fn writes(&self, seen: Seen) -> Vec<Write> {
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&seen).cloned();
        known.unwrap_or_else(|| {
            let writes = seen.writes();
            self.plans.lock().unwrap_or_else(PoisonError::into_inner).insert(seen, writes.clone());
            writes
        })
    }

    /// Whether nothing can happen any more but what people and bad luck do.
    pub(crate) fn is_at_rest(&self, cluster: &Cluster) -> bool {
        let mut actions = Vec::new();
        self.actions(cluster, &mut actions);
        actions.into_iter().filter(Action::goes_on).all(|action| self.next_state(cluster, action).is_none())
    }

    fn do_it(&self, cluster: &mut Cluster, action: &Action) -> Option<()> {
        match *action {
            Action::Plan => cluster.plan(self),
            Action::Write(who) => cluster.write(who),
            Action::Turn(n) => {
                let object = cluster.objects[n].clone()?;
                let turned = cluster.nodes[n].turn(&object, &uid_of(n));
                cluster.turned(n, turned)
            }
            Action::TurnLate(n) => {
                let object = cluster.nodes[n].last_read().filter(|read| Some(*read) != cluster.objects[n].as_ref())?;
                let turned = cluster.nodes[n].turn(object, &uid_of(n));
                cluster.turned(n, turned)
            }
            Action::Fly(n) => {
                let answer = cluster.objects[n].as_deref().filter(|_| cluster.has_api());
                let turned = cluster.nodes[n].fly(answer, &uid_of(n));
                cluster.turned(n, turned)
            }
            Action::Forget(n) => {
                cluster.nodes[n] = cluster.nodes[n].forget(cluster.objects[n].as_deref()?)?;
                Some(())
            }
            Action::Kubelet(n, component) => cluster.nodes[n].kubelet(component).then_some(()),
            Action::Timeout(n) => cluster.turned(n, cluster.nodes[n].run_out_of_time(false)),
            Action::Slow(n) => cluster.turned(n, cluster.nodes[n].run_out_of_time(true)),
            Action::StartAgent(n) => cluster.turned(n, cluster.nodes[n].clone().start_agent()),
            Action::CrashAgent(n) => cluster.nodes[n].kill_agent().then_some(()),
            Action::PowerOn(n) => (!cluster.nodes[n].up).then(|| cluster.nodes[n].power_on()),
            Action::PowerOff(n) => cluster.nodes[n].up.then(|| cluster.nodes[n].power_off()),
            Action::Notice(n) => {
                let node = &mut cluster.nodes[n];
                (node.ready != node.up).then(|| node.ready = node.up)
            }
            Action::Edit(rate) => cluster.edit(rate),
            Action::Delete => cluster.delete(),
            Action::CrashLeader => {
                cluster.leader = Leader::new(cluster.leader.term + 1);
                Some(())
            }
            Action::Drift(n) => cluster.nodes[n].drift().then_some(()),
            Action::Sleep => {
                let next = Leader::new(cluster.leader.term + 1);
                cluster.sleeper = Some(std::mem::replace(&mut cluster.leader, next)).filter(|leader| !leader.writes.is_empty());
                cluster.sleeper.is_some().then_some(())
            }
            Action::ReadLate => {
                let read = (cluster.resource.clone()?, cluster.nodes.iter().map(|node| node.ready).collect());
                cluster.leader.read = Some(read);
                Some(())
            }
        }
    }
}

impl Model for Rollout {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        let cluster = |rate| Cluster {
            resource: Some(Hashed::new(resource(rate, 1))),
            objects: vec![None; self.nodes],
            nodes: vec![Node::new(i32::try_from(self.nodes).expect("a few nodes")); self.nodes],
            leader: Leader::new(1),
            sleeper: None,
            edits: self.edits,
            misfortunes: self.misfortunes,
            failed: BTreeSet::new(),
            granted_after_failure: false,
        };
        let rates: &[i32] = if self.all_is_well() { &[GOOD_RATE] } else { &[GOOD_RATE, BAD_RATE] };
        rates.iter().map(|rate| cluster(*rate)).collect()
    }

    fn actions(&self, cluster: &Cluster, actions: &mut Vec<Action>) {
        let (lucky, idle) = (cluster.misfortunes == 0, cluster.leader.writes.is_empty());
        if cluster.has_api() {
            actions.push(if idle { Action::Plan } else { Action::Write(Who::Leader) });
            actions.extend(cluster.sleeper.iter().map(|_| Action::Write(Who::Sleeper)));
            actions.extend((0..self.nodes).flat_map(|n| [Action::Turn(n), Action::Forget(n), Action::Notice(n)]));
            if cluster.edits > 0 {
                actions.extend([Action::Edit(GOOD_RATE), Action::Edit(BAD_RATE), Action::Delete]);
            }
        }
        for n in 0..self.nodes {
            actions.extend([Action::Fly(n), Action::Kubelet(n, 0), Action::Kubelet(n, 1), Action::Timeout(n)]);
            actions.extend([Action::StartAgent(n), Action::PowerOn(n)]);
        }
        if !lucky {
            let of_node = |n| [Action::CrashAgent(n), Action::TurnLate(n), Action::PowerOff(n), Action::Slow(n), Action::Drift(n)];
            let of_leader = [Action::CrashLeader, if idle { Action::ReadLate } else { Action::Sleep }];
            let misfortunes = (0..self.nodes).flat_map(of_node).chain(of_leader);
            actions.extend(misfortunes.filter(|action| self.kinds.is_none_or(|is_chosen| is_chosen(cluster, action))));
        }
    }

    fn next_state(&self, cluster: &Cluster, action: Action) -> Option<Cluster> {
        let mut next = cluster.clone();
        self.do_it(&mut next, &action)?;
        if action.is_edit() {
            next.edits -= 1;
        } else if !action.goes_on() {
            next.misfortunes -= 1;
        }
        (next != *cluster).then_some(next)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        crate::properties()
    }
}

impl Cluster {
    /// An API server that has etcd's quorum behind it answers.
    pub(crate) fn has_api(&self) -> bool {
        let serving = |component| self.nodes.iter().filter(|node| node.serves(component)).count();
        serving(0) > 0 && serving(1) * 2 > self.nodes.len()
    }

    /// Grants without an outcome.
    pub(crate) fn granted(&self) -> usize {
        self.objects.iter().flatten().filter(|object| ObservedNodeTracing::from(&***object).in_flight().is_some()).count()
    }

    /// Whether the leader has decided on a grant, and writes it next.
    pub(crate) fn is_about_to_grant(&self) -> bool {
        matches!(self.leader.writes.first(), Some((Write::Grant { .. }, _)))
    }

    /// Changes that have begun and have not ended, with the node.
    pub(crate) fn flights(&self) -> impl Iterator<Item = (&Node, &Flight)> {
        self.nodes.iter().filter_map(|node| Some((node, node.flight()?)))
    }

    /// What every node should have.
    pub(crate) fn target(&self) -> Option<Target> {
        self.resource.as_ref().map(|resource| validated(resource).target(true))
    }

    /// Whether a change of this very generation did not succeed.
    pub(crate) fn has_stopped(&self) -> bool {
        self.resource.as_ref().is_some_and(|resource| self.failed.contains(&resource.metadata.generation.unwrap_or_default()))
    }

    fn plan(&mut self, model: &Rollout) -> Option<()> {
        let late = self.leader.read.take();
        let nodes = self.nodes.iter().map(|node| node.ready).collect();
        let (resource, nodes) = late.or_else(|| Some((self.resource.clone()?, nodes)))?;
        let writes = model.writes(Seen { resource: resource.clone(), nodes, objects: self.objects.clone(), term: self.leader.term });
        let current = Some(&resource) == self.resource.as_ref();
        let is_current = |write: &Write| current || !matches!(write, Write::Finalizer(_));
        self.leader.writes = writes
            .into_iter()
            .map(|write| {
                let fresh = is_current(&write);
                (write, fresh)
            })
            .collect();
        Some(())
    }

    /// The next write. One that fails ends the turn.
    fn write(&mut self, who: Who) -> Option<()> {
        let leader = if who == Who::Leader { Some(&mut self.leader) } else { self.sleeper.as_mut() }?;
        let (write, fresh) = leader.writes.remove(0);
        let written = self.carry_out(write, fresh);
        match who {
            Who::Leader if !written => self.leader.writes.clear(),
            Who::Sleeper if !written => self.sleeper = None,
            Who::Leader | Who::Sleeper => self.sleeper = self.sleeper.take().filter(|sleeper| !sleeper.writes.is_empty()),
        }
        Some(())
    }

    fn carry_out(&mut self, write: Write, fresh: bool) -> bool {
        match write {
            Write::Finalizer(put_on) => {
                let Some(resource) = self.resource.clone().filter(|_| fresh) else { return self.resource.is_none() };
                let mut resource = (*resource).clone();
                resource.metadata.finalizers = put_on.then(|| vec![FINALIZER.to_owned()]);
                let gone = !put_on && resource.metadata.deletion_timestamp.is_some();
                self.set_resource((!gone).then_some(resource));
            }
            Write::Target { .. } | Write::Grant { .. } if !fresh => return false,
            Write::Target { node, plan, .. } => {
                let mut object = self.objects[node].as_deref().cloned().unwrap_or_else(|| made(node));
                object.metadata.annotations = Some([(ANNOTATION_TERM.to_owned(), plan.term.clone())].into());
                let changed = object.spec.target.as_ref() != Some(&plan.target);
                object.spec.target = Some(plan.target.clone());
                object.metadata.generation = object.metadata.generation.map(|g| g + i64::from(changed));
                self.set_object(node, Some(object));
            }
            Write::Grant { node, plan } => {
                let Some(mut object) = self.objects[node].as_deref().cloned() else { return false };
                object.spec.grant = Some(plan.grant.clone());
                object.metadata.generation = object.metadata.generation.map(|g| g + 1);
                self.granted_after_failure |= self.failed.contains(&plan.grant.generation);
                self.set_object(node, Some(object));
            }
            Write::Remove(node) => self.set_object(node, None),
        }
        true
    }

    /// What was read of it is out of date from now on, for whoever has read it.
    fn set_object(&mut self, node: usize, object: Option<NodeTracing>) {
        let object = object.map(Hashed::new);
        if object == self.objects[node] {
            return;
        }
        self.objects[node] = object;
        self.outdate(|write| matches!(write, Write::Target { node: n, .. } | Write::Grant { node: n, .. } if *n == node));
    }

    fn set_resource(&mut self, resource: Option<ClusterTracing>) {
        self.resource = resource.map(Hashed::new);
        self.outdate(|write| matches!(write, Write::Finalizer(_)));
    }

    fn outdate(&mut self, of: impl Fn(&Write) -> bool) {
        let leaders = std::iter::once(&mut self.leader).chain(self.sleeper.as_mut());
        leaders.flat_map(|leader| &mut leader.writes).filter(|(write, _)| of(write)).for_each(|(_, fresh)| *fresh = false);
    }

    fn edit(&mut self, rate: i32) -> Option<()> {
        let old = self.resource.clone()?;
        let generation = old.metadata.generation.unwrap_or_default() + 1;
        let mut new = resource(rate, generation);
        new.metadata.finalizers.clone_from(&old.metadata.finalizers);
        let changes = old.spec != new.spec && old.metadata.deletion_timestamp.is_none();
        changes.then(|| self.set_resource(Some(new)))
    }

    fn delete(&mut self) -> Option<()> {
        let mut resource = (**self.resource.as_ref()?).clone();
        if resource.metadata.deletion_timestamp.is_some() {
            return None;
        }
        resource.metadata.deletion_timestamp = Some(Time(NOW));
        resource.metadata.generation = resource.metadata.generation.map(|g| g + 1);
        let held = resource.metadata.finalizers.is_some();
        self.set_resource(held.then_some(resource));
        Some(())
    }

    /// What a step of the agent of node `n` leads to.
    fn turned(&mut self, n: usize, turned: Option<Turned>) -> Option<()> {
        let Turned { node, status, ended } = turned?;
        self.nodes[n] = node;
        self.failed.extend(ended.filter(is_failure).map(|outcome| outcome.generation));
        if let (Some(status), Some(mut object)) = (status, self.objects[n].as_deref().cloned()) {
            object.status = Some(status);
            self.set_object(n, Some(object));
        }
        Some(())
    }

    /// Whether every agent only watches.
    pub(crate) fn agents_watch(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.agent, Agent::Watching(_)))
    }
}

impl Seen {
    fn writes(&self) -> Vec<Write> {
        let validated = validated(&self.resource);
        if validated.goal != Goal::Trace && !validated.has_finalizer {
            return Vec::new();
        }
        let index = |name: &str| (0..self.nodes.len()).find(|n| name_of(*n) == name).expect("the model's own node");
        let plan = plan(&validated, &self.observed(), NOW);
        assert!(plan.orphans.is_empty(), "the model's nodes stay");
        let targets = plan.targets.into_iter().map(|target| {
            let node = index(&target.node);
            Write::Target { node, was_there: self.objects[node].is_some(), plan: Hashed::new(target) }
        });
        let grant = plan.grant.map(|grant| Write::Grant { node: index(&grant.node), plan: Hashed::new(grant) });
        let removed = (0..self.nodes.len()).filter(|n| plan.finish && self.objects[*n].is_some()).map(Write::Remove);
        let on = plan.add_finalizer.then_some(Write::Finalizer(true));
        let off = plan.finish.then_some(Write::Finalizer(false));
        on.into_iter().chain(targets).chain(grant).chain(removed).chain(off).collect()
    }

    fn observed(&self) -> Observed {
        let labels: BTreeMap<_, _> = [(LABEL_CONTROL_PLANE.to_owned(), String::new())].into();
        let node = |(n, ready): (usize, &bool)| {
            (name_of(n), ObservedNode { uid: uid_of(n), ready: *ready, labels: labels.clone(), platform: None, addresses: Vec::new() })
        };
        let node_tracing = |(n, object): (usize, &Option<Hashed<NodeTracing>>)| Some((name_of(n), (&**object.as_ref()?).into()));
        Observed {
            nodes: self.nodes.iter().enumerate().map(node).collect(),
            node_tracings: self.objects.iter().enumerate().filter_map(node_tracing).collect(),
            term: format!("term-{}", self.term),
            ..Observed::default()
        }
    }
}

/// An object as the API server makes it.
fn made(node: usize) -> NodeTracing {
    let spec = NodeTracingSpec { node_uid: uid_of(node), target: None, grant: None };
    let mut object = NodeTracing::new(&name_of(node), spec);
    object.metadata.uid = Some(format!("object-{node}"));
    object.metadata.generation = Some(0);
    let owner = OwnerReference { kind: "Node".into(), name: name_of(node), uid: uid_of(node), ..OwnerReference::default() };
    object.metadata.owner_references = Some(vec![owner]);
    object
}
