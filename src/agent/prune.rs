//! Removes files of ours that nothing refers to any more.
//!
//! `garbage` decides, and decides for keeping: what the manifests do not tell for sure, stays.

use super::applied::Applied;
use super::facts::{Facts, TRACING_FILES};
use super::{originals, recall, watchdog};
use crate::api::node_tracing::TracingFound;
use crate::host::{self, Folder, Host, is_temporary, permanent_name};

/// Names of our files, by folder.
type Names = Vec<(Folder, String)>;

/// Removes garbage. Only while no flight is under way: its files are referred to by nothing but the journal. One that is done needs none.
pub fn prune(host: &impl Host, facts: &Facts, applied: &Applied) -> Result<(), host::Error> {
    let mut names = Names::new();
    for folder in [Folder::Manifests, Folder::State, Folder::Backups] {
        names.extend(host.list(folder)?.into_iter().filter(|e| e.regular).map(|e| (folder, e.name)));
    }
    let had_backups = names.iter().any(|(folder, _)| *folder == Folder::Backups);
    let garbage = garbage(&names, facts, applied);
    for (folder, name) in &garbage {
        tracing::info!(%folder, name, "removing a file that nothing refers to");
        host.remove(*folder, name)?;
    }
    let one_went = garbage.iter().any(|(folder, _)| *folder == Folder::Backups);
    if one_went {
        originals::refresh(host)?;
    }
    if !had_backups || one_went {
        host.remove_empty(Folder::Backups)?;
    }
    Ok(())
}

/// The files that nothing refers to: temporary ones, the watchdog's manifest, tracing files that no manifest names, backups of manifests
/// that carry nothing of ours, and what explains them once there is none.
fn garbage(names: &Names, facts: &Facts, applied: &Applied) -> Names {
    let is_there = |manifest: &str| names.iter().any(|(folder, name)| *folder == Folder::Manifests && name == manifest);
    let carries_ours = |manifest: &str| facts.components.iter().any(|c| c.found.file == manifest && c.found.tracing == TracingFound::Ours);
    // the only copy of a manifest that somebody removed, or that could not be put back
    let is_applied = |manifest: &str| applied.components.iter().any(|entry| entry.file == manifest);
    let is_needed = |backup: &str| is_applied(backup) || !is_there(backup) || carries_ours(backup);
    let is_explained = names.iter().any(|(folder, name)| match folder {
        Folder::Manifests => false,
        Folder::State => [recall::ASKED, recall::HELD].contains(&name.as_str()),
        Folder::Backups => !is_temporary(name) && is_needed(name),
    });
    let is_garbage = |folder: Folder, name: &str| match folder {
        // a manifest that is away, because going back failed, may have no other copy
        Folder::Manifests if is_temporary(name) => {
            permanent_name(name).is_some_and(|manifest| manifest == watchdog::FILE || is_there(manifest))
        }
        _ if is_temporary(name) => true,
        Folder::Manifests if name == watchdog::FILE => true,
        // with trouble the manifests, or what they say, are not fully known
        _ if facts.trouble.is_some() => false,
        Folder::Manifests => false,
        Folder::State if [originals::README, watchdog::PROGRAM].contains(&name) => !is_explained,
        Folder::State => name.starts_with(TRACING_FILES) && !facts.manifests.iter().any(|m| m.file.text.contains(name)),
        Folder::Backups => !is_needed(name),
    };
    names.iter().filter(|(folder, name)| is_garbage(*folder, name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::tests::{mk_facts, mk_trouble};
    use crate::api::ComponentName;

    fn names(names: &[(Folder, &str)]) -> Names {
        names.iter().map(|(folder, name)| (*folder, (*name).to_owned())).collect()
    }

    fn mk_ours() -> Facts {
        let mut facts = mk_facts();
        facts.components[0].found.tracing = TracingFound::Ours;
        facts.manifests[0].file.text = "--tracing-config-file=/etc/kubernetes/clustertracing/tracing-1.yaml".into();
        assert_eq!(facts.components[0].found.component, ComponentName::KubeApiserver);
        facts
    }

    #[test]
    fn what_a_manifest_names_stays_and_the_rest_of_ours_goes() {
        let found = names(&[
            (Folder::Manifests, "kube-apiserver.yaml"),
            (Folder::Manifests, ".kube-apiserver.yaml.clustertracing-0"),
            (Folder::Manifests, ".editor.swp"),
            (Folder::Manifests, "etcd.yaml"),
            (Folder::Manifests, "clustertracing-watchdog.json"),
            (Folder::State, "tracing-1.yaml"),
            (Folder::State, "tracing-2.yaml"),
            (Folder::State, "journal"),
            (Folder::State, "notes.txt"),
            (Folder::Backups, "kube-apiserver.yaml"),
            (Folder::Backups, "etcd.yaml"),
        ]);
        let expected = names(&[
            (Folder::Manifests, ".kube-apiserver.yaml.clustertracing-0"),
            (Folder::Manifests, "clustertracing-watchdog.json"),
            (Folder::State, "tracing-2.yaml"),
            (Folder::Backups, "etcd.yaml"),
        ]);
        assert_eq!(garbage(&found, &mk_ours(), &Applied::default()), expected);
    }

    #[test]
    fn the_readme_and_the_program_stay_for_as_long_as_there_is_something_that_they_explain() {
        let ours = [(Folder::State, "README"), (Folder::State, "clustertracing-agent"), (Folder::Manifests, "etcd.yaml")];
        for (other, stays) in [
            ((Folder::Backups, "kube-apiserver.yaml"), true),
            ((Folder::State, "recall"), true),
            ((Folder::State, "restored"), true),
            ((Folder::Backups, "etcd.yaml"), false),
            ((Folder::Backups, ".kube-apiserver.yaml.clustertracing-0"), false),
        ] {
            let garbage = garbage(&names(&[&ours[..], &[other]].concat()), &mk_ours(), &Applied::default());
            assert_eq!(!garbage.contains(&(Folder::State, "README".to_owned())), stays, "{other:?}");
            assert_eq!(!garbage.contains(&(Folder::State, "clustertracing-agent".to_owned())), stays, "{other:?}");
        }
    }

    #[test]
    fn of_a_manifest_that_is_away_every_copy_stays() {
        let found = names(&[
            (Folder::Manifests, ".etcd.yaml.clustertracing-0"),
            (Folder::Manifests, ".etcd.yaml.clustertracing-1"),
            (Folder::Backups, "etcd.yaml"),
        ]);
        let mut facts = mk_ours();
        facts.components.retain(|c| c.found.component != ComponentName::Etcd);
        assert_eq!(garbage(&found, &facts, &Applied::default()), []);
    }

    #[test]
    fn where_the_manifests_are_not_understood_only_temporary_files_go() {
        let found =
            names(&[(Folder::State, "tracing-2.yaml"), (Folder::State, ".journal.clustertracing-0"), (Folder::Backups, "etcd.yaml")]);
        let facts = Facts { trouble: Some(mk_trouble()), ..mk_ours() };
        assert_eq!(garbage(&found, &facts, &Applied::default()), names(&[(Folder::State, ".journal.clustertracing-0")]));
    }
}
