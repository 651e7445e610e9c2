//! The collector's objects: `tests/collector/<case>.yaml` (a `spec.collector`) gives `<case>.out`.
//! `UPDATE_GOLDEN=1` writes the `.out` files anew; with `CLUSTERTRACING_OTELCOL` set to a collector's program, it checks each configuration.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod golden;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use clustertracing::api::{ClusterTracing, State};
use clustertracing::plan::collector::{self, CollectorObjects};
use clustertracing::plan::collector_check;
use clustertracing::plan::observed::ObservedCollector;
use clustertracing::plan::secret::ObservedSecret;
use clustertracing::plan::validate::{Installation, Validated, validate};
use serde_json::{Value, json};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/collector")
}

fn cases() -> Vec<PathBuf> {
    let cases = golden::cases("collector");
    assert!(cases.len() >= 4);
    cases
}

fn validated(collector: &Value) -> Validated {
    let mut resource = ClusterTracing::new("cluster", serde_json::from_value(json!({ "collector": collector })).unwrap());
    resource.metadata.uid = Some("uid-of-the-resource".into());
    let installation = Installation {
        namespace: "clustertracing".into(),
        collector_image: "otelcol-k8s:0.155.0".into(),
        canary: State::Disabled,
        probe: State::Enabled,
    };
    validate(&resource, &installation).unwrap()
}

fn rendered(case: &Path) -> CollectorObjects {
    let v = read(case);
    collector::render(&v, v.wanted_collector().unwrap(), &BTreeMap::new())
}

fn read(case: &Path) -> Validated {
    let spec: Value = serde_yaml::from_str(&std::fs::read_to_string(case).unwrap()).unwrap();
    validated(&spec)
}

fn config(objects: &CollectorObjects) -> &str {
    objects.config_map.pointer("/data/collector.yaml").and_then(Value::as_str).unwrap()
}

/// The files of the `ConfigMap`: name and text.
fn configs(objects: &CollectorObjects) -> Vec<(String, String)> {
    let data = objects.config_map["data"].as_object().unwrap();
    data.iter().map(|(file, text)| (file.clone(), text.as_str().unwrap().to_owned())).collect()
}

#[test]
fn specs_give_their_golden_objects() {
    for case in cases() {
        let objects = rendered(&case);
        let of_gateway = objects.gateway.iter().flat_map(|g| [&g.deployment, &g.service, &g.disruption_budget]);
        let rendered: Vec<_> = std::iter::once(&objects.daemon_set).chain(of_gateway).map(|o| serde_yaml::to_string(o).unwrap()).collect();
        let configs: Vec<_> = configs(&objects).into_iter().map(|(file, text)| format!("# {file}\n{text}")).collect();
        let text = format!("# {}\n{}---\n{}", objects.config_map_name, configs.join("---\n"), rendered.join("---\n"));
        let different = golden::difference(&case.with_extension("out"), &text);
        assert!(different.is_empty(), "{different}");
    }
}

/// The collector expands `${…}` in everything that it reads.
#[test]
fn the_only_expansions_in_a_configuration_are_variables_of_its_container() {
    for case in cases() {
        let objects = rendered(&case);
        let of_gateway = objects.gateway.as_ref().map(|gateway| &gateway.deployment);
        for ((file, text), pods) in configs(&objects).into_iter().zip(std::iter::once(&objects.daemon_set).chain(of_gateway)) {
            let env = pods.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array).cloned().unwrap_or_default();
            // A proxy is for whoever makes connections, and in no configuration.
            let env: Vec<_> = env.iter().filter(|e| e.get("valueFrom").is_some()).collect();
            // Doubled, it is a dollar sign and nothing else.
            let text = text.replace("$$", "");
            for expansion in text.split("${").skip(1) {
                let known = env.iter().any(|e| expansion.starts_with(&format!("env:{}}}", e["name"].as_str().unwrap())));
                assert!(known, "{} {file}: ${{{expansion}", case.display());
            }
            assert_eq!(text.matches('$').count(), env.len(), "{} {file}", case.display());
        }
    }
}

/// A node that was `NotReady` while the collector was made anew stayed without one for ever: its taint had kept the pod from being made.
#[test]
fn the_collector_stays_off_no_node_whatever_its_taints() {
    for case in cases() {
        assert_eq!(rendered(&case).daemon_set["spec"]["template"]["spec"]["tolerations"], json!([{ "operator": "Exists" }]));
    }
}

/// The nodes' collectors, or the gateway, whichever has the Secrets.
#[test]
fn what_a_collector_reads_only_when_it_starts_is_part_of_its_revision() {
    for case in ["exporters.yaml", "gateway.yaml"] {
        let v = read(&dir().join(case));
        let revisions = ["one", "another"].map(|authorities| {
            let secret = ObservedSecret { authorities: Some(authorities.to_owned()), ..ObservedSecret::default() };
            let objects = collector::render(&v, v.wanted_collector().unwrap(), &[("authorities".to_owned(), Some(secret))].into());
            let pods = objects.gateway.as_ref().map_or(&objects.daemon_set, |gateway| &gateway.deployment);
            assert_eq!(pods["spec"]["template"]["metadata"]["annotations"][collector::ANNOTATION_REVISION], objects.revision.as_str());
            objects.revision
        });
        assert_ne!(revisions[0], revisions[1], "{case}");
    }
}

