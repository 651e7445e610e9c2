//! The agent: carries out one node's change, alone, and reports the node's facts. It decides neither what the change is nor which node is next.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`facts`] | looks at the node |
//! | [`receiver`] | asks whether somebody takes the spans that a change would send |
//! | [`blockers`] | pure: what of the node stands in the way of any change |
//! | [`check`] | pure: can the target be reached, is the grant to be acted on |
//! | [`machine`] | pure: the change in flight, step by step, and back |
//! | [`effects`] | carries the machine's effects out |
//! | [`journal`] | keeps the flight over a crash |
//! | [`applied`] | keeps what was applied last |
//! | [`originals`] | keeps what was there before, and tells a person how to put it back |
//! | [`recall`] | gives it back because a person asked for it |
//! | [`restore`] | that person's command |
//! | [`drift`] | pure: what of that somebody has changed, who, and what is done about it |
//! | [`report`] | pure: facts to status |
//! | [`soak`] | measures before a change and after it |
//! | [`prune`] | removes what nothing refers to |
//! | [`watchdog`] | pure: the static pod that goes on where the agent cannot |
//! | [`cluster`] | the requests to the API server |
//!
//! Between grant and report the agent needs no API server: it may be the one that it restarts.

pub mod applied;
pub mod blockers;
pub mod check;
pub mod cluster;
pub mod drift;
pub mod effects;
pub mod facts;
pub mod journal;
pub mod machine;
pub mod originals;
pub mod prune;
pub mod recall;
pub mod receiver;
pub mod report;
pub mod restore;
mod sealed;
pub mod soak;
pub mod watchdog;

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use self::applied::Applied;
use self::check::{Checked, Decision};
use self::cluster::{Cluster, Wanted};
use self::drift::Mend;
use self::effects::{drive, resume};
use self::facts::{Facts, Trouble, gather};
use self::machine::{Event, Flight, Phase};
use self::report::Doing;
use self::restore::Access;
use self::watchdog::{Guard, Template};
use crate::api::node_tracing::{Blocker, NodeTracingStatus, Outcome, OutcomeResult, Preflight, Soak, Step, Verdict};
use crate::api::{Drift, Grant, NodeTracing, Reason, Target};
use crate::component::{Change, STATE_DIR};
use crate::host::local::Local;
use crate::host::{self, Host};

/// How often the node is looked at when nothing calls for it: files, processes and probes change without telling.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long a manifest that somebody changed must have been left alone before the change is healed.
pub const QUIET_FOR: Duration = Duration::from_mins(2);

/// How long to wait before the lock is tried again, or the journal looked at again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// How the agent's program is started.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Name of this node. The agent needs it, the subcommands do not.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// The image that the agent runs from: its watchdog runs from it too.
    #[arg(long, env = "AGENT_IMAGE")]
    pub image: Option<String>,
    /// For tests: changes are made without a watchdog, so that nobody goes on with one when the agent cannot.
    #[arg(long, env = "WITHOUT_WATCHDOG")]
    pub without_watchdog: bool,
    /// The kubelet's static-pod folder.
    #[arg(long, env = "MANIFESTS_DIR", default_value = "/etc/kubernetes/manifests")]
    pub manifests_dir: PathBuf,
    /// Folder for tracing files, backups and the journal.
    #[arg(long, env = "STATE_DIR", default_value = crate::component::STATE_DIR)]
    pub state_dir: PathBuf,
    /// Where the node's processes are seen.
    #[arg(long, env = "PROC_DIR", default_value = "/proc")]
    pub proc: PathBuf,
    /// Seconds that a manifest which somebody changed must have been left alone before the change is healed. 120 is longer than kubeadm takes
    /// from one component to the next; less risks to meet an upgrade or an editor half-way.
    #[arg(long, env = "QUIET_SECONDS", default_value_t = QUIET_FOR.as_secs())]
    pub quiet_seconds: u64,
}

