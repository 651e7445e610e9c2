//! The pod in which a collector is tried, rendered from the `DaemonSet` that it is to become.
//!
//! The same image, variables and mounts, and nothing of the node: no host network, no folder, no port. It keeps to the restricted Pod
//! Security Standard.

use serde_json::{Value, json};

use crate::plan::collector::CollectorObjects;
use crate::plan::object::{Component, metadata};
use crate::plan::validate::Validated;

/// A pod that nobody looks after any more ends by itself.
const DEADLINE_SECONDS: i32 = 600;
/// What a pod may mount that is not the node's.
const MOUNTED: &[&str] = &["configMap", "secret", "projected", "downwardAPI", "emptyDir"];

/// The pod's name. Another generation's is another pod: what that one said was said to an earlier edit.
pub fn name(revision: &str, generation: i64) -> String {
    format!("clustertracing-collector-check-{revision}-{generation}")
}

/// The pod that tries `wanted` on `node`, for this generation of the resource.
pub fn render(v: &Validated, wanted: &CollectorObjects, node: &str) -> Value {
    let nodes = &wanted.daemon_set["spec"]["template"]["spec"];
    let gateway = wanted.gateway.as_ref().map(|gateway| &gateway.deployment["spec"]["template"]["spec"]);
    // The gateway has the same volumes, and the Secrets that the nodes do without.
    let volumes = &gateway.unwrap_or(nodes)["volumes"];
    let gateway = gateway.map(|gateway| container(&gateway["containers"][0], "gateway"));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(v, &name(&wanted.revision, v.generation), Component::CollectorCheck),
        "spec": {
            "nodeName": node,
            "tolerations": [{ "operator": "Exists" }],
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": nodes["securityContext"],
            "containers": std::iter::once(container(&nodes["containers"][0], "collector")).chain(gateway).collect::<Vec<_>>(),
            "volumes": volumes.as_array().into_iter().flatten().map(volume).collect::<Vec<_>>(),
        },
    })
}

/// A collector's container, which checks its configuration and ends.
fn container(of: &Value, name: &str) -> Value {
    let mut container = of.clone();
    container["name"] = name.into();
    if let Some(fields) = container.as_object_mut() {
        fields.retain(|name, _| !["ports", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle"].contains(&name.as_str()));
    }
    let args = of["args"].as_array().into_iter().flatten().cloned();
    container["args"] = std::iter::once(json!("validate")).chain(args).collect();
    // The collector's own words, without a right to read logs.
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    container
}

/// The volume, or an empty one in the place of what is the node's.
fn volume(of: &Value) -> Value {
    let is_the_pods = of.as_object().is_some_and(|fields| fields.keys().any(|kind| MOUNTED.contains(&kind.as_str())));
    if is_the_pods { of.clone() } else { json!({ "name": of["name"], "emptyDir": {} }) }
}
