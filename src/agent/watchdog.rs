//! The watchdog: this program once more, as a temporary static pod that is there for one flight. It waits for the agent's lock; when it
//! gets it, the agent is dead, or its pod did not come back after a reboot, and it goes on with what the journal says.
//!
//! The kubelet starts it with nothing but the node: the image is there, because the agent runs from it, and the pod refers to no object of
//! the API. This module makes its manifest; what it does is `Agent::start`.

use serde_json::json;

use super::facts::Trouble;
use super::machine::Watchdog;
use crate::api::Reason;
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

/// What is done about a watchdog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Each flight has one, made from this.
    Pod(Template),
    /// None is wanted.
    None,
    /// It is not known which image it would run from.
    Unknown,
}

impl Guard {
    /// The watchdog of the flight under this grant that is prepared now, if it is to have one.
    pub fn watchdog(&self, grant: i64, now: &Now) -> Result<Option<Watchdog>, Trouble> {
        match self {
            Self::Pod(template) => Ok(Some(template.watchdog(grant, now))),
            Self::None => Ok(None),
            Self::Unknown => Err(Trouble {
                reason: Reason::WatchdogNotStarted,
                message: "the agent was not told which image it runs from, so that it can start no watchdog; nothing was changed: give it \
                          AGENT_IMAGE, as the chart does"
                    .to_owned(),
            }),
        }
    }
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
                // containerd's AppArmor profile would keep it from starting a deaf kubelet again
                "securityContext": { "seccompProfile": { "type": "RuntimeDefault" }, "appArmorProfile": { "type": "Unconfined" } },
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::agent::facts::tests::mk_facts;

    fn mk_template() -> Template {
        Template { image: "clustertracing:dev".into(), manifests_dir: "/etc/kubernetes/manifests".into(), state_dir: "/state".into() }
    }

    #[test]
    fn its_pod_needs_nothing_but_the_node() {
        let watchdog = mk_template().watchdog(7, &mk_facts().now);
        let pod: Pod = serde_json::from_str(&watchdog.manifest).unwrap();
        let spec = pod.spec.unwrap();
        let container = &spec.containers[0];
        assert_eq!(container.image_pull_policy.as_deref(), Some("Never"));
        assert!(container.args.as_ref().unwrap().contains(&watchdog.argument));
        assert_eq!((spec.service_account_name.as_ref(), container.env.as_ref(), container.env_from.as_ref()), (None, None, None));
        assert!(spec.volumes.unwrap().iter().all(|volume| volume.host_path.is_some()));
    }

    #[test]
    fn each_flight_has_one_of_its_own() {
        let (first, mut later) = (mk_facts().now, mk_facts().now);
        later.wall += jiff::SignedDuration::from_secs(1);
        let watchdog = |grant, now| mk_template().watchdog(grant, now).argument;
        assert_ne!(watchdog(7, &first), watchdog(8, &first));
        assert_ne!(watchdog(7, &first), watchdog(7, &later), "the same grant, tried again");
    }

    #[test]
    fn without_its_image_a_grant_is_refused_unless_a_person_wants_none() {
        let now = mk_facts().now;
        assert_eq!(Guard::Unknown.watchdog(7, &now).unwrap_err().reason, Reason::WatchdogNotStarted);
        assert_eq!(Guard::None.watchdog(7, &now), Ok(None));
    }
}