impl Config {
    fn guard(&self) -> Guard {
        match &self.image {
            _ if self.without_watchdog => Guard::None,
            None => Guard::Unknown,
            Some(image) => Guard::Pod(Template {
                image: image.clone(),
                manifests_dir: self.manifests_dir.display().to_string(),
                state_dir: self.state_dir.display().to_string(),
            }),
        }
    }

    /// Opens the node for a person.
    fn access(&self, access: Access) -> Result<Local, host::Error> {
        match access {
            Access::Unlocked => Local::unlocked(&self.manifests_dir, &self.state_dir, &self.proc),
            Access::Locked => Local::open(&self.manifests_dir, &self.state_dir, &self.proc),
        }
    }

    /// Opens the node, as soon as no other process of ours works on it.
    async fn open(&self) -> Result<Local, Error> {
        let mut told = false;
        loop {
            match Local::open(&self.manifests_dir, &self.state_dir, &self.proc) {
                Err(error @ host::Error::Locked { .. }) => {
                    if !told {
                        tracing::info!("waiting: {}", chain(&error));
                    }
                    told = true;
                    sleep(TRY_AGAIN).await;
                }
                opened => return opened.map_err(Error::Host),
            }
        }
    }
}

/// Why the agent ended. The kubelet starts it again, and it goes on from the journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node cannot be worked on.
    #[error("work on node")]
    Host(#[source] host::Error),
    /// Nobody said which node this is.
    #[error("the node has no name: --node-name, or NODE_NAME")]
    NodeName,
    /// It runs outside a cluster.
    #[error("find the API server's address and credentials")]
    Configuration(#[source] Box<kube::config::InClusterError>),
    /// The client could not be made.
    #[error("make the API server's client")]
    Client(#[source] Box<kube::Error>),
}

/// Runs the agent, for ever. What a crash left is finished first, without the API server.
pub async fn run(config: Config) -> Result<Infallible, Error> {
    let node_name = config.node_name.clone().ok_or(Error::NodeName)?;
    let agent = Agent::start(config.open().await?, node_name.clone()).await.map_err(Error::Host)?;
    let agent = agent.guarded_by(config.guard()).quiet_for(Duration::from_secs(config.quiet_seconds));
    let kube = kube::Config::incluster().map_err(|e| Error::Configuration(Box::new(e)))?;
    let client = kube::Client::try_from(kube).map_err(|e| Error::Client(Box::new(e)))?;
    let cluster = Cluster::new(client, node_name);

    let (latest, wanted, reported) = (watch::Sender::new(None), watch::Sender::new(None), watch::Sender::new(None));
    tokio::select! {
        never = cluster.follow(&latest) => match never {},
        never = cluster.report(wanted.subscribe(), &latest, &reported) => match never {},
        ended = work(agent, &cluster, latest.subscribe(), &wanted, reported.subscribe()) => ended.map_err(Error::Host),
    }
}

/// Waits until the agent cannot work, and then does what it would do first: goes on with the change that the journal says was under way, and
/// removes what nothing refers to, the watchdog's own manifest included. The kubelet ends it then; the outcome waits in the journal for the agent.
pub async fn watch_over(config: Config) -> Result<Infallible, Error> {
    loop {
        let agent = Agent::start(config.open().await?, String::new()).await.map_err(Error::Host)?;
        // and with it the lock
        drop(agent);
        sleep(TRY_AGAIN).await;
    }
}

/// Gives the node its original manifests back; see [`restore::restore`].
pub async fn restore_by_hand(config: &Config, dry_run: bool, say: impl Fn(&str)) -> Result<bool, Error> {
    restore::restore(|access| config.access(access), dry_run, say).await.map_err(Error::Host)
}

/// The agent's own loop: look, decide, act, say. `objects` brings its object, `wanted` takes what is to be reported, `reported` brings what was.
pub async fn work<H: Host>(
    mut agent: Agent<H>,
    cluster: &Cluster,
    mut objects: watch::Receiver<Option<NodeTracing>>,
    wanted: &watch::Sender<Option<Wanted>>,
    mut reported: watch::Receiver<Option<NodeTracingStatus>>,
) -> Result<Infallible, host::Error> {
    let mut node_uid = None;
    loop {
        agent.heed_recall().await?;
        // copied, so that the channel is free while this waits: its sender runs on the same thread
        let outcome = reported.borrow_and_update().as_ref().and_then(|s| s.last_outcome.clone());
        if let Some(outcome) = outcome {
            agent.reported(&outcome).await?;
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
            let confirm = async |grant: &Grant, target: &Target| {
                let (node_uid, heartbeat) = cluster.node().await.map_err(|e| chain(&e))?;
                let object = cluster.read().await.map_err(|e| chain(&e))?;
                check::stands(grant, target, &object, &node_uid).map(|()| heartbeat)
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
    /// What was applied last.
    applied: Applied,
    /// What of it has drifted, at the last look.
    drifts: Vec<Drift>,
    /// How long a manifest must have been left alone before a drift is healed.
    quiet_for: Duration,
    /// Who goes on when this process cannot.
    guard: Guard,
    /// What stands in the way of a change.
    blockers: Vec<Blocker>,
    /// What was measured of the last change that was to be measured.
    soak: Option<Soak>,
    /// When the last flight of this process came to its end, whatever its end was: until then the manifests were our own to change.
    landed_at: Option<jiff::Timestamp>,
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
        let mut agent = Self {
            applied: applied::load(&host),
            host,
            node_name,
            unreported: None,
            damaged: None,
            last: None,
            preflight: None,
            blockers: Vec::new(),
            soak: None,
            landed_at: None,
            drifts: Vec::new(),
            quiet_for: QUIET_FOR,
            guard: Guard::Unknown,
        };
        match journal::load(&agent.host) {
            Ok(None) => agent.clean_up(Journal::Stays).await?,
            Ok(Some(flight)) => {
                tracing::info!(grant = flight.grant.id, step = ?flight.step(), "going on with a change that was under way");
                let flight = resume(&agent.host, flight).await?;
                agent.landed(flight).await?;
            }
            Err(error) => {
                let message = format!(
                    "{}: compare the static-pod manifests with their originals in {STATE_DIR}/backup on the node, then remove \
                     {STATE_DIR}/{}; or give the node its originals back: {STATE_DIR}/{} restore",
                    chain(&error),
                    journal::NAME,
                    watchdog::PROGRAM,
                );
                tracing::error!("{message}");
                agent.damaged = Some(Trouble { reason: Reason::JournalDamaged, message });
            }
        }
        agent.heed_recall().await?;
        // what an earlier version left, or none did
        if agent.damaged.is_none()
            && let Err(error) = originals::refresh(&agent.host)
        {
            tracing::warn!("cannot keep what a person needs to restore the node: {}", chain(&error));
        }
        Ok(agent)
    }

    /// Gives every change to come this watchdog. Without it none is made.
    #[must_use]
    pub fn guarded_by(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// Waits so long for a manifest that somebody else has changed to be left alone.
    #[must_use]
    pub fn quiet_for(self, quiet_for: Duration) -> Self {
        Self { quiet_for, ..self }
    }

    /// Looks at the node, acts on the object's grant if there is one to act on, and says what is to be reported.
    ///
    /// `confirm` asks the API server once more, before the first write and right before the first rename, whether the grant stands, and when
    /// the kubelet last told of its node; `publish` hears of every step in between.
    pub async fn turn(
        &mut self,
        object: &NodeTracing,
        node_uid: Option<&str>,
        confirm: impl AsyncFn(&Grant, &Target) -> Result<Option<Timestamp>, String>,
        publish: impl Fn(NodeTracingStatus),
    ) -> Result<NodeTracingStatus, host::Error> {
        let mut facts = self.look().await?;
        (self.preflight, self.drifts) = (None, Vec::new());
        let mut checked = None;
        if let Some(target) = &object.spec.target {
            let wanted = self.look_at_receiver(target, &mut facts).await;
            checked = Some((target, self.judge(target, &facts, wanted)));
        }
        let standing = object.status.as_ref().map(|s| s.blockers.as_slice()).unwrap_or_default();
        self.blockers = blockers::blockers(&facts, &self.drifts, self.quiet_for, self.own_last_change(object), standing);
        if let Some(((target, checked), node_uid)) = checked.zip(node_uid) {
            facts = self.act(object, target, node_uid, checked, facts, confirm, publish).await?;
        }
        if let (Some(target), Some(Verdict::Unchanged)) = (&object.spec.target, self.preflight.as_ref().map(|p| p.verdict))
            && target.settings.is_off()
        {
            self.let_go().await?;
        }
        let mut status = self.status(object, node_uid, Step::Idle, &facts);
        if let Some(soak) = soak::due(object, &status, facts.now.wall).cloned() {
            // Without an answer there is nothing to say yet: the controller waits for it, and not for ever.
            let after = soak::measure(&self.host, &facts).await?;
            self.soak = Some(Soak { after, ..soak });
            status.soak.clone_from(&self.soak);
        }
        Ok(status)
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
        confirm: impl AsyncFn(&Grant, &Target) -> Result<Option<Timestamp>, String>,
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
        if let Some(blocker) = self.blockers.iter().find(|blocker| blocker.reason == Reason::WaitingForQuiet) {
            // What was changed is still being restarted, perhaps: to find it unwell now would use the grant up.
            tracing::debug!(grant = grant.id, reason = %blocker.reason, "not judging: {}", blocker.message);
            return Ok(facts);
        }
        let checked = drift::refusal(&self.drifts, grant).map_or(checked, Checked::Refused);
        let decision = check::decide(grant, target, &checked, &facts);
        match check::guarded(decision, &self.guard, &facts.now) {
            Decision::End(outcome) => {
                tracing::info!(grant = outcome.grant, result = ?outcome.result, reason = ?outcome.reason, "grant ended: {}", outcome.message);
                self.last = Some((object.metadata.uid.clone(), outcome));
                Ok(facts)
            }
            Decision::Wait(blocker) => {
                tracing::debug!(grant = grant.id, reason = %blocker.reason, "not beginning: {}", blocker.message);
                self.blockers.push(blocker);
                Ok(facts)
            }
            Decision::Mend(mends) => {
                if let Some(blocker) = self.blockers.first() {
                    tracing::debug!(grant = grant.id, reason = %blocker.reason, "not beginning: {}", blocker.message);
                    return Ok(facts);
                }
                if let Err(why) = confirm(grant, target).await {
                    tracing::warn!(grant = grant.id, "not acting yet: {why}");
                    return Ok(facts);
                }
                let outcome = self.mend(grant, &mends, &facts);
                self.last = Some((object.metadata.uid.clone(), outcome));
                self.look_again(target).await
            }
            Decision::Fly(flight) => {
                self.blockers.extend(blockers::of_member(&flight, &facts));
                if let Some(blocker) = self.blockers.first() {
                    // The grant is not used up: the change begins when nothing stands in its way.
                    tracing::debug!(grant = grant.id, reason = %blocker.reason, "not beginning: {}", blocker.message);
                    return Ok(facts);
                }
                // once for each grant, however often it is found not to stand yet; a number may come again in another object's life
                let is_known = self.soak.as_ref().is_some_and(|s| s.grant == grant.id && s.after.is_none());
                if grant.measured_after.is_some() && !is_known {
                    self.soak = Some(Soak { grant: grant.id, before: soak::measure(&self.host, &facts).await?, after: None });
                }
                let said = std::cell::Cell::new(Step::Idle);
                let progress = |flight: &Flight| {
                    if said.replace(flight.step()) != flight.step() {
                        publish(self.status(object, Some(node_uid), flight.step(), &facts));
                    }
                };
                // Asked now, so that nothing is staged in vain, and once more right before the first rename.
                let heartbeat = match confirm(grant, target).await {
                    Ok(heartbeat) => heartbeat,
                    Err(why) => {
                        tracing::warn!(grant = grant.id, "not acting yet: {why}");
                        return Ok(facts);
                    }
                };
                if let Err(blocker) = blockers::has_synced(facts.kubelet_started, heartbeat, facts.now.wall) {
                    tracing::warn!(grant = grant.id, reason = %blocker.reason, "not beginning: {}", blocker.message);
                    self.blockers.push(blocker);
                    return Ok(facts);
                }
                let confirm = async |flight: &Flight| {
                    let heartbeat = confirm(&flight.grant, target).await?;
                    let now = self.host.now().map_err(|e| chain(&e))?;
                    let started = facts::kubelet_started(&self.host, &now).map_err(|e| chain(&e))?;
                    blockers::has_synced(started, heartbeat, now.wall).map_err(|blocker| blocker.message)
                };
                let flight = drive(&self.host, *flight, Event::Begun, confirm, progress).await?;
                self.landed(flight).await?;
                if let Some(outcome) = self.unreported.as_ref().and_then(Flight::outcome) {
                    self.last = Some((object.metadata.uid.clone(), outcome.clone()));
                }
                self.look_again(target).await
            }
        }
    }

    /// Says what the target asks of this node, and keeps the record of what was applied true to what is found.
    fn judge(&mut self, target: &Target, facts: &Facts, wanted: Result<Vec<Change>, Trouble>) -> Checked {
        let changes = wanted.as_deref().ok();
        let followed = self.applied.clone().follow(target, facts, changes);
        self.drifts = drift::drift(&followed, facts);
        self.record(followed.note(&self.drifts, facts.now.wall), changes.unwrap_or_default());
        let checked = match recall::objection(&self.host, target) {
            Some(trouble) => Checked::Refused(trouble),
            None => check::check(wanted, &self.drifts, &self.applied, facts),
        };
        self.preflight = Some(check::preflight(target, &checked));
        checked
    }

    /// Takes a new record over. Where it follows somebody else's manifest, the backup does too: what is kept is what its owner wants back.
    fn record(&mut self, applied: Applied, changes: &[Change]) {
        if applied == self.applied {
            return;
        }
        let before = std::mem::replace(&mut self.applied, applied);
        let followed = |change: &&Change| {
            let digest = |record: &Applied| record.entry(change.component).map(|entry| entry.digest.clone());
            change.is_made() && digest(&self.applied).is_some_and(|now| digest(&before).as_ref() != Some(&now))
        };
        let followed: Vec<_> = changes.iter().filter(followed).map(|change| (change.file.as_str(), change.original.as_str())).collect();
        let backed_up = if followed.is_empty() { Ok(()) } else { originals::keep(&self.host, followed) };
        if let Err(error) = backed_up.and_then(|()| applied::save(&self.host, &self.applied)) {
            tracing::warn!("cannot keep the record of what was applied: {}", chain(&error));
        }
    }

    /// Puts files right that no process reads before its next start.
    fn mend(&mut self, grant: &Grant, mends: &[Mend], facts: &Facts) -> Outcome {
        let mended = mends.iter().try_for_each(|mend| effects::mend(&self.host, mend));
        let (result, reason, message) = match mended {
            Ok(()) => (OutcomeResult::Succeeded, None, String::new()),
            Err(error) => (OutcomeResult::Refused, Some(Reason::NodeFilesUnwritable), chain(&error)),
        };
        let outcome = machine::outcome(grant, result, reason, message, 0, &facts.now);
        tracing::info!(grant = outcome.grant, result = ?outcome.result, reason = ?outcome.reason, "mended: {}", outcome.message);
        // the manifest that was renamed is fresh by our own doing
        self.landed_at = Some(facts.now.wall);
        if result == OutcomeResult::Succeeded {
            let components: Vec<_> = mends.iter().map(|mend| mend.component).collect();
            self.record(self.applied.clone().after_mend(&components, grant.generation, facts.now.wall), &[]);
        }
        outcome
    }

    /// When our own last change of this node's manifests ended, by the node's clock.
    fn own_last_change(&self, object: &NodeTracing) -> Option<jiff::Timestamp> {
        let reported = object.status.as_ref().and_then(|s| s.last_outcome.as_ref());
        let known = [reported, self.last.as_ref().map(|(_, outcome)| outcome)].into_iter().flatten();
        let wrote = known.filter(|outcome| outcome.result != OutcomeResult::Refused);
        wrote.map(|outcome| outcome.finished_time.0).chain(self.landed_at).max()
    }

    async fn look(&self) -> Result<Facts, host::Error> {
        let mut facts = gather(&self.host).await?;
        facts.trouble = self.damaged.clone().or(facts.trouble);
        Ok(facts)
    }

    /// Looks, after something was written, and says what the target asks now.
    async fn look_again(&mut self, target: &Target) -> Result<Facts, host::Error> {
        let facts = self.look().await?;
        let wanted = check::wanted(target, &facts, &self.node_name);
        self.judge(target, &facts, wanted);
        Ok(facts)
    }

    /// What the target asks of each component; looks where spans would go, if a change is to send them there.
    async fn look_at_receiver(&self, target: &Target, facts: &mut Facts) -> Result<Vec<Change>, Trouble> {
        let changes = check::wanted(target, facts, &self.node_name)?;
        if receiver::begins(&changes, &target.settings) {
            match receiver::look(&self.host, &target.settings).await {
                Ok(found) => facts.receiver = found,
                Err(error) => {
                    let trouble = facts::unreadable(&error);
                    facts.trouble = Some(trouble.clone());
                    return Err(trouble);
                }
            }
        }
        Ok(changes)
    }

    fn status(&self, object: &NodeTracing, node_uid: Option<&str>, step: Step, facts: &Facts) -> NodeTracingStatus {
        let reported = object.status.as_ref();
        let unreported = self.unreported.as_ref().and_then(Flight::outcome);
        let last = self.last.as_ref().filter(|(uid, _)| *uid == object.metadata.uid).map(|(_, outcome)| outcome);
        let doing = Doing {
            observed_generation: object.metadata.generation,
            node_uid: node_uid.map(str::to_owned).or_else(|| reported.and_then(|s| s.node_uid.clone())),
            preflight: self.preflight.clone(),
            drift: self.drifts.clone(),
            step,
            // of equals the last: what this agent knows is newer than what it reported
            last_outcome: [reported.and_then(|s| s.last_outcome.as_ref()), last, unreported]
                .into_iter()
                .flatten()
                .max_by_key(|o| o.grant)
                .cloned(),
            // what this process does not know, an earlier one reported
            soak: self.soak.clone().or_else(|| reported.and_then(|s| s.soak.clone())),
            blockers: self.blockers.clone(),
        };
        report::status(facts, &doing, reported)
    }

    /// Takes over a flight that has come to its end.
    async fn landed(&mut self, flight: Flight) -> Result<(), host::Error> {
        self.landed_at = Some(self.host.now()?.wall);
        match &flight.phase {
            Phase::Done(outcome) => {
                tracing::info!(grant = outcome.grant, result = ?outcome.result, reason = ?outcome.reason, "change ended: {}", outcome.message);
                if recall::is_nobodys(&flight) {
                    return self.clean_up(Journal::Goes).await;
                }
                if outcome.result == OutcomeResult::Succeeded {
                    self.record(self.applied.clone().after(&flight.swaps, outcome), &[]);
                }
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
        if let Err(error) = forgotten.and_then(|()| prune::prune(&self.host, &facts, &self.applied)) {
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
