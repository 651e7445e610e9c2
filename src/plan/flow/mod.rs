//! Whether spans of every instance arrive, and where they end if they do not.
//!
//! [`decide`] is a pure function of what should be there ([`Expected`], from the last turn's plan), of what was seen ([`Seen`]) and of the
//! time. A span's way has two hops: instance → collector of its node, and collector → back end. The collector also sends every span, and
//! its own counters, to the trace store: who is heard there has passed the first hop; what a collector counts tells of the second.
//!
//! Silence proves nothing by itself. It is called a break when something should have been heard: two probes that the instance answered
//! and whose spans had their time, or so much time that at the sampling rate a span had to come ([`wait`]). Until then: Unknown. How long
//! that takes, and why, stands in [`timing`].
//!
//! What stands here goes into a status: categories only, so that nothing is written while nothing changes.

pub mod backend;
pub mod expected;
pub mod loss;
pub mod metrics;
pub mod probe;
mod summary;
pub mod timing;
pub mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::clustertracing::SpanFlow;
use crate::api::telemetry::{GATEWAY_PREFIX, Instance, Sample};
use crate::api::{ComponentName, Reason, State};
use crate::component::spans::{adopts_trace_context, service_name};
use backend::{Cause, Comes};
use loss::Loss;
use probe::{ProbeOff, SentProbe};
use timing::{FRESH, GRACE, PATIENCE, ROLLING, SILENT, UNCOUNTED, UNHEARD_PROBES};

/// A component of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Which component.
    pub component: ComponentName,
    /// The node's name.
    pub node: String,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.component, self.node)
    }
}

/// What should be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Namespace of the operator.
    pub namespace: String,
    /// Where spans are to arrive.
    pub aim: Aim,
    /// Whether the probe is to be sent.
    pub probe: State,
    /// Names of the nodes' exporters, to back ends or to the gateway. Empty: spans go to the trace store only.
    pub exporters: Vec<String>,
    /// The gateway that they send to.
    pub gateway: Option<ExpectedGateway>,
    /// Control-plane nodes with a component that is traced.
    pub nodes: BTreeMap<String, ExpectedNode>,
}

/// The gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedGateway {
    /// Names of its exporters to back ends.
    pub exporters: Vec<String>,
    /// It chooses among traces, so that not all that comes in goes out.
    pub chooses: bool,
}

/// Where spans are to arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Nothing is to be traced.
    Nowhere,
    /// At an endpoint that somebody else runs.
    External(String),
    /// At the collectors of the nodes.
    Collectors,
}

/// A control-plane node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectedNode {
    /// Its host's name, as its identity Lease has it.
    pub hostname: String,
    /// Its internal addresses.
    pub addresses: Vec<String>,
    /// Its Node is Ready.
    pub ready: bool,
    /// A grant is in flight.
    pub changing: bool,
    /// When its last change ended.
    pub changed: Option<Timestamp>,
    /// Its collector.
    pub collector: ExpectedCollector,
    /// What is traced there by our doing.
    pub components: BTreeMap<ComponentName, ExpectedComponent>,
}

/// The collector of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectedCollector {
    /// It is Ready.
    Ready,
    /// It is not Ready, or not of the wanted configuration.
    #[default]
    Missing,
    /// The same, and the configuration was changed at this time.
    Rolling(Timestamp),
}

/// A traced component of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectedComponent {
    /// Its version.
    pub version: Option<String>,
    /// It answers its own probes.
    pub healthy: bool,
    /// When its process started.
    pub started: Option<Timestamp>,
    /// How many of a million of its requests are traced; `None` while its settings are being changed.
    pub sampling_rate_per_million: Option<i32>,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Since when the trace store takes spans.
    pub since: Timestamp,
    /// Identity Leases; `None` while they cannot be read.
    pub identities: Option<Vec<Identity>>,
    /// When the last span of each instance came.
    pub spans: BTreeMap<Instance, Timestamp>,
    /// What each collector told: a node's by the node's name, the gateway's by its pods'.
    pub collectors: BTreeMap<String, Vec<Sample>>,
    /// What was sent to each node's API server in the last minutes, oldest first.
    pub probes: BTreeMap<String, Vec<SentProbe>>,
    /// Why probes cannot be sent.
    pub probe_off: Option<ProbeOff>,
}

