//! A pretended cluster for the planner: what the controller writes takes effect, and agents, kubelets and collectors do as they are told.

use std::collections::BTreeMap;

use clustertracing::api::clustertracing::ClusterTracingStatus;
use clustertracing::api::node_tracing::{
    Blocker, ComponentStatus, EtcdMember, Measurement, MemberHealth, MemberRole, NodeSettings, Outcome, OutcomeResult, Preflight, Soak,
    Step as ApiStep, TracingFound, Verdict,
};
use clustertracing::api::{
    self, ClusterTracing, ComponentName, Deviation, Drift, FINALIZER, LABEL_CONTROL_PLANE, NodeTracingStatus, Reason, SINGLETON, State,
};
use clustertracing::component::owner::Platform;
use clustertracing::plan::events::{self, NewEvent};
use clustertracing::plan::flow::Flow;
use clustertracing::plan::observed::{KubeadmConfig, Observed, ObservedCollector, ObservedGateway, ObservedNode, ObservedNodeTracing};
use clustertracing::plan::secret::ObservedSecret;
use clustertracing::plan::status::{invalid_status, status};
use clustertracing::plan::validate::{Installation, validate};
use clustertracing::plan::{CollectorPlan, GrantPlan, Plan, plan};
use k8s_openapi::api::apps::v1::DeploymentStatus;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};

/// Of every kube-apiserver before its change.
const BEFORE: Measurement = Measurement { memory_mib: 300, latency_milliseconds: 4 };

/// What is really on a node, and how its agent behaves.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
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
    /// What somebody changed since the last change of ours.
    pub(crate) drift: Vec<Drift>,
    /// A component that does not answer its probes.
    pub(crate) unhealthy: Option<ComponentName>,
    /// What is measured after a change, where that is not what was measured before; `Some(None)`: nothing.
    pub(crate) measured: Option<Option<Measurement>>,
    /// etcd runs elsewhere.
    pub(crate) without_etcd: bool,
    /// What the etcd member says of itself, where that is not "healthy, one of as many as there are nodes".
    pub(crate) member: Option<EtcdMember>,
    /// It leads.
    pub(crate) leads: bool,
    /// What the agent says stands in the way.
    pub(crate) blockers: Vec<Blocker>,
    /// How its canary pods end, if not well.
    pub(crate) canary: Option<CanaryEnds>,
}

/// How a canary pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum CanaryEnds {
    /// kube-apiserver says no.
    Refused,
    /// The image is not on the node.
    ImageMissing,
    /// It does not start.
    Never,
    /// It is evicted.
    Evicted,
}

/// How a collector's trial ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum CheckEnds {
    /// The collector says no.
    Refused,
    /// It does not start.
    Never,
    /// It is evicted.
    Evicted,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) resource: Option<ClusterTracing>,
    pub(crate) nodes: BTreeMap<String, ObservedNode>,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) node_tracings: BTreeMap<String, ObservedNodeTracing>,
    pub(crate) collector: ObservedCollector,
    /// Canary pods.
    pub(crate) canaries: Vec<Pod>,
    /// Pods in which a collector is tried.
    pub(crate) collector_checks: Vec<Pod>,
    /// How they end, if not well.
    pub(crate) collector_check: Option<CheckEnds>,
    /// Secrets that may be read.
    pub(crate) secrets: BTreeMap<String, Option<ObservedSecret>>,
    /// Who runs the control plane where no node of it is here.
    pub(crate) elsewhere: Option<Platform>,
    /// kubeadm's own configuration.
    pub(crate) kubeadm_config: KubeadmConfig,
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

