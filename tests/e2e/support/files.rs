//! The files of a node that a rollout touches: digests before and after.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::Cluster;
use super::wait::until;

/// The static-pod folder.
pub(crate) const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// The operator's own folder on a node.
pub(crate) const STATE: &str = "/etc/kubernetes/clustertracing";

/// Path → `sha256 mode owner:group`, of every file of the static-pod folder of every node, hidden ones too.
pub(crate) type Digests = BTreeMap<String, String>;

/// What is in the static-pod folders of all nodes.
pub(crate) fn manifests(cluster: &Cluster) -> Digests {
    cluster.nodes().iter().flat_map(|node| digests(cluster, node, MANIFESTS)).collect()
}

/// Waits until nothing is left in the operator's own folders of any node: the journal goes when the outcome that it holds has been reported.
pub(crate) async fn assert_nothing_left_over(cluster: &Cluster) {
    let nothing_is_left = async || {
        let left: Digests = cluster.nodes().iter().flat_map(|node| digests(cluster, node, STATE)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    };
    until("no file of the operator is left", Duration::from_mins(1), nothing_is_left).await;
}

/// Edits a manifest of a node by `sed`, as a person does: a copy beside the folder, swapped in by one rename, mode and owner as they were.
pub(crate) fn edit_manifest(cluster: &Cluster, node: &str, file: &str, sed: &str) {
    let script = format!(
        "cp -p {MANIFESTS}/{file} /etc/kubernetes/{file}.new && sed -i '{sed}' /etc/kubernetes/{file}.new && \
         ! cmp -s /etc/kubernetes/{file}.new {MANIFESTS}/{file} && mv /etc/kubernetes/{file}.new {MANIFESTS}/{file}"
    );
    cluster.shell(node, &script);
}

fn digests(cluster: &Cluster, node: &str, folder: &str) -> Digests {
    parse(node, &cluster.shell(node, &digesting(folder)))
}

/// The script that prints a folder's digests.
pub(crate) fn digesting(folder: &str) -> String {
    format!(
        "[ -d {folder} ] || exit 0; find {folder} -type f | sort | while read -r file; do \
         echo \"$file $(sha256sum < \"$file\" | cut -d' ' -f1) $(stat -c '%a %U:%G' \"$file\")\"; done"
    )
}

/// What it printed in `node`.
pub(crate) fn parse(node: &str, printed: &str) -> Digests {
    printed
        .lines()
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{node}: cannot read {line:?}")))
        .map(|(path, digest)| (format!("{node}:{path}"), digest.to_owned()))
        .collect()
}
