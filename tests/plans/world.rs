//! A pretended cluster for the planner: what the controller writes takes effect, and agents, kubelets and collectors do as they are told.

use std::collections::BTreeMap;

use clustertracing::api::clustertracing::ClusterTracingStatus;
use clustertracing::api::node_tracing::{
    ComponentStatus, NodeSettings, Outcome, OutcomeResult, Preflight, Step as ApiStep, TracingFound, Verdict,
};
use clustertracing::api::{
    self, ClusterTracing, ComponentName, FINALIZER, LABEL_CONTROL_PLANE, NodeTracingStatus, Reason, SINGLETON, State,
};
use clustertracing::plan::events::{self, NewEvent};
use clustertracing::plan::observed::{Observed, ObservedCollector, ObservedNode, ObservedNodeTracing};
use clustertracing::plan::status::{invalid_status, status};
use clustertracing::plan::validate::{Installation, validate};
use clustertracing::plan::{CollectorPlan, GrantPlan, Plan, plan};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// What is really on a node, and how its agent behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// What the manifests carry; `None`: nothing of ours.
    pub(crate) carries: Option<NodeSettings>,
    /// The agent does not run.
    pub(crate) silent: bool,
    /// The agent takes a grant and has not ended it.
    pub(crate) slow: bool,
    /// The agent refuses every target that is not "off".
    pub(crate) refuses: Option<Reason>,
    /// The agent refuses whatever it is asked, and acts on no grant.
    pub(crate) stuck: Option<Reason>,
    /// The next changes end so.
    pub(crate) fails: Option<(OutcomeResult, Reason)>,
    /// A component that does not answer its probes.
    pub(crate) unhealthy: Option<ComponentName>,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) resource: Option<ClusterTracing>,
    pub(crate) nodes: BTreeMap<String, ObservedNode>,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) node_tracings: BTreeMap<String, ObservedNodeTracing>,
    pub(crate) collector: ObservedCollector,
    /// Collectors start when they are asked to.
    pub(crate) collectors_start: bool,
    pub(crate) now: Timestamp,
    /// The term of leadership of the controller that takes turns.
    pub(crate) term: u32,
    /// A grant that a controller of an earlier term decided on and has not written yet, with the object that it read.
    pub(crate) asleep: Option<(GrantPlan, ObservedNodeTracing)>,
    uids: u32,
}

/// One turn of the controller.
pub(crate) struct Turn {
    pub(crate) plan: Option<Plan>,
    pub(crate) status: ClusterTracingStatus,
    pub(crate) events: Vec<NewEvent>,
    pub(crate) wrote_status: bool,
}

impl Turn {
    pub(crate) fn is_idle(&self) -> bool {
        !self.wrote_status && self.plan.as_ref().is_none_or(Plan::is_idle)
    }
}

impl World {
    pub(crate) fn new(nodes: &[&str], spec: Value) -> Self {
        let mut resource = ClusterTracing::new(SINGLETON, serde_json::from_value(spec).expect("the case's spec is a ClusterTracingSpec"));
        resource.metadata.generation = Some(1);
        resource.metadata.uid = Some("uid-of-the-resource".into());
        let mut world = Self {
            resource: Some(resource),
            nodes: BTreeMap::new(),
            machines: BTreeMap::new(),
            node_tracings: BTreeMap::new(),
            collector: ObservedCollector::default(),
            collectors_start: true,
            term: 1,
            asleep: None,
            now: "2026-11-21T12:00:00Z".parse().expect("a time"),
            uids: 0,
        };
        for node in nodes {
            world.add_node(node);
        }
        world
    }

    pub(crate) fn add_node(&mut self, name: &str) {
        self.uids += 1;
        let labels = [(LABEL_CONTROL_PLANE.to_owned(), String::new())].into();
        self.nodes.insert(name.to_owned(), ObservedNode { uid: format!("node-{}", self.uids), ready: true, labels });
        self.machines.insert(name.to_owned(), Machine::default());
    }

