//! What a canary pod's status says.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use strum::IntoEnumIterator;

use super::{Record, Refused, pod};
use crate::api::ComponentName;
use crate::component::canary::words;

/// Seconds that a program must run to have started well. What it refuses, it refuses within one.
pub const RUNS_FOR: i32 = 3;

/// A canary pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedCanary {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// [`super::Wanted::key`] of what it tries.
    pub key: String,
    /// UID of the `ClusterTracing` that it belongs to.
    pub owner: String,
    /// When it was made, by the API server's clock.
    pub created: Option<Timestamp>,
    /// It is being removed.
    pub ending: bool,
    /// What came of it.
    pub state: CanaryState,
}

/// What came of a canary pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryState {
    /// No verdict yet.
    Starting {
        /// What it waits for, in its own words.
        words: String,
    },
    /// Everything started well.
    Passed,
    /// Something did not start.
    Refused(Refused),
    /// It ended, and that says nothing of what was tried: evicted, no room, killed.
    Lost {
        /// In its own words.
        words: String,
    },
}

impl From<&Pod> for ObservedCanary {
    fn from(pod: &Pod) -> Self {
        let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            key: pod.annotations().get(pod::ANNOTATION_KEY).cloned().unwrap_or_default(),
            owner: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
            created: pod.creation_timestamp().map(|time| time.0),
            ending: pod.metadata.deletion_timestamp.is_some(),
            state: state(pod),
        }
    }
}

impl ObservedCanary {
    pub(super) fn is_older_than(&self, age: SignedDuration, now: Timestamp) -> bool {
        self.created.is_some_and(|created| now.duration_since(created) > age)
    }

    pub(super) fn record(&self, generation: i64, refused: Option<Refused>) -> Record {
        Record { key: self.key.clone(), generation, refused }
    }
}

fn state(pod: &Pod) -> CanaryState {
    let status = pod.status.clone().unwrap_or_default();
    let starting = status.init_container_statuses.iter().flatten().find_map(|container| ended(container, true));
    let ended = starting.or_else(|| status.container_statuses.iter().flatten().find_map(|container| ended(container, false)));
    // A pod that is ended from outside says so, and its programs are ended with it.
    if let Some(reason) = status.reason.as_ref().filter(|_| status.phase.as_deref() == Some("Failed")) {
        return CanaryState::Lost { words: of(reason, status.message.as_deref()) };
    }
    if let Some(ended) = ended {
        return ended;
    }
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).count();
    let started = status.container_statuses.iter().flatten().filter(|container| container.ready || ran(container)).count();
    match status.phase.as_deref() {
        _ if containers > 0 && started == containers => CanaryState::Passed,
        Some(phase @ ("Failed" | "Succeeded")) => CanaryState::Lost { words: phase.to_owned() },
        _ => CanaryState::Starting { words: waiting(&status) },
    }
}

/// Whether a container's program has ended, or will never begin.
fn ended(container: &ContainerStatus, first_stage: bool) -> Option<CanaryState> {
    let component = ComponentName::iter().find(|c| container.name == c.as_str() || container.name == pod::first_stage(*c))?;
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        // The pull policy is Never: nothing will bring it.
        let reason = waiting.reason.as_deref().filter(|r| ["ErrImageNeverPull", "ImageInspectError", "InvalidImageName"].contains(r))?;
        let words = format!("the image {} is not on the node ({reason})", container.image);
        return Some(CanaryState::Refused(Refused { component, words }));
    }
    let terminated = state.terminated.as_ref()?;
    if (first_stage && terminated.exit_code == 0) || (!first_stage && ran(container)) {
        return None;
    }
    if is_killed(terminated) {
        return Some(CanaryState::Lost { words: format!("{} was killed (exit code {})", container.name, terminated.exit_code) });
    }
    Some(CanaryState::Refused(Refused { component, words: last_words(terminated, words) }))
}

/// By the kernel or the kubelet, not by itself: SIGKILL or SIGTERM.
pub(in crate::plan) fn is_killed(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some("OOMKilled") || ended.signal.is_some_and(|signal| signal != 0) || [137, 143].contains(&ended.exit_code)
}

/// Why a program ended, as `words` finds it in its output.
pub(in crate::plan) fn last_words(ended: &ContainerStateTerminated, words: fn(&str) -> String) -> String {
    let said = words(ended.message.as_deref().unwrap_or_default());
    if said.is_empty() { format!("it ended with exit code {} and said nothing", ended.exit_code) } else { said }
}

/// Whether a program ended after it had started well: both times are the node's, in whole seconds.
fn ran(container: &ContainerStatus) -> bool {
    let terminated = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    terminated.and_then(seconds).is_some_and(|seconds| seconds > i64::from(RUNS_FOR))
}

fn seconds(terminated: &ContainerStateTerminated) -> Option<i64> {
    let (started, finished) = (terminated.started_at.as_ref()?, terminated.finished_at.as_ref()?);
    Some(finished.0.duration_since(started.0).as_secs())
}

/// What a pod waits for that has not started.
pub(in crate::plan) fn waiting(status: &PodStatus) -> String {
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let mut reasons = waiting.filter_map(|waiting| Some((waiting.reason.as_deref()?, waiting.message.as_deref())));
    // One that waits for another says least.
    let telling = reasons.clone().find(|(reason, _)| *reason != "PodInitializing");
    let untold = if status.container_statuses.is_some() { "the programs have just begun" } else { "the kubelet has not taken it up" };
    telling.or_else(|| reasons.next()).map_or_else(|| untold.to_owned(), |(reason, message)| of(reason, message))
}

