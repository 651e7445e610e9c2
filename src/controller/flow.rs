//! Looks every few seconds whether spans flow, and asks for a turn when the answer is another one.
//!
//! The decision is [`crate::plan::flow::decide`]; here is what it is made of: the trace store, the probes, the identity Leases, and what the
//! last turn expects. Nothing of it is written to the API server but by a turn, and then only what changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::mpsc;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::{Api, Client, Config, ResourceExt};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Context;
use super::probe::Prober;
use crate::component::spans::{HOSTNAME_LABEL, IDENTITY_LABEL};
use crate::plan::flow::loss::WINDOW;
use crate::plan::flow::metrics::metrics_text;
use crate::plan::flow::probe::{ProbeOff, SentProbe};
use crate::plan::flow::timing::{LOOK_EVERY, PROBE_EVERY};
use crate::plan::flow::{Expected, Flow, Identity, Seen, decide};
use crate::store::Store;

/// No span of a probe comes later than this.
const LATEST: SignedDuration = SignedDuration::from_mins(1);

/// What turns and the look at spans tell each other.
#[derive(Debug)]
pub(super) struct Told {
    expected: watch::Sender<Option<Arc<Expected>>>,
    flow: watch::Sender<Flow>,
    metrics: watch::Sender<String>,
}

impl Told {
    pub(super) fn new() -> Self {
        Self { expected: watch::Sender::new(None), flow: watch::Sender::new(Flow::default()), metrics: watch::Sender::new(String::new()) }
    }

    /// A turn tells what is expected. What is new is looked at at once: an instance that has just come is not among those that were proved.
    pub(super) fn expect(&self, expected: Option<Expected>) {
        self.expected.send_if_modified(|last| {
            let is_new = last.as_deref() != expected.as_ref();
            *last = expected.map(Arc::new);
            is_new
        });
    }

    fn expected(&self) -> Option<Arc<Expected>> {
        self.expected.borrow().clone()
    }

    /// What was decided last.
    pub(super) fn flow(&self) -> Flow {
        self.flow.borrow().clone()
    }

    /// The metrics, in Prometheus' text format.
    pub(super) fn metrics(&self) -> String {
        self.metrics.borrow().clone()
    }
}

/// What the probes bring, for whoever looks.
#[derive(Debug, Default)]
struct Brought {
    identities: Option<Vec<Identity>>,
    probes: BTreeMap<String, Vec<SentProbe>>,
    off: Option<ProbeOff>,
}

/// Probes and looks, for as long as this controller leads. `changed` is told when a turn is due.
pub(super) async fn run(ctx: Arc<Context>, store: Arc<Store>, config: Config, changed: mpsc::Sender<()>) {
    let brought = Mutex::new(Brought::default());
    tokio::join!(probe(&ctx, config, &brought), look(&ctx, &store, &brought, changed));
}

async fn probe(ctx: &Context, config: Config, brought: &Mutex<Brought>) {
    let mut prober = Prober::new(ctx.client.clone(), config);
    // Each round also reads the identity Leases.
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(expected) = ctx.told.expected().filter(|_| ctx.leadership.is_held()) else { continue };
        let identities = identities(&ctx.client).await;
        let identities =
            identities.inspect_err(|error| tracing::warn!(error = error as &dyn std::error::Error, "identity leases not read"));
        let sent = prober.round(&expected, Timestamp::now()).await;
        let mut brought = brought.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(identities) = identities {
            brought.identities = Some(identities);
        }
        brought.off = prober.off().cloned();
        for (node, probe) in sent {
            brought.probes.entry(node).or_default().push(probe);
        }
    }
}

async fn look(ctx: &Context, store: &Store, brought: &Mutex<Brought>, mut changed: mpsc::Sender<()>) {
    let since = Timestamp::now();
    let mut expectations = ctx.told.expected.subscribe();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = expectations.changed() => {}
        }
        let Some(expected) = ctx.told.expected().filter(|_| ctx.leadership.is_held()) else { continue };
        let now = Timestamp::now();
        let seen = seen(store, brought, since, now);
        let before = ctx.told.flow();
        let flow = decide(&expected, &seen, &before, now);
        ctx.told.metrics.send_replace(metrics_text(&flow, &expected, &seen, now));
        if flow == before {
            continue;
        }
        if (flow.status, flow.reason) != (before.status, before.reason) {
            tracing::info!(status = ?flow.status, reason = flow.reason.as_str(), "{}", flow.message);
        }
        ctx.told.flow.send_replace(flow);
        // One that is full already has a turn to come, which will see this.
        drop(changed.try_send(()));
    }
}

fn seen(store: &Store, brought: &Mutex<Brought>, since: Timestamp, now: Timestamp) -> Seen {
    let mut brought = brought.lock().unwrap_or_else(PoisonError::into_inner);
    for probes in brought.probes.values_mut() {
        probes.retain(|probe| now.duration_since(probe.at) <= WINDOW);
        for probe in probes.iter_mut().filter(|probe| now.duration_since(probe.at) <= LATEST) {
            probe.instances.extend(store.instances_of(probe.trace));
        }
    }
    Seen {
        since,
        identities: brought.identities.clone(),
        spans: store.instances(),
        collectors: store.collectors(),
        probes: brought.probes.clone(),
        probe_off: brought.off.clone(),
    }
}

/// The identity Leases of kube-apiservers.
///
/// # Errors
/// When they cannot be listed.
pub async fn identities(client: &Client) -> Result<Vec<Identity>, kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let (key, value) = IDENTITY_LABEL;
    let found = leases.list(&ListParams::default().labels(&format!("{key}={value}"))).await?;
    Ok(found.iter().filter_map(identity).collect())
}

fn identity(lease: &Lease) -> Option<Identity> {
    let spec = lease.spec.as_ref()?;
    Some(Identity {
        id: lease.name_any(),
        hostname: lease.labels().get(HOSTNAME_LABEL)?.clone(),
        renewed: spec.renew_time.as_ref()?.0,
        duration: SignedDuration::from_secs(spec.lease_duration_seconds?.into()),
    })
}