    /// The Node object goes. Its `NodeTracing` goes later, by garbage collection: see [`World::collect_garbage`].
    pub(crate) fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
        self.machines.remove(name);
        self.collector.ready.remove(name);
    }

    pub(crate) fn collect_garbage(&mut self) {
        let alive: Vec<_> = self.nodes.values().map(|n| n.uid.clone()).collect();
        self.node_tracings.retain(|_, n| alive.contains(&n.node_uid));
    }

    /// Merges `patch` into the spec, as `kubectl patch --type merge` does.
    pub(crate) fn edit(&mut self, patch: &Value) {
        let Some(resource) = &mut self.resource else { return };
        let mut spec = serde_json::to_value(&resource.spec).expect("a spec serializes");
        merge(&mut spec, patch);
        let spec = serde_json::from_value(spec).expect("the edited spec is a ClusterTracingSpec");
        if resource.spec != spec {
            resource.spec = spec;
            resource.metadata.generation = resource.metadata.generation.map(|g| g + 1);
        }
    }

    pub(crate) fn delete(&mut self) {
        let Some(resource) = &mut self.resource else { return };
        if resource.metadata.finalizers.is_none() {
            self.resource = None;
        } else if resource.metadata.deletion_timestamp.is_none() {
            resource.metadata.deletion_timestamp = Some(Time(self.now));
            resource.metadata.generation = resource.metadata.generation.map(|g| g + 1);
        }
    }

    pub(crate) fn release(&mut self) {
        let Some(resource) = &mut self.resource else { return };
        resource.metadata.annotations.get_or_insert_default().insert(api::ANNOTATION_RELEASE.into(), "true".into());
    }

    pub(crate) fn observed(&self) -> Observed {
        Observed {
            nodes: self.nodes.clone(),
            node_tracings: self.node_tracings.clone(),
            collector: self.collector.clone(),
            term: format!("term-{}", self.term),
            status: self.resource.as_ref().and_then(|r| r.status.clone()).unwrap_or_default(),
        }
    }

    /// The controller looks, plans, writes and tells. `None` when there is no resource.
    pub(crate) fn turn(&mut self) -> Option<Turn> {
        let resource = self.resource.clone()?;
        let old = resource.status.clone().unwrap_or_default();
        let observed = self.observed();
        let installation = Installation { namespace: "clustertracing".into(), collector_image: "otelcol:0.155.0".into() };
        let (plan, new, mut told) = match validate(&resource, &installation) {
            Ok(validated) => {
                let plan = plan(&validated, &observed, self.now);
                let new = status(&validated, &observed, &plan, self.now);
                let told = events::before_apply(&plan);
                (Some(plan), new, told)
            }
            Err(invalid) => (None, invalid_status(&resource, &invalid, self.now), Vec::new()),
        };
        if let Some(plan) = &plan {
            self.apply(plan);
        }
        let wrote_status = new != old;
        if wrote_status {
            let node = plan.as_ref().and_then(|p| p.report.node());
            if plan.as_ref().is_none_or(|p| !p.finish) {
                told.extend(events::transitions(&old, &new, node));
            }
        }
        if let Some(resource) = &mut self.resource {
            resource.status = Some(new.clone());
        }
        Some(Turn { plan, status: new, events: told, wrote_status })
    }

    /// What the next turn would be; nothing is written.
    pub(crate) fn clone_turn(&self) -> Option<Turn> {
        self.clone().turn()
    }

    /// The controller decides on its next write and goes to sleep. Another one leads.
    pub(crate) fn fall_asleep(&mut self) {
        let grant = self.clone_turn().and_then(|t| t.plan).and_then(|p| p.grant);
        self.asleep = grant.and_then(|g| self.node_tracings.get(&g.node).cloned().map(|n| (g, n)));
        self.term += 1;
    }

    /// The controller that slept makes its write: a compare-and-swap, which fails when the object has changed.
    pub(crate) fn wake_up(&mut self) {
        let Some((grant, read)) = self.asleep.take() else { return };
        if let Some(n) = self.node_tracings.get_mut(&grant.node).filter(|n| **n == read) {
            n.grant = Some(grant.grant);
            n.generation += 1;
            n.granted = Some(self.now);
        }
    }

    fn apply(&mut self, plan: &Plan) {
        if plan.add_finalizer
            && let Some(resource) = &mut self.resource
        {
            resource.metadata.finalizers = Some(vec![FINALIZER.into()]);
        }
        for (name, uid) in &plan.orphans {
            assert_eq!(self.node_tracings.get(name).map(|n| &n.uid), Some(uid), "an orphan is what was observed");
            self.node_tracings.remove(name);
        }
        for target in &plan.targets {
            self.uids += 1;
            let uid = format!("nodetracing-{}", self.uids);
            let n = self.node_tracings.entry(target.node.clone()).or_insert_with(|| ObservedNodeTracing { uid, ..Default::default() });
            n.node_uid.clone_from(&target.node_uid);
            n.owned_by_node = true;
            n.term = Some(target.term.clone());
            // The API server counts changes of the spec alone, and keeps the time of a write that changed nothing.
            if n.target.as_ref() != Some(&target.target) {
                n.target = Some(target.target.clone());
                n.generation += 1;
            }
            n.targeted = Some(self.now);
        }
        match &plan.collector {
            CollectorPlan::Keep => {}
            CollectorPlan::Apply(objects) => {
                self.collector.config_maps.insert(objects.config_map_name.clone());
                self.collector.daemon_set = Some(serde_json::from_value(objects.daemon_set.clone()).expect("a DaemonSet"));
            }
            CollectorPlan::Prune(names) => self.collector.config_maps.retain(|n| !names.contains(n)),
            CollectorPlan::Remove => self.collector = ObservedCollector::default(),
        }
        if let Some(grant) = &plan.grant
            && let Some(n) = self.node_tracings.get_mut(&grant.node)
        {
            n.grant = Some(grant.grant.clone());
            n.generation += 1;
            n.granted = Some(self.now);
        }
        if plan.finish {
            self.collector = ObservedCollector::default();
            self.node_tracings.clear();
            self.resource = None;
        }
    }

    pub(crate) fn advance(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Collectors of the wanted revision start on every node.
    pub(crate) fn start_collectors(&mut self) {
        let Some(daemon_set) = self.collector.daemon_set.as_ref().filter(|_| self.collectors_start) else { return };
        let annotations = daemon_set.metadata.annotations.clone().unwrap_or_default();
        let revision = annotations.get(clustertracing::plan::collector::ANNOTATION_REVISION).cloned().unwrap_or_default();
        self.collector.ready = self.nodes.keys().map(|n| (n.clone(), revision.clone())).collect();
    }

    /// Every agent that runs reports, and carries out its grant.
    pub(crate) fn agents(&mut self) {
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.agent(&name);
        }
    }

    fn agent(&mut self, name: &str) {
        let (Some(machine), Some(n)) = (self.machines.get_mut(name), self.node_tracings.get_mut(name)) else { return };
        if machine.silent || n.node_uid != self.nodes.get(name).map(|n| n.uid.clone()).unwrap_or_default() {
            return;
        }
        let Some(target) = n.target.clone() else { return };
        if let Some(grant) = n.in_flight().cloned() {
            if machine.stuck.is_some() {
                report(machine, &target.settings, &mut n.status);
                n.status.observed_generation = Some(n.generation);
                return;
            }
            if machine.slow {
                n.status.step = ApiStep::Verifying;
                return;
            }
            if grant.revision != target.revision {
                // Not acted on, and never ended.
                report(machine, &target.settings, &mut n.status);
                n.status.observed_generation = Some(n.generation);
                return;
            }
            let result = machine.fails.map_or((OutcomeResult::Succeeded, None), |(result, reason)| (result, Some(reason)));
            if result.0 == OutcomeResult::Succeeded {
                machine.carries = carried(&target.settings);
            }
            n.status.last_outcome = Some(Outcome {
                grant: grant.id,
                revision: grant.revision,
                generation: grant.generation,
                result: result.0,
                reason: result.1,
                message: result.1.map(|_| "the agent's words".into()).unwrap_or_default(),
                finished_time: Time(self.now),
                seconds: 7,
            });
        }
        report(machine, &target.settings, &mut n.status);
        n.status.observed_generation = Some(n.generation);
    }

    /// Nodes with a grant and no outcome.
    pub(crate) fn in_flight(&self) -> usize {
        self.node_tracings.values().filter(|n| n.in_flight().is_some()).count()
    }
}

