//! A node: manifests, processes, journal, and the agent. What the agent decides, the product's own functions decide; what is pretended
//! here is the machine under them.

use clustertracing::agent::check::{Checked, Decision, decide, preflight, stands, valid_grant};
use clustertracing::agent::facts::{ComponentFacts, Facts, Manifest, Trouble};
use clustertracing::agent::machine::{Effect, Event, Flight, Held, Phase, Put, Seen, transition};
use clustertracing::agent::report::{Doing, status};
use clustertracing::api::node_tracing::{NodeTracingStatus, Outcome, OutcomeResult, Step, TracingFound};
use clustertracing::api::{ComponentName, NodeTracing, Reason, State, Target};
use clustertracing::component::{Change, Found, ManifestFile};
use clustertracing::host::{Now, Permissions, Process, ProcessId};
use clustertracing::manifest::Probe;

use crate::hashed::Hashed;

/// kube-apiserver's new process never answers with this sampling rate.
pub(crate) const BAD_RATE: i32 = 666;
/// The manifest of a component that carries nothing of ours.
pub(crate) const UNTOUCHED: &str = "untouched";
/// kube-apiserver and etcd, in the order in which their manifests change.
pub(crate) const COMPONENTS: [ComponentName; 2] = [ComponentName::KubeApiserver, ComponentName::Etcd];
/// Longer than any budget of a flight.
const HOUR: u64 = 3_600_000;

/// What outlives the agent, and the agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// Whether the machine runs.
    pub(crate) up: bool,
    /// Condition Ready of the Node object, which follows later.
    pub(crate) ready: bool,
    /// How often the machine was started.
    boots: u8,
    /// Budgets that have run out since the flight began: the only time there is.
    hours: u8,
    /// The two static-pod manifests.
    pub(crate) manifests: [String; 2],
    /// What runs.
    pub(crate) processes: [Option<Running>; 2],
    /// The flight on the disk.
    pub(crate) journal: Option<Hashed<Flight>>,
    pub(crate) agent: Agent,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Running {
    /// The manifest that it was started from.
    manifest: String,
    /// One of two: a flight tells the processes before it from those after it, and no more.
    pid: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Agent {
    /// It does not run.
    Dead,
    /// It watches its object.
    Watching(Memory),
    /// It carries out a change; the effect is what it does next.
    Flying(Memory, Hashed<(Flight, Effect)>),
}

/// What an agent that is started again does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    /// Its object as it acted on it last.
    read: Option<Hashed<NodeTracing>>,
    /// How the last grant ended, and of which object it was.
    last: Option<Hashed<(Option<String>, Outcome)>>,
    /// A flight that ended and is not reported.
    unreported: Option<Hashed<Flight>>,
}

/// What a turn of the agent leads to.
pub(crate) struct Turned {
    pub(crate) node: Node,
    /// What it reports.
    pub(crate) status: Option<NodeTracingStatus>,
    /// A grant that ended in this turn.
    pub(crate) ended: Option<Outcome>,
}

impl Node {
    /// As kubeadm leaves it, and an agent that has just been started.
    pub(crate) fn new() -> Self {
        let manifests = [UNTOUCHED.to_owned(), UNTOUCHED.to_owned()];
        let processes = [0, 1].map(|_| Some(Running { manifest: UNTOUCHED.to_owned(), pid: 1 }));
        let agent = Agent::Watching(Memory::default());
        Self { up: true, ready: true, boots: 1, hours: 0, manifests, processes, journal: None, agent }
    }

    /// Whether a component answers.
    pub(crate) fn serves(&self, component: usize) -> bool {
        self.processes[component].as_ref().is_some_and(|process| self.up && !is_bad(COMPONENTS[component], &process.manifest))
    }

    /// Whether both components answer, and run what their manifests say.
    pub(crate) fn is_well(&self) -> bool {
        (0..2).all(|c| self.serves(c) && self.runs_its_manifest(c))
    }

    /// The change that is under way here, whether or not the agent runs.
    pub(crate) fn flight(&self) -> Option<&Flight> {
        match &self.agent {
            Agent::Flying(_, flying) => Some(&flying.0),
            _ => self.journal.as_deref().filter(|flight| flight.outcome().is_none()),
        }
    }

    /// Whether manifests may be changed right now.
    pub(crate) fn is_changing(&self) -> bool {
        self.flight().is_some_and(|f| matches!(f.phase, Phase::Committing | Phase::Verifying(_) | Phase::RollingBack(_)))
    }

