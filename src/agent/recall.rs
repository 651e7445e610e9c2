//! A person at the node wants its original manifests back.
//!
//! The request is a file in the state folder, [`ASKED`]; what is in it does not matter. Whoever holds the node's lock answers it: the agent that
//! lives, within seconds, in the middle of a change too; the agent or the watchdog that starts next; or the person's own `restore` command,
//! where nobody else is there. So there is one way back, under one lock, whoever walks it, and a request survives a crash of everybody.
//! (The other design, in which the command works beside the agent or ends it first, has two writers, or needs what a broken node may not have.)
//!
//! When nothing of ours is in the manifests any more, the file becomes [`HELD`]: as long as that is there, no target that would trace anything is
//! acted on. That the controller would grant the same change again, as soon as there is an API server, is nothing that it could know better.

use super::applied::Applied;
use super::facts::{Facts, Trouble, gather};
use super::machine::{Event, Flight, Held, Swap, Version};
use super::originals::{self, Original};
use super::{Agent, Journal, applied, chain, effects, journal};
use crate::api::node_tracing::{OutcomeResult, TracingFound};
use crate::api::{Grant, Reason, SINGLETON, Target};
use crate::component::{Change, Found, ManifestFile, STATE_DIR, find, take_out};
use crate::host::{self, File, Folder, Host, Permissions, replace};

/// Name of the request in the state folder.
pub const ASKED: &str = "recall";
/// What the request becomes when it has been answered.
pub const HELD: &str = "restored";

/// The number of no grant: the controller's begin at 1.
const NO_GRANT: i64 = 0;
/// How often manifests that somebody else changes at the same time are looked at anew, before the next look of the agent.
const ROUNDS: usize = 3;

/// Leaves the request.
pub fn ask(host: &impl Host) -> Result<(), host::Error> {
    let file = File { bytes: Vec::new(), permissions: Permissions::own(0o600) };
    replace(host, Folder::State, ASKED, &file)
}

/// Whether the request waits for an answer.
pub fn is_asked(host: &impl Host) -> bool {
    is_there(host, ASKED)
}

/// Whether the node is to be left as it was restored.
pub fn is_held(host: &impl Host) -> bool {
    is_there(host, HELD)
}

fn is_there(host: &impl Host, name: &str) -> bool {
    let changed = host.changed(Folder::State, name).inspect_err(|e| tracing::warn!("{}", chain(e)));
    changed.is_ok_and(|changed| changed.is_some())
}

/// Why this target is not to be acted on, if a person keeps the node as it is. One that traces nothing asks for the same as the person.
pub fn objection(host: &impl Host, target: &Target) -> Option<Trouble> {
    let objects = !target.settings.is_off() && (is_held(host) || is_asked(host));
    let message = || {
        format!(
            "a person gave this node its original manifests back, and nothing is changed here until a person says so; to trace it again, on the \
             node: rm {STATE_DIR}/{HELD}; or, for all nodes, switch tracing off and on again: kubectl edit clustertracing {SINGLETON}"
        )
    };
    objects.then(|| Trouble { reason: Reason::RestoredByHand, message: message() })
}

/// What gives the node its original manifests back; nothing where they are in place.
///
/// A manifest that is there tells by itself what of it is ours: it becomes what it is without that, so that whatever else its owner has changed
/// stays. One that has gone becomes what was kept of it, if that is what was kept.
///
/// # Errors
/// Where it cannot be told what a manifest was: nothing is guessed, and nobody else's manifest is written over.
pub fn way_back(facts: &Facts, originals: &[Original], applied: &Applied) -> Result<Vec<Swap>, Trouble> {
    if facts.kubeadm_runs {
        let message = "kubeadm runs on the node and writes manifests; nothing was changed: wait until it has ended, or end it".to_owned();
        return Err(Trouble { reason: Reason::UpgradeInProgress, message });
    }
    if let Some(trouble) = facts.trouble.as_ref().filter(|_| facts.manifests.is_empty()) {
        return Err(trouble.clone());
    }
    let mut swaps = Vec::new();
    for change in take_out(&facts.files())? {
        let tracing = facts.component(change.component).map(|component| component.found.tracing);
        let original = originals.iter().find(|original| original.file == change.file);
        if let Some(original) = original.filter(|_| change.is_made() && tracing == Some(TracingFound::Foreign)) {
            return Err(changed_by_others(&original.file));
        }
        if !change.is_made() {
            swaps.push(of_change(change, facts));
        }
    }
    for original in originals.iter().filter(|original| facts.manifest(&original.file).is_none()) {
        swaps.push(of_original(original, applied)?);
    }
    // a client before its server
    swaps.sort_by_key(|swap| swap.component);
    Ok(swaps)
}

fn changed_by_others(file: &str) -> Trouble {
    let message = format!(
        "{file} carries tracing flags that cannot be told from somebody else's, because what ClusterTracing noted beside them has gone; it was left \
         as it is. Compare it with its original and take the flags out: diff {STATE_DIR}/backup/{file} /etc/kubernetes/manifests/{file}"
    );
    Trouble { reason: Reason::ManifestChanged, message }
}