impl Seen {
    /// What the gateway's pods told.
    fn gateways(&self) -> impl Iterator<Item = &[Sample]> {
        self.collectors.iter().filter(|(name, _)| name.starts_with(GATEWAY_PREFIX)).map(|(_, samples)| samples.as_slice())
    }
}

/// An API server's identity Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name, which is the `service.instance.id`.
    pub id: String,
    /// The host of the API server.
    pub hostname: String,
    /// When it was renewed last.
    pub renewed: Timestamp,
    /// For how long that counts.
    pub duration: SignedDuration,
}

/// Whether spans flow, as people are told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// `Some(true)` True, `Some(false)` False, `None` Unknown.
    pub status: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// For people: instances, hop, next command.
    pub message: String,
    /// Each instance.
    pub members: BTreeMap<Member, MemberFlow>,
    /// How much gets lost.
    pub loss: Loss,
}

/// Whether spans of one instance flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFlow {
    /// Which of three.
    pub state: SpanFlow,
    /// Why.
    pub reason: Reason,
    /// Since when state and reason are these, as this controller has seen it.
    pub since: Timestamp,
}

impl Default for Flow {
    /// Before anything was looked at.
    fn default() -> Self {
        Self {
            status: None,
            reason: Reason::WaitingForSpans,
            message: "the controller has not looked yet; it does within seconds".to_owned(),
            members: BTreeMap::new(),
            loss: Loss::default(),
        }
    }
}

/// What becomes of one instance's spans.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// They arrive.
    Flowing {
        /// At the trace store, and nowhere else.
        store_only: bool,
    },
    /// They do not, and this is where they end.
    Broken(Break),
    /// It cannot be told.
    Unknown(Doubt),
}

/// The hop at which spans end. The order is that of a summary's reason: what explains most comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Break {
    /// Instance → collector, and on: the node's collector tells nothing at all.
    CollectorSilent {
        /// It is Ready all the same.
        ready: bool,
    },
    /// Instance → collector: the collector runs and has nothing of the instance.
    NoSpans,
    /// Instance → collector: the collector refuses spans.
    CollectorRefusing,
    /// Collector → back end, or gateway.
    Exporter {
        /// Name of the exporter.
        name: String,
        /// What it does.
        cause: Cause,
        /// It is the gateway's, not the nodes'.
        of_gateway: bool,
    },
}

/// Why it cannot be told. The order is that of a summary's reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// The node is being changed.
    Changing,
    /// The node is not Ready.
    NodeNotReady,
    /// The component does not answer its own probes.
    Unhealthy,
    /// A collector of another configuration is starting.
    CollectorRolling,
    /// By which id the API server's spans are told is not known.
    NoIdentity,
    /// The probe cannot be sent, and without it nothing can be expected.
    ProbeOff(ProbeOff),
    /// Nothing is sampled, and no request of ours either.
    NotSampled(NoProbe),
    /// The sampling rate lets spans come only now and then: until this time has passed.
    Wait {
        /// Within which a span has to come.
        within: Duration,
        /// Why no probe makes it shorter.
        because: NoProbe,
    },
    /// Something began anew a moment ago.
    Starting,
    /// Spans arrive, and the collector has not told what became of them.
    Uncounted,
}

/// Why no probe makes an instance's spans come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NoProbe {
    /// `spec.probe.state` or the installation says so.
    Disabled,
    /// The API server's version does not trace a request because a client asks for it.
    Version(String),
    /// The probe reaches etcd through an API server that is traced, and this one's is not.
    ApiServerNotTraced,
    /// It cannot be sent.
    Off(ProbeOff),
    /// It was sent, and the API server did not answer, or refused it.
    NotAnswered,
}

