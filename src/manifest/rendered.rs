//! Whether a manifest is as kubeadm renders it, or as somebody left it who had it in hand.
//!
//! kubeadm prints a pod from a value, so that everything in it is in order: the keys of every mapping, the flags (which it keeps in a map until
//! then) and the volumes by name; and there is no comment. It leaves one annotation of its own. Seen in what 1.22 to 1.37 render; what people and this project add is
//! appended, and breaks the order.

use super::added::{ANNOTATIONS, VOLUMES};
use super::pod::Pod;
use super::tree::{self, Kind, Node};

/// What the names of kubeadm's annotations begin with.
const KUBEADM: &str = "kubeadm.kubernetes.io/";

/// Whether `text` is a manifest of `program` just as kubeadm renders it.
pub fn is_kubeadms(text: &str, program: &str) -> bool {
    let Ok(root) = tree::parse(text) else { return false };
    let Ok(Some(pod)) = Pod::find(&root, program) else { return false };
    let annotations = pod.metadata.get(ANNOTATIONS).map(Node::entries).unwrap_or_default();
    let volumes = pod.spec.get(VOLUMES).map(Node::items).unwrap_or_default();
    annotations.iter().any(|entry| entry.key.starts_with(KUBEADM))
        && !text.lines().any(|line| line.trim_start().starts_with('#'))
        && has_sorted_keys(&root)
        && pod.flags().is_sorted_by(|a, b| a.name <= b.name)
        && volumes.iter().filter_map(|volume| volume.get("name")?.scalar()).is_sorted()
}

fn has_sorted_keys(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar { .. } => true,
        Kind::Sequence { items, .. } => items.iter().all(has_sorted_keys),
        Kind::Mapping { entries, .. } => {
            entries.is_sorted_by(|a, b| a.key <= b.key) && entries.iter().all(|entry| has_sorted_keys(&entry.value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENDERED: &str = include_str!("../../tests/manifests/kubeadm/1.36.3/kube-apiserver/in.yaml");
    const OURS: &str = include_str!("../../tests/manifests/kubeadm/1.36.3/kube-apiserver/out.yaml");
    const PROGRAM: &str = "kube-apiserver";

    #[test]
    fn what_kubeadm_renders_is_known_and_what_anybody_has_edited_is_not() {
        assert!(is_kubeadms(RENDERED, PROGRAM));
        assert!(is_kubeadms(
            &RENDERED.replace("    - --authorization-mode", "    - --audit-log-maxage=7\n    - --authorization-mode"),
            PROGRAM
        ));
        let edited = |from: &str, to: &str| {
            assert!(RENDERED.contains(from), "{from}");
            RENDERED.replacen(from, to, 1)
        };
        for (what, text) in [
            ("our edit", OURS.to_owned()),
            ("a comment", format!("# mine\n{RENDERED}")),
            ("a flag at the end", edited("    image:", "    - --audit-log-maxage=7\n    image:")),
            ("a key out of order", edited("  hostNetwork: true\n", "  zone: a\n  hostNetwork: true\n")),
            ("no annotation of kubeadm's", edited("kubeadm.kubernetes.io/", "example.org/")),
            ("another program's manifest", edited("- kube-apiserver\n", "- etcd\n")),
            ("no manifest", "kind: [".to_owned()),
        ] {
            assert!(!is_kubeadms(&text, PROGRAM), "{what}");
        }
    }
}