    /// Whether a target's manifests are here.
    pub(crate) fn carries(&self, target: &Target) -> bool {
        (0..2).all(|c| self.manifests[c] == manifest_of(COMPONENTS[c], target))
    }

    fn runs_its_manifest(&self, component: usize) -> bool {
        self.processes[component].as_ref().is_some_and(|process| process.manifest == self.manifests[component])
    }

    fn now(&self) -> Now {
        Now {
            since_boot: (1 + u64::from(self.hours)) * HOUR,
            boot_id: self.boots.to_string(),
            wall: jiff::Timestamp::constant(1_700_000_000, 0),
        }
    }

    /// The machine loses its power: only files stay.
    pub(crate) fn power_off(&mut self) {
        self.up = false;
        self.agent = Agent::Dead;
        self.processes = [None, None];
    }

    /// The machine is back, and the kubelet has started what the manifests say.
    pub(crate) fn power_on(&mut self) {
        self.up = true;
        self.boots += 1;
        self.hours = 0;
        self.processes = self.manifests.clone().map(|manifest| Some(Running { manifest, pid: 1 }));
    }

    /// The kubelet ends a process whose manifest has changed, or starts one that is missing.
    pub(crate) fn kubelet(&mut self, component: usize) -> bool {
        if !self.up || self.runs_its_manifest(component) {
            return false;
        }
        let swaps = self.flight().into_iter().flat_map(|flight| &flight.swaps);
        let mut old = swaps.filter(|swap| index(swap.component) == component).flat_map(|swap| &swap.old_processes);
        let pid = if old.any(|process| process.pid == 1) { 2 } else { 1 };
        let missing = self.processes[component].is_none();
        self.processes[component] = missing.then(|| Running { manifest: self.manifests[component].clone(), pid });
        true
    }

    /// The agent's process ends, at whatever it was.
    pub(crate) fn kill_agent(&mut self) -> bool {
        let alive = self.agent != Agent::Dead;
        self.agent = Agent::Dead;
        alive
    }

    /// The agent is started, and goes on with what the journal says.
    pub(crate) fn start_agent(mut self) -> Option<Turned> {
        if self.agent != Agent::Dead || !self.up {
            return None;
        }
        let Some(flight) = self.journal.clone() else {
            self.agent = Agent::Watching(Memory::default());
            return Some(Turned { node: self, status: None, ended: None });
        };
        let held = flight.swaps.iter().map(|swap| self.held(swap.component, &swap.before, &swap.after)).collect();
        let (flight, effect) = transition((*flight).clone(), Event::Resumed(held), &self.now());
        Some(self.went_on(Memory::default(), flight, effect))
    }

    fn held(&self, component: ComponentName, before: &str, after: &str) -> Held {
        match self.manifests[index(component)].as_str() {
            bytes if bytes == before => Held::Before,
            bytes if bytes == after => Held::After,
            _ => Held::Other,
        }
    }

    /// Takes over what the machine says: the next effect, or the end.
    fn went_on(mut self, memory: Memory, flight: Flight, effect: Option<Effect>) -> Turned {
        if let Some(effect) = effect {
            self.agent = Agent::Flying(memory, Hashed::new((flight, effect)));
            return Turned { node: self, status: None, ended: None };
        }
        self.hours = 0;
        let ended = flight.outcome().cloned();
        self.agent = Agent::Watching(if let Some(outcome) = ended.clone() {
            let last = memory.read.as_ref().map(|object| Hashed::new((object.metadata.uid.clone(), outcome)));
            Memory { last, unreported: Some(Hashed::new(flight)), ..memory }
        } else {
            // Given up before anything was written.
            self.journal = None;
            memory
        });
        Turned { node: self, status: None, ended }
    }