impl Machine {
    /// Somebody changes a file. Where its contents are others, a component's flags have gone with it; the node has its record of them.
    pub(crate) fn drift(&mut self, drift: Drift) {
        let Some(carries) = &mut self.carries else { return };
        if drift.what == Deviation::Content {
            match drift.component {
                ComponentName::KubeApiserver => carries.kube_api_server.state = State::Disabled,
                ComponentName::Etcd => carries.etcd.state = State::Disabled,
            }
        }
        self.carries = carried(carries);
        self.drift.push(drift);
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
            canaries: Vec::new(),
            collector_checks: Vec::new(),
            collector_check: None,
            secrets: BTreeMap::new(),
            elsewhere: None,
            kubeadm_config: KubeadmConfig::Found(include_str!("../kubeadm-config/1.36.3-plain/in.yaml").to_owned()),
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
        self.nodes.insert(
            name.to_owned(),
            ObservedNode { uid: format!("node-{}", self.uids), ready: true, labels, platform: None, addresses: Vec::new() },
        );
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
            canaries: self.canaries.iter().map(Into::into).collect(),
            collector_checks: self.collector_checks.iter().map(Into::into).collect(),
            secrets: self.secrets.clone(),
            elsewhere: self.elsewhere,
            kubeadm_config: self.kubeadm_config.clone(),
            term: format!("term-{}", self.term),
            status: self.resource.as_ref().and_then(|r| r.status.clone()).unwrap_or_default(),
            flow: Flow::default(),
        }
    }

    /// The controller looks, plans, writes and tells. `None` when there is no resource.
    pub(crate) fn turn(&mut self) -> Option<Turn> {
        let resource = self.resource.clone()?;
        let old = resource.status.clone().unwrap_or_default();
        let observed = self.observed();
        let installation = Installation {
            namespace: "clustertracing".into(),
            collector_image: "otelcol:0.155.0".into(),
            canary: State::Enabled,
            probe: State::Enabled,
        };
        let (plan, new, mut told) = match validate(&resource, &installation).map(|validated| validated.at(self.now)) {
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
        for (node, record) in &plan.canaries.record {
            self.node_tracings.get_mut(node).expect("a verdict is recorded where it belongs").canary = Some(record.clone());
        }
        for (name, uid) in &plan.canaries.remove {
            let left = self.canaries.len();
            self.canaries.retain(|pod| pod.name_any() != *name || pod.uid().as_ref() != Some(uid));
            assert_eq!(self.canaries.len() + 1, left, "a pod that is removed is what was observed");
        }
        for pod in &plan.canaries.make {
            self.uids += 1;
            let mut pod: Pod = serde_json::from_value(pod.clone()).expect("a Pod");
            pod.metadata.uid = Some(format!("pod-{}", self.uids));
            pod.metadata.creation_timestamp = Some(Time(self.now));
            assert!(self.canaries.iter().all(|other| other.name_any() != pod.name_any()), "made twice");
            self.canaries.push(pod);
        }
        if let Some((config_map, record)) = &plan.collector_check.record {
            assert!(self.collector.config_maps.contains(config_map), "a verdict is recorded where it belongs");
            self.collector.checks.insert(config_map.clone(), record.clone());
        }
        for (name, uid) in &plan.collector_check.remove {
            let left = self.collector_checks.len();
            self.collector_checks.retain(|pod| pod.name_any() != *name || pod.uid().as_ref() != Some(uid));
            assert_eq!(self.collector_checks.len() + 1, left, "a pod that is removed is what was observed");
        }
        if let Some(make) = &plan.collector_check.make {
            let (config_map, pod) = &**make;
            self.collector.config_maps.insert(config_map["metadata"]["name"].as_str().expect("a name").to_owned());
            self.uids += 1;
            let mut pod: Pod = serde_json::from_value(pod.clone()).expect("a Pod");
            pod.metadata.uid = Some(format!("pod-{}", self.uids));
            pod.metadata.creation_timestamp = Some(Time(self.now));
            assert!(self.collector_checks.is_empty(), "two are tried at once");
            self.collector_checks.push(pod);
        }
        match &plan.collector {
            CollectorPlan::Keep => {}
            CollectorPlan::Apply(objects) => {
                self.collector.config_maps.insert(objects.config_map_name.clone());
                self.collector.daemon_set = Some(serde_json::from_value(objects.daemon_set.clone()).expect("a DaemonSet"));
                if let Some(gateway) = &objects.gateway {
                    *self.collector.gateway = ObservedGateway {
                        deployment: Some(serde_json::from_value(gateway.deployment.clone()).expect("a Deployment")),
                        service: Some(serde_json::from_value(gateway.service.clone()).expect("a Service")),
                        disruption_budget: Some(serde_json::from_value(gateway.disruption_budget.clone()).expect("a PodDisruptionBudget")),
                        words: None,
                    };
                }
            }
            CollectorPlan::Prune { config_maps, gateway } => {
                self.collector.config_maps.retain(|n| !config_maps.contains(n));
                self.collector.checks.retain(|n, _| !config_maps.contains(n));
                if *gateway {
                    *self.collector.gateway = ObservedGateway::default();
                }
            }
            CollectorPlan::Remove => self.collector = ObservedCollector::default(),
        }
        if let Some(text) = plan.kubeadm.text() {
            self.kubeadm_config = KubeadmConfig::Found(text.to_owned());
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
            assert!(self.canaries.is_empty() && self.collector_checks.is_empty(), "a pod outlives the resource");
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
        if let Some(deployment) = &mut self.collector.gateway.deployment {
            let replicas = deployment.spec.replicas;
            let (available_replicas, updated_replicas) = (replicas, replicas);
            let status = DeploymentStatus { replicas, available_replicas, updated_replicas, ..DeploymentStatus::default() };
            deployment.status = Some(status);
        }
    }

    /// Kubelets start canary pods, and tell what comes of them.
    pub(crate) fn kubelets(&mut self) {
        for pod in &mut self.canaries {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
            let ends = self.machines.get(node).and_then(|machine| machine.canary);
            pod.status = Some(serde_json::from_value(canary_status(pod, ends)).expect("a PodStatus"));
        }
        for pod in &mut self.collector_checks {
            pod.status = Some(serde_json::from_value(check_status(self.collector_check)).expect("a PodStatus"));
        }
    }

    /// Every agent that runs reports, and carries out its grant.
    pub(crate) fn agents(&mut self) {
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.agent(&name);
        }
    }

    fn agent(&mut self, name: &str) {
        let members = i32::try_from(self.machines.values().filter(|m| !m.without_etcd).count()).expect("a few nodes");
        let (Some(machine), Some(n)) = (self.machines.get_mut(name), self.node_tracings.get_mut(name)) else { return };
        if machine.silent || n.node_uid != self.nodes.get(name).map(|n| n.uid.clone()).unwrap_or_default() {
            return;
        }
        let Some(target) = n.target.clone() else { return };
        if let Some(grant) = n.in_flight().cloned() {
            if machine.stuck.is_some() {
                report(machine, members, &target.settings, &mut n.status);
                n.status.observed_generation = Some(n.generation);
                return;
            }
            if !machine.blockers.is_empty() {
                // Not begun, and the grant not used up.
                report(machine, members, &target.settings, &mut n.status);
                n.status.observed_generation = Some(n.generation);
                return;
            }
            if machine.slow {
                n.status.step = ApiStep::Verifying;
                return;
            }
            if grant.revision != target.revision {
                // Not acted on, and never ended.
                report(machine, members, &target.settings, &mut n.status);
                n.status.observed_generation = Some(n.generation);
                return;
            }
            let fights = machine.drift.iter().any(|d| d.healed_generation >= Some(grant.generation));
            assert!(!fights, "the controller does not ask for a fight");
            let result = machine.fails.map_or((OutcomeResult::Succeeded, None), |(result, reason)| (result, Some(reason)));
            if result.0 == OutcomeResult::Succeeded {
                machine.carries = carried(&target.settings);
                machine.drift.clear();
            }
            let before = Some(BEFORE);
            n.status.soak = grant.measured_after.map(|_| Soak { grant: grant.id, before, after: None });
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
        let finished = n.status.last_outcome.as_ref().map(|o| o.finished_time.0);
        let seconds = n.grant.as_ref().and_then(|g| g.measured_after);
        let is_over = finished.zip(seconds).is_some_and(|(f, s)| self.now >= f + SignedDuration::from_secs(s.into()));
        if let Some(soak) = n.status.soak.as_mut().filter(|_| is_over) {
            soak.after = machine.measured.clone().unwrap_or(Some(BEFORE));
        }
        report(machine, members, &target.settings, &mut n.status);
        n.status.observed_generation = Some(n.generation);
    }

    /// Nodes with a grant and no outcome.
    pub(crate) fn in_flight(&self) -> usize {
        self.node_tracings.values().filter(|n| n.in_flight().is_some()).count()
    }
}

fn check_status(ends: Option<CheckEnds>) -> Value {
    let container = |state: Value| json!({ "containerStatuses": [{ "name": "collector", "image": "otelcol:1", "imageID": "", "ready": false, "restartCount": 0, "state": state }] });
    match ends {
        None => container(json!({ "terminated": { "exitCode": 0 } })),
        Some(CheckEnds::Refused) => {
            container(json!({ "terminated": { "exitCode": 1, "message": "Error: exporters::otlp_grpc/tempo: the collector's words\n" } }))
        }
        Some(CheckEnds::Never) => container(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } })),
        Some(CheckEnds::Evicted) => json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." }),
    }
}

