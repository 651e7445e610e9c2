//! Manifests that somebody has changed by hand, so that the operator must leave them alone.

use std::time::Duration;

use crate::support::clients::{Access, get};
use crate::support::cluster::Cluster;
use crate::support::files::{self, MANIFESTS};
use crate::support::process;
use crate::support::wait::until;

/// From a changed manifest to a server that answers: the kubelet lets the old one take its 30 s.
const RESTART: Duration = Duration::from_mins(3);
/// A tracing file of the administrator's own, in a folder that the API server's pod has already.
const OWN_FILE: &str = "/etc/kubernetes/pki/own-tracing.yaml";

/// A mistake in one manifest of one node. What was there before is kept beside the static-pod folder.
pub(crate) struct Mistake<'a> {
    cluster: &'a Cluster,
    node: &'static str,
    file: &'static str,
}

impl<'a> Mistake<'a> {
    /// The node's kube-apiserver is traced already, by a file that is not the operator's.
    pub(crate) async fn own_tracing(cluster: &'a Cluster, access: &Access, node: &'static str) -> Self {
        cluster.shell(
            node,
            &format!(
                "printf '%s\\n' 'apiVersion: apiserver.config.k8s.io/v1' 'kind: TracingConfiguration' 'samplingRatePerMillion: 0' > {OWN_FILE}"
            ),
        );
        let edit = format!("s|^    - kube-apiserver$|&\\n    - --tracing-config-file={OWN_FILE}|");
        let mistake = Self::make(cluster, node, "kube-apiserver.yaml", &edit);
        until("the API server runs with its own tracing file", RESTART, async || {
            let process = process::try_the_one(cluster, node, "kube-apiserver")?;
            match process.flag("tracing-config-file") {
                Some(OWN_FILE) => access.at(node).client().request_text(get("/readyz")).await.map(drop).map_err(|error| error.to_string()),
                other => Err(format!("its tracing file is {other:?}")),
            }
        })
        .await;
        mistake
    }

    /// The node's etcd manifest has an anchor and an alias: the same pod, written in a way that is not edited.
    pub(crate) fn alias(cluster: &'a Cluster, node: &'static str) -> Self {
        Self::make(cluster, node, "etcd.yaml", "s|^    component: etcd$|    component: \\&name etcd|; s|^  name: etcd$|  name: *name|")
    }

    fn make(cluster: &'a Cluster, node: &'static str, file: &'static str, edit: &str) -> Self {
        cluster.shell(node, &format!("cp -p {MANIFESTS}/{file} /etc/kubernetes/{file}.original"));
        files::edit_manifest(cluster, node, file, edit);
        Self { cluster, node, file }
    }

    /// Puts the original back.
    pub(crate) fn correct(self) {
        self.cluster.shell(self.node, &format!("mv /etc/kubernetes/{0}.original {MANIFESTS}/{0}; rm -f {OWN_FILE}", self.file));
    }
}