    /// One turn of an agent that watches: look, act on the grant if there is one to act on, and report. `object` may be out of date.
    pub(crate) fn turn(&self, object: &Hashed<NodeTracing>, node_uid: &str) -> Option<Turned> {
        let Agent::Watching(memory) = &self.agent else { return None };
        let (mut node, mut memory, facts) = (self.clone(), memory.clone(), self.facts());
        memory.read = Some(object.clone());
        let target = object.spec.target.as_ref()?;
        let checked = checked(target, &facts);
        let mut ended = None;
        if memory.unreported.is_none() {
            let used = memory.last.as_ref().filter(|last| last.0 == object.metadata.uid).map(|last| last.1.grant);
            if let Ok(grant) = valid_grant(object, node_uid, used) {
                match decide(grant, target, &checked, &facts) {
                    Decision::End(outcome) => {
                        memory.last = Some(Hashed::new((object.metadata.uid.clone(), outcome.clone())));
                        ended = Some(outcome);
                    }
                    Decision::Fly(flight) => {
                        let (flight, effect) = transition(*flight, Event::Begun, &self.now());
                        return Some(node.went_on(memory, flight, effect));
                    }
                }
            }
        }
        let unreported = memory.unreported.as_ref().and_then(|flight| flight.outcome());
        let last = memory.last.as_ref().filter(|last| last.0 == object.metadata.uid).map(|last| &last.1);
        let reported = object.status.as_ref();
        let doing = Doing {
            observed_generation: object.metadata.generation,
            node_uid: Some(node_uid.to_owned()),
            preflight: Some(preflight(target, &checked)),
            step: Step::Idle,
            last_outcome: [reported.and_then(|s| s.last_outcome.as_ref()), last, unreported]
                .into_iter()
                .flatten()
                .max_by_key(|o| o.grant)
                .cloned(),
        };
        node.agent = Agent::Watching(memory);
        Some(Turned { node, status: Some(status(&facts, &doing, reported)), ended })
    }

    /// The object that the agent acted on last, if it watches.
    pub(crate) fn last_read(&self) -> Option<&Hashed<NodeTracing>> {
        if let Agent::Watching(memory) = &self.agent { memory.read.as_ref() } else { None }
    }

    /// The API server has the outcome: the journal has done its work.
    pub(crate) fn forget(&self, object: &NodeTracing) -> Option<Self> {
        let Agent::Watching(memory) = &self.agent else { return None };
        let known = object.status.as_ref()?.last_outcome.as_ref()?.grant;
        memory.unreported.as_ref()?.outcome().filter(|own| own.grant <= known)?;
        let agent = Agent::Watching(Memory { unreported: None, ..memory.clone() });
        Some(Self { agent, journal: None, ..self.clone() })
    }

    /// The agent carries out its next effect. `object`: what the API server answers, if it does.
    pub(crate) fn fly(&self, object: Option<&NodeTracing>, node_uid: &str) -> Option<Turned> {
        let Agent::Flying(memory, flying) = &self.agent else { return None };
        let (flight, effect) = &**flying;
        let mut node = self.clone();
        let event = match effect {
            Effect::Save => {
                node.journal = Some(Hashed::new(flight.clone()));
                Event::Saved
            }
            Effect::Stage => Event::Staged,
            Effect::Confirm => {
                let target = memory.read.as_ref().and_then(|read| read.spec.target.as_ref());
                match object.zip(target).map(|(object, target)| stands(flight, target, object, node_uid)) {
                    Some(Ok(())) => Event::Confirmed,
                    Some(Err(why)) => Event::Withdrawn(why),
                    None => Event::Withdrawn("the API server does not answer".to_owned()),
                }
            }
            Effect::Put(at) => Event::Put(*at, node.put(flight.swaps[*at].component, &flight.swaps[*at].before, &flight.swaps[*at].after)),
            Effect::PutBack(at) => {
                Event::Put(*at, node.put(flight.swaps[*at].component, &flight.swaps[*at].after, &flight.swaps[*at].before))
            }
            Effect::Look { .. } => return self.look(),
        };
        let (flight, effect) = transition(flight.clone(), event, &self.now());
        Some(node.went_on(memory.clone(), flight, effect))
    }

    fn put(&mut self, component: ComponentName, from: &str, to: &str) -> Put {
        let manifest = &mut self.manifests[index(component)];
        match manifest.as_str() {
            bytes if bytes == to => Put::AlreadyThere,
            bytes if bytes == from => {
                to.clone_into(manifest);
                Put::Written
            }
            _ => Put::Foreign,
        }
    }

    /// Looks, until the looks say nothing new: rounds of probes are one step.
    fn look(&self) -> Option<Turned> {
        let Agent::Flying(memory, flying) = &self.agent else { return None };
        let (mut flight, mut effect) = (flying.0.clone(), Some(flying.1.clone()));
        let is_look = |effect: &Option<Effect>| matches!(effect, Some(Effect::Look { .. }));
        while is_look(&effect) {
            let seen = flight.swaps.iter().map(|swap| self.seen(swap.component, &swap.probes)).collect();
            let (next, following) = transition(flight.clone(), Event::Looked(seen), &self.now());
            if is_look(&following) && next == flight {
                break;
            }
            (flight, effect) = (next, following);
        }
        // When the next look is due is of no matter here.
        let effect = effect.map(|effect| if is_look(&Some(effect.clone())) { flying.1.clone() } else { effect });
        Some(self.clone().went_on(memory.clone(), flight, effect))
    }

