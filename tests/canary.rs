//! The canary: its pod, and what real programs make of what it starts.
//! `UPDATE_GOLDEN=1` writes `tests/canary/*.out` anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

mod golden;
#[path = "canary/programs.rs"]
mod programs;

use std::path::Path;

use clustertracing::api::node_tracing::{ComponentSettings, NodeSettings, ReceiverKind};
use clustertracing::api::{ClusterTracing, ComponentName, State};
use clustertracing::component::canary::{Trial, trial};
use clustertracing::plan::canary::pod;
use clustertracing::plan::validate::{Installation, Validated, validate};
use programs::{Ended, Program};
use serde_json::json;

use ComponentName::{Etcd, KubeApiserver};

/// What CI builds anyway; other versions in the cache are tried too.
const KUBERNETES: [&str; 3] = ["1.34.4", "1.36.3", "1.37.1"];
const ETCD: [&str; 2] = ["3.6.16", "3.7.3"];

fn settings() -> NodeSettings {
    let component = |rate| ComponentSettings { state: State::Enabled, sampling_rate_per_million: rate };
    NodeSettings {
        endpoint: "127.0.0.1:4317".to_owned(),
        receiver: ReceiverKind::NodeCollector,
        kube_api_server: component(10_000),
        etcd: component(0),
        watch_termination_grace_seconds: 0,
        health_timeout_seconds: 120,
    }
}

/// What is tried of a component of that version.
fn tried(component: ComponentName, version: &str) -> Trial {
    trial(component, &format!("registry.k8s.io/{component}:v{version}"), &settings(), "cp-1").unwrap().unwrap()
}

fn validated() -> Validated {
    let mut resource = ClusterTracing::new("cluster", serde_json::from_value(json!({})).unwrap());
    resource.metadata.uid = Some("uid-of-the-resource".into());
    let installation = Installation {
        namespace: "clustertracing".into(),
        collector_image: "otelcol:0.155.0".into(),
        canary: State::Enabled,
        probe: State::Enabled,
    };
    validate(&resource, &installation).unwrap()
}

#[test]
fn trials_give_their_golden_pods() {
    let cases = [
        ("both", vec![tried(KubeApiserver, "1.36.3"), tried(Etcd, "3.6.16-0")]),
        ("a-rate", vec![tried(KubeApiserver, "1.26.15")]),
        ("etcd", vec![tried(Etcd, "3.5.24-0")]),
    ];
    for (case, trials) in cases {
        let text = serde_yaml::to_string(&pod::render(&validated(), "cp-1", "0123456789ab", &trials)).unwrap();
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/canary/{case}.out"));
        let different = golden::difference(&out, &text);
        assert!(different.is_empty(), "{different}");
    }
}