#[test]
fn what_the_api_server_stores_is_recognised_and_what_somebody_changed_is_not() {
    let objects = rendered(&dir().join("exporters.yaml"));
    // As stored: with defaults that the API server adds, and quantities as it writes them.
    let mut stored = objects.daemon_set.clone();
    stored["metadata"]["generation"] = json!(3);
    stored["spec"]["updateStrategy"] = json!({ "type": "RollingUpdate" });
    stored["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = json!("536870912");
    let observed = |stored: &Value, config_map: &str| ObservedCollector {
        applied: None,
        daemon_set: serde_json::from_value(stored.clone()).unwrap(),
        config_maps: [config_map.to_owned()].into(),
        ready: [("cp-1".to_owned(), objects.revision.clone()), ("cp-2".to_owned(), "another".to_owned())].into(),
        ..ObservedCollector::default()
    };
    assert!(objects.are_in(&observed(&stored, &objects.config_map_name)));
    assert!(!objects.are_in(&observed(&stored, "another")));
    stored["spec"]["template"]["spec"]["hostNetwork"] = json!(false);
    assert!(!objects.are_in(&observed(&stored, &objects.config_map_name)));

    let selected = ["cp-1", "cp-2", "cp-3"].map(str::to_owned);
    assert_eq!(objects.lacking(&observed(&stored, ""), selected.into_iter()).to_string(), "on cp-2, cp-3");
}

#[test]
fn a_collector_accepts_each_configuration() {
    let Some(otelcol) = std::env::var_os("CLUSTERTRACING_OTELCOL") else {
        println!("CLUSTERTRACING_OTELCOL is not set: not checked by a collector");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for (case, file, text) in
        cases().into_iter().flat_map(|case| configs(&rendered(&case)).into_iter().map(move |(f, t)| (case.clone(), f, t)))
    {
        // The files that Secrets would hold are not here, nor is the volume of a queue.
        let text: Vec<_> = text.lines().filter(|l| !l.contains("_file: ") && !l.contains("reload_interval")).collect();
        let text = text.join("\n").replace("/var/lib/clustertracing/queue", &folder.path().display().to_string());
        let path = folder.path().join("collector.yaml");
        std::fs::write(&path, text).unwrap();
        let checked = Command::new(&otelcol)
            .arg("validate")
            .arg(format!("--config=file:{}", path.display()))
            .env("NODE_NAME", "cp-1")
            .env("POD_NAME", "clustertracing-gateway-0")
            .env("CLUSTERTRACING_HEADER_1_0", "Bearer abc")
            .env("CLUSTERTRACING_HEADER_1_1", "12345")
            .output()
            .unwrap();
        assert!(checked.status.success(), "{} {file}: {}", case.display(), String::from_utf8_lossy(&checked.stderr));
    }
}

/// What a pod that tries a configuration would tell of it.
#[test]
fn a_collector_refuses_what_it_cannot_run_in_words_that_are_found() {
    let Some(otelcol) = std::env::var_os("CLUSTERTRACING_OTELCOL") else {
        println!("CLUSTERTRACING_OTELCOL is not set: not checked by a collector");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.yaml");
    let objects = rendered(&dir().join("no-exporters.yaml"));
    let cases = [
        ("memory_limiter", "memory_limitr", "unknown type: \"memory_limitr\" for id: \"memory_limitr\""),
        ("check_interval: 1s", "check_interval: 0s", "'check_interval' must be greater than zero"),
        ("check_interval: 1s", "chek_interval: 1s", "has invalid keys: chek_interval"),
        ("check_interval: 1s", "check_interval: [", "failed to"),
    ];
    for (right, wrong, words) in cases {
        let text = config(&objects).replace(right, wrong);
        assert_ne!(text, config(&objects), "{right}");
        std::fs::write(&path, text).unwrap();
        let checked = Command::new(&otelcol).arg("validate").arg(format!("--config=file:{}", path.display())).output().unwrap();
        let told = collector_check::observed::words(&String::from_utf8_lossy(&checked.stderr));
        assert!(!checked.status.success() && told.contains(words) && !told.contains('\n'), "{wrong}: {told}");
    }
}

/// The pod in which a collector is tried, with everything that a collector may mount.
#[test]
fn the_pod_that_tries_a_collector_has_its_secrets_and_nothing_of_the_node() {
    for (case, out) in [("exporters.yaml", "check-pod.out"), ("gateway.yaml", "check-pod-gateway.out")] {
        let case = dir().join(case);
        let mut objects = rendered(&case);
        let volumes = objects.daemon_set.pointer_mut("/spec/template/spec/volumes").and_then(Value::as_array_mut).unwrap();
        volumes.push(json!({ "name": "node", "hostPath": { "path": "/var/lib/clustertracing" } }));
        let pod = collector_check::pod::render(&read(&case), &objects, "cp-1");
        let different = golden::difference(&dir().join(out), &serde_yaml::to_string(&pod).unwrap());
        assert!(different.is_empty(), "{different}");
    }
}
