//! The agent: carries out one node's change, alone, and reports the node's facts. It decides neither what the change is nor which node is next.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`facts`] | looks at the node |
//! | [`check`] | pure: can the target be reached, is the grant to be acted on |
//! | [`machine`] | pure: the change in flight, step by step, and back |
//! | [`effects`] | carries the machine's effects out |
//! | [`journal`] | keeps the flight over a crash |
//! | [`report`] | pure: facts to status |
//! | [`prune`] | removes what nothing refers to |
//! | [`cluster`] | the requests to the API server |
//!
//! Between grant and report the agent needs no API server: it may be the one that it restarts.

pub mod check;
pub mod cluster;
pub mod effects;
pub mod facts;
pub mod journal;
pub mod machine;
pub mod prune;
pub mod report;

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use self::check::{Checked, Decision};
use self::cluster::{Cluster, Wanted};
use self::effects::{drive, resume};
use self::facts::{Facts, Trouble, gather};
use self::machine::{Event, Flight, Phase};
use self::report::Doing;
use crate::api::node_tracing::{NodeTracingStatus, Outcome, Preflight, Step};
use crate::api::{NodeTracing, Reason, Target};
use crate::host::local::Local;
use crate::host::{self, Host};

/// How often the node is looked at when nothing calls for it: files, processes and probes change without telling.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How the agent is started: what every subcommand of its program needs.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// The kubelet's static-pod folder.
    #[arg(long, env = "MANIFESTS_DIR", default_value = "/etc/kubernetes/manifests")]
    pub manifests_dir: PathBuf,
    /// Folder for tracing files, backups and the journal.
    #[arg(long, env = "STATE_DIR", default_value = crate::component::STATE_DIR)]
    pub state_dir: PathBuf,
    /// Where the node's processes are seen.
    #[arg(long, env = "PROC_DIR", default_value = "/proc")]
    pub proc: PathBuf,
}

