//! A pretended control plane that sends spans, second by second: kube-apiserver and etcd export every 5 s, collectors tell their counters
//! every 5 s, and the controller probes and looks as often as it really does.

use std::collections::{BTreeMap, BTreeSet};

use clustertracing::api::telemetry::{ExporterSample, GATEWAY_PREFIX, Instance, Sample, TraceId};
use clustertracing::api::{ComponentName, State};
use clustertracing::component::spans::{adopts_trace_context, service_name};
use clustertracing::plan::collector::GATEWAY;
use clustertracing::plan::flow::probe::{Answer, ProbeOff, SentProbe};
use clustertracing::plan::flow::timing::{LOOK_EVERY, PROBE_EVERY};
use clustertracing::plan::flow::{
    Aim, Expected, ExpectedCollector, ExpectedComponent, ExpectedGateway, ExpectedNode, Flow, Identity, Member, Seen, decide, metrics,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

const STORE: &str = "otlp_grpc/clustertracing-store";

/// What the back end does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum BackEnd {
    /// Takes spans.
    #[default]
    Takes,
    /// Does not answer: the exporter keeps spans and tries again.
    Away,
    /// Says no: the exporter gives them up.
    Refuses,
    /// Takes nothing for so long that the queue is full.
    Full,
}

/// What happens.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Event {
    StopCollector(String),
    StartCollector(String),
    /// The collector runs and cannot reach the store.
    CutOff(String),
    /// The port is dropped for one sender.
    Drop(String, ComponentName),
    Open(String, ComponentName),
    /// The collector is at its memory limit.
    Refuse(String, bool),
    BackEnd(BackEnd),
    /// Another leads: its store is empty.
    RestartController,
    /// A grant is in flight, and the node's components restart.
    Change(String),
    Changed(String),
    /// Collectors of another configuration are started.
    Roll,
    Rolled,
    /// The spans of the next probe get lost.
    LoseProbe(String),
    /// The next probe is 8 s late: the one before had no answer within 5 s, and there are other nodes.
    LateProbe(String),
    /// The next push of the collector's counters is 5 s late.
    LatePush(String),
    /// The API server does not answer requests of ours, and lives.
    Unreachable(String, bool),
    NodeReady(String, bool),
    Healthy(String, ComponentName, bool),
    /// The identity Lease is renewed no more, and its time is over.
    LeaseExpired(String),
    ProbeDenied,
    ProbeForbidden,
    /// Somebody's request is sampled on this node.
    Request(String),
    TurnOff,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default = "kubernetes")]
    pub(crate) kubernetes: String,
    pub(crate) nodes: Vec<String>,
    #[serde(default)]
    pub(crate) rate: i32,
    #[serde(default = "exporters")]
    pub(crate) exporters: Vec<String>,
    #[serde(default)]
    pub(crate) probe: State,
    /// On these nodes kube-apiserver is not traced.
    #[serde(default)]
    pub(crate) etcd_only: bool,
    #[serde(default)]
    pub(crate) external: Option<String>,
    /// A gateway stands before the back end; whether it chooses among traces.
    #[serde(default)]
    pub(crate) gateway: Option<bool>,
}

fn kubernetes() -> String {
    "1.36.3".to_owned()
}

fn exporters() -> Vec<String> {
    vec!["jaeger".to_owned()]
}

/// A node.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
struct Machine {
    dropped: BTreeSet<ComponentName>,
    collector: bool,
    cut_off: bool,
    refuses: bool,
    unreachable: bool,
    lose_probe: bool,
    late_probe: bool,
    late_push: bool,
    /// When a late probe is sent after all.
    probe_due: Option<u64>,
    /// What components hold until their next export: the trace, if it was asked for.
    held: Vec<(ComponentName, Option<TraceId>)>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    accepted: u64,
    refused: u64,
    exporter: ExporterSample,
    store: u64,
}

