//! Every static-pod folder that the tests have (`tests/manifests`), through the program: the same bytes and the same words as the agent's.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{plugin, root, subfolders};

/// The resource that gives a node the case's settings.
fn resource(folder: &Path) -> Value {
    let settings: Value = fs::read_to_string(folder.join("settings.yaml")).map_or(json!({}), |text| serde_yaml::from_str(&text).unwrap());
    let mut spec = json!({"etcd": settings.get("etcd").cloned().unwrap_or(json!({}))});
    if let Some(endpoint) = settings.get("endpoint") {
        spec["collector"] = json!({"mode": "External", "endpoint": endpoint});
    }
    if let Some(grace) = settings.get("watchTerminationGraceSeconds") {
        spec["rollout"] = json!({"watchTerminationGraceSeconds": grace});
    }
    if let Some(of) = settings.get("kubeAPIServer") {
        spec["kubeAPIServer"] = json!({"state": of.get("state").unwrap_or(&json!("Enabled"))});
        spec["samplingRatePerMillion"] = of.get("samplingRatePerMillion").cloned().unwrap_or(json!(10_000));
    }
    json!({"apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing", "metadata": {"name": "cluster"}, "spec": spec})
}

/// A folder with the case's resource and manifests.
fn mk_folder(case: &Path, manifests: &[(String, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("resource.yaml"), resource(case).to_string()).unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    for (name, bytes) in manifests {
        fs::write(dir.path().join("manifests").join(name), bytes).unwrap();
    }
    dir
}

/// Runs a command on it: exit code and standard error.
fn run(dir: &Path, command: &str) -> (i32, String) {
    let line = format!("{command} -f resource.yaml --manifests manifests --node cp-1");
    let ended = plugin(dir, &line).output().unwrap();
    (ended.status.code().unwrap(), String::from_utf8(ended.stderr).unwrap())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The golden files are what `component::change` gives, which is what the agent writes (tests/components.rs, tests/agent).
#[test]
fn render_writes_the_agents_bytes_for_every_folder_that_can_be_traced() {
    let families = ["kubeadm", "kind", "kubespray", "shapes"];
    for case in families.iter().flat_map(|family| subfolders(&root().join("tests/manifests").join(family))) {
        let components = subfolders(&case);
        let manifests: Vec<_> = components.iter().map(|of| (format!("{}.yaml", name(of)), fs::read(of.join("in.yaml")).unwrap())).collect();
        let dir = mk_folder(&case, &manifests);
        let (code, stderr) = run(dir.path(), "render --output-dir out");
        assert_eq!(code, 0, "{}: {stderr}", case.display());
        let warnings = fs::read_to_string(case.join("warnings.txt")).unwrap_or_default();
        assert!(warnings.lines().all(|warning| stderr.contains(warning)), "{}: {stderr}", case.display());
        let mut changes = false;
        for of in &components {
            let expected = fs::read(of.join("out.yaml")).unwrap();
            changes |= expected != fs::read(of.join("in.yaml")).unwrap();
            assert!(fs::read(dir.path().join(format!("out/{}.yaml", name(of)))).unwrap() == expected, "{}", of.display());
            if let Ok(expected) = fs::read(of.join("tracing.yaml")) {
                let written = subfolder_files(&dir.path().join("out/etc/kubernetes/clustertracing"));
                assert!(written == [expected], "{}", of.display());
            }
        }
        assert_eq!(run(dir.path(), "diff").0, i32::from(changes), "{}", case.display());
    }
}

fn subfolder_files(folder: &Path) -> Vec<Vec<u8>> {
    fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn what_the_agent_refuses_is_refused_in_its_words_and_nothing_is_written() {
    for case in subfolders(&root().join("tests/manifests/refused")) {
        let manifests: Vec<_> = fs::read_dir(case.join("manifests"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (name(&path), fs::read(&path).unwrap()))
            .collect();
        let dir = mk_folder(&case, &manifests);
        let (code, stderr) = run(dir.path(), "render --output-dir out");
        assert_eq!(code, 2, "{}: {stderr}", case.display());
        assert!(!dir.path().join("out").exists(), "{}", case.display());
        let refused = fs::read_to_string(case.join("refused.txt")).unwrap();
        let in_its_words = refused.lines().all(|line| stderr.contains(line));
        // settings that the resource cannot even hold are refused where they are written
        assert!(in_its_words || stderr.starts_with("error: resource.yaml:1:"), "{}: {stderr}", case.display());
    }
}

fn mk_kubeadm() -> TempDir {
    let case = root().join("tests/manifests/kubeadm/1.36.3");
    let manifests: Vec<_> =
        ["kube-apiserver", "etcd"].map(|of| (format!("{of}.yaml"), fs::read(case.join(of).join("in.yaml")).unwrap())).into();
    mk_folder(&case, &manifests)
}

#[test]
fn a_rendered_file_that_somebody_has_changed_since_is_not_overwritten() {
    let dir = mk_kubeadm();
    assert_eq!(run(dir.path(), "render --output-dir out").0, 0);
    let changed = dir.path().join("out/etcd.yaml");
    let text = fs::read_to_string(&changed).unwrap() + "# mine\n";
    fs::write(&changed, &text).unwrap();
    let (code, stderr) = run(dir.path(), "render --output-dir out");
    assert!(code == 2 && stderr.starts_with("error: out/etcd.yaml: is there"), "{stderr}");
    assert_eq!(fs::read_to_string(&changed).unwrap(), text);
    fs::remove_file(&changed).unwrap();
    assert_eq!(run(dir.path(), "render --output-dir out").0, 0, "what is missing is nobody's work");
}

#[test]
fn a_resource_comes_from_standard_input_too() {
    let dir = mk_kubeadm();
    let mut child = plugin(dir.path(), "diff -f - --manifests manifests --node cp-1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(dir.path().join("resource.yaml")).unwrap()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let from_file = plugin(dir.path(), "diff -f resource.yaml --manifests manifests --node cp-1").output().unwrap();
    assert!(ended.status.code() == Some(1) && ended.stdout == from_file.stdout);
}

#[test]
fn every_oddity_that_people_write_is_edited_or_refused_with_a_reason() {
    let mut tried = 0;
    for case in subfolders(&root().join("tests/manifests/editor")) {
        let edit: Value = serde_yaml::from_str(&fs::read_to_string(case.join("edit.yaml")).unwrap()).unwrap();
        let program = edit["program"].as_str().unwrap();
        if !["kube-apiserver", "etcd"].contains(&program) {
            continue;
        }
        tried += 1;
        let (extension, bytes) = ["yaml", "json"].iter().find_map(|e| Some((e, fs::read(case.join(format!("in.{e}"))).ok()?))).unwrap();
        let mut manifests = vec![(format!("{program}.{extension}"), bytes)];
        if program == "etcd" {
            let other = root().join("tests/manifests/kubeadm/1.36.3/kube-apiserver/in.yaml");
            manifests.push(("kube-apiserver.yaml".to_owned(), fs::read(other).unwrap()));
        }
        let dir = mk_folder(&case, &manifests);
        let (code, stderr) = run(dir.path(), "diff");
        match code {
            1 => assert!(stderr.contains("restart"), "{}: {stderr}", case.display()),
            2 => assert!(stderr.starts_with("refused: "), "{}: {stderr}", case.display()),
            _ => panic!("{}: exit {code}: {stderr}", case.display()),
        }
    }
    assert!(tried >= 40, "only {tried} cases");
}
