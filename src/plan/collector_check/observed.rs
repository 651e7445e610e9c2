//! What the status of a pod says that tries a collector, or runs one.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::plan::canary::observed::{is_killed, last_words, of, waiting};

/// Bytes of a collector's words that are kept.
const WORDS: usize = 400;

/// A pod that tries a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedCheck {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// UID of the `ClusterTracing` that it belongs to.
    pub owner: String,
    /// The node that it is on.
    pub node: String,
    /// When it was made, by the API server's clock.
    pub created: Option<Timestamp>,
    /// It is being removed.
    pub ending: bool,
    /// What came of it.
    pub state: CheckState,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// No verdict yet.
    Starting {
        /// What it waits for.
        words: String,
    },
    /// The collector takes its configuration.
    Passed,
    /// It does not.
    Refused {
        /// Its own words.
        words: String,
    },
    /// It ended, and that says nothing of the configuration: evicted, no room, killed.
    Lost {
        /// In the kubelet's words.
        words: String,
    },
}

impl From<&Pod> for ObservedCheck {
    fn from(pod: &Pod) -> Self {
        let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            owner: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            created: pod.creation_timestamp().map(|time| time.0),
            ending: pod.metadata.deletion_timestamp.is_some(),
            state: state(pod),
        }
    }
}

fn state(pod: &Pod) -> CheckState {
    let status = pod.status.clone().unwrap_or_default();
    if let Some(reason) = status.reason.as_ref().filter(|_| status.phase.as_deref() == Some("Failed")) {
        return CheckState::Lost { words: of(reason, status.message.as_deref()) };
    }
    let containers = status.container_statuses.iter().flatten();
    let ended: Vec<_> = containers.clone().filter_map(|container| container.state.as_ref()?.terminated.as_ref()).collect();
    match ended.iter().find(|ended| ended.exit_code != 0) {
        Some(ended) if is_killed(ended) => CheckState::Lost { words: format!("it was killed (exit code {})", ended.exit_code) },
        Some(ended) => CheckState::Refused { words: last_words(ended, words) },
        // The gateway's configuration is tried beside the nodes'.
        None if !ended.is_empty() && ended.len() == containers.count() => CheckState::Passed,
        None => CheckState::Starting { words: trouble(pod).unwrap_or_else(|| waiting(&status)) },
    }
}