impl Counters {
    /// Sends so many spans on.
    fn send(&mut self, count: u64, back_end: BackEnd) {
        let exporter = &mut self.exporter;
        exporter.capacity = 100;
        match back_end {
            BackEnd::Takes => (exporter.sent, exporter.queued) = (exporter.sent + exporter.queued + count, 0),
            BackEnd::Away => exporter.queued += count,
            BackEnd::Refuses => exporter.failed += count,
            BackEnd::Full => (exporter.queued, exporter.rejected) = (exporter.capacity, exporter.rejected + count),
        }
    }
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    seconds: u64,
    pub(crate) expected: Expected,
    pub(crate) seen: Seen,
    machines: BTreeMap<String, Machine>,
    gateway: Counters,
    back_end: BackEnd,
    pub(crate) flow: Flow,
    traces: u128,
    renewing: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(settings: &Settings) -> Self {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let long_ago = now - SignedDuration::from_hours(1);
        let component = |name| ExpectedComponent {
            version: Some(if name == ComponentName::Etcd { "3.6.16".to_owned() } else { settings.kubernetes.clone() }),
            healthy: true,
            started: Some(long_ago),
            sampling_rate_per_million: Some(settings.rate),
        };
        let traced = if settings.etcd_only { vec![ComponentName::Etcd] } else { vec![ComponentName::KubeApiserver, ComponentName::Etcd] };
        let node = |name: &String| ExpectedNode {
            hostname: name.clone(),
            addresses: Vec::new(),
            ready: true,
            changing: false,
            changed: Some(long_ago),
            collector: ExpectedCollector::Ready,
            components: traced.iter().map(|name| (*name, component(*name))).collect(),
        };
        let expected = Expected {
            namespace: "clustertracing-system".to_owned(),
            aim: settings.external.clone().map_or(Aim::Collectors, Aim::External),
            probe: settings.probe,
            exporters: if settings.gateway.is_some() { vec![GATEWAY.to_owned()] } else { settings.exporters.clone() },
            gateway: settings.gateway.map(|chooses| ExpectedGateway { exporters: settings.exporters.clone(), chooses }),
            nodes: settings.nodes.iter().map(|name| (name.clone(), node(name))).collect(),
        };
        let machines = settings.nodes.iter().map(|name| (name.clone(), Machine { collector: true, ..Machine::default() })).collect();
        Self {
            now,
            seconds: 0,
            expected,
            seen: Self::nothing_seen(now),
            machines,
            gateway: Counters::default(),
            back_end: BackEnd::default(),
            flow: Flow::default(),
            traces: 0,
            renewing: settings.nodes.iter().cloned().collect(),
        }
    }

    fn nothing_seen(since: Timestamp) -> Seen {
        Seen { since, identities: None, spans: BTreeMap::new(), collectors: BTreeMap::new(), probes: BTreeMap::new(), probe_off: None }
    }

    fn instance(component: ComponentName, node: &str) -> Instance {
        let id = if component == ComponentName::Etcd { node.to_owned() } else { format!("apiserver-of-{node}") };
        Instance { service: service_name(component).to_owned(), id }
    }

