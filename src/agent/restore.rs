//! The `restore` command: what a person starts on the node, with the API server, the controller and the network gone.
//!
//! It says what is there and what will be, leaves the request of [`recall`], and answers it itself where nobody else holds the node's lock. The
//! verdict is its own: it looks at the manifests, the processes and their probes when everything has ended.

use super::facts::{Facts, Trouble, gather};
use super::machine::{Flight, Swap};
use super::originals::{self, Original};
use super::recall::{self, way_back};
use super::watchdog::PROGRAM;
use super::{Agent, TRY_AGAIN, applied, chain, journal};
use crate::api::Reason;
use crate::api::node_tracing::sha256_hex;
use crate::component::STATE_DIR;
use crate::host::{self, Host};

/// An agent that is idle hears of the request at its next look; who has not begun after this time, in milliseconds, hears nothing.
const BEGINS_WITHIN: u64 = 30_000;
/// Two ways back, one after the other, have ended by then, in milliseconds.
const ENDS_WITHIN: u64 = 900_000;
/// How long the processes of manifests that are in place are waited for, in milliseconds: whoever put them there has waited for them, too.
const ANSWERS_WITHIN: u64 = 30_000;

/// How the command takes the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For a look, and for leaving the request.
    Unlocked,
    /// With the lock, for work.
    Locked,
}

/// Gives the node its original manifests back, and tells a person by `say`. Whether the original state serves now; with `dry_run` nothing is
/// changed, and whether it could be done.
pub async fn restore<H: Host>(
    open: impl Fn(Access) -> Result<H, host::Error>,
    dry_run: bool,
    say: impl Fn(&str),
) -> Result<bool, host::Error> {
    let host = open(Access::Unlocked)?;
    let sight = Sight::of(&host).await?;
    if sight.is_restored() {
        if recall::is_held(&host) {
            say("The original manifests are in place already.");
            return serves(&host, say).await;
        }
        say("Nothing of ClusterTracing's is in the manifests of this node: nothing is changed.");
        return Ok(true);
    }
    sight.describe().iter().for_each(|line| say(line));
    if let Err(trouble) = &sight.way
        && sight.under_way().is_none()
    {
        say(&format!("Not possible: {}", trouble.message));
        say(&format!("By hand: see {STATE_DIR}/{}", originals::README));
        return Ok(false);
    }
    if dry_run {
        say(&format!("Nothing was changed. To do it: {STATE_DIR}/{PROGRAM} restore"));
        return Ok(true);
    }
    recall::ask(&host)?;
    answered(&host, &open, &say).await?;
    if recall::is_asked(&host) {
        for line in Sight::of(&host).await?.describe() {
            say(&line);
        }
        say("This could not be done; see the lines above for the cause, and run the command again when it is removed.");
        say(&format!("By hand: see {STATE_DIR}/{}", originals::README));
        return Ok(false);
    }
    serves(&host, say).await
}

/// Waits until somebody has answered the request, this process where it gets the lock.
async fn answered<H: Host>(host: &H, open: &impl Fn(Access) -> Result<H, host::Error>, say: &impl Fn(&str)) -> Result<(), host::Error> {
    let asked = host.now()?.since_boot;
    let (mut told, mut warned) = (false, false);
    while recall::is_asked(host) {
        match open(Access::Locked) {
            Ok(locked) => {
                say("Nobody else works on this node: this command does it.");
                Agent::start(locked, String::new()).await?;
                return Ok(());
            }
            Err(host::Error::Locked { .. }) => {}
            Err(error) => return Err(error),
        }
        let waited = host.now()?.since_boot.saturating_sub(asked);
        if !told {
            say(&format!("The agent or its watchdog works on this node (process {}), and was asked to do it.", holders(host)?));
            told = true;
        }
        if !warned && waited >= BEGINS_WITHIN && !matches!(journal::load(host), Ok(Some(flight)) if flight.outcome().is_none()) {
            let holders = holders(host)?;
            say(&format!("It has not begun yet. End it, and whoever comes next does it, this command or the next agent: kill {holders}"));
            warned = true;
        }
        if waited >= ENDS_WITHIN {
            return Ok(());
        }
        host.sleep_until(asked + waited + u64::try_from(TRY_AGAIN.as_millis()).unwrap_or(u64::MAX)).await;
    }
    Ok(())
}