/// Why the agent ended. The kubelet starts it again, and it goes on from the journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node cannot be worked on.
    #[error("work on node")]
    Host(#[source] host::Error),
    /// It runs outside a cluster.
    #[error("find the API server's address and credentials")]
    Configuration(#[source] Box<kube::config::InClusterError>),
    /// The client could not be made.
    #[error("make the API server's client")]
    Client(#[source] Box<kube::Error>),
}

/// Runs the agent, for ever. What a crash left is finished first, without the API server.
pub async fn run(config: Config) -> Result<Infallible, Error> {
    let host = Local::open(&config.manifests_dir, &config.state_dir, &config.proc).map_err(Error::Host)?;
    let agent = Agent::start(host, config.node_name.clone()).await.map_err(Error::Host)?;
    let kube = kube::Config::incluster().map_err(|e| Error::Configuration(Box::new(e)))?;
    let client = kube::Client::try_from(kube).map_err(|e| Error::Client(Box::new(e)))?;
    let cluster = Cluster::new(client, config.node_name);

    let (latest, wanted, reported) = (watch::Sender::new(None), watch::Sender::new(None), watch::Sender::new(None));
    tokio::select! {
        never = cluster.follow(&latest) => match never {},
        never = cluster.report(wanted.subscribe(), &latest, &reported) => match never {},
        ended = work(agent, &cluster, latest.subscribe(), &wanted, reported.subscribe()) => ended.map_err(Error::Host),
    }
}

/// The agent's own loop: look, decide, act, say.
async fn work<H: Host>(
    mut agent: Agent<H>,
    cluster: &Cluster,
    mut objects: watch::Receiver<Option<NodeTracing>>,
    wanted: &watch::Sender<Option<Wanted>>,
    mut reported: watch::Receiver<Option<NodeTracingStatus>>,
) -> Result<Infallible, host::Error> {
    let mut node_uid = None;
    loop {
        if let Some(outcome) = reported.borrow_and_update().as_ref().and_then(|s| s.last_outcome.as_ref()) {
            agent.reported(outcome).await?;
        }
        let object = objects.borrow_and_update().clone();
        if let Some(object) = object {
            let publish = |status: NodeTracingStatus| {
                let new = Some(Wanted { object_uid: object.metadata.uid.clone(), status });
                wanted.send_if_modified(|last| std::mem::replace(last, new.clone()) != new);
            };
            if node_uid.is_none() {
                node_uid = cluster.node_uid().await.inspect_err(|e| tracing::warn!("{}", chain(e))).ok();
            }
            let confirm = async |flight: &Flight, target: &Target| {
                let node_uid = cluster.node_uid().await.map_err(|e| chain(&e))?;
                let object = cluster.read().await.map_err(|e| chain(&e))?;
                check::stands(flight, target, &object, &node_uid)
            };
            let status = agent.turn(&object, node_uid.as_deref(), confirm, publish).await?;
            publish(status);
        }
        tokio::select! {
            Ok(()) = objects.changed() => {}
            Ok(()) = reported.changed() => {}
            () = sleep(LOOK_AGAIN) => {}
        }
    }
}

/// One node's agent, without its connection to the API server.
pub struct Agent<H> {
    host: H,
    node_name: String,
    /// A flight that ended and is not reported yet: it is in the journal.
    unreported: Option<Flight>,
    /// The journal cannot be read: nothing is done until a person has looked.
    damaged: Option<Trouble>,
    /// How the last grant ended, and of which object it was.
    last: Option<(Option<String>, Outcome)>,
    /// The last check of the target: it stays in the status while its change is under way.
    preflight: Option<Preflight>,
}

/// What becomes of the journal when everything else that nothing refers to is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Journal {
    /// There is none, or its outcome is not reported yet.
    Stays,
    /// Everybody who must know how its flight ended does.
    Goes,
}

impl<H: Host> Agent<H> {
    /// Finishes what the journal says was under way, and removes what a crash left.
    pub async fn start(host: H, node_name: String) -> Result<Self, host::Error> {
        let mut agent = Self { host, node_name, unreported: None, damaged: None, last: None, preflight: None };
        match journal::load(&agent.host) {
            Ok(None) => agent.clean_up(Journal::Stays).await?,
            Ok(Some(flight)) => {
                tracing::info!(grant = flight.grant.id, step = ?flight.step(), "going on with a change that was under way");
                let flight = resume(&agent.host, flight).await?;
                agent.landed(flight).await?;
            }
            Err(error) => {
                let message = format!(
                    "{}: compare the static-pod manifests with their originals in {}/backup on the node, then remove {}/{}",
                    chain(&error),
                    crate::component::STATE_DIR,
                    crate::component::STATE_DIR,
                    journal::NAME
                );
                tracing::error!("{message}");
                agent.damaged = Some(Trouble { reason: Reason::JournalDamaged, message });
            }
        }
        Ok(agent)
    }

    /// Looks at the node, acts on the object's grant if there is one to act on, and says what is to be reported.
    ///
    /// `confirm` asks the API server once more, right before the first write; `publish` hears of every step in between.
    pub async fn turn(
        &mut self,
        object: &NodeTracing,
        node_uid: Option<&str>,
        confirm: impl AsyncFn(&Flight, &Target) -> Result<(), String>,
        publish: impl Fn(NodeTracingStatus),
    ) -> Result<NodeTracingStatus, host::Error> {
        let mut facts = self.look().await?;
        self.preflight = None;
        if let Some(target) = &object.spec.target {
            let checked = check::check(target, &facts, &self.node_name);
            self.preflight = Some(check::preflight(target, &checked));
            if let Some(node_uid) = node_uid {
                facts = self.act(object, target, node_uid, checked, facts, confirm, publish).await?;
            }
        }
        Ok(self.status(object, node_uid, Step::Idle, &facts))
    }

    /// The outcome has reached the API server: the journal has done its work.
    pub async fn reported(&mut self, outcome: &Outcome) -> Result<(), host::Error> {
        // a later one says that this one was known, too
        if self.unreported.as_ref().and_then(Flight::outcome).is_some_and(|own| own.grant <= outcome.grant) {
            self.unreported = None;
            self.clean_up(Journal::Goes).await?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one call, split off for its length; the arguments are the turn's own")]
    async fn act(
        &mut self,
        object: &NodeTracing,
        target: &Target,
        node_uid: &str,
        checked: Checked,
        facts: Facts,
        confirm: impl AsyncFn(&Flight, &Target) -> Result<(), String>,
        publish: impl Fn(NodeTracingStatus),
    ) -> Result<Facts, host::Error> {
        // One thing after the other: the next grant waits until everybody can know how this one ended.
        if self.unreported.is_some() || self.damaged.is_some() {
            return Ok(facts);
        }
        let used = self.last.as_ref().filter(|(uid, _)| *uid == object.metadata.uid).map(|(_, outcome)| outcome.grant);
        let grant = match check::valid_grant(object, node_uid, used) {
            Ok(grant) => grant,
            Err(why) => {
                tracing::debug!("not acting: {why}");
                return Ok(facts);
            }
        };
        match check::decide(grant, target, &checked, &facts) {
            Decision::End(outcome) => {
                tracing::info!(grant = outcome.grant, result = ?outcome.result, reason = ?outcome.reason, "grant ended: {}", outcome.message);
                self.last = Some((object.metadata.uid.clone(), outcome));
                Ok(facts)
            }
            Decision::Fly(flight) => {
                let said = std::cell::Cell::new(Step::Idle);
                let progress = |flight: &Flight| {
                    if said.replace(flight.step()) != flight.step() {
                        publish(self.status(object, Some(node_uid), flight.step(), &facts));
                    }
                };
                let confirm = async |flight: &Flight| confirm(flight, target).await;
                let flight = drive(&self.host, *flight, Event::Begun, confirm, progress).await?;
                self.landed(flight).await?;
                if let Some(outcome) = self.unreported.as_ref().and_then(Flight::outcome) {
                    self.last = Some((object.metadata.uid.clone(), outcome.clone()));
                }
                let facts = self.look().await?;
                let checked = check::check(target, &facts, &self.node_name);
                self.preflight = Some(check::preflight(target, &checked));
                Ok(facts)
            }
        }
    }

    async fn look(&self) -> Result<Facts, host::Error> {
        let mut facts = gather(&self.host).await?;
        facts.trouble = self.damaged.clone().or(facts.trouble);
        Ok(facts)
    }

    fn status(&self, object: &NodeTracing, node_uid: Option<&str>, step: Step, facts: &Facts) -> NodeTracingStatus {
        let reported = object.status.as_ref();
        let unreported = self.unreported.as_ref().and_then(Flight::outcome);
        let last = self.last.as_ref().filter(|(uid, _)| *uid == object.metadata.uid).map(|(_, outcome)| outcome);
        let doing = Doing {
            observed_generation: object.metadata.generation,
            node_uid: node_uid.map(str::to_owned).or_else(|| reported.and_then(|s| s.node_uid.clone())),
            preflight: self.preflight.clone(),
            step,
            // of equals the last: what this agent knows is newer than what it reported
            last_outcome: [reported.and_then(|s| s.last_outcome.as_ref()), last, unreported]
                .into_iter()
                .flatten()
                .max_by_key(|o| o.grant)
                .cloned(),
        };
        report::status(facts, &doing, reported)
    }

    /// Takes over a flight that has come to its end.
    async fn landed(&mut self, flight: Flight) -> Result<(), host::Error> {
        match &flight.phase {
            Phase::Done(outcome) => {
                tracing::info!(grant = outcome.grant, result = ?outcome.result, reason = ?outcome.reason, "change ended: {}", outcome.message);
                self.unreported = Some(flight);
                // Before the outcome is reported: whoever reads it there finds nothing left over here. It needs no file but its journal.
                self.clean_up(Journal::Stays).await
            }
            _ => self.clean_up(Journal::Goes).await,
        }
    }

    /// Removes what nothing refers to. What cannot be removed now is at the next start.
    async fn clean_up(&self, journal: Journal) -> Result<(), host::Error> {
        let facts = self.look().await?;
        let forgotten = if journal == Journal::Goes { journal::forget(&self.host) } else { Ok(()) };
        if let Err(error) = forgotten.and_then(|()| prune::prune(&self.host, &facts)) {
            tracing::warn!("cannot clean up: {}", chain(&error));
        }
        Ok(())
    }
}

/// An error with all of its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // some libraries' messages end with their cause already
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}