    pub(crate) fn happen(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::StopCollector(node) => {
                self.machine(node).collector = false;
                self.node(node).collector = ExpectedCollector::Missing;
            }
            Event::StartCollector(node) => {
                let machine = self.machine(node);
                (machine.collector, machine.counters) = (true, Counters::default());
                self.node(node).collector = ExpectedCollector::Ready;
            }
            Event::CutOff(node) => self.machine(node).cut_off = true,
            Event::Drop(node, component) => drop(self.machine(node).dropped.insert(*component)),
            Event::Open(node, component) => drop(self.machine(node).dropped.remove(component)),
            Event::Refuse(node, refuses) => self.machine(node).refuses = *refuses,
            Event::BackEnd(does) => self.back_end = *does,
            Event::RestartController => {
                self.seen = Self::nothing_seen(now);
                self.flow = Flow::default();
            }
            Event::Change(node) => {
                self.machine(node).unreachable = true;
                self.node(node).changing = true;
            }
            Event::Changed(node) => {
                self.machine(node).unreachable = false;
                (self.node(node).changing, self.node(node).changed) = (false, Some(now));
            }
            Event::Roll => self.expected.nodes.values_mut().for_each(|n| n.collector = ExpectedCollector::Rolling(now)),
            Event::Rolled => self.expected.nodes.values_mut().for_each(|n| n.collector = ExpectedCollector::Ready),
            Event::LoseProbe(node) => self.machine(node).lose_probe = true,
            Event::LateProbe(node) => self.machine(node).late_probe = true,
            Event::LatePush(node) => self.machine(node).late_push = true,
            Event::Unreachable(node, is) => self.machine(node).unreachable = *is,
            Event::NodeReady(node, ready) => self.node(node).ready = *ready,
            Event::Healthy(node, component, healthy) => {
                self.node(node).components.get_mut(component).expect("it is traced").healthy = *healthy;
            }
            Event::LeaseExpired(node) => drop(self.renewing.remove(node)),
            Event::ProbeDenied => self.seen.probe_off = Some(ProbeOff::Denied),
            Event::ProbeForbidden => {
                self.seen.probe_off = Some(ProbeOff::Forbidden { what: "create certificatesigningrequests".to_owned() });
            }
            Event::Request(node) => self.make_spans(node, None),
            Event::TurnOff => self.expected.aim = Aim::Nowhere,
        }
    }

    fn machine(&mut self, node: &str) -> &mut Machine {
        self.machines.get_mut(node).expect("a node of the case")
    }

    fn node(&mut self, node: &str) -> &mut ExpectedNode {
        self.expected.nodes.get_mut(node).expect("a node of the case")
    }

    fn make_spans(&mut self, node: &str, trace: Option<TraceId>) {
        let components: Vec<_> = self.node(node).components.keys().copied().collect();
        self.machine(node).held.extend(components.into_iter().map(|component| (component, trace)));
    }

    /// A second passes.
    pub(crate) fn tick(&mut self) {
        self.now += SignedDuration::from_secs(1);
        self.seconds += 1;
        let names: Vec<_> = self.machines.keys().cloned().collect();
        for (n, node) in (0_u64..).zip(&names) {
            if self.is_probed(node, 2 * n) {
                self.probe(node);
            }
            if (self.seconds + n).is_multiple_of(5) {
                self.export(node);
            }
            if (self.seconds + 2 + n).is_multiple_of(5) && !std::mem::take(&mut self.machine(node).late_push) {
                self.tell(node);
            }
        }
        if let Some(ExpectedGateway { exporters, .. }) = self.expected.gateway.as_ref().filter(|_| self.seconds.is_multiple_of(5)) {
            let Counters { accepted, refused, exporter, .. } = self.gateway;
            let exporters = exporters.iter().map(|name| (format!("otlp_grpc/{name}"), exporter)).collect();
            let sample = Sample { at: self.now, accepted, refused, exporters };
            self.seen.collectors.entry(format!("{GATEWAY_PREFIX}{GATEWAY}-0")).or_default().push(sample);
        }
        if self.seconds.is_multiple_of(LOOK_EVERY.as_secs()) {
            self.renew();
            self.flow = decide(&self.expected, &self.seen, &self.flow, self.now);
        }
    }

    fn is_probed(&mut self, node: &str, phase: u64) -> bool {
        let seconds = self.seconds;
        let machine = self.machine(node);
        if (seconds + phase).is_multiple_of(PROBE_EVERY.as_secs()) {
            machine.probe_due = Some(if std::mem::take(&mut machine.late_probe) { seconds + 8 } else { seconds });
        }
        machine.probe_due.take_if(|due| *due <= seconds).is_some()
    }

    fn probe(&mut self, node: &str) {
        let adopts = adopts_trace_context(&self.version(node)).unwrap_or(true);
        if self.expected.probe == State::Disabled || self.seen.probe_off.is_some() || !adopts || self.expected.aim != Aim::Collectors {
            return;
        }
        self.traces += 1;
        let trace = TraceId::new(self.traces.to_be_bytes()).expect("not zero");
        let answer = if self.machine(node).unreachable { Answer::None } else { Answer::Status(200) };
        if answer != Answer::None && !std::mem::take(&mut self.machine(node).lose_probe) {
            self.make_spans(node, Some(trace));
        }
        let sent = SentProbe { at: self.now, trace, answer, instances: BTreeSet::new() };
        self.seen.probes.entry(node.to_owned()).or_default().push(sent);
    }

    fn version(&self, node: &str) -> String {
        let api_server = self.expected.nodes.get(node).and_then(|n| n.components.get(&ComponentName::KubeApiserver));
        api_server.and_then(|c| c.version.clone()).unwrap_or_default()
    }

    /// Components export what they hold. What the collector does not take is tried again, and given up.
    fn export(&mut self, node: &str) {
        let (now, back_end) = (self.now, self.back_end);
        let machine = self.machines.get_mut(node).expect("a node of the case");
        let held = std::mem::take(&mut machine.held);
        if !machine.collector {
            return;
        }
        let arrive: Vec<_> = held.into_iter().filter(|(component, _)| !machine.dropped.contains(component)).collect();
        let count = arrive.len() as u64;
        let counters = &mut machine.counters;
        if machine.refuses {
            counters.refused += count;
            return;
        }
        counters.accepted += count;
        counters.store += count;
        match &self.expected.gateway {
            None => counters.send(count, back_end),
            Some(gateway) => {
                counters.send(count, BackEnd::Takes);
                self.gateway.accepted += count;
                // Of what it chooses among, one in eight.
                let chosen = if gateway.chooses { self.gateway.accepted / 8 - (self.gateway.accepted - count) / 8 } else { count };
                self.gateway.send(chosen, back_end);
            }
        }
        if machine.cut_off {
            return;
        }
        for (component, trace) in arrive {
            let instance = Self::instance(component, node);
            let probe = self.seen.probes.get_mut(node).and_then(|probes| probes.iter_mut().find(|p| Some(p.trace) == trace));
            if let Some(probe) = probe {
                probe.instances.insert(instance.clone());
            }
            self.seen.spans.insert(instance, now);
        }
    }

    fn tell(&mut self, node: &str) {
        let (now, exporters) = (self.now, self.expected.exporters.clone());
        let machine = self.machine(node);
        if !machine.collector || machine.cut_off {
            return;
        }
        let Counters { accepted, refused, exporter, store } = machine.counters;
        let store = (STORE.to_owned(), ExporterSample { sent: store, ..ExporterSample::default() });
        let exporters = exporters.iter().map(|name| (format!("otlp_grpc/{name}"), exporter)).chain([store]).collect();
        self.seen.collectors.entry(node.to_owned()).or_default().push(Sample { at: now, accepted, refused, exporters });
    }

    fn renew(&mut self) {
        let (now, minute) = (self.now, SignedDuration::from_mins(1));
        let identity = |name: &String| Identity {
            id: format!("apiserver-of-{name}"),
            hostname: name.clone(),
            renewed: if self.renewing.contains(name) { now } else { now - minute - minute },
            duration: minute,
        };
        self.seen.identities = Some(self.machines.keys().map(identity).collect());
    }

    pub(crate) fn metrics(&self) -> String {
        metrics::metrics_text(&self.flow, &self.expected, &self.seen, self.now)
    }

    /// What people see of one instance.
    pub(crate) fn state_of(&self, member: &Member) -> Option<String> {
        let flow = self.flow.members.get(member)?;
        let state: &str = flow.state.into();
        Some(format!("{state} {}", flow.reason))
    }
}
