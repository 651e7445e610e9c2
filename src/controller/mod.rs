//! The controller: looks at the one `ClusterTracing` and everything that belongs to it, plans, writes, and tells.
//!
//! Each turn is `observe → validate → plan → apply → update_status`, and starts from what the API server holds: nothing is remembered
//! between turns but how often the last one failed. Decisions are in [`crate::plan`]; nothing here chooses.

mod apply;
mod error;
mod flow;
mod observe;
pub mod probe;
mod serve;
mod update_status;

#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::predicates;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt};
use kube::{Api, Client, Resource, ResourceExt};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::api::{self, ClusterTracing, FIELD_MANAGER_CONTROLLER, NodeTracing};
use crate::plan::events;
use crate::plan::flow::Expected;
use crate::plan::observed::ObservedNode;
use crate::plan::status::{invalid_status, status};
use crate::plan::validate::{Goal, Installation};
use crate::plan::{canary, collector, collector_check, plan};
use crate::runtime::backoff::{AtOnce, Doubling};
use crate::runtime::lease::{Elector, Leadership};
use crate::runtime::{shutdown, telemetry};

use flow::Told;

pub use error::{Category, Error};
pub use flow::identities;
pub use serve::TraceStore;

/// Name of the Lease.
pub const LEASE: &str = "clustertracing-controller";
/// A turn makes some ten requests of milliseconds. One that takes longer hangs on a connection to a node that is gone; ending it closes that.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// While another leads, or nobody does.
const NOT_LEADING: Duration = Duration::from_secs(2);
/// Several objects change together; one turn answers them.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// What a turn needs besides the resource.
pub struct Context {
    client: Client,
    recorder: Recorder,
    installation: Installation,
    leadership: Leadership,
    term: String,
    failures: AtomicU32,
    told: Told,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Another one leads. The process has to start afresh as a candidate.
    #[error("another controller holds lease {LEASE}")]
    LostLease,
    /// Every watch ended, which they do not.
    #[error("the watches ended")]
    WatchesEnded,
    /// The configuration of the connection to the API server cannot be used.
    #[error("make a client of the API server")]
    Client(#[source] Box<kube::Error>),
    /// No signal handlers.
    #[error("install the signal handlers")]
    Signals(#[source] std::io::Error),
}

impl Context {
    /// A context that writes only while `leadership` is held, in the term of this name.
    pub fn new(client: Client, installation: Installation, identity: &str, leadership: Leadership, term: String) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER_CONTROLLER.into(), instance: Some(identity.into()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, recorder, installation, leadership, term, failures: AtomicU32::new(0), told: Told::new() }
    }

    /// Whether spans flow, and how many get lost, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.told.metrics()
    }

    fn cluster_tracings(&self) -> Api<ClusterTracing> {
        Api::all(self.client.clone())
    }

    fn node_tracings(&self) -> Api<NodeTracing> {
        Api::all(self.client.clone())
    }

    fn in_namespace<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.installation.namespace)
    }
}

/// Runs until a signal asks for the end, or another controller leads.
///
/// # Errors
/// See [`Ended`].
pub async fn run(config: kube::Config, installation: Installation, identity: &str, trace_store: &TraceStore) -> Result<(), Ended> {
    let client = Client::try_from(config.clone()).map_err(|source| Ended::Client(Box::new(source)))?;
    let mut elector = Elector::new(client.clone(), &installation.namespace, LEASE, identity);
    let stop = shutdown::requested();
    tokio::pin!(stop);
    let term = tokio::select! {
        term = elector.acquire() => term,
        stopped = &mut stop => return stopped.map_err(Ended::Signals),
    };
    tracing::info!(identity, term, "leading");
    let store = Arc::new(trace_store.store());
    let namespace = installation.namespace.clone();
    let context = Arc::new(Context::new(client.clone(), installation, identity, elector.leadership(), term));
    let (changed, turns) = mpsc::channel(1);
    let metrics = context.clone();
    let metrics = Arc::new(move || metrics.metrics());
    let ended = tokio::select! {
        never = serve::serve(client, &namespace, identity, trace_store, store.clone(), metrics) => match never {},
        () = Box::pin(flow::run(context.clone(), store, config, changed)) => Err(Ended::WatchesEnded),
        () = watch(context, turns) => Err(Ended::WatchesEnded),
        () = elector.keep() => Err(Ended::LostLease),
        stopped = &mut stop => stopped.map_err(Ended::Signals),
    };
    if let Err(error) = elector.release().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "lease not released");
    }
    ended
}

/// Seconds after which a watch is begun anew, so that one that the API server forgot does not stay silent for the default of five minutes.
const WATCH_SECONDS: u32 = 60;