fn of_change(change: Change, facts: &Facts) -> Swap {
    let component = facts.component(change.component);
    let (argv, pod) = component.map_or_else(Default::default, |component| {
        let pod = component.process(&component.found.argv).and_then(|process| process.pod.clone());
        (component.found.argv.clone(), pod)
    });
    Swap {
        component: change.component,
        permissions: facts.manifest(&change.file).map_or(Permissions::own(0o600), |manifest| manifest.permissions),
        before: Version { text: change.after, argv: change.argv, pod: None },
        after: Version { text: change.before, argv, pod },
        original: change.original,
        needs: Vec::new(),
        probes: change.probes,
        held: Held::AFTER,
        answered: component.is_some_and(|component| !component.green.is_empty()),
        file: change.file,
    }
}

fn of_original(original: &Original, applied: &Applied) -> Result<Swap, Trouble> {
    let Original { file, text, as_kept, permissions } = original;
    let refuse = |why: &str| {
        let message = format!(
            "{file} is not in the manifests folder, and its original in {STATE_DIR}/backup {why}; nothing was changed. Compare it with the hidden \
             copies, and rename the right one: ls -la /etc/kubernetes/manifests/.{file}.*"
        );
        Trouble { reason: Reason::ManifestNotFound, message }
    };
    if !as_kept {
        return Err(refuse("is not what was kept (its digest is another one than the README's)"));
    }
    let found = find(&[ManifestFile { name: file.clone(), text: text.clone() }]).unwrap_or_default();
    let Some(Found { component, argv, probes, .. }) = found.into_iter().next() else {
        return Err(refuse("is no manifest of kube-apiserver or etcd"));
    };
    let of_applied = || applied.entry(component).filter(|entry| entry.file == *file).map(|entry| entry.permissions);
    let version = Version { text: text.clone(), argv, pod: None };
    Ok(Swap {
        component,
        file: file.clone(),
        permissions: permissions.or_else(of_applied).unwrap_or(Permissions::own(0o600)),
        before: version.clone(),
        after: version,
        original: text.clone(),
        needs: Vec::new(),
        probes,
        held: Held::Nothing,
        answered: true,
    })
}

impl<H: Host> Agent<H> {
    /// Gives the node its original manifests back, if a person asked for it and nothing keeps it from that. What does is logged, and
    /// tried again at the next look.
    pub async fn heed_recall(&mut self) -> Result<(), host::Error> {
        if !is_asked(&self.host) {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            let facts = gather(&self.host).await?;
            let originals = originals::kept(&self.host);
            let way = originals.map_err(|e| Trouble { reason: Reason::NodeFilesUnwritable, message: chain(&e) });
            let way = way.and_then(|originals| way_back(&facts, &originals, &self.applied));
            let swaps = match way {
                Ok(swaps) if swaps.is_empty() => return self.recalled().await,
                Ok(swaps) => swaps,
                Err(trouble) => {
                    tracing::error!(reason = %trouble.reason, "cannot give the original manifests back: {}", trouble.message);
                    return Ok(());
                }
            };
            let grant = Grant { id: NO_GRANT, revision: self.applied.revision.clone(), generation: 0, attempt: 1, measured_after: None };
            let flight = Flight::back_by_hand(grant, swaps, &facts.now);
            if let Err(error) = effects::stage_way_back(&self.host, &flight).and_then(|()| journal::save(&self.host, &flight)) {
                tracing::error!("cannot give the original manifests back: {}; nothing was changed", chain(&error));
                return Ok(());
            }
            self.damaged = None;
            let flight = effects::drive(&self.host, flight, Event::Saved, async |_| Err("not asked".to_owned()), |_| {}).await?;
            let is_back = flight.outcome().is_some_and(|outcome| outcome.result == OutcomeResult::RolledBack);
            self.landed(flight).await?;
            if !is_back {
                tracing::error!("the way back did not succeed; what is in the manifests folder now is looked at again");
            }
        }
        Ok(())
    }

    /// The original manifests are in place: what was ours goes, and the node is left as it is.
    async fn recalled(&mut self) -> Result<(), host::Error> {
        tracing::info!("the original manifests are in place; the node is left as it is while {STATE_DIR}/{HELD} is there");
        self.applied = Applied::default();
        let forgotten = applied::save(&self.host, &self.applied);
        let held = forgotten.and_then(|()| self.host.rename(Folder::State, ASKED, HELD)).and_then(|()| self.host.sync(Folder::State));
        if let Err(error) = held {
            tracing::error!("{}", chain(&error));
            return Ok(());
        }
        let journal = if self.damaged.take().is_some() { Journal::Goes } else { Journal::Stays };
        self.clean_up(journal).await
    }

    /// A target that traces nothing is reached: there is nothing left that the person would be protected from.
    pub(super) async fn let_go(&self) -> Result<(), host::Error> {
        if !is_held(&self.host) {
            return Ok(());
        }
        let released = self.host.remove(Folder::State, HELD).and_then(|()| self.host.sync(Folder::State));
        if let Err(error) = released {
            tracing::warn!("{}", chain(&error));
        }
        self.clean_up(Journal::Stays).await
    }
}

/// Whether a flight was begun by a person and not by a grant: nobody waits for its outcome.
pub(super) fn is_nobodys(flight: &Flight) -> bool {
    flight.grant.id == NO_GRANT
}