/// What a node carries with these settings.
fn carried(settings: &NodeSettings) -> Option<NodeSettings> {
    let on = settings.kube_api_server.state == State::Enabled || settings.etcd.state == State::Enabled;
    on.then(|| settings.clone())
}

fn report(machine: &Machine, target: &NodeSettings, status: &mut NodeTracingStatus) {
    let state = |settings: Option<&NodeSettings>, name| {
        let settings = settings?;
        let component = if name == ComponentName::Etcd { &settings.etcd } else { &settings.kube_api_server };
        let effect = (settings.endpoint.clone(), component.clone(), settings.watch_termination_grace_seconds);
        (component.state == State::Enabled).then_some(effect)
    };
    let components = [ComponentName::KubeApiserver, ComponentName::Etcd];
    let wanted = carried(target);
    let changes: Vec<_> =
        components.into_iter().filter(|name| state(machine.carries.as_ref(), *name) != state(wanted.as_ref(), *name)).collect();
    let refused = machine.stuck.or_else(|| machine.refuses.filter(|_| wanted.is_some() && !changes.is_empty()));
    let (verdict, message) = match refused {
        Some(_) => (Verdict::Refused, "/etc/kubernetes/manifests/etcd.yaml: the agent's words".to_owned()),
        None if changes.is_empty() => (Verdict::Unchanged, String::new()),
        None => (Verdict::Ready, String::new()),
    };
    status.step = ApiStep::Idle;
    let settled = verdict == Verdict::Unchanged;
    status.current_revision = settled.then(|| target.revision());
    status.components = components
        .into_iter()
        .map(|name| ComponentStatus {
            name,
            version: Some(if name == ComponentName::Etcd { "3.6.16" } else { "1.36.3" }.into()),
            manifest: Some(format!("{name}.yaml")),
            manifest_digest: None,
            tracing: if state(machine.carries.as_ref(), name).is_some() { TracingFound::Ours } else { TracingFound::NotConfigured },
            healthy: machine.unhealthy != Some(name),
            started_time: None,
        })
        .collect();
    let changes = if refused.is_some() { Vec::new() } else { changes };
    status.preflight = Some(Preflight { revision: target.revision(), verdict, changes, reason: refused, message });
}

fn merge(value: &mut Value, patch: &Value) {
    match (value, patch) {
        (Value::Object(value), Value::Object(patch)) => {
            for (key, new) in patch {
                if new.is_null() {
                    value.remove(key);
                } else {
                    merge(value.entry(key).or_insert(Value::Null), new);
                }
            }
        }
        (value, patch) => *value = patch.clone(),
    }
}
