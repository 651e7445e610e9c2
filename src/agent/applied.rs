//! What this agent applied last, on the disk: what a change by somebody else is told from.
//!
//! Without it nothing tells a manifest that somebody changed from one that is yet to be changed. It holds digests and no contents; losing
//! it costs nothing but the knowledge of changes that were made before, so that a damaged one is made anew from what is found.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::chain;
use super::check::needed;
use super::facts::Facts;
use super::machine::Swap;
use super::sealed;
use crate::api::node_tracing::{Outcome, TracingFound, sha256_hex};
use crate::api::{ComponentName, Drift, State, Target};
use crate::component::{Change, ManifestFile, find};
use crate::host::{self, File, Folder, Host, Permissions, replace};

/// Its name in the state folder.
pub const NAME: &str = "applied";

const FORMAT: &str = "clustertracing-applied 1";

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Revision of the target that was reached last.
    pub revision: String,
    /// The components that carry something of ours.
    pub components: Vec<Entry>,
}

/// What was applied to one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub component: ComponentName,
    /// Name of its manifest.
    pub file: String,
    /// SHA-256 of the manifest's bytes.
    pub digest: String,
    /// The manifest's mode and owner.
    pub permissions: Permissions,
    /// The component's image.
    pub image: String,
    /// The files that the manifest needs: name in the state folder, SHA-256.
    pub needs: Vec<(String, String)>,
    /// When it was applied, by the wall clock.
    pub at: jiff::Timestamp,
    /// Set when that was a heal: the generation of the `ClusterTracing` that it was granted for.
    pub healed: Option<i64>,
    /// When it was first seen to have drifted since.
    pub drifted: Option<jiff::Timestamp>,
}

/// The record that was written last. One that cannot be read is told of, and made anew.
pub fn load(host: &impl Host) -> Applied {
    let read = host.read(Folder::State, NAME).map_err(|e| chain(&e));
    let record = read.and_then(|file| file.map(|file| sealed::open(FORMAT, &file.bytes)).transpose());
    let record = record.inspect_err(|why| tracing::warn!("the record of what was applied cannot be used, and is made anew: {why}"));
    record.ok().flatten().unwrap_or_default()
}

/// Writes the record; one that says nothing goes.
pub fn save(host: &impl Host, applied: &Applied) -> Result<(), host::Error> {
    if applied.components.is_empty() {
        host.remove(Folder::State, NAME)?;
        return host.sync(Folder::State);
    }
    let file = File { bytes: sealed::seal(FORMAT, applied), permissions: Permissions::own(0o600) };
    replace(host, Folder::State, NAME, &file)
}

impl Applied {
    /// One component's entry.
    pub fn entry(&self, component: ComponentName) -> Option<&Entry> {
        self.components.iter().find(|entry| entry.component == component)
    }

    /// After a change that succeeded. Saying it twice says no more: an agent that died after it wrote the record does.
    #[must_use]
    pub fn after(mut self, swaps: &[Swap], outcome: &Outcome) -> Self {
        let Time(at) = outcome.finished_time;
        for swap in swaps {
            let before = self.take(swap.component);
            let digest = sha256_hex(swap.after.text.as_bytes());
            if let Some(known) = before.clone().filter(|known| known.at == at && known.digest == digest) {
                self.put(known);
                continue;
            }
            let found = find(&[ManifestFile { name: swap.file.clone(), text: swap.after.text.clone() }]).unwrap_or_default();
            let Some(found) = found.into_iter().find(|f| f.component == swap.component && f.tracing == TracingFound::Ours) else {
                continue;
            };
            self.put(Entry {
                component: swap.component,
                file: swap.file.clone(),
                digest,
                permissions: swap.permissions,
                image: found.image,
                needs: digests(&swap.needs),
                at,
                healed: before.and_then(|before| before.drifted).map(|_| outcome.generation),
                drifted: None,
            });
        }
        self.revision.clone_from(&outcome.revision);
        self
    }

    /// After these components were put right without a restart.
    #[must_use]
    pub fn after_mend(mut self, components: &[ComponentName], generation: i64, at: jiff::Timestamp) -> Self {
        for entry in self.components.iter_mut().filter(|entry| components.contains(&entry.component)) {
            (entry.at, entry.healed, entry.drifted) = (at, Some(generation), None);
        }
        self
    }

    /// After a look: what stands there now, with our additions complete, is what counts from here on, whoever wrote it. What is not wanted any
    /// more is forgotten.
    ///
    /// `changes`: what `target` asks of each component, where that is known.
    #[must_use]
    pub fn follow(mut self, target: &Target, facts: &Facts, changes: Option<&[Change]>) -> Self {
        self.components.retain(|entry| target.settings.of(entry.component).state == State::Enabled);
        let Some(changes) = changes else { return self };
        for change in changes.iter().filter(|change| change.is_made() && change.after != change.original) {
            let (Some(manifest), Some(component)) = (facts.manifest(&change.file), facts.component(change.component)) else { continue };
            let before = self.take(change.component);
            if let Some(known) = before.clone().filter(|known| known.digest == manifest.digest && known.file == change.file) {
                self.put(known);
                continue;
            }
            let Ok(needs) = needed(change) else { continue };
            self.put(Entry {
                component: change.component,
                file: change.file.clone(),
                digest: manifest.digest.clone(),
                permissions: manifest.permissions,
                image: component.found.image.clone(),
                needs: digests(&needs),
                at: before.as_ref().map_or(facts.now.wall, |before| before.at),
                healed: before.and_then(|before| before.healed),
                drifted: None,
            });
        }
        if changes.iter().all(Change::is_made) {
            self.revision.clone_from(&target.revision);
        }
        self
    }

    /// With the time at which each drift was first seen.
    #[must_use]
    pub fn note(mut self, drifts: &[Drift], now: jiff::Timestamp) -> Self {
        for entry in &mut self.components {
            let has_drifted = drifts.iter().any(|drift| drift.component == entry.component);
            entry.drifted = has_drifted.then(|| entry.drifted.unwrap_or(now));
        }
        self
    }

    fn take(&mut self, component: ComponentName) -> Option<Entry> {
        let index = self.components.iter().position(|entry| entry.component == component)?;
        Some(self.components.remove(index))
    }

    fn put(&mut self, entry: Entry) {
        self.components.push(entry);
        self.components.sort_by_key(|entry| entry.component);
    }
}

fn digests(files: &[(String, String)]) -> Vec<(String, String)> {
    files.iter().map(|(name, contents)| (name.clone(), sha256_hex(contents.as_bytes()))).collect()
}