fn canary_status(pod: &Pod, ends: Option<CanaryEnds>) -> Value {
    let container = |ready: bool, state: Value| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let status = containers
            .map(|c| json!({ "name": c.name, "image": c.image, "imageID": "", "ready": ready, "restartCount": 0, "state": state }));
        status.collect::<Vec<_>>()
    };
    match ends {
        None => json!({ "phase": "Running", "containerStatuses": container(true, json!({ "running": {} })) }),
        Some(CanaryEnds::Refused) => {
            let message = "E1121 15:16:22.185895 1 run.go:72] \"command failed\" err=\"unknown field \\\"x\\\"\"";
            json!({ "phase": "Failed", "containerStatuses": container(false, json!({ "terminated": { "exitCode": 1, "message": message } })) })
        }
        Some(CanaryEnds::ImageMissing) => {
            json!({ "phase": "Pending", "containerStatuses": container(false, json!({ "waiting": { "reason": "ErrImageNeverPull" } })) })
        }
        Some(CanaryEnds::Never) => {
            json!({ "phase": "Pending", "containerStatuses": container(false, json!({ "waiting": { "reason": "ContainerCreating" } })) })
        }
        Some(CanaryEnds::Evicted) => json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." }),
    }
}

/// What a node carries with these settings.
fn carried(settings: &NodeSettings) -> Option<NodeSettings> {
    let on = settings.kube_api_server.state == State::Enabled || settings.etcd.state == State::Enabled;
    on.then(|| settings.clone())
}

