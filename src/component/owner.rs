//! Who else renders a node's control-plane manifests: there an edit would be undone, or undo somebody's work, so nothing is edited.
//!
//! One table: how a platform is recognised, and what its administrator can do instead. docs/platforms.md is written from it.

use std::collections::BTreeMap;

use crate::manifest::Manifest;

/// What a Node object says of where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct NodeFacts<'a> {
    /// `metadata.labels`.
    pub labels: &'a BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: &'a BTreeMap<String, String>,
    /// `status.nodeInfo.osImage`.
    pub os_image: &'a str,
    /// `status.nodeInfo.kubeletVersion`.
    pub kubelet_version: &'a str,
}

/// A platform that renders the control plane's manifests itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Its name.
    pub name: &'static str,
    /// What its administrator can do instead.
    pub remedy: &'static str,
    sign: Sign,
}

/// What gives a platform away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// A label or an annotation whose name begins so.
    Key(&'static str),
    /// An annotation with this value.
    Annotation(&'static str, &'static str),
    /// The operating system's name begins so.
    Os(&'static str),
    /// What the kubelet's version ends in, from `+` on, begins so.
    Kubelet(&'static str),
}

const MANAGED: &str = "its provider runs the control plane, and offers no tracing of it: nothing can be done from inside the cluster";

/// More than one row of a name: any of them gives it away.
#[rustfmt::skip]
static PLATFORMS: &[Platform] = &[
    Platform { name: "OpenShift", sign: Sign::Key("machineconfiguration.openshift.io/"), remedy: "its operators write the manifests again, and offer no tracing of kube-apiserver and etcd" },
    Platform { name: "OpenShift", sign: Sign::Key("node.openshift.io/"), remedy: "its operators write the manifests again, and offer no tracing of kube-apiserver and etcd" },
    Platform { name: "Talos", sign: Sign::Os("Talos"), remedy: "set cluster.apiServer.extraArgs and extraVolumes, and cluster.etcd.extraArgs, in the machine configuration" },
    Platform { name: "RKE2", sign: Sign::Kubelet("+rke2"), remedy: "set kube-apiserver-arg, kube-apiserver-extra-mount and etcd-arg in /etc/rancher/rke2/config.yaml on each server" },
    Platform { name: "k3s", sign: Sign::Kubelet("+k3s"), remedy: "set kube-apiserver-arg and etcd-arg in /etc/rancher/k3s/config.yaml on each server: there are no static pods" },
    Platform { name: "k0s", sign: Sign::Kubelet("+k0s"), remedy: "set spec.api.extraArgs and spec.storage.etcd.extraArgs in k0s' configuration: there are no static pods" },
    Platform { name: "MicroK8s", sign: Sign::Key("microk8s.io/"), remedy: "set the flag in /var/snap/microk8s/current/args/kube-apiserver on each node: there are no static pods" },
    Platform { name: "kOps", sign: Sign::Key("kops.k8s.io/"), remedy: "put the tracing file on the nodes with spec.fileAssets; kOps has no field for kube-apiserver's tracing flag, and etcd-manager none for etcd's" },
    Platform { name: "Cluster API (KubeadmControlPlane)", sign: Sign::Annotation("cluster.x-k8s.io/owner-kind", "KubeadmControlPlane"), remedy: "set files and clusterConfiguration (apiServer, etcd.local) in the KubeadmControlPlane's spec.kubeadmConfigSpec: it replaces machines and does not edit them" },
    Platform { name: "Amazon EKS", sign: Sign::Key("eks.amazonaws.com/"), remedy: MANAGED },
    Platform { name: "Google GKE", sign: Sign::Key("cloud.google.com/gke-"), remedy: MANAGED },
    Platform { name: "Azure AKS", sign: Sign::Key("kubernetes.azure.com/"), remedy: MANAGED },
];

/// Who renders the manifests of this node, if it is somebody that writes them again.
pub fn owner(node: &NodeFacts<'_>) -> Option<Platform> {
    let is_there = |platform: &&Platform| match platform.sign {
        Sign::Key(start) => node.labels.keys().chain(node.annotations.keys()).any(|key| key.starts_with(start)),
        Sign::Annotation(key, value) => node.annotations.get(key).is_some_and(|there| there == value),
        Sign::Os(start) => node.os_image.starts_with(start),
        Sign::Kubelet(suffix) => node.kubelet_version.find('+').is_some_and(|at| node.kubelet_version[at..].starts_with(suffix)),
    };
    PLATFORMS.iter().find(is_there).copied()
}

/// Who rendered this manifest, where the manifest itself tells.
pub(super) fn owner_of(manifest: &Manifest) -> Option<Platform> {
    let named = |name: &str| PLATFORMS.iter().find(|platform| platform.name == name).copied();
    match manifest.namespace() {
        namespace if namespace.starts_with("openshift-") => named("OpenShift"),
        _ if manifest.image().contains("rancher/hardened-") => named("RKE2"),
        _ => None,
    }
}

/// The table in words, as Markdown: docs/platforms.md.
pub fn platforms() -> String {
    let mut rows: Vec<&Platform> = Vec::new();
    for platform in PLATFORMS {
        if rows.iter().all(|row| row.name != platform.name) {
            rows.push(platform);
        }
    }
    let rows = rows.iter().map(|row| {
        let signs: Vec<_> =
            PLATFORMS.iter().filter(|platform| platform.name == row.name).map(|platform| platform.sign.to_string()).collect();
        format!("| {} | {} | {} |\n", row.name, signs.join(", or "), row.remedy)
    });
    let rows: String = rows.collect::<Vec<_>>().concat();
    format!(
        "# Platforms\n\n<!-- Generated from src/component/owner.rs by `make generate`: do not edit. -->\n\n\
         The operator edits the static-pod manifests in `/etc/kubernetes/manifests` that kubeadm made: kubeadm itself, kubespray, kind, minikube, and \
         what is built like them.\n\n\
         Where somebody else renders the manifests, an edit would be undone, or undo their work. Such a platform is recognised, and refused \
         as `UnsupportedPlatform` before anything is written: no node, no collector, no finalizer. What its administrator can do instead:\n\n\
         | platform | recognised by | instead |\n| --- | --- | --- |\n{rows}\n\
         Where no node of the control plane is visible at all, the reason is `NoControlPlaneNodes`; if the other nodes give the platform away, it is named.\n\n\
         An etcd that does not run as a static pod of the node (external, or a service of the node) is not traced: kube-apiserver alone is, with a warning.\n\n\
         With `--egress-selector-config-file`, kube-apiserver sends its spans the way of that file's `controlplane` entry, also to a loopback address. The agents do \
         not read that file, so a collector on the node's loopback is refused as `EgressSelector`; an endpoint of your own (`collector.mode: External`), reachable from there, \
         is taken, with a warning.\n"
    )
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(start) => write!(f, "a node label or annotation `{start}…`"),
            Self::Annotation(key, value) => write!(f, "the node annotation `{key}: {value}`"),
            Self::Os(start) => write!(f, "a node's operating system `{start} …`"),
            Self::Kubelet(suffix) => write!(f, "a kubelet version with `{suffix}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(labels: &[(&str, &str)], annotations: &[(&str, &str)], os_image: &str, kubelet_version: &str) -> Option<&'static str> {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (labels, annotations): (BTreeMap<_, _>, BTreeMap<_, _>) = (map(labels), map(annotations));
        owner(&NodeFacts { labels: &labels, annotations: &annotations, os_image, kubelet_version }).map(|platform| platform.name)
    }

    #[test]
    fn a_platform_is_known_by_what_its_nodes_carry() {
        type Pairs = &'static [(&'static str, &'static str)];
        let ubuntu = "Ubuntu 24.04.1 LTS";
        let cases: [(Option<&str>, Pairs, Pairs, &str, &str); 13] = [
            (
                None,
                &[("node-role.kubernetes.io/control-plane", "")],
                &[("kubeadm.alpha.kubernetes.io/cri-socket", "unix:///run/c.sock")],
                ubuntu,
                "v1.36.3",
            ),
            (None, &[], &[], "Debian GNU/Linux 12 (bookworm)", "v1.34.0"),
            (Some("OpenShift"), &[("node.openshift.io/os_id", "rhel")], &[], "Red Hat Enterprise Linux CoreOS", "v1.31.4"),
            (Some("OpenShift"), &[], &[("machineconfiguration.openshift.io/state", "Done")], "CentOS Stream CoreOS", "v1.31.4"),
            (Some("Talos"), &[], &[], "Talos (v1.9.1)", "v1.32.0"),
            (Some("RKE2"), &[], &[], ubuntu, "v1.31.4+rke2r1"),
            (Some("k3s"), &[], &[], ubuntu, "v1.31.4+k3s1"),
            (Some("k0s"), &[], &[], ubuntu, "v1.31.4+k0s"),
            (Some("kOps"), &[("kops.k8s.io/instancegroup", "control-plane-a")], &[], ubuntu, "v1.31.4"),
            (Some("Cluster API (KubeadmControlPlane)"), &[], &[("cluster.x-k8s.io/owner-kind", "KubeadmControlPlane")], ubuntu, "v1.36.3"),
            (None, &[], &[("cluster.x-k8s.io/owner-kind", "MachineSet")], ubuntu, "v1.36.3"),
            (Some("Amazon EKS"), &[("eks.amazonaws.com/nodegroup", "a")], &[], "Amazon Linux 2023", "v1.31.4-eks-aeac579"),
            (
                Some("Google GKE"),
                &[("cloud.google.com/gke-nodepool", "a")],
                &[],
                "Container-Optimized OS from Google",
                "v1.31.4-gke.1183000",
            ),
        ];
        for (expected, labels, annotations, os_image, kubelet) in cases {
            assert_eq!(name(labels, annotations, os_image, kubelet), expected, "{labels:?} {annotations:?} {os_image} {kubelet}");
        }
    }

    #[test]
    fn a_manifest_tells_where_the_node_does_not() {
        let manifest = |namespace: &str, image: &str| {
            let text = format!(
                "kind: Pod\nmetadata: {{name: a, namespace: {namespace}}}\nspec:\n  containers:\n  - {{name: etcd, image: {image}, command: [etcd]}}\n"
            );
            owner_of(&Manifest::parse(&text, "etcd").unwrap().unwrap()).map(|platform| platform.name)
        };
        assert_eq!(manifest("openshift-etcd", "quay.io/openshift:a"), Some("OpenShift"));
        assert_eq!(manifest("kube-system", "index.docker.io/rancher/hardened-etcd:v3.5.16-k3s1"), Some("RKE2"));
        assert_eq!(manifest("kube-system", "registry.k8s.io/etcd:3.6.8-0"), None);
    }
}
