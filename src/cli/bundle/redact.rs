//! What leaves the cluster in a ticket: enough to see what happened, and nothing that opens a door. Pure.

use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::Value;
use similar::TextDiff;

use crate::api::node_tracing::{ComponentSettings, ComponentStatus, NodeSettings, ReceiverKind};
use crate::api::{ClusterTracing, NodeTracing, State};
use crate::component::{ManifestFile, Versions, change_with_versions};

/// Stands for a value that is left out.
const LEFT_OUT: &str = "(left out)";

/// A person's own configuration may hold credentials; all others are references to Secrets.
pub(super) fn resource(mut resource: ClusterTracing) -> ClusterTracing {
    resource.metadata.managed_fields = None;
    // what `kubectl apply` keeps is the same again, with everything in it
    resource.metadata.annotations = None;
    resource.spec.collector.extra_config.iter_mut().flat_map(|config| config.values_mut()).for_each(leave_out);
    if let Some(status) = &mut resource.status {
        status.history.iter_mut().for_each(|reached| LEFT_OUT.clone_into(&mut reached.spec));
    }
    resource
}

/// Keys stay: they tell what is configured.
fn leave_out(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(leave_out),
        Value::Array(items) => items.iter_mut().for_each(leave_out),
        Value::Null => {}
        _ => *value = Value::String(LEFT_OUT.to_owned()),
    }
}

/// An agent's report without the manifests' texts.
pub(super) fn report(mut report: NodeTracing) -> NodeTracing {
    report.metadata.managed_fields = None;
    report.status.iter_mut().flat_map(|status| &mut status.components).for_each(|component| component.manifest_text = None);
    report
}

/// What of ours a node's manifests carry: the difference to what they are without it, and no other line.
pub(super) fn added(report: &NodeTracing) -> String {
    let components: Vec<&ComponentStatus> = report.status.iter().flat_map(|status| &status.components).collect();
    let file =
        |component: &&ComponentStatus| Some(ManifestFile { name: component.manifest.clone()?, text: component.manifest_text.clone()? });
    let files: Vec<ManifestFile> = components.iter().filter_map(file).collect();
    let off = ComponentSettings { state: State::Disabled, sampling_rate_per_million: 0 };
    let off = NodeSettings {
        endpoint: "127.0.0.1:4317".to_owned(),
        receiver: ReceiverKind::NodeCollector,
        kube_api_server: off.clone(),
        etcd: off,
        watch_termination_grace_seconds: 0,
        health_timeout_seconds: 120,
    };
    match change_with_versions(&files, &off, report.metadata.name.as_deref().unwrap_or_default(), Versions::default()) {
        Err(refusal) => format!("{}: {}\n", refusal.reason, refusal.message),
        Ok(changes) => changes
            .iter()
            .map(|change| {
                let diff = TextDiff::from_lines(&change.after, &change.before);
                diff.unified_diff().context_radius(0).header(&format!("without/{}", change.file), &change.file).to_string()
            })
            .collect(),
    }
}

/// A pod without the values of its environment.
pub(super) fn pod(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    let containers = pod.spec.iter_mut().flat_map(|spec| spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()));
    for variable in containers.flat_map(|container| container.env.iter_mut().flatten()) {
        variable.value = variable.value.take().map(|_| LEFT_OUT.to_owned());
    }
    pod
}

/// An Event.
pub(super) fn event(mut event: Event) -> Event {
    event.metadata.managed_fields = None;
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_value_of_a_persons_own_configuration_leaves() {
        let given = json!({
            "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing",
            "metadata": {"name": "cluster", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "word"}},
            "spec": {"collector": {"extraConfig": {"exporters": {"x": {"headers": {"authorization": "word"}, "list": ["word", 1]}}}}},
            "status": {"history": [{"generation": 1, "time": "2026-11-21T09:01:43Z", "spec": "word"}]},
        });
        let text = serde_json::to_string(&resource(serde_json::from_value(given).unwrap())).unwrap();
        assert!(!text.contains("word") && text.contains("authorization"), "{text}");
    }

    #[test]
    fn a_nodes_report_goes_without_its_manifests_and_what_is_ours_goes_alone() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/kubeadm/1.36.3/kube-apiserver");
        let text = std::fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_string_lossy().contains("out"))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .unwrap();
        let node = json!({
            "apiVersion": "clustertracing.dev/v1alpha1", "kind": "NodeTracing", "metadata": {"name": "cp-1"}, "spec": {"nodeUid": "x"},
            "status": {"components": [{"name": "kube-apiserver", "manifest": "kube-apiserver.yaml", "manifestText": text, "tracing": "Ours", "healthy": true}]},
        });
        let node: NodeTracing = serde_json::from_value(node).unwrap();
        let added = added(&node);
        assert!(added.contains("+    - --tracing-config-file=") && !added.contains("--etcd-servers"), "{added}");
        assert!(!serde_json::to_string(&report(node)).unwrap().contains("etcd-servers"));
    }
}