/// What must come of a case.
enum Expected {
    Passes,
    /// Refused by one of the stages, with these words.
    Says(&'static str),
}
use Expected::{Passes, Says};

/// Every version's flags on every version's program: those that know them start, the others say which they do not know.
#[test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
fn flags_of_every_version_are_known_or_refused_by_every_program() {
    let (mut count, mut different) = (0, Vec::new());
    for program in programs::etcd(&ETCD) {
        let (old, new) = (program.is_before(3, 6), program.is_before(3, 7));
        let cases = [
            // flags without a rate of its own, which came with 3.5.11
            ("3.5.6-0", if new { Passes } else { Says("flag provided but not defined: -experimental-enable-distributed-tracing") }),
            (
                "3.5.24-0",
                match (program.version() == "3.5.6", new) {
                    (true, _) => Says("flag provided but not defined: -experimental-distributed-tracing-sampling-rate"),
                    (false, true) => Passes,
                    (false, false) => Says("flag provided but not defined: -experimental-enable-distributed-tracing"),
                },
            ),
            ("3.6.16-0", if old { Says("flag provided but not defined: -enable-distributed-tracing") } else { Passes }),
            ("3.7.1-0", if old { Says("flag provided but not defined: -enable-distributed-tracing") } else { Passes }),
        ];
        for (version, expected) in cases {
            count += 1;
            different.extend(difference(&program, &tried(Etcd, version), &expected));
        }
    }
    for program in programs::kube_apiserver(&KUBERNETES) {
        let gate = "unrecognized feature gate: APIServerTracing";
        let cases = [
            // Every version reads the earlier versions of the file.
            ("1.26.15", if program.is_before(1, 37) { Passes } else { Says(gate) }),
            ("1.33.13", if program.is_before(1, 27) { Says("TracingConfiguration") } else { Passes }),
            ("1.36.3", if program.is_before(1, 34) { Says("TracingConfiguration") } else { Passes }),
        ];
        for (version, expected) in cases {
            count += 1;
            different.extend(difference(&program, &tried(KubeApiserver, version), &expected));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
    assert!(count >= 17, "{count} cases");
}

#[test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
fn bad_values_and_files_are_refused_in_the_programs_own_words() {
    let (mut count, mut different) = (0, Vec::new());
    for program in programs::kube_apiserver(&KUBERNETES) {
        let good = tried(KubeApiserver, program.version());
        let file = |edit: &dyn Fn(&str) -> String| {
            let mut trial = good.clone();
            trial.files[0].1 = edit(&trial.files[0].1);
            trial
        };
        let replaced = |from: &'static str, to: &'static str| file(&|text| text.replace(from, to));
        let flag = |flag: &str| {
            let mut trial = good.clone();
            trial.parse.insert(1, flag.to_owned());
            trial.start.insert(1, flag.to_owned());
            trial
        };
        let mut missing = good.clone();
        missing.files.clear();
        // Before 1.32 what it does not know in a file is passed over.
        let strict = |words: &'static str| if program.is_before(1, 32) { Passes } else { Says(words) };
        let cases = [
            (replaced("10000", "1000001"), Says("sampling rate per million must be less than or equal to one million")),
            (replaced("10000", "-1"), Says("sampling rate must be positive")),
            (replaced("samplingRatePerMillion", "samplingRate"), strict("unknown field \"samplingRate\"")),
            (replaced("127.0.0.1", "http://127.0.0.1"), Says("unsupported scheme: http")),
            (replaced("kind: TracingConfiguration", "kind: TracingConfigurations"), Says("no kind \"TracingConfigurations\"")),
            (file(&|text| format!("{text}endpoint: \"127.0.0.1:4318\"\n")), strict("already set in map")),
            (file(&|text| text[..text.len() - 20].to_owned()), Says("unable to decode tracing configuration data")),
            (missing, Says("no such file or directory")),
            (flag("--tracing-config-files=/x"), Says("unknown flag: --tracing-config-files")),
            (flag("--feature-gates=APIServerTracings=true"), Says("unrecognized feature gate: APIServerTracings")),
            (flag("--shutdown-watch-termination-grace-period=5"), Says("missing unit in duration")),
            // Which is why the agent compares a file with its name.
            (file(&|_| String::new()), Passes),
        ];
        for (trial, expected) in &cases {
            count += 1;
            different.extend(difference(&program, trial, expected));
        }
    }
    for program in programs::etcd(&ETCD) {
        let good = tried(Etcd, program.version());
        if !good.start.iter().any(|flag| flag.ends_with("sampling-rate=0")) {
            continue;
        }
        let rate = |value: &str| {
            let mut trial = good.clone();
            for flag in trial.parse.iter_mut().chain(&mut trial.start).filter(|flag| flag.ends_with("sampling-rate=0")) {
                *flag = flag.replace("=0", &format!("={value}"));
            }
            trial
        };
        let cases = [
            (rate("1000001"), Says("tracing sampling rate must be less than 1000000")),
            (rate("-1"), Says("tracing sampling rate must be positive")),
            (rate("1%"), Says("invalid value \"1%\"")),
        ];
        for (trial, expected) in &cases {
            count += 1;
            different.extend(difference(&program, trial, expected));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
    assert!(count >= 42, "{count} cases");
}

/// Runs both stages, as the pod does; what is not as expected.
fn difference(program: &Program, trial: &Trial, expected: &Expected) -> Option<String> {
    let about = format!("{} {}: {:?}", trial.component, program.version(), trial.start);
    let said = match program.parses(trial) {
        Ended::Stays => return Some(format!("{about}\nthe first stage does not end")),
        Ended::Exited { code: 0, .. } => match program.starts(trial, matches!(expected, Passes)) {
            Ended::Stays => None,
            Ended::Exited { words, .. } => Some(words),
        },
        Ended::Exited { words, .. } => Some(words),
    };
    match (expected, said) {
        (Passes, None) => None,
        (Says(expected), Some(said)) if said.contains(expected) => None,
        (Passes, Some(said)) => Some(format!("{about}\nshould start, and says: {said}")),
        (Says(expected), said) => {
            Some(format!("{about}\nshould say: {expected}\nand says: {}", said.as_deref().unwrap_or("nothing: it starts")))
        }
    }
}