/// Turns whenever something relevant changes. Watches resume by themselves when the API server is back.
async fn watch(context: Arc<Context>, turns: mpsc::Receiver<()>) {
    let everything = || watcher::Config::default().timeout(WATCH_SECONDS);
    let (reader, writer) = reflector::store();
    // Not the status: that is written here, and would be answered for ever.
    let relevant = predicates::generation.combine(predicates::annotations).combine(predicates::finalizers);
    let resources = watcher(context.cluster_tracings(), everything())
        .backoff(Doubling::default())
        .reflect(writer)
        .applied_objects()
        .predicate_filter(relevant, PredicateConfig::default());
    // A Node that goes takes its NodeTracing along, whose watch tells.
    let nodes = watcher(Api::<Node>::all(context.client.clone()), everything().labels(api::LABEL_CONTROL_PLANE))
        .backoff(Doubling::default())
        .touched_objects()
        .predicate_filter(|node: &Node| Some(node_facts(node)), PredicateConfig::default());
    let node_tracings = watcher(context.node_tracings(), everything()).backoff(Doubling::default()).touched_objects();
    let daemon_sets = watcher(context.in_namespace::<DaemonSet>(), everything().labels(collector::SELECTOR));
    let daemon_sets = daemon_sets.backoff(Doubling::default()).touched_objects();
    let gateways = watcher(context.in_namespace::<Deployment>(), everything().labels(collector::GATEWAY_SELECTOR));
    let gateways = gateways.backoff(Doubling::default()).touched_objects();
    let canaries = watcher(context.in_namespace::<Pod>(), everything().labels(canary::SELECTOR));
    let canaries = canaries.backoff(Doubling::default()).touched_objects();
    let checks = watcher(context.in_namespace::<Pod>(), everything().labels(collector_check::SELECTOR));
    let checks = checks.backoff(Doubling::default()).touched_objects();
    Controller::for_stream(resources, reader)
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(1))
        .trigger_backoff(AtOnce)
        .reconcile_all_on(turns)
        .owns_stream(daemon_sets)
        .owns_stream(gateways)
        .owns_stream(canaries)
        .owns_stream(checks)
        .watches_stream(nodes, |_| [ObjectRef::new(api::SINGLETON)])
        .watches_stream(node_tracings, |_| [ObjectRef::new(api::SINGLETON)])
        .run(reconcile, error_policy, context)
        .for_each(|turn| async {
            if let Err(error) = turn {
                tracing::debug!(error = &error as &dyn std::error::Error, "turn ended early");
            }
        })
        .await;
}

/// What of a Node matters here. Its heartbeats do not.
fn node_facts(node: &Node) -> u64 {
    let ObservedNode { uid, ready, labels, platform, addresses } = node.into();
    let mut hasher = DefaultHasher::new();
    (uid, ready, labels, platform.map(|platform| platform.name), addresses, node.name_any()).hash(&mut hasher);
    hasher.finish()
}

async fn reconcile(_: Arc<ClusterTracing>, ctx: Arc<Context>) -> Result<Action, Error> {
    if !ctx.leadership.is_held() {
        return Ok(Action::requeue(NOT_LEADING));
    }
    let span = info_span!("reconcile", term = ctx.term, otel.status_code = Empty, trace_id = Empty);
    let work = async {
        telemetry::show_trace_id();
        let turned = tokio::time::timeout(TURN_TIMEOUT, turn(&ctx, Timestamp::now())).await;
        let turned = turned.map_err(|_| Error::Timeout(TURN_TIMEOUT)).flatten();
        if turned.is_err() {
            Span::current().record("otel.status_code", "ERROR");
        }
        turned
    };
    let action = work.instrument(span).await?;
    ctx.failures.store(0, Ordering::Relaxed);
    Ok(action)
}

/// One turn: observe and validate, plan, apply, tell.
///
/// # Errors
/// When the API server cannot be read or written; what was written stays, and the next turn goes on from there.
pub async fn turn(ctx: &Context, now: Timestamp) -> Result<Action, Error> {
    let Some(seen) = Box::pin(observe::observe(ctx, now).instrument(info_span!("observe"))).await? else {
        ctx.told.expect(None);
        return Ok(Action::await_change());
    };
    let validated = match &seen.validated {
        Ok(validated) => validated,
        Err(invalid) => {
            let canaries = seen.observed.canaries.iter().filter(|pod| !pod.ending).map(|pod| (pod.name.clone(), pod.uid.clone()));
            let checks = seen.observed.collector_checks.iter().filter(|pod| !pod.ending).map(|pod| (pod.name.clone(), pod.uid.clone()));
            apply::remove_pods(ctx, &canaries.chain(checks).collect::<Vec<_>>()).await?;
            tell(ctx, &seen, &invalid_status(&seen.resource, invalid, now), None).await?;
            return Ok(Action::await_change());
        }
    };
    if validated.goal != Goal::Trace && !validated.has_finalizer {
        // Let go already, and kept by somebody else's finalizer.
        return Ok(Action::await_change());
    }
    let plan = info_span!("plan").in_scope(|| plan(validated, &seen.observed, now));
    ctx.told.expect(Some(Expected::new(validated, &seen.observed, &plan)));
    update_status::publish(ctx, &seen, events::before_apply(&plan)).await;
    let applied = apply::apply(ctx, &seen, &plan).instrument(info_span!("apply")).await;
    if let Err(Error::Canary { node, source }) = &applied {
        // No plan can know this, and only a person can change it.
        update_status::publish(ctx, &seen, vec![events::canary_not_made(node, source)]).await;
        tell(ctx, &seen, &status(validated, &seen.observed, &plan, now), plan.report.node()).await?;
    }
    applied?;
    if plan.finish {
        return Ok(Action::await_change());
    }
    tell(ctx, &seen, &status(validated, &seen.observed, &plan, now), plan.report.node()).await?;
    Ok(Action::requeue(plan.next_check))
}

async fn tell(ctx: &Context, seen: &observe::Observation, new: &api::ClusterTracingStatus, node: Option<&str>) -> Result<(), Error> {
    if update_status::update_status(ctx, seen, new).await? {
        update_status::publish(ctx, seen, events::transitions(&seen.observed.status, new, node)).await;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that kube-runtime asks for")]
fn error_policy(_: Arc<ClusterTracing>, error: &Error, ctx: Arc<Context>) -> Action {
    let attempt = ctx.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let wait = error.retry_after(attempt);
    tracing::warn!(error = error as &dyn std::error::Error, attempt, ?wait, "turn failed");
    Action::requeue(wait)
}
