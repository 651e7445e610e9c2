//! What is tried of a component before any manifest is changed: its new flags and files, with its own image, far from its data.
//!
//! Two stages. The first parses every new flag and gate and ends (`--version`): one that this version does not know ends it with a
//! failure. The second is the real start, which reads the tracing file and has its own checks of the values: kube-apiserver against an
//! etcd that is not there, etcd with an empty data folder. Measured with 1.34 to 1.37 and etcd 3.5 to 3.7: what is bad ends the second
//! stage within a second; what is good stays, etcd for ever and kube-apiserver for the 20 s that it waits for its etcd.
//!
//! What a manifest has besides (feature gates of others, an egress selector) is not tried: nothing of it changes.

use serde_json::json;

use super::obstacle::Placed;
use super::{Addition, ManifestFile, Refusal, Request, Versions, etcd, folder, kube_apiserver};
use crate::api::node_tracing::NodeSettings;
use crate::api::{ComponentName, State};
use crate::manifest;

/// The folder that a trial may write to: empty, and thrown away afterwards.
pub const SCRATCH: &str = "/tmp";

/// Prints the version and ends. Both components parse, and check, the flags beside it first.
const VERSION: &str = "--version";

/// Longest text of [`words`], in bytes.
const WORDS: usize = 400;

/// How one component is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Which component.
    pub component: ComponentName,
    /// Its image.
    pub image: String,
    /// The first stage: ends, and with 0 when every flag is known.
    pub parse: Vec<String>,
    /// The second stage: stays for as long as it is left alone, when it starts well.
    pub start: Vec<String>,
    /// Ends at once, and with 0, wherever the program can be started.
    pub probe: Vec<String>,
    /// Environment of the stages.
    pub env: Vec<(String, String)>,
    /// Files that the second stage reads: absolute path, contents. The same as on a node.
    pub files: Vec<(String, String)>,
}

/// How to try what `settings` give to a component of that image, or why they give nothing that could be tried.
///
/// `None` where they switch the component off: what ran before is known to run.
pub fn trial(component: ComponentName, image: &str, settings: &NodeSettings, node_name: &str) -> Option<Result<Trial, Refusal>> {
    let request = Request { settings, node_name, versions: Versions::default() };
    let of = settings.of(component);
    (of.state == State::Enabled).then(|| {
        let trial = request.trial(component, image, of.sampling_rate_per_million);
        trial.map_err(|placed| placed.refusal(Some(node_name)))
    })
}

impl Request<'_> {
    /// The change of a manifest that holds nothing but the component, made by the same tables and the same editor as on a node.
    fn trial(&self, component: ComponentName, image: &str, rate: i32) -> Result<Trial, Placed> {
        self.check_settings()?;
        let bare = [ManifestFile { name: String::new(), text: bare_manifest(component, image) }];
        let located = folder::locate(&bare)?;
        let trial = |located: &folder::Located| {
            let Addition { edit, needs, .. } = self.addition(located, rate)?;
            let env = edit.env.clone();
            let edited = manifest::apply(&located.original, component.as_str(), &edit)?;
            let argv = folder::parse_own(&edited, component)?.argv();
            Ok((argv, env, needs))
        };
        let one = located.iter().find(|located| located.component == component);
        let (argv, env, files) = one
            .map_or_else(|| Err(folder::not_found(&bare, component)), trial)
            .map_err(|obstacle: super::Obstacle| obstacle.at(component, ""))?;
        let alone = match component {
            ComponentName::KubeApiserver => kube_apiserver::ALONE,
            ComponentName::Etcd => etcd::ALONE,
        };
        let alone = alone.iter().map(|(name, value)| format!("--{name}={value}"));
        Ok(Trial {
            component,
            image: image.to_owned(),
            parse: argv.iter().cloned().chain([VERSION.to_owned()]).collect(),
            start: argv.iter().cloned().chain(alone).collect(),
            probe: vec![component.to_string(), VERSION.to_owned()],
            env,
            files,
        })
    }
}

/// A static pod that runs the component without a flag. As JSON, in which no image can become structure.
fn bare_manifest(component: ComponentName, image: &str) -> String {
    let container = json!({ "name": component, "image": image, "command": [component] });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": component }, "spec": { "containers": [container] } }).to_string()
}