/// Looks at every expected instance.
///
/// # Guarantees
/// - False comes within 60 s ([`timing`]) of a break that a probe, or a counter of the collector, can show; never from silence that has another explanation.
/// - The same situation gives the same value: nothing in it changes with the time alone.
pub fn decide(expected: &Expected, seen: &Seen, before: &Flow, now: Timestamp) -> Flow {
    let verdicts = match expected.aim {
        Aim::Collectors => {
            members(expected).map(|member| (member.clone(), Look { expected, seen, now, member: &member }.verdict())).collect()
        }
        Aim::Nowhere | Aim::External(_) => BTreeMap::new(),
    };
    let (status, reason, message) = summary::summary(expected, &verdicts);
    let told = |(member, verdict): (&Member, &Verdict)| {
        let (state, reason) = (verdict.state(), verdict.reason());
        let same = before.members.get(member).filter(|old| (old.state, old.reason) == (state, reason));
        (member.clone(), MemberFlow { state, reason, since: same.map_or(now, |old| old.since) })
    };
    let loss = match expected.aim {
        Aim::Collectors => loss::measure(expected, seen, now).category(before.loss),
        Aim::Nowhere | Aim::External(_) => Loss::default(),
    };
    Flow { status, reason, message, members: verdicts.iter().map(told).collect(), loss }
}

/// Every instance that is expected, by component and node.
fn members(expected: &Expected) -> impl Iterator<Item = Member> {
    expected.nodes.iter().flat_map(|(node, n)| n.components.keys().map(|component| Member { component: *component, node: node.clone() }))
}

/// The spans' instances by which a member is told: none while it is not known.
pub fn instance_of(expected: &Expected, seen: &Seen, member: &Member, now: Timestamp) -> Option<Instance> {
    let id = match member.component {
        ComponentName::Etcd => member.node.clone(),
        ComponentName::KubeApiserver => {
            let hostname = &expected.nodes.get(&member.node)?.hostname;
            let lives = |lease: &&Identity| lease.hostname == *hostname && now.duration_since(lease.renewed) <= lease.duration;
            // Before 1.26 each start made another one, and the old ones stay for an hour.
            seen.identities.iter().flatten().filter(lives).max_by_key(|lease| lease.renewed)?.id.clone()
        }
    };
    Some(Instance { service: service_name(member.component).to_owned(), id })
}

/// One instance, and all that is known.
struct Look<'a> {
    expected: &'a Expected,
    seen: &'a Seen,
    now: Timestamp,
    member: &'a Member,
}

