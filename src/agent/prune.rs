//! Removes files of ours that nothing refers to any more.
//!
//! `garbage` decides, and decides for keeping: what the manifests do not tell for sure, stays.

use super::facts::Facts;
use super::journal;
use crate::api::node_tracing::TracingFound;
use crate::host::{self, Folder, Host, is_temporary};

/// Names of our files, by folder.
type Names = Vec<(Folder, String)>;

/// Removes garbage. Only while no flight is under way: its files are referred to by nothing but the journal. One that is done needs none.
pub fn prune(host: &impl Host, facts: &Facts) -> Result<(), host::Error> {
    let mut names = Names::new();
    for folder in [Folder::Manifests, Folder::State, Folder::Backups] {
        names.extend(host.list(folder)?.into_iter().filter(|e| e.regular).map(|e| (folder, e.name)));
    }
    let had_backups = names.iter().any(|(folder, _)| *folder == Folder::Backups);
    let garbage = garbage(&names, facts);
    for (folder, name) in &garbage {
        tracing::info!(%folder, name, "removing a file that nothing refers to");
        host.remove(*folder, name)?;
    }
    if !had_backups || garbage.iter().any(|(folder, _)| *folder == Folder::Backups) {
        host.remove_empty(Folder::Backups)?;
    }
    Ok(())
}

/// The files that nothing refers to: temporary ones, tracing files that no manifest names, backups of manifests that carry nothing of ours.
fn garbage(names: &Names, facts: &Facts) -> Names {
    let is_garbage = |folder: Folder, name: &str| match folder {
        _ if is_temporary(name) => true,
        // with trouble the manifests, or what they say, are not fully known
        _ if facts.trouble.is_some() => false,
        Folder::Manifests => false,
        Folder::State => {
            name != journal::NAME && name.starts_with("tracing-") && !facts.manifests.iter().any(|m| m.file.text.contains(name))
        }
        Folder::Backups => !facts.components.iter().any(|c| c.found.file == name && c.found.tracing == TracingFound::Ours),
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
            (Folder::State, "tracing-1.yaml"),
            (Folder::State, "tracing-2.yaml"),
            (Folder::State, "journal"),
            (Folder::State, "notes.txt"),
            (Folder::Backups, "kube-apiserver.yaml"),
            (Folder::Backups, "etcd.yaml"),
        ]);
        let expected = names(&[
            (Folder::Manifests, ".kube-apiserver.yaml.clustertracing-0"),
            (Folder::State, "tracing-2.yaml"),
            (Folder::Backups, "etcd.yaml"),
        ]);
        assert_eq!(garbage(&found, &mk_ours()), expected);
    }

    #[test]
    fn where_the_manifests_are_not_understood_only_temporary_files_go() {
        let found =
            names(&[(Folder::State, "tracing-2.yaml"), (Folder::State, ".journal.clustertracing-0"), (Folder::Backups, "etcd.yaml")]);
        let facts = Facts { trouble: Some(mk_trouble()), ..mk_ours() };
        assert_eq!(garbage(&found, &facts), names(&[(Folder::State, ".journal.clustertracing-0")]));
    }
}
