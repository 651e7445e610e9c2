//! What of a node is not as its agent left it, who did it, and what is done about it. Pure.
//!
//! A manifest may be changed by its owner: what still carries all of our additions has not drifted, and [`Applied::follow`] takes it over. What
//! does not is healed under a grant, like any change, from the text as it is: whatever else was changed stays. Two rules keep that from being
//! a fight: nothing is healed before the node is quiet ([`super::blockers`]), and nothing twice within `FIGHT_WITHIN` ([`refusal`]).

use jiff::SignedDuration;

use super::applied::{Applied, Entry};
use super::check::needed;
use super::facts::{Facts, Trouble};
use crate::api::{ComponentName, Deviation, Drift, DriftCause, Grant, Reason};
use crate::component::{Change, STATE_DIR, leave_out};
use crate::host::Permissions;
use crate::manifest::rendered;

/// A component that drifts again this soon after it was healed is written by somebody who will not stop.
const FIGHT_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// Mode of the tracing files: kube-apiserver may run as another user than root.
pub const TRACING_FILE_MODE: u32 = 0o644;

/// What is not as it was left. Empty where the manifests could not be looked at.
pub fn drift(applied: &Applied, facts: &Facts) -> Vec<Drift> {
    if facts.manifests.is_empty() && facts.trouble.is_some() {
        return Vec::new();
    }
    applied.components.iter().flat_map(|entry| of_component(entry, facts)).collect()
}

/// A manifest that is not what it was says nothing of its mode, nor of what else it needs: whoever wrote it decided about those, too.
fn of_component(entry: &Entry, facts: &Facts) -> Vec<Drift> {
    let healed = entry.healed.filter(|_| entry.drifted.unwrap_or(facts.now.wall).duration_since(entry.at) < FIGHT_WITHIN);
    let drift =
        |file: &str, what, cause| Drift { component: entry.component, file: file.to_owned(), what, cause, healed_generation: healed };
    let file = facts.component(entry.component).map_or(&entry.file, |component| &component.found.file);
    let Some(manifest) = facts.manifest(file) else { return vec![drift(file, Deviation::Missing, DriftCause::Human)] };
    if manifest.digest != entry.digest {
        let what = if manifest.file.text.is_empty() { Deviation::Empty } else { Deviation::Content };
        return vec![drift(file, what, cause(entry, facts, &manifest.file.text))];
    }
    let Permissions { mode, uid, gid } = entry.permissions;
    let is = manifest.permissions;
    let of_manifest = [(is.mode != mode, Deviation::Mode), ((is.uid, is.gid) != (uid, gid), Deviation::Owner)];
    let of_manifest = of_manifest.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| drift(file, what, DriftCause::Human));
    let needs = entry.needs.iter().filter_map(|(name, digest)| {
        let what = match facts.tracing_files.iter().find(|file| file.name == *name) {
            None => Deviation::Missing,
            Some(file) if file.is_empty => Deviation::Empty,
            Some(file) if file.digest != *digest => Deviation::Content,
            Some(file) if file.mode != TRACING_FILE_MODE => Deviation::Mode,
            Some(_) => return None,
        };
        Some(drift(name, what, DriftCause::Human))
    });
    of_manifest.chain(needs).collect()
}

fn cause(entry: &Entry, facts: &Facts, text: &str) -> DriftCause {
    match facts.component(entry.component) {
        Some(component) if component.found.image != entry.image => DriftCause::Upgrade,
        Some(_) if rendered::is_kubeadms(text, entry.component.as_str()) => DriftCause::KubeadmRender,
        _ => DriftCause::Human,
    }
}

/// A manifest that has gone is not made again from nothing: a person may have taken the component away from this node.
pub fn gone(drifts: &[Drift], applied: &Applied) -> Option<Trouble> {
    let of_manifest = |drift: &&Drift| applied.entry(drift.component).is_some_and(|entry| entry.file == drift.file);
    let Drift { component, file, .. } = drifts.iter().filter(of_manifest).find(|drift| drift.what == Deviation::Missing)?;
    let message = format!(
        "{file}, the manifest of {component}, has gone, and is not made again from nothing; put it back without tracing, which is then added: \
         cp {STATE_DIR}/backup/{file} /etc/kubernetes/manifests/.{file} && mv /etc/kubernetes/manifests/.{file} /etc/kubernetes/manifests/{file}; \
         or leave {component} untraced: {}",
        leave_out(*component)
    );
    Some(Trouble { reason: Reason::ManifestNotFound, message })
}

/// Why a drift is not healed under `grant`: it would be the second heal within a short time, and a third would follow.
pub fn refusal(drifts: &[Drift], grant: &Grant) -> Option<Trouble> {
    let again = drifts.iter().find(|drift| drift.healed_generation.is_some_and(|healed| grant.generation <= healed))?;
    Some(Trouble { reason: Reason::Conflict, message: again.fight() })
}

/// What is put right without a restart: a manifest whose bytes are right, and the files that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// Whose they are.
    pub component: ComponentName,
    /// The manifest, and the text that it must have.
    pub manifest: (String, String),
    /// Its mode and owner.
    pub permissions: Permissions,
    /// Files that it needs: name in the state folder, contents.
    pub needs: Vec<(String, String)>,
}

/// What can be put right without a restart, of what drifted. `changes`: what the target asks of each component.
pub fn mends(drifts: &[Drift], applied: &Applied, changes: &[Change]) -> Vec<Mend> {
    let has_drifted = |change: &&Change| drifts.iter().any(|drift| drift.component == change.component);
    let mend = |change: &Change| {
        Some(Mend {
            component: change.component,
            manifest: (change.file.clone(), change.after.clone()),
            permissions: applied.entry(change.component)?.permissions,
            needs: needed(change).ok()?,
        })
    };
    changes.iter().filter(|change| change.is_made()).filter(has_drifted).filter_map(mend).collect()
}

#[cfg(test)]
mod tests;
