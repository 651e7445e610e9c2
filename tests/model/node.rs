//! A node: manifests, processes, journal, and the agent. What the agent decides, the product's own functions decide; what is pretended
//! here is the machine under them.

use clustertracing::agent::blockers::of_member;
use clustertracing::agent::check::{Checked, Decision, decide, preflight, stands, valid_grant};
use clustertracing::agent::facts::{ComponentFacts, Facts, Manifest, Trouble};
use clustertracing::agent::machine::{Effect, Event, Flight, Held, Moved, Phase, Seen, Side, Swap, View, transition};
use clustertracing::agent::report::{Doing, status};
use clustertracing::api::node_tracing::{
    EtcdMember, MemberHealth, MemberRole, NodeTracingStatus, Outcome, OutcomeResult, Step, TracingFound,
};
use clustertracing::api::{ComponentName, NodeTracing, Reason, State, Target};
use clustertracing::component::{Change, Found, ManifestFile};
use clustertracing::host::{Now, Permissions, Process};
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
    /// How many members etcd has.
    members: i32,
    /// The two static-pod manifests; `None` while one is away.
    pub(crate) manifests: [Option<String>; 2],
    /// The manifest that each component's process was started from.
    pub(crate) processes: [Option<String>; 2],
    /// The flight on the disk.
    pub(crate) journal: Option<Hashed<Flight>>,
    pub(crate) agent: Agent,
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
    pub(crate) fn new(members: i32) -> Self {
        let manifests = [0, 1].map(|_| Some(UNTOUCHED.to_owned()));
        let agent = Agent::Watching(Memory::default());
        Self { up: true, ready: true, boots: 1, hours: 0, members, processes: manifests.clone(), manifests, journal: None, agent }
    }

    /// Whether a component answers.
    pub(crate) fn serves(&self, component: usize) -> bool {
        self.processes[component].as_ref().is_some_and(|process| self.up && !is_bad(COMPONENTS[component], process))
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
        self.flight().is_some_and(|f| matches!(f.phase, Phase::Committing(_) | Phase::Verifying(_) | Phase::RollingBack(_)))
    }

    /// Whether a target's manifests are here.
    pub(crate) fn carries(&self, target: &Target) -> bool {
        (0..2).all(|c| self.manifests[c].as_ref() == Some(&manifest_of(COMPONENTS[c], target)))
    }

    fn runs_its_manifest(&self, component: usize) -> bool {
        self.processes[component] == self.manifests[component]
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
        self.processes.clone_from(&self.manifests);
    }

    /// The kubelet ends a process whose manifest is away or has changed, or starts one that is missing.
    pub(crate) fn kubelet(&mut self, component: usize) -> bool {
        if !self.up || self.runs_its_manifest(component) {
            return false;
        }
        let missing = self.processes[component].is_none();
        self.processes[component] = self.manifests[component].clone().filter(|_| missing);
        true
    }

    /// Somebody takes our edit out of the manifests, while nothing is under way here, and waits for the new processes.
    pub(crate) fn drift(&mut self) -> bool {
        let untouched = [UNTOUCHED, UNTOUCHED].map(|text| Some(text.to_owned()));
        let drifts = self.flight().is_none() && self.manifests != untouched;
        if drifts {
            self.manifests = untouched;
            self.processes.clone_from(&self.manifests);
        }
        drifts
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
        let (flight, effect) = transition((*flight).clone(), Event::Resumed(self.held(&flight)), &self.now());
        Some(self.went_on(Memory::default(), flight, effect))
    }

    fn held(&self, flight: &Flight) -> Vec<Held> {
        let one = |swap: &Swap| match &self.manifests[index(swap.component)] {
            None => Held::Nothing,
            Some(bytes) if *bytes == swap.before.text => Held::BEFORE,
            Some(bytes) if *bytes == swap.after.text => Held::AFTER,
            Some(_) => Held::Other,
        };
        flight.swaps.iter().map(one).collect()
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
                    Decision::Mend(_) => unreachable!("the model's files keep their mode and owner"),
                    // Not begun, and the grant not used up.
                    Decision::Wait(_) => {}
                    Decision::Fly(flight) if of_member(&flight, &facts).is_some() => {}
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
            drift: Vec::new(),
            step: Step::Idle,
            last_outcome: [reported.and_then(|s| s.last_outcome.as_ref()), last, unreported]
                .into_iter()
                .flatten()
                .max_by_key(|o| o.grant)
                .cloned(),
            soak: None,
            blockers: Vec::new(),
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
                match object.zip(target).map(|(object, target)| stands(&flight.grant, target, object, node_uid)) {
                    Some(Ok(())) => Event::Confirmed,
                    Some(Err(why)) => Event::Withdrawn(why),
                    None => Event::Withdrawn("the API server does not answer".to_owned()),
                }
            }
            Effect::Compare => Event::Compared(Vec::new()),
            Effect::Guard | Effect::LookForWatchdog { .. } => Event::Failed("the model has no watchdog".to_owned()),
            Effect::Kill(_) => Event::Killed,
            Effect::Examine => Event::Examined(self.held(flight)),
            Effect::TakeAway(at, side) => Event::TakenAway(*at, node.rename(&flight.swaps[*at], Some(*side), None)),
            Effect::Put(at, side) => Event::Put(*at, node.rename(&flight.swaps[*at], None, Some(*side))),
            Effect::Look { .. } => return self.look(),
        };
        let (flight, effect) = transition(flight.clone(), event, &self.now());
        Some(node.went_on(memory.clone(), flight, effect))
    }

    /// Changes what a manifest's name holds, from one version to another or to nothing.
    fn rename(&mut self, swap: &Swap, from: Option<Side>, to: Option<Side>) -> Moved {
        let manifest = &mut self.manifests[index(swap.component)];
        let text = |side: Option<Side>| side.map(|side| swap.version(side).text.clone());
        if *manifest != text(from) && *manifest != text(to) {
            return Moved::Foreign;
        }
        *manifest = text(to);
        Moved::Done
    }

    /// Looks, until the looks say nothing new: rounds of probes are one step, and so is the wait until the kubelet has let go of a pod.
    fn look(&self) -> Option<Turned> {
        let Agent::Flying(memory, flying) = &self.agent else { return None };
        let (mut flight, mut effect) = (flying.0.clone(), Some(flying.1.clone()));
        let is_look = |effect: &Option<Effect>| matches!(effect, Some(Effect::Look { .. }));
        let mut now = self.now();
        for round in 0.. {
            let Some(Effect::Look { pods, .. }) = effect else { break };
            if pods.is_some() && round < 3 {
                // longer than it takes the kubelet to let go of a pod, shorter than it has for ending a process
                now.since_boot += 25_000;
            }
            let components = flight.swaps.iter().map(|swap| self.seen(swap, pods)).collect();
            let (next, following) = transition(flight.clone(), Event::Looked(View { components, kubelet: None }), &now);
            let nothing_new = is_look(&following) && next == flight;
            (flight, effect) = (next, following);
            if nothing_new && (pods.is_none() || round >= 3) {
                break;
            }
        }
        // When the next look is due is of no matter here.
        let effect = effect.map(|effect| match effect {
            Effect::Look { probe, pods, .. } => Effect::Look { at: 0, probe, pods },
            other => other,
        });
        Some(self.clone().went_on(memory.clone(), flight, effect))
    }

    fn seen(&self, swap: &Swap, pods: Option<Side>) -> Seen {
        let running = &self.processes[index(swap.component)];
        Seen {
            processes: self.process(swap.component).into_iter().collect(),
            brief: Vec::new(),
            silent: Some(if self.serves(index(swap.component)) { Vec::new() } else { swap.probes.clone() }),
            pod_lives: pods.map(|side| running.as_ref() == Some(&swap.version(side).text)),
        }
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
        let manifest = self.processes[index(component)].as_ref()?;
        Some(Process { argv: argv(component, manifest), ..Process::default() })
    }

    /// What the etcd member says of itself. It cannot be asked where the quorum is lost: nobody would hear the answer.
    fn member(&self) -> EtcdMember {
        let health = if self.serves(index(ComponentName::Etcd)) { MemberHealth::Healthy } else { MemberHealth::Unhealthy };
        EtcdMember { health, role: Some(MemberRole::Follower), members: Some(self.members), connected: Some(self.members) }
    }

    fn facts(&self) -> Facts {
        let permissions = Permissions { mode: 0o600, uid: 0, gid: 0 };
        let manifests = COMPONENTS.map(|component| {
            let text = self.manifests[index(component)].clone().expect("no manifest is away while no change is under way");
            let file = ManifestFile { name: file_of(component), text };
            Manifest { file, permissions, digest: String::new(), changed: jiff::Timestamp::UNIX_EPOCH }
        });
        let components = COMPONENTS.map(|component| {
            let manifest = self.manifests[index(component)].as_deref().unwrap_or_default();
            let found = Found {
                component,
                file: file_of(component),
                image: String::new(),
                version: None,
                tracing: if manifest == UNTOUCHED { TracingFound::NotConfigured } else { TracingFound::Ours },
                argv: argv(component, manifest),
                probes: vec![probe()],
                member: None,
            };
            let green = if self.serves(index(component)) { found.probes.clone() } else { Vec::new() };
            let member = (component == ComponentName::Etcd).then(|| self.member());
            ComponentFacts { found, processes: self.process(component).into_iter().collect(), green, member }
        });
        Facts {
            manifests: manifests.into(),
            components: components.into(),
            tracing_files: Vec::new(),
            kubeadm_runs: false,
            surroundings: None,
            receiver: clustertracing::agent::receiver::Receiver::Fine,
            kubelet_started: None,
            trouble: None,
            now: self.now(),
        }
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
            original: UNTOUCHED.to_owned(),
            needs: Vec::new(),
            argv: argv(component.found.component, &after),
            probes: vec![probe()],
            warnings: Vec::new(),
            after,
        }
    });
    let changes: Vec<_> = changes.filter(|c| c.before != c.after).collect();
    if !changes.is_empty() {
        return Checked::Ready { changes, mends: Vec::new(), warnings: Vec::new() };
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
