//! kubeadm itself: its configuration in the cluster, and what it renders from that.

use serde_json::json;

use super::clients;
use super::cluster::Cluster;
use super::files::{self, Digests, MANIFESTS};

/// The ConfigMap's `ClusterConfiguration`, as it is.
pub(crate) fn configuration(cluster: &Cluster) -> String {
    cluster.kubectl(&["get", "configmap", "kubeadm-config", "--namespace=kube-system", "--output=jsonpath={.data.ClusterConfiguration}"])
}

/// Writes it, as its administrator would.
pub(crate) fn configure(cluster: &Cluster, configuration: &str) {
    let patch = json!({"data": {"ClusterConfiguration": configuration}}).to_string();
    cluster.kubectl(&["patch", "configmap", "kubeadm-config", "--namespace=kube-system", "--type=merge", "--patch", &patch]);
}

/// What the kubeadm of `node` makes of a configuration: the static-pod folder of a new node of that name.
pub(crate) fn rendered(cluster: &Cluster, node: &str, configuration: &str) -> Digests {
    let address = clients::address(node);
    let init = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {{advertiseAddress: {address}}}\n\
         nodeRegistration: {{name: {node}, criSocket: \"unix:///run/containerd/containerd.sock\"}}\n---\n{configuration}"
    );
    // In a mount namespace of its own, where the static-pod folder is another: the kubelet does not see it.
    let script = format!(
        "mount -t tmpfs tmpfs {MANIFESTS}; printf '%s' \"$1\" > /run/init.yaml; \
         {{ kubeadm init phase control-plane all --config /run/init.yaml; kubeadm init phase etcd local --config /run/init.yaml; }} >&2; {}",
        files::digesting(MANIFESTS)
    );
    files::parse(node, &cluster.exec(node, &["unshare", "--mount", "sh", "-euc", &script, "sh", &init]))
}