    fn seen(&self, component: ComponentName, probes: &[Probe]) -> Seen {
        let silent = if self.serves(index(component)) { Vec::new() } else { probes.to_vec() };
        Seen { processes: self.process(component).into_iter().collect(), silent: Some(silent) }
    }

    /// A flight's time runs out. `early`: although the kubelet has not done its part.
    pub(crate) fn run_out_of_time(&self, early: bool) -> Option<Turned> {
        let Agent::Flying(_, flying) = &self.agent else { return None };
        let settled = (0..2).all(|c| self.runs_its_manifest(c));
        if !matches!(flying.1, Effect::Look { .. }) || settled == early || self.is_well() {
            return None;
        }
        let later = Self { hours: self.hours + 1, ..self.clone() };
        later.look()
    }

    fn process(&self, component: ComponentName) -> Option<Process> {
        let running = self.processes[index(component)].as_ref()?;
        Some(Process { id: ProcessId { pid: running.pid, started: 0 }, argv: argv(component, &running.manifest) })
    }

    fn facts(&self) -> Facts {
        let permissions = Permissions { mode: 0o600, uid: 0, gid: 0 };
        let manifests = COMPONENTS.map(|component| {
            let file = ManifestFile { name: file_of(component), text: self.manifests[index(component)].clone() };
            Manifest { file, permissions, digest: String::new() }
        });
        let components = COMPONENTS.map(|component| {
            let manifest = &self.manifests[index(component)];
            let found = Found {
                component,
                file: file_of(component),
                version: None,
                tracing: if manifest == UNTOUCHED { TracingFound::NotConfigured } else { TracingFound::Ours },
                argv: argv(component, manifest),
                probes: vec![probe()],
            };
            let green = if self.serves(index(component)) { found.probes.clone() } else { Vec::new() };
            ComponentFacts { found, processes: self.process(component).into_iter().collect(), green }
        });
        Facts { manifests: manifests.into(), components: components.into(), trouble: None, now: self.now() }
    }
}

/// The product's check, without YAML: a manifest is the name of its settings.
fn checked(target: &Target, facts: &Facts) -> Checked {
    let changes = facts.components.iter().zip(&facts.manifests).map(|(component, manifest)| {
        let after = manifest_of(component.found.component, target);
        Change {
            component: component.found.component,
            file: manifest.file.name.clone(),
            before: manifest.file.text.clone(),
            needs: Vec::new(),
            argv: argv(component.found.component, &after),
            probes: vec![probe()],
            warnings: Vec::new(),
            after,
        }
    });
    let changes: Vec<_> = changes.filter(|c| c.before != c.after).collect();
    if !changes.is_empty() {
        return Checked::Ready { changes, warnings: Vec::new() };
    }
    if facts.components.iter().all(|c| c.process(&c.found.argv).is_some()) {
        return Checked::Unchanged { warnings: Vec::new() };
    }
    Checked::Refused(Trouble { reason: Reason::ComponentUnhealthy, message: String::new() })
}

/// Whether an outcome stops the line.
pub(crate) fn is_failure(outcome: &Outcome) -> bool {
    outcome.result != OutcomeResult::Succeeded
}

fn manifest_of(component: ComponentName, target: &Target) -> String {
    let settings = match component {
        ComponentName::KubeApiserver => &target.settings.kube_api_server,
        ComponentName::Etcd => &target.settings.etcd,
    };
    match settings.state {
        State::Disabled => UNTOUCHED.to_owned(),
        State::Enabled => format!("rate {}", target.settings.kube_api_server.sampling_rate_per_million),
    }
}

fn is_bad(component: ComponentName, manifest: &str) -> bool {
    component == ComponentName::KubeApiserver && manifest == format!("rate {BAD_RATE}")
}

fn index(component: ComponentName) -> usize {
    usize::from(component == ComponentName::Etcd)
}

fn file_of(component: ComponentName) -> String {
    format!("{component}.yaml")
}

fn argv(component: ComponentName, manifest: &str) -> Vec<String> {
    vec![component.to_string(), manifest.to_owned()]
}

fn probe() -> Probe {
    Probe { scheme: "HTTPS".into(), host: "127.0.0.1".into(), port: 6443, path: "/livez".into() }
}
