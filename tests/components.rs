//! Golden cases of the component tables: whole static-pod folders in, whole manifests out, or a refusal.
//!
//! * `tests/manifests/{kubeadm,kind,kubespray,shapes}/<case>/<component>/in.yaml` is what stands on the node (kubeadm's are made by the real
//!   kubeadm: `tests/manifests/kubeadm/generate.sh`), `out.yaml` what will stand there, `tracing.yaml` the file that it needs.
//! * `tests/manifests/refused/<case>/manifests/` is a static-pod folder that is not changed, `refused.txt` why.
//! * `settings.yaml` beside them says what differs from the default settings, `warnings.txt` what the administrator is told.
//!
//! `UPDATE_GOLDEN=1 cargo test --test components` writes the outputs anew: read the difference before you commit it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clustertracing::api::node_tracing::{NodeSettings, TracingFound};
use clustertracing::api::{ComponentName, Reason, State};
use clustertracing::component::{Change, ManifestFile, Version, Versions, change, change_with_versions, find, member_name, reference};

const NODE: &str = "cp-1";

struct Case {
    folder: PathBuf,
    files: Vec<ManifestFile>,
    settings: NodeSettings,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no cases", folder.display());
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn settings(folder: &Path) -> NodeSettings {
    let mut settings = serde_json::json!({
        "endpoint": "127.0.0.1:4317",
        "kubeAPIServer": {"state": "Enabled", "samplingRatePerMillion": 10_000},
        "etcd": {"state": "Enabled", "samplingRatePerMillion": 0},
        "watchTerminationGraceSeconds": 0,
        "healthTimeoutSeconds": 120,
    });
    if let Ok(text) = fs::read_to_string(folder.join("settings.yaml")) {
        merge(&mut settings, serde_yaml::from_str(&text).unwrap());
    }
    serde_json::from_value(settings).unwrap()
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert_with(|| serde_json::json!({})), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The cases that can be traced.
fn accepted() -> Vec<Case> {
    let families = ["kubeadm", "kind", "kubespray", "shapes"];
    families.iter().flat_map(|family| subfolders(&root().join("tests/manifests").join(family))).map(case).collect()
}

fn accepted_case(path: &str) -> Case {
    case(root().join("tests/manifests").join(path))
}

fn case(folder: PathBuf) -> Case {
    let file = |folder: PathBuf| ManifestFile {
        name: format!("{}.yaml", name(&folder)),
        text: fs::read_to_string(folder.join("in.yaml")).unwrap(),
    };
    Case { files: subfolders(&folder).into_iter().map(file).collect(), settings: settings(&folder), folder }
}

fn changed(case: &Case, files: &[ManifestFile], settings: &NodeSettings) -> Vec<Change> {
    change(files, settings, NODE).unwrap_or_else(|refusal| panic!("{}: {refusal}", case.folder.display()))
}

/// The folder after the changes.
fn written(changes: &[Change]) -> Vec<ManifestFile> {
    changes.iter().map(|change| ManifestFile { name: change.file.clone(), text: change.after.clone() }).collect()
}

fn off(settings: &NodeSettings) -> NodeSettings {
    let mut off = settings.clone();
    off.kube_api_server.state = State::Disabled;
    off.etcd.state = State::Disabled;
    off
}

fn of(changes: &[Change], component: ComponentName) -> Option<&Change> {
    changes.iter().find(|change| change.component == component)
}

/// Compares with the golden file; an empty text has none.
fn golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        if actual.is_empty() {
            fs::remove_file(path).ok();
        } else {
            fs::write(path, actual).unwrap();
        }
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(actual, expected, "{} differs: if that is meant, renew it with UPDATE_GOLDEN=1", path.display());
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat()
}

#[test]
fn manifests_become_what_the_golden_files_show() {
    for case in accepted() {
        let changes = changed(&case, &case.files, &case.settings);
        let mut warnings = Vec::new();
        for change in &changes {
            let folder = case.folder.join(change.component.as_str());
            golden(&folder.join("out.yaml"), &change.after);
            let needs: Vec<&str> = change.needs.iter().map(|(_, contents)| contents.as_str()).collect();
            golden(&folder.join("tracing.yaml"), &needs.concat());
            warnings.extend(change.warnings.clone());
        }
        golden(&case.folder.join("warnings.txt"), &lines(&warnings));
    }
}

#[test]
fn a_node_is_called_what_its_etcd_member_is_called_if_a_node_can_be_called_that() {
    let files = accepted_case("kubeadm/1.36.3").files;
    let called = |flag: &str| {
        let rename = |file: &ManifestFile| ManifestFile { name: file.name.clone(), text: file.text.replace("--name=cp-1", flag) };
        member_name(&files.iter().map(rename).collect::<Vec<_>>())
    };
    assert_eq!(called("--name=cp-1").as_deref(), Some("cp-1"));
    for flag in ["--name=$(NODE)", "--name=Infra_0", "--name=", "--logger=zap"] {
        assert_eq!(called(flag), None, "{flag}");
    }
    assert_eq!(member_name(&accepted_case("kubespray/1.33.5-etcd-on-the-host").files), None);
}

#[test]
fn refusals_name_node_file_cause_and_remedy_as_the_golden_files_show() {
    for folder in subfolders(&root().join("tests/manifests/refused")) {
        let mut files: Vec<ManifestFile> = fs::read_dir(folder.join("manifests"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| ManifestFile { name: name(&path), text: fs::read_to_string(&path).unwrap() })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let refusal = match change(&files, &settings(&folder), NODE) {
            Err(refusal) => refusal,
            Ok(changes) => panic!("{} is not refused: {changes:?}", folder.display()),
        };
        assert!(refusal.message.contains(NODE), "{}: the message does not name the node", folder.display());
        golden(&folder.join("refused.txt"), &format!("{}\n{}\n", refusal.reason, refusal.message));
    }
}

#[test]
fn off_after_on_gives_the_original_bytes_back() {
    for case in accepted() {
        let on = changed(&case, &case.files, &case.settings);
        for change in changed(&case, &written(&on), &off(&case.settings)) {
            let original = of(&on, change.component).unwrap();
            assert_eq!(change.after, original.before, "{}", case.folder.display());
            assert_eq!(change.needs, []);
        }
        for change in changed(&case, &case.files, &off(&case.settings)) {
            assert_eq!(change.after, change.before, "{}: off changes what carries nothing of ours", case.folder.display());
        }
    }
}

#[test]
fn on_after_on_changes_nothing() {
    for case in accepted() {
        let on = changed(&case, &case.files, &case.settings);
        for again in changed(&case, &written(&on), &case.settings) {
            let first = of(&on, again.component).unwrap();
            assert_eq!(again, Change { before: again.after.clone(), ..first.clone() }, "{}", case.folder.display());
        }
    }
}

#[test]
fn a_rate_of_kube_apiserver_leaves_etcd_as_it_is() {
    let mut seen = 0;
    for case in accepted().iter().filter(|case| case.settings.kube_api_server.state == State::Enabled) {
        let on = changed(case, &case.files, &case.settings);
        let mut other_rate = case.settings.clone();
        other_rate.kube_api_server.sampling_rate_per_million = 250_000;
        let next = changed(case, &written(&on), &other_rate);
        let fresh = changed(case, &case.files, &other_rate);
        for change in &next {
            let is_kube_apiserver = change.component == ComponentName::KubeApiserver;
            assert_eq!(change.before != change.after, is_kube_apiserver, "{}: {}", case.folder.display(), change.file);
            assert_eq!(change.after, of(&fresh, change.component).unwrap().after, "{}: the way here shows", case.folder.display());
            seen += usize::from(!is_kube_apiserver);
        }
    }
    assert!(seen > 0, "no case has an etcd");
}

#[test]
fn a_rate_of_etcd_leaves_kube_apiserver_as_it_is() {
    let case = accepted_case("kubeadm/1.36.3");
    let on = changed(&case, &case.files, &case.settings);
    let mut other_rate = case.settings.clone();
    other_rate.etcd.sampling_rate_per_million = 1_000;
    let next = changed(&case, &written(&on), &other_rate);
    let differs = |component| of(&next, component).is_some_and(|change| change.before != change.after);
    assert_eq!((differs(ComponentName::KubeApiserver), differs(ComponentName::Etcd)), (false, true));
}

#[test]
fn what_is_found_tells_ours_from_off_and_its_argv_is_the_new_process() {
    for case in accepted() {
        let on = changed(&case, &case.files, &case.settings);
        let found = find(&written(&on)).unwrap();
        assert_eq!(found.len(), on.len());
        for (found, change) in found.iter().zip(&on) {
            assert_eq!((&found.argv, &found.probes), (&change.argv, &change.probes));
            assert!(!found.probes.is_empty(), "{}: no probes", case.folder.display());
            if change.before != change.after {
                assert_eq!(found.tracing, TracingFound::Ours, "{}", case.folder.display());
            }
        }
        for (found, change) in find(&case.files).unwrap().iter().zip(&on) {
            assert_ne!(found.tracing, TracingFound::Ours);
            let added = change.argv.len() - found.argv.len();
            assert_eq!(added > 0, change.before != change.after, "{}: {:?}", case.folder.display(), change.argv);
        }
    }
}

#[test]
fn the_file_that_argv_names_is_the_file_that_is_written() {
    for case in accepted() {
        for change in changed(&case, &case.files, &case.settings) {
            for (path, _) in &change.needs {
                assert!(change.argv.contains(&format!("--tracing-config-file={path}")), "{:?}", change.argv);
                let lines = change.after.lines().filter(|line| line.contains(path.as_str())).count();
                assert!(lines >= 3, "{path} is not flag, volume and mount of {}:\n{}", case.folder.display(), change.after);
            }
        }
    }
}

#[test]
fn a_flag_that_somebody_adds_beside_ours_is_a_conflict() {
    let case = accepted_case("kubeadm/1.36.3");
    let mut files = written(&changed(&case, &case.files, &case.settings));
    let etcd = files.iter_mut().find(|file| file.name == "etcd.yaml").unwrap();
    etcd.text = etcd.text.replace("    - --data-dir", "    - --experimental-distributed-tracing-sampling-rate=1000000\n    - --data-dir");
    let found = find(&files).unwrap();
    assert_eq!(found.iter().map(|found| found.tracing).collect::<Vec<_>>(), [TracingFound::Ours, TracingFound::Foreign]);
    let refusal = change(&files, &case.settings, NODE).unwrap_err();
    assert_eq!((refusal.reason, refusal.component), (Reason::Conflict, ComponentName::Etcd));
    assert!(refusal.message.contains("--experimental-distributed-tracing-sampling-rate"), "{refusal}");
}

#[test]
fn files_of_other_pods_are_passed_over() {
    let case = accepted_case("kubeadm/1.36.3");
    let mut files = case.files.clone();
    let expected = find(&files).unwrap();
    let other = |name: &str, text: &str| ManifestFile { name: name.to_owned(), text: text.to_owned() };
    let kube_apiserver = files.iter().find(|file| file.name == "kube-apiserver.yaml").unwrap().text.clone();
    files.extend([
        other(".kube-apiserver.yaml.tmp", &kube_apiserver),
        other("kube-scheduler.yaml", &kube_apiserver.replace("kube-apiserver", "kube-scheduler")),
        other("README", "These manifests: are [not all\n"),
        other("empty.yaml", ""),
    ]);
    assert_eq!(find(&files).unwrap(), expected);
    assert_eq!(change(&files, &case.settings, NODE), change(&case.files, &case.settings, NODE));
}

#[test]
fn a_version_that_is_known_from_elsewhere_wins_over_the_tag() {
    let case = accepted_case("kubeadm/1.36.3");
    let refusal = |versions| change_with_versions(&case.files, &case.settings, NODE, versions).map_err(|refusal| refusal.reason);
    let old_etcd = Versions { etcd: Some(Version::new(3, 5, 4)), ..Versions::default() };
    assert_eq!(refusal(old_etcd), Err(Reason::UnsupportedVersion));

    let mut files = case.files.clone();
    for file in &mut files {
        file.text = file.text.replace(":v1.36.3", ":dev");
    }
    assert_eq!(change(&files, &case.settings, NODE).map_err(|refusal| refusal.reason), Err(Reason::UnsupportedVersion));
    let known = Versions { kube_apiserver: Some(Version::new(1, 36, 3)), ..Versions::default() };
    assert!(change_with_versions(&files, &case.settings, NODE, known).is_ok());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    /// Whoever can write settings cannot make them more than the values of the flags that are meant.
    #[test]
    fn settings_of_an_enemy_are_refused_or_become_the_flags_that_are_meant(
        endpoint in hostile(), node in hostile(), rate in -5..1_000_005_i32, etcd_rate in -5..1_000_005_i32, grace in -2..3603_i32,
    ) {
        let case = accepted_case("kubeadm/1.36.3");
        let mut settings = case.settings.clone();
        settings.endpoint.clone_from(&endpoint);
        settings.kube_api_server.sampling_rate_per_million = rate;
        settings.etcd.sampling_rate_per_million = etcd_rate;
        settings.watch_termination_grace_seconds = grace;
        match change(&case.files, &settings, &node) {
            Err(refusal) => assert_eq!(refusal.reason, Reason::InvalidSettings, "{refusal}"),
            Ok(changes) => {
                let before = find(&case.files).unwrap();
                let added: Vec<&[String]> = changes.iter().zip(&before).map(|(after, before)| &after.argv[before.argv.len()..]).collect();
                let mut kube_apiserver = vec![format!("--tracing-config-file={}", changes[0].needs[0].0)];
                kube_apiserver.extend((grace > 0).then(|| format!("--shutdown-watch-termination-grace-period={grace}s")));
                let etcd = [
                    "--enable-distributed-tracing=true".to_owned(),
                    format!("--distributed-tracing-address={endpoint}"),
                    format!("--distributed-tracing-instance-id={node}"),
                    format!("--distributed-tracing-sampling-rate={etcd_rate}"),
                ];
                assert_eq!(added, [&kube_apiserver[..], &etcd[..]]);
                let file: serde_json::Value = serde_yaml::from_str(&changes[0].needs[0].1).unwrap();
                assert_eq!((file["endpoint"].as_str(), file["samplingRatePerMillion"].as_i64()), (Some(endpoint.as_str()), Some(rate.into())));
            }
        }
    }
}

/// Texts that break out of YAML, of a flag or of a path, and, so that the way in is tried too, many that do not.
fn hostile() -> impl proptest::strategy::Strategy<Value = String> {
    proptest::prop_oneof![
        6 => "[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?",
        12 => "[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?:[1-9][0-9]{0,4}",
        2 => "\\[[0-9a-f:]{2,12}\\]:4317",
        2 => "[a-z$(){}:,#&*!|>'\"%@`\\[\\]\n\t =./-]{0,12}(:4317)?",
        1 => ".{0,8}",
    ]
}

/// The programs that the testbed has built: component, version, path.
fn built_programs() -> Vec<(ComponentName, Version, PathBuf)> {
    let cache = std::env::var_os("TESTBED_CACHE").map(PathBuf::from);
    let bin = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/clustertracing-testbed")).join("bin");
    let entries = fs::read_dir(&bin).unwrap_or_else(|error| panic!("{}: {error}", bin.display()));
    let program = |path: PathBuf| {
        let name = name(&path);
        let (component, version, path) = match name.split_once('-')? {
            ("kubernetes", version) => (ComponentName::KubeApiserver, version, path.join("kube-apiserver")),
            ("etcd", version) => (ComponentName::Etcd, version, path),
            _ => return None,
        };
        Some((component, version.parse().ok()?, path)).filter(|(_, _, path)| path.is_file())
    };
    entries.filter_map(|entry| program(entry.unwrap().path())).collect()
}

/// What no reading of sources can vouch for: each program that is there is given its flags and gates, with `--version`, which makes it
/// leave after it has understood them.
#[test]
#[ignore = "needs the programs that tests/testbed/build.sh makes"]
fn real_programs_understand_the_new_arguments() {
    let cases = accepted();
    let mut understood = Vec::new();
    for (component, version, program) in built_programs() {
        let of_the_same_minor = |case: &&Case| {
            case.folder.parent().unwrap().ends_with("kubeadm")
                && find(&case.files).unwrap().iter().any(|found| {
                    let tag: Option<Version> = found.version.as_ref().and_then(|tag| tag.parse().ok());
                    found.component == component && tag.is_some_and(|tag| (tag.major, tag.minor) == (version.major, version.minor))
                })
        };
        let Some(case) = cases.iter().find(of_the_same_minor) else { continue };
        let versions = match component {
            ComponentName::KubeApiserver => Versions { kube_apiserver: Some(version), ..Versions::default() },
            ComponentName::Etcd => Versions { etcd: Some(version), ..Versions::default() },
        };
        let changes = change_with_versions(&case.files, &case.settings, NODE, versions).unwrap();
        let argv = &of(&changes, component).unwrap().argv;
        let output = Command::new(&program).args(&argv[1..]).arg("--version").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} refuses {argv:?}: {stderr}", program.display());
        understood.push(format!("{component} {version}"));
    }
    println!("understood by {understood:?}");
    assert!(understood.len() >= 2, "only {understood:?} were there to ask");
}

#[test]
fn the_reference_for_people_is_fresh() {
    golden(&root().join("docs/versions.md"), &reference());
}