/// PIDs of the processes of ours that may hold the lock.
fn holders(host: &impl Host) -> Result<String, host::Error> {
    let running = host.processes(PROGRAM)?;
    let others = running.iter().filter(|process| !process.argv.iter().any(|word| word == "restore"));
    Ok(others.map(|process| process.id.pid.to_string()).collect::<Vec<_>>().join(" "))
}

/// Whether both components run as their manifests say, and answer.
async fn serves<H: Host>(host: &H, say: impl Fn(&str)) -> Result<bool, host::Error> {
    let begun = host.now()?.since_boot;
    loop {
        let facts = gather(host).await?;
        let Some(problem) = problem(&facts) else { break };
        let now = host.now()?.since_boot;
        if now.saturating_sub(begun) >= ANSWERS_WITHIN {
            say(&format!("The original manifests are in place, but {problem}."));
            say("That has another cause. See: crictl ps -a; crictl logs; journalctl -u kubelet");
            return Ok(false);
        }
        host.sleep_until(now + 1_000).await;
    }
    say("The original manifests are in place, and what runs under them answers.");
    say(&format!("ClusterTracing leaves this node as it is, until: rm {STATE_DIR}/{}", recall::HELD));
    say("What it says of it, once the API answers: kubectl describe clustertracing cluster");
    Ok(true)
}

fn problem(facts: &Facts) -> Option<String> {
    if let Some(trouble) = &facts.trouble {
        return Some(trouble.message.clone());
    }
    facts.components.iter().find_map(|component| {
        let name = component.found.component;
        if component.process(&component.found.argv).is_none() {
            return Some(format!("{name} does not run as its manifest says"));
        }
        (!component.healthy()).then(|| format!("{name} does not answer its probes"))
    })
}

/// What stands on the node, and what gives it its originals back.
struct Sight {
    facts: Facts,
    journal: Result<Option<Flight>, journal::Error>,
    originals: Vec<Original>,
    way: Result<Vec<Swap>, Trouble>,
    is_asked: bool,
}

impl Sight {
    async fn of<H: Host>(host: &H) -> Result<Self, host::Error> {
        let facts = gather(host).await?;
        let kept = originals::kept(host).map_err(|e| Trouble { reason: Reason::NodeFilesUnwritable, message: chain(&e) });
        let way = kept.clone().and_then(|originals| way_back(&facts, &originals, &applied::load(host)));
        let (journal, is_asked) = (journal::load(host), recall::is_asked(host));
        Ok(Self { facts, journal, originals: kept.unwrap_or_default(), way, is_asked })
    }

    /// The change that the journal says has not ended.
    fn under_way(&self) -> Option<&Flight> {
        self.journal.as_ref().ok()?.as_ref().filter(|flight| flight.outcome().is_none())
    }

    fn is_restored(&self) -> bool {
        !self.is_asked && self.journal.is_ok() && self.under_way().is_none() && matches!(self.way.as_deref(), Ok([]))
    }

    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Err(error) = &self.journal {
            lines.push(format!("{}: the manifests alone tell what is ClusterTracing's.", chain(error)));
        }
        let swaps = match self.under_way() {
            Some(flight) => {
                lines.push("A change of this node is under way. It is ended, by its way back.".to_owned());
                &flight.swaps
            }
            None => self.way.as_deref().unwrap_or_default(),
        };
        for Swap { file, original, permissions, .. } in swaps {
            let now = self.facts.manifest(file).map_or("not in its folder".to_owned(), |manifest| format!("sha256 {}", manifest.digest));
            let kept = match self.originals.iter().find(|kept| kept.file == *file) {
                Some(kept) if kept.text == *original => "as it was kept",
                Some(_) => "with what else was changed in it since",
                None => "without what was added",
            };
            lines.push(format!("{file}:"));
            lines.push(format!("  is       {now}"));
            lines.push(format!("  will be  sha256 {}, mode {:o}, {kept}", sha256_hex(original.as_bytes()), permissions.mode));
        }
        lines
    }
}
