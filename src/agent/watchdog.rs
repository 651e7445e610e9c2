//! The watchdog: this program once more, as a temporary static pod that is there for one flight. It waits for the agent's lock; when it
//! gets it, the agent is dead, or its pod did not come back after a reboot, and it goes on with what the journal says.
//!
//! The kubelet starts it with nothing but the node: the image is there, because the agent runs from it, and the pod refers to no object of
//! the API. This module makes its manifest; what it does is `Agent::start`.

use serde_json::json;

use super::machine::Watchdog;
use crate::host::Now;

/// Name of its manifest in the static-pod folder.
pub const FILE: &str = "clustertracing-watchdog.json";
/// The agent's program, and so the watchdog's.
pub const PROGRAM: &str = "clustertracing-agent";

/// The static pod that guards one flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The image that the agent runs from.
    pub image: String,
    /// The static-pod folder, at the same path on the node and in the pod.
    pub manifests_dir: String,
    /// Our own folder, likewise.
    pub state_dir: String,
}

impl Template {
    /// The watchdog of the flight under this grant that is prepared now.
    pub fn watchdog(&self, grant: i64, now: &Now) -> Watchdog {
        let argument = format!("--flight={grant}-{}", now.wall.as_millisecond());
        let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
        let folder = |name: &str, path: &str| json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } });
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "clustertracing-watchdog",
                "namespace": "kube-system",
                "labels": { "app.kubernetes.io/name": "clustertracing", "app.kubernetes.io/component": "watchdog" },
            },
            "spec": {
                "hostNetwork": true,
                "hostPID": true,
                "priorityClassName": "system-node-critical",
                "terminationGracePeriodSeconds": 5,
                "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "watchdog",
                    "image": self.image,
                    "imagePullPolicy": "Never",
                    "command": [format!("/{PROGRAM}")],
                    "args": [
                        format!("--manifests-dir={}", self.manifests_dir),
                        format!("--state-dir={}", self.state_dir),
                        "watchdog",
                        argument,
                    ],
                    "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "128Mi" } },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "runAsUser": 0,
                        "runAsGroup": 0,
                        "capabilities": { "drop": ["ALL"] },
                    },
                    "volumeMounts": [mount("manifests", &self.manifests_dir), mount("state", &self.state_dir)],
                }],
                "volumes": [folder("manifests", &self.manifests_dir), folder("state", &self.state_dir)],
            },
        });
        Watchdog { argument, manifest: format!("{pod:#}\n") }
    }
}