fn report(machine: &Machine, members: i32, target: &NodeSettings, status: &mut NodeTracingStatus) {
    let state = |settings: Option<&NodeSettings>, name| {
        let settings = settings?;
        let component = if name == ComponentName::Etcd { &settings.etcd } else { &settings.kube_api_server };
        let effect = (settings.endpoint.clone(), component.clone(), settings.watch_termination_grace_seconds);
        (component.state == State::Enabled).then_some(effect)
    };
    let components = [ComponentName::KubeApiserver, ComponentName::Etcd];
    let here = |name| name != ComponentName::Etcd || !machine.without_etcd;
    let wanted = carried(target);
    let changes: Vec<_> = components
        .into_iter()
        .filter(|name| here(*name) && state(machine.carries.as_ref(), *name) != state(wanted.as_ref(), *name))
        .collect();
    let refused = machine.stuck.or_else(|| machine.refuses.filter(|_| wanted.is_some() && !changes.is_empty()));
    status.drift = if wanted.is_some() { machine.drift.clone() } else { Vec::new() };
    let (verdict, message) = match refused {
        None if !status.drift.is_empty() => (Verdict::Ready, String::new()),
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
            image: Some(if name == ComponentName::Etcd { "etcd:3.6.16-0" } else { "kube-apiserver:v1.36.3" }.into()),
            version: Some(if name == ComponentName::Etcd { "3.6.16" } else { "1.36.3" }.into()),
            manifest: Some(format!("{name}.yaml")),
            manifest_digest: None,
            manifest_text: None,
            tracing: match state(machine.carries.as_ref(), name) {
                _ if !here(name) => TracingFound::Absent,
                Some(_) => TracingFound::Ours,
                None => TracingFound::NotConfigured,
            },
            healthy: here(name) && machine.unhealthy != Some(name),
            started_time: None,
        })
        .collect();
    let role = if machine.leads { MemberRole::Leader } else { MemberRole::Follower };
    let well = EtcdMember { health: MemberHealth::Healthy, role: Some(role), members: Some(members), connected: Some(members) };
    status.etcd = here(ComponentName::Etcd).then(|| machine.member.clone().unwrap_or(well));
    status.blockers.clone_from(&machine.blockers);
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