/// A reason and its message.
pub(in crate::plan) fn of(reason: &str, message: Option<&str>) -> String {
    let message = message.map(|message| words(message).trim_end_matches('.').to_owned()).filter(|message| !message.is_empty());
    message.map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The state of a pod that tries both components, with this status.
    fn state_of(status: &Value) -> CanaryState {
        let containers = [json!({ "name": "kube-apiserver" }), json!({ "name": "etcd" })];
        let pod = json!({ "metadata": { "name": "canary" }, "spec": { "nodeName": "cp-1", "containers": containers }, "status": status });
        ObservedCanary::from(&serde_json::from_value::<Pod>(pod).unwrap()).state
    }

    fn container(name: &str, ready: bool, state: &Value) -> Value {
        json!({ "name": name, "image": format!("{name}:1"), "imageID": "", "ready": ready, "restartCount": 0, "state": state })
    }

    fn ended(name: &str, exit_code: i32, seconds: i32, message: &str) -> Value {
        let finished = format!("2026-11-21T12:00:{seconds:02}Z");
        let terminated = json!({ "exitCode": exit_code, "startedAt": "2026-11-21T12:00:00Z", "finishedAt": finished, "message": message });
        container(name, false, &json!({ "terminated": terminated }))
    }

    fn running(name: &str, ready: bool) -> Value {
        container(name, ready, &json!({ "running": { "startedAt": "2026-11-21T12:00:00Z" } }))
    }

    fn waiting(name: &str, reason: &str, message: &str) -> Value {
        container(name, false, &json!({ "waiting": { "reason": reason, "message": message } }))
    }

    fn starting(words: &str) -> CanaryState {
        CanaryState::Starting { words: words.to_owned() }
    }

    fn refused(component: ComponentName, words: &str) -> CanaryState {
        CanaryState::Refused(Refused { component, words: words.to_owned() })
    }

    fn lost(words: &str) -> CanaryState {
        CanaryState::Lost { words: words.to_owned() }
    }

    #[test]
    fn a_verdict_is_given_by_what_ended_and_by_what_stays() {
        use ComponentName::{Etcd, KubeApiserver};
        let flags = |etcd: i32| {
            json!([ended("kube-apiserver-flags", 0, 0, ""), ended("etcd-flags", etcd, 0, "flag provided but not defined: -x\nUsage:")])
        };
        let both = |kube_apiserver: Value, etcd: Value| json!({ "phase": "Running", "initContainerStatuses": flags(0), "containerStatuses": [kube_apiserver, etcd] });
        let cases = [
            ("not taken up", json!({ "phase": "Pending" }), starting("the kubelet has not taken it up")),
            (
                "first stage",
                json!({
                    "phase": "Pending",
                    "initContainerStatuses": [running("kube-apiserver-flags", false), waiting("etcd-flags", "PodInitializing", "")],
                    "containerStatuses": [waiting("kube-apiserver", "PodInitializing", "")],
                }),
                starting("PodInitializing"),
            ),
            (
                "no sandbox",
                json!({ "phase": "Pending", "initContainerStatuses": [waiting("etcd-flags", "CreateContainerConfigError", "no such\nuser.")] }),
                starting("CreateContainerConfigError: user"),
            ),
            (
                "an unknown flag",
                json!({ "phase": "Failed", "initContainerStatuses": flags(2), "containerStatuses": [waiting("etcd", "PodInitializing", "")] }),
                refused(Etcd, "flag provided but not defined: -x"),
            ),
            ("both stay", both(running("kube-apiserver", true), running("etcd", true)), CanaryState::Passed),
            (
                "one is not known to stay",
                both(running("kube-apiserver", true), running("etcd", false)),
                starting("the programs have just begun"),
            ),
            ("waited for its etcd", both(ended("kube-apiserver", 1, 20, "no etcd"), running("etcd", true)), CanaryState::Passed),
            ("waited less long", both(ended("kube-apiserver", 1, 4, "no etcd"), running("etcd", true)), CanaryState::Passed),
            (
                "ended at once",
                both(ended("kube-apiserver", 1, 0, "Error: bad file"), running("etcd", false)),
                refused(KubeApiserver, "Error: bad file"),
            ),
            ("ended soon", both(ended("kube-apiserver", 1, 3, "late"), running("etcd", true)), refused(KubeApiserver, "late")),
            (
                "ended well, and should have stayed",
                both(running("kube-apiserver", true), ended("etcd", 0, 1, "")),
                refused(Etcd, "it ended with exit code 0 and said nothing"),
            ),
            (
                "cannot be executed",
                both(ended("kube-apiserver", 128, 0, "exec: operation not permitted"), running("etcd", true)),
                refused(KubeApiserver, "exec: operation not permitted"),
            ),
            (
                "no image",
                both(running("kube-apiserver", true), waiting("etcd", "ErrImageNeverPull", "")),
                refused(Etcd, "the image etcd:1 is not on the node (ErrImageNeverPull)"),
            ),
            ("killed", both(running("kube-apiserver", true), ended("etcd", 137, 1, "")), lost("etcd was killed (exit code 137)")),
            (
                "at its deadline",
                json!({ "phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active too long", "containerStatuses": [ended("etcd", 0, 2, "")] }),
                lost("DeadlineExceeded: Pod was active too long"),
            ),
            ("no room", json!({ "phase": "Failed", "reason": "OutOfcpu" }), lost("OutOfcpu")),
            ("ended without a word", json!({ "phase": "Failed" }), lost("Failed")),
        ];
        for (case, status, expected) in cases {
            assert_eq!(state_of(&status), expected, "{case}");
        }
    }
}