impl Look<'_> {
    fn verdict(&self) -> Verdict {
        let Some((node, component)) = self.about() else { return Verdict::Unknown(Doubt::Starting) };
        let instance = instance_of(self.expected, self.seen, self.member, self.now);
        let last = instance.as_ref().and_then(|instance| self.seen.spans.get(instance)).copied();
        // Both ways by which a collector is heard are silent: spans that came before tell nothing of it any more.
        let fresh = if self.collector_tells_nothing() { SILENT } else { FRESH };
        if last.is_some_and(|last| self.age(last) < fresh) {
            return self.beyond_the_collector();
        }
        if let Some(doubt) = self.excuse(node, component, instance.as_ref()) {
            return Verdict::Unknown(doubt);
        }
        let begun = self.begun(node, component);
        let within = wait::for_a_span(self.member.component, component.sampling_rate_per_million);
        let restarted = backend::began(self.samples(), SILENT);
        // What came before counts as long as the next one need not have come, and from whoever runs now.
        let came = last.filter(|last| *last >= begun && restarted.is_none_or(|at| *last >= at));
        let need_not_come = came.zip(within).is_some_and(|(last, within)| self.age(last) < signed(within));
        if self.age(begun) < GRACE && !need_not_come {
            return Verdict::Unknown(Doubt::Starting);
        }
        // One that has begun anew tells its counters within seconds, long before spans come to it again.
        if self.collector_tells_nothing() {
            return Verdict::Broken(Break::CollectorSilent { ready: node.collector == ExpectedCollector::Ready });
        }
        let patient = self.age(last.unwrap_or(begun)) < PATIENCE;
        let begun = restarted.filter(|_| patient).map_or(begun, |at| begun.max(at));
        if self.age(begun) < GRACE && !need_not_come {
            return Verdict::Unknown(Doubt::Starting);
        }
        if backend::refuses(self.samples()) {
            return Verdict::Broken(Break::CollectorRefusing);
        }
        let unheard_since = last.map_or(begun, |last| last.max(begun));
        let no_probe = match self.probes_without_echo(unheard_since) {
            Ok(count) if count >= UNHEARD_PROBES => return Verdict::Broken(Break::NoSpans),
            Ok(_) => NoProbe::NotAnswered,
            Err(why) => why,
        };
        match (within, no_probe) {
            _ if need_not_come => self.beyond_the_collector(),
            (Some(within), _) if self.age(unheard_since) >= signed(within) => Verdict::Broken(Break::NoSpans),
            (Some(within), because) => Verdict::Unknown(Doubt::Wait { within, because }),
            (None, _) if component.sampling_rate_per_million.is_none() => Verdict::Unknown(Doubt::Changing),
            (None, NoProbe::Off(off)) => Verdict::Unknown(Doubt::ProbeOff(off)),
            (None, because) => Verdict::Unknown(Doubt::NotSampled(because)),
        }
    }

    fn about(&self) -> Option<(&ExpectedNode, &ExpectedComponent)> {
        let node = self.expected.nodes.get(&self.member.node)?;
        Some((node, node.components.get(&self.member.component)?))
    }

    fn age(&self, at: Timestamp) -> SignedDuration {
        self.now.duration_since(at)
    }

    fn samples(&self) -> &[Sample] {
        self.seen.collectors.get(&self.member.node).map(Vec::as_slice).unwrap_or_default()
    }

    fn collector_tells_nothing(&self) -> bool {
        self.samples().last().is_none_or(|sample| self.age(sample.at) >= SILENT)
    }

    /// A reason for silence that is no break.
    fn excuse(&self, node: &ExpectedNode, component: &ExpectedComponent, instance: Option<&Instance>) -> Option<Doubt> {
        if node.changing {
            return Some(Doubt::Changing);
        }
        if !node.ready {
            return Some(Doubt::NodeNotReady);
        }
        if !component.healthy {
            return Some(Doubt::Unhealthy);
        }
        if matches!(node.collector, ExpectedCollector::Rolling(since) if self.age(since) < ROLLING) {
            return Some(Doubt::CollectorRolling);
        }
        instance.is_none().then_some(Doubt::NoIdentity)
    }

    /// Since when store, node and component are as they are. Times of a node's clock that lie ahead of ours say nothing.
    fn begun(&self, node: &ExpectedNode, component: &ExpectedComponent) -> Timestamp {
        let told = [node.changed, component.started].into_iter().flatten().filter(|at| *at <= self.now);
        told.fold(self.seen.since, Timestamp::max)
    }

    /// How many probes should have been heard since, and were not; or why there is no such thing.
    fn probes_without_echo(&self, since: Timestamp) -> Result<usize, NoProbe> {
        if self.expected.probe == State::Disabled {
            return Err(NoProbe::Disabled);
        }
        let api_server = self.expected.nodes.get(&self.member.node).and_then(|n| n.components.get(&ComponentName::KubeApiserver));
        let api_server = api_server.ok_or(NoProbe::ApiServerNotTraced)?;
        if let Some(version) = api_server.version.as_ref().filter(|version| adopts_trace_context(version) == Some(false)) {
            return Err(NoProbe::Version(version.clone()));
        }
        let probes = self.seen.probes.get(&self.member.node).map(Vec::as_slice).unwrap_or_default();
        let unheard = probes.iter().filter(|p| p.at > since && p.asked(self.member.component) && p.had_its_time(self.now)).count();
        match &self.seen.probe_off {
            Some(off) if unheard < UNHEARD_PROBES => Err(NoProbe::Off(off.clone())),
            _ => Ok(unheard),
        }
    }

    /// The first hop is passed: what the collector counts of the second.
    fn beyond_the_collector(&self) -> Verdict {
        if self.expected.exporters.is_empty() {
            return Verdict::Flowing { store_only: true };
        }
        if self.samples().last().is_none_or(|sample| self.age(sample.at) > UNCOUNTED) {
            return Verdict::Unknown(Doubt::Uncounted);
        }
        let broken = self.expected.exporters.iter().filter_map(|name| {
            let cause = backend::failing(self.samples(), name, Comes::Accepted, self.now)?;
            Some(Break::Exporter { name: name.clone(), cause, of_gateway: false })
        });
        let broken = broken.min().or_else(|| self.beyond_the_gateway());
        broken.map_or(Verdict::Flowing { store_only: false }, Verdict::Broken)
    }

    /// What the gateway's pods count.
    fn beyond_the_gateway(&self) -> Option<Break> {
        let gateway = self.expected.gateway.as_ref()?;
        let comes = if gateway.chooses { Comes::Queued } else { Comes::Accepted };
        let pods = self.seen.gateways().filter(|samples| samples.last().is_some_and(|sample| self.age(sample.at) <= UNCOUNTED));
        let broken = pods.flat_map(|samples| {
            gateway.exporters.iter().filter_map(move |name| Some((name, backend::failing(samples, name, comes, self.now)?)))
        });
        broken.map(|(name, cause)| Break::Exporter { name: name.clone(), cause, of_gateway: true }).min()
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl Verdict {
    fn state(&self) -> SpanFlow {
        match self {
            Self::Flowing { .. } => SpanFlow::Flowing,
            Self::Broken(_) => SpanFlow::Broken,
            Self::Unknown(_) => SpanFlow::Unknown,
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Flowing { store_only: false } => Reason::SpansFlowing,
            Self::Flowing { store_only: true } => Reason::StoreOnly,
            Self::Broken(broken) => broken.reason(),
            Self::Unknown(doubt) => doubt.reason(),
        }
    }
}

impl Break {
    fn reason(&self) -> Reason {
        match self {
            Self::CollectorSilent { .. } => Reason::CollectorSilent,
            Self::NoSpans => Reason::NoSpansReceived,
            Self::CollectorRefusing => Reason::CollectorRefusing,
            Self::Exporter { .. } => Reason::ExporterFailing,
        }
    }
}

impl Doubt {
    fn reason(&self) -> Reason {
        match self {
            Self::Changing => Reason::WaitingForNode,
            Self::NodeNotReady => Reason::NodeNotReady,
            Self::Unhealthy => Reason::ComponentUnhealthy,
            Self::CollectorRolling => Reason::WaitingForCollector,
            Self::NoIdentity => Reason::IdentityUnknown,
            Self::ProbeOff(_) => Reason::ProbeOff,
            Self::NotSampled(_) => Reason::NotSampled,
            Self::Wait { .. } | Self::Starting | Self::Uncounted => Reason::WaitingForSpans,
        }
    }
}

/// Nodes to whose API servers a probe is of use.
pub fn probed_nodes(expected: &Expected) -> BTreeSet<&str> {
    let of_use = |n: &ExpectedNode| {
        let api_server = n.components.get(&ComponentName::KubeApiserver);
        api_server.is_some_and(|c| c.version.as_deref().and_then(adopts_trace_context) != Some(false))
    };
    match (expected.probe, &expected.aim) {
        (State::Enabled, Aim::Collectors) => expected.nodes.iter().filter(|(_, n)| of_use(n)).map(|(name, _)| name.as_str()).collect(),
        _ => BTreeSet::new(),
    }
}
