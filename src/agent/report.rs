//! What the node's status says. Pure: facts and outcome in, [`NodeTracingStatus`] out, the same for the same node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use strum::IntoEnumIterator;

use super::facts::{Facts, Manifest};
use crate::api::node_tracing::{
    Blocker, ComponentStatus, MAX_REPORTED_MANIFEST, NodeTracingStatus, Outcome, Preflight, Soak, Step, TracingFound, Verdict, sha256_hex,
};
use crate::api::{ComponentName, Drift};
use crate::component::upgrade;

/// The kernel's boot time moves with every correction of the wall clock; a process' start, computed from it, moves too.
const SAME_START_SECONDS: i64 = 2;

/// What the agent does and did.
#[derive(Clone, Debug, Default)]
pub struct Doing {
    /// `metadata.generation` of the object that `preflight` answers.
    pub observed_generation: Option<i64>,
    /// UID of this node.
    pub node_uid: Option<String>,
    /// The check of the target.
    pub preflight: Option<Preflight>,
    /// What has drifted.
    pub drift: Vec<Drift>,
    /// What it is doing.
    pub step: Step,
    /// How the last grant ended.
    pub last_outcome: Option<Outcome>,
    /// What was measured before and after the last change.
    pub soak: Option<Soak>,
    /// What stands in the way of a change.
    pub blockers: Vec<Blocker>,
}

/// The status. `reported` is the one that the API server has: times that only jitter are kept from it, so that an idle node writes nothing.
pub fn status(facts: &Facts, doing: &Doing, reported: Option<&NodeTracingStatus>) -> NodeTracingStatus {
    let unchanged = doing.preflight.as_ref().filter(|p| p.verdict == Verdict::Unchanged);
    NodeTracingStatus {
        observed_generation: doing.observed_generation,
        node_uid: doing.node_uid.clone(),
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        components: if facts.trouble.is_some() && facts.components.is_empty() {
            Vec::new() // nothing was seen: to call a component absent would be a guess
        } else {
            ComponentName::iter().map(|name| component(name, facts, reported)).collect()
        },
        upgrade_obstacles: upgrade::obstacles(&facts.files()),
        current_revision: unchanged.map(|p| p.revision.clone()),
        preflight: doing.preflight.clone(),
        step: doing.step,
        last_outcome: doing.last_outcome.clone(),
        drift: doing.drift.clone(),
        etcd: facts.component(ComponentName::Etcd).and_then(|etcd| etcd.member.clone()),
        soak: doing.soak.clone(),
        kubelet: facts.surroundings.as_ref().map(|s| s.kubelet),
        blockers: doing.blockers.clone(),
    }
}

fn component(name: ComponentName, facts: &Facts, reported: Option<&NodeTracingStatus>) -> ComponentStatus {
    let Some(component) = facts.component(name) else {
        return ComponentStatus {
            name,
            image: None,
            version: None,
            manifest: None,
            manifest_digest: None,
            manifest_text: None,
            tracing: TracingFound::Absent,
            healthy: false,
            started_time: None,
        };
    };
    let found = &component.found;
    let before = reported.and_then(|r| r.components.iter().find(|c| c.name == name)).and_then(|c| c.started_time.clone());
    let started = component.process(&found.argv).map(|p| facts.now.wall_time_of(p.id.started));
    ComponentStatus {
        name,
        // longer names are no references, and the API server would refuse the whole status
        image: Some(found.image.clone()).filter(|image| image.len() <= 512),
        version: found.version.clone(),
        manifest: Some(found.file.clone()),
        manifest_digest: facts.manifest(&found.file).map(|m| m.digest.clone()),
        manifest_text: facts.manifest(&found.file).and_then(text),
        tracing: found.tracing,
        healthy: component.healthy(),
        started_time: started.map(|started| match before {
            Some(Time(before)) if (before.as_second() - started.as_second()).abs() <= SAME_START_SECONDS => Time(before),
            _ => Time(started),
        }),
    }
}

/// A manifest's text, where it is all of the manifest: bytes that are none were replaced.
fn text(manifest: &Manifest) -> Option<String> {
    let text = &manifest.file.text;
    (text.len() <= MAX_REPORTED_MANIFEST && sha256_hex(text.as_bytes()) == manifest.digest).then(|| text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::tests::{mk_facts, mk_trouble};

    fn mk_doing(verdict: Verdict) -> Doing {
        let preflight = Preflight { revision: "0123456789ab".into(), verdict, changes: Vec::new(), reason: None, message: String::new() };
        Doing { preflight: Some(preflight), ..Doing::default() }
    }

    #[test]
    fn the_current_revision_is_told_only_of_a_target_that_is_reached() {
        let current = |verdict| status(&mk_facts(), &mk_doing(verdict), None).current_revision;
        assert_eq!(current(Verdict::Unchanged).as_deref(), Some("0123456789ab"));
        assert_eq!((current(Verdict::Ready), current(Verdict::Refused)), (None, None));
        assert_eq!(status(&mk_facts(), &Doing::default(), None).current_revision, None);
    }

    #[test]
    fn a_start_time_that_only_jitters_is_reported_as_before() {
        let doing = mk_doing(Verdict::Unchanged);
        let first = status(&mk_facts(), &doing, None);
        let at = |seconds: i64, reported| {
            let mut facts = mk_facts();
            facts.now.wall += jiff::SignedDuration::from_secs(seconds);
            status(&facts, &doing, reported)
        };
        assert_eq!(at(1, Some(&first)), first, "the wall clock was corrected by a second");
        assert_ne!(at(60, Some(&first)), first);
        assert_ne!(at(1, None), first);
    }

    #[test]
    fn a_component_without_a_manifest_is_absent_and_one_that_was_not_seen_is_not_mentioned() {
        let mut facts = mk_facts();
        facts.components.pop();
        let components = status(&facts, &Doing::default(), None).components;
        let absent: Vec<_> = components.iter().filter(|c| c.tracing == TracingFound::Absent).map(|c| c.name).collect();
        assert_eq!(absent, [ComponentName::Etcd]);
        let unseen = Facts { components: Vec::new(), trouble: Some(mk_trouble()), ..facts };
        assert_eq!(status(&unseen, &Doing::default(), None).components, []);
    }

    #[test]
    fn a_text_that_is_not_the_manifests_bytes_is_not_reported() {
        let told = |change: fn(&mut Manifest)| {
            let mut facts = mk_facts();
            facts.manifests.iter_mut().for_each(change);
            status(&facts, &Doing::default(), None).components.into_iter().map(|c| c.manifest_text).collect::<Vec<_>>()
        };
        assert!(told(|_| {}).iter().all(Option::is_some));
        assert!(told(|manifest| manifest.file.text.push('\u{fffd}')).iter().all(Option::is_none), "bytes that are no text were replaced");
        let long = |manifest: &mut Manifest| {
            manifest.file.text += &"#".repeat(MAX_REPORTED_MANIFEST);
            manifest.digest = sha256_hex(manifest.file.text.as_bytes());
        };
        assert!(told(long).iter().all(Option::is_none));
    }
}
