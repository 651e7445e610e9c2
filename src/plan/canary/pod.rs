//! The canary pod, rendered.
//!
//! It has no right and no door: no token, nothing of the host, no capability but the one without which the official image of
//! kube-apiserver does not start, nothing to write to but a folder that goes with it. Everything that it reads comes with the pod itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::observed::RUNS_FOR;
use crate::api::{ComponentName, GROUP};
use crate::component::STATE_DIR;
use crate::component::canary::{SCRATCH, Trial};
use crate::plan::object::{Component, metadata};
use crate::plan::validate::Validated;

/// On a canary pod: [`super::Wanted::key`].
pub const ANNOTATION_KEY: &str = "clustertracing.dev/canary-key";
/// Nobody in particular.
const UID: i64 = 65532;
/// A pod that nobody looks after any more ends by itself.
const DEADLINE_SECONDS: i32 = 600;

/// Name of the container that parses a component's flags.
pub fn first_stage(component: ComponentName) -> String {
    format!("{component}-flags")
}

/// A canary pod's name.
pub fn name(key: &str) -> String {
    format!("clustertracing-canary-{key}")
}

/// The pod that tries all of `trials` on `node`.
pub fn render(v: &Validated, node: &str, key: &str, trials: &[Trial]) -> Value {
    let files = trials.iter().flat_map(|t| &t.files).map(|(path, text)| (annotation(path), text.clone()));
    let annotations = files.chain([(ANNOTATION_KEY.to_owned(), key.to_owned())]);
    let mut metadata = metadata(v, &name(key), Component::Canary);
    metadata["annotations"] = json!(annotations.collect::<BTreeMap<_, _>>());
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec(node, trials) })
}

fn spec(node: &str, trials: &[Trial]) -> Value {
    json!({
        "nodeName": node,
        "tolerations": [{ "operator": "Exists" }],
        "restartPolicy": "Never",
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        // kube-apiserver does not answer SIGTERM while it waits for its etcd.
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "dnsPolicy": "Default",
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": UID, "runAsGroup": UID,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "initContainers": trials.iter().map(|t| container(t, &first_stage(t.component), &t.parse)).collect::<Vec<_>>(),
        "containers": trials.iter().map(second_stage).collect::<Vec<_>>(),
        "volumes": [
            { "name": "scratch", "emptyDir": { "sizeLimit": "512Mi" } },
            { "name": "files", "downwardAPI": { "items": files(trials) } },
        ],
    })
}

fn container(trial: &Trial, name: &str, argv: &[String]) -> Value {
    json!({
        "name": name,
        "image": trial.image,
        // It runs on this node already: when it is not there, a restart would not find it either.
        "imagePullPolicy": "Never",
        "command": argv,
        "env": trial.env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>(),
        "resources": { "requests": { "cpu": "10m", "memory": "64Mi" }, "limits": { "memory": "512Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            // The official image gives kube-apiserver's file this capability, and the kernel starts no file whose capability the container
            // may not have. The restricted Pod Security Standard allows it.
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
        },
        // The program's own words, without a right to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            { "name": "scratch", "mountPath": SCRATCH },
            { "name": "files", "mountPath": STATE_DIR, "readOnly": true },
        ],
    })
}

fn second_stage(trial: &Trial) -> Value {
    let mut container = container(trial, trial.component.as_str(), &trial.start);
    // Ready means: still there after so many seconds by the node's own clock. The images hold nothing else that could be run.
    container["readinessProbe"] = json!({
        "exec": { "command": trial.probe },
        "initialDelaySeconds": RUNS_FOR, "periodSeconds": 1, "timeoutSeconds": 10,
    });
    container
}

/// Where a file of a trial is kept in the pod.
fn annotation(path: &str) -> String {
    format!("{GROUP}/{}", name_of(path))
}

fn files(trials: &[Trial]) -> Vec<Value> {
    let item = |(path, _): &(String, String)| {
        let field = format!("metadata.annotations['{}']", annotation(path));
        json!({ "path": name_of(path), "fieldRef": { "fieldPath": field } })
    };
    trials.iter().flat_map(|t| &t.files).map(item).collect()
}

/// All files of trials are in [`STATE_DIR`].
fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