/// What a component's program said why it ended, on one line of at most 400 bytes: found in the end of its output.
///
/// kube-apiserver says it as `err="…"` behind a time and a place, etcd as JSON with `msg` and `error`, and both say of a flag that they do
/// not know so in plain words, etcd in front of its usage.
pub fn words(output: &str) -> String {
    let lines = || output.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling = |line: &str| {
        let line = line.to_ascii_lowercase();
        ["error", "err=", "not defined", "invalid value", "fatal", "panic"].iter().any(|mark| line.contains(mark))
    };
    let line = lines().rfind(|line| telling(line)).or_else(|| lines().next_back()).unwrap_or_default();
    let text = klog_block(output).or_else(|| json_words(line)).or_else(|| klog_words(line)).unwrap_or_else(|| line.to_owned());
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() > WORDS {
        let end = (0..=WORDS).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// `{"level":"warn","msg":"failed to verify flags","error":"…"}`.
fn json_words(line: &str) -> Option<String> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let of = |key: &str| entry.get(key).and_then(serde_json::Value::as_str);
    match (of("msg"), of("error")) {
        (Some(msg), Some(error)) => Some(format!("{msg}: {error}")),
        (msg, error) => msg.or(error).map(str::to_owned),
    }
}

/// `E1121 15:16:22.185895 20529 run.go:72] "command failed" err="…"`.
fn klog_words(line: &str) -> Option<String> {
    let quoted = line.split_once("err=")?.1;
    let mut values = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
    values.next()?.ok()
}

/// An error of several lines: `err=<`, the lines, and ` >` on a line of its own.
fn klog_block(output: &str) -> Option<String> {
    let block = output.rsplit_once("err=<\n")?.1.split_once("\n >")?.0;
    Some(block.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::api::node_tracing::ComponentSettings;

    fn settings(rate: i32) -> NodeSettings {
        let component = |rate| ComponentSettings { state: State::Enabled, sampling_rate_per_million: rate };
        NodeSettings {
            endpoint: "127.0.0.1:4317".to_owned(),
            receiver: crate::api::node_tracing::ReceiverKind::NodeCollector,
            kube_api_server: component(rate),
            etcd: component(0),
            watch_termination_grace_seconds: 0,
            health_timeout_seconds: 120,
        }
    }

    fn tried(component: ComponentName, image: &str) -> Result<Trial, Refusal> {
        trial(component, image, &settings(10_000), "cp-1").unwrap()
    }

    #[test]
    fn what_is_tried_is_what_a_manifest_of_that_version_gets() {
        let cases = [
            (ComponentName::Etcd, "etcd:3.5.24-0", "--experimental-enable-distributed-tracing=true"),
            (ComponentName::Etcd, "etcd:3.7.1-0", "--enable-distributed-tracing=true"),
            (ComponentName::Etcd, "etcd:3.7.1-0", "--distributed-tracing-instance-id=cp-1"),
            (ComponentName::KubeApiserver, "kube-apiserver:v1.26.15", "--feature-gates=APIServerTracing=true"),
        ];
        for (component, image, flag) in cases {
            let trial = tried(component, image).unwrap();
            assert_eq!((trial.parse[0].as_str(), trial.parse.last().unwrap().as_str()), (component.as_str(), "--version"));
            for argv in [&trial.parse, &trial.start] {
                assert!(argv.iter().any(|word| word == flag), "{image}: {argv:?}");
            }
            assert!(!trial.start.iter().any(|word| word == "--version"), "{image}");
        }
        let trial = tried(ComponentName::KubeApiserver, "registry.example:5000/kube-apiserver:v1.36.3@sha256:0123").unwrap();
        assert!(trial.parse.iter().any(|word| *word == format!("--tracing-config-file={}", trial.files[0].0)), "{trial:?}");
        assert!(trial.files[0].1.contains("samplingRatePerMillion: 10000\n"));
        assert!(trial.env.iter().any(|(name, _)| name == "OTEL_EXPORTER_OTLP_TIMEOUT"));
    }

    #[test]
    fn what_is_off_is_not_tried_and_what_the_table_refuses_is_refused() {
        let mut off = settings(1);
        off.etcd.state = State::Disabled;
        assert_eq!(trial(ComponentName::Etcd, "etcd:3.7.1-0", &off, "cp-1"), None);
        let reason = |component, image| tried(component, image).map_err(|refusal| refusal.reason);
        assert_eq!(reason(ComponentName::Etcd, "etcd:3.5.0-0"), Err(Reason::UnsupportedVersion));
        assert_eq!(reason(ComponentName::KubeApiserver, "kube-apiserver:latest"), Err(Reason::UnsupportedVersion));
        let hostile = trial(ComponentName::Etcd, "etcd:3.7.1-0", &settings(1), "cp-1 --force-new-cluster").unwrap();
        assert_eq!(hostile.map_err(|refusal| refusal.reason), Err(Reason::InvalidSettings));
    }

    #[test]
    fn an_image_is_data_and_never_structure() {
        for image in ["etcd:3.7.1-0\", \"command\": [\"sh\"]", "etcd:3.7.1-0\n  command: [sh]", "{{etcd:3.7.1-0"] {
            if let Ok(trial) = tried(ComponentName::Etcd, image) {
                assert_eq!((trial.image.as_str(), trial.start[0].as_str()), (image, "etcd"));
            }
        }
    }

    #[test]
    fn the_last_words_of_both_programs_are_found_in_their_output() {
        let etcd_usage =
            "flag provided but not defined: -enable-distributed-tracing\nUsage:\n\n  etcd [flags]\n    Start an etcd server.\n";
        let cases = [
            (
                "W1121 15:16:17.969928 20114 logging.go:55] [core] no route\nE1121 15:16:22.185895   20529 run.go:72] \"command failed\" \
                 err=\"unknown field \\\"endpoit\\\"\"\n",
                "unknown field \"endpoit\"",
            ),
            ("Error: unknown flag: --nope\n", "Error: unknown flag: --nope"),
            (etcd_usage, "flag provided but not defined: -enable-distributed-tracing"),
            (
                "{\"level\":\"warn\",\"msg\":\"failed to verify flags\",\"error\":\"sampling rate must be positive\"}\n",
                "failed to verify flags: sampling rate must be positive",
            ),
            (
                "E1121 16:10:00.1 1 run.go:72] \"command failed\" err=<\n\tfailed to read: yaml: unmarshal errors:\n\t  line 6: key \"endpoint\" already \
                 set in map\n >\n",
                "failed to read: yaml: unmarshal errors: line 6: key \"endpoint\" already set in map",
            ),
            ("exec: no such file\n\n", "exec: no such file"),
            ("a\tb\u{1b}[0m", "a b [0m"),
            ("", ""),
        ];
        for (output, expected) in cases {
            assert_eq!(words(output), expected);
        }
        assert!(words(&"ä".repeat(1000)).len() <= WORDS + '…'.len_utf8());
    }
}