/// What a collector said why it ended, on one line: from the last line on that begins with `Error:`, behind which there is nothing but
/// what belongs to it (cobra, as of 0.155); or else the last line.
pub fn words(output: &str) -> String {
    let mut begin = None;
    let mut at = 0;
    for line in output.split_inclusive('\n') {
        if line.starts_with("Error: ") || begin.is_none() && line.starts_with("panic: ") {
            begin = Some(at + line.find(": ").map_or(0, |colon| colon + 2));
        }
        at += line.len();
    }
    let told = begin.map_or_else(|| output.trim_end().lines().next_back().unwrap_or_default(), |begin| &output[begin..]);
    let mut text = told.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if text.len() > WORDS {
        let end = (0..=WORDS).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Why a collector's pod is not Ready, in its own or the kubelet's words; nothing where there are none. The same while it is started again
/// and again: neither a count nor a time, and one reason for an image that is tried and waited for in turn.
pub fn trouble(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.container_statuses.iter().flatten().find_map(trouble_of)
}

fn trouble_of(container: &ContainerStatus) -> Option<String> {
    let ended = |state: &Option<ContainerState>| {
        let ended = state.as_ref()?.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
        Some(last_words(ended, words))
    };
    if let Some(words) = ended(&container.state).or_else(|| ended(&container.last_state)) {
        return Some(format!("the collector ended: {words}"));
    }
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" => Some(format!("the image {} cannot be pulled (ImagePullBackOff)", container.image)),
        "ContainerCreating" | "PodInitializing" => None,
        reason => Some(of(reason, waiting.message.as_deref())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "check" }, "spec": { "containers": [] }, "status": status })).unwrap()
    }

    fn container(state: &Value, last_state: &Value) -> Value {
        let container = json!({
            "name": "collector", "image": "otelcol:1", "imageID": "", "ready": false, "restartCount": 3, "state": state, "lastState": last_state,
        });
        json!({ "phase": "Running", "containerStatuses": [container] })
    }

    fn terminated(exit_code: i32, message: &str) -> Value {
        json!({ "terminated": { "exitCode": exit_code, "message": message } })
    }

    fn waits(reason: &str, message: &str) -> Value {
        json!({ "waiting": { "reason": reason, "message": message } })
    }

    #[test]
    fn a_verdict_is_given_by_how_validate_ended() {
        let starting = |words: &str| CheckState::Starting { words: words.into() };
        let lost = |words: &str| CheckState::Lost { words: words.into() };
        let cases = [
            ("not taken up", json!({ "phase": "Pending" }), starting("the kubelet has not taken it up")),
            (
                "a Secret's key is missing",
                container(&waits("CreateContainerConfigError", "couldn't find key token in Secret clustertracing/vendor"), &json!({})),
                starting("CreateContainerConfigError: couldn't find key token in Secret clustertracing/vendor"),
            ),
            (
                "no image",
                container(&waits("ErrImagePull", "rpc error"), &json!({})),
                starting("the image otelcol:1 cannot be pulled (ImagePullBackOff)"),
            ),
            ("well", container(&terminated(0, ""), &json!({})), CheckState::Passed),
            (
                "not well",
                container(&terminated(1, "Error: exporters::x: `queue_size` must be positive\nprocessors::y: z\n"), &json!({})),
                CheckState::Refused { words: "exporters::x: `queue_size` must be positive processors::y: z".into() },
            ),
            (
                "without a word",
                container(&terminated(2, ""), &json!({})),
                CheckState::Refused { words: "it ended with exit code 2 and said nothing".into() },
            ),
            ("killed", container(&terminated(137, ""), &json!({})), lost("it was killed (exit code 137)")),
            (
                "evicted",
                json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." }),
                lost("Evicted: The node was low on resource: memory"),
            ),
        ];
        for (case, status, expected) in cases {
            assert_eq!(ObservedCheck::from(&pod(&status)).state, expected, "{case}");
        }
    }

    #[test]
    fn a_collector_that_is_not_ready_says_the_same_however_often_it_is_started_again() {
        let taken = "2026-11-21T22:28:25.588Z\tinfo\tservice.go:307\tShutdown complete.\nError: cannot start pipelines: listen tcp 127.0.0.1:4317: bind: \
                     address already in use\n";
        let words = "the collector ended: cannot start pipelines: listen tcp 127.0.0.1:4317: bind: address already in use";
        let crash = terminated(1, taken);
        let pulls = "the image otelcol:1 cannot be pulled (ImagePullBackOff)";
        let cases = [
            (container(&crash, &json!({})), Some(words)),
            (container(&waits("CrashLoopBackOff", "back-off 20s restarting failed container"), &crash), Some(words)),
            (container(&json!({ "running": {} }), &crash), Some(words)),
            (container(&json!({ "running": {} }), &json!({})), None),
            (container(&waits("ErrImagePull", "rpc error: code = NotFound"), &json!({})), Some(pulls)),
            (container(&waits("ImagePullBackOff", "Back-off pulling image"), &json!({})), Some(pulls)),
            (container(&waits("ContainerCreating", ""), &json!({})), None),
            (
                container(&waits("CreateContainerConfigError", "secret \"vendor\" not found"), &json!({})),
                Some("CreateContainerConfigError: secret \"vendor\" not found"),
            ),
            (json!({ "phase": "Pending" }), None),
        ];
        for (status, expected) in cases {
            assert_eq!(trouble(&pod(&status)).as_deref(), expected, "{status}");
        }
    }

    #[test]
    fn the_last_words_of_a_collector_are_found_in_its_output() {
        let decoding = "Error: failed to get config: cannot unmarshal the configuration: decoding failed due to the following error(s):\n\n'exporters' \
                        unknown type: \"tempo\" for id: \"tempo\"\n";
        let cases = [
            (
                decoding,
                "failed to get config: cannot unmarshal the configuration: decoding failed due to the following error(s): 'exporters' unknown type: \"tempo\" for id: \"tempo\"",
            ),
            ("Error: first\nError: second\n", "second"),
            ("a\nlast line\u{1b}[0m\n", "last line [0m"),
            ("", ""),
        ];
        for (output, expected) in cases {
            assert_eq!(words(output), expected);
        }
        assert!(words(&format!("Error: {}", "ä".repeat(1000))).len() <= WORDS + '…'.len_utf8());
    }
}
