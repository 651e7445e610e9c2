//! The manifest editor on whole manifests.
//!
//! A case is a folder of `tests/manifests/editor`: `in.yaml` (or `.json`), `edit.yaml` (the program and its edit), and what must come of it:
//! `out.yaml`, or `refused.txt` with the reason. Where there is a `view.yaml`, the manifest must say that of itself.
//! A case of `tests/manifests/reverts` begins with an edited manifest that somebody has changed since.
//! `UPDATE_GOLDEN=1 cargo test --test manifests` writes what comes of them; read the difference before you commit it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a case that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

use clustertracing::manifest::{self, Edit, FileMount, Manifest, Unsupported};
use serde_yaml::{Mapping, Value};

#[test]
fn every_case_gives_its_golden_manifest_and_goes_back_to_its_bytes() {
    let folders = cases("editor");
    assert!(folders.len() >= 30, "only {} cases", folders.len());
    for folder in folders {
        let (input, name) = input(&folder);
        let (program, edit) = read_edit(&folder);
        let outcome = manifest::apply(&input, &program, &edit);
        check_outcome(&folder, &name.replace("in.", "out."), &outcome);
        let Ok(output) = outcome else { continue };

        let reverted = manifest::revert(&output, &program).unwrap();
        assert_same(&folder, "reverting", &input, &reverted);
        assert_eq!(manifest::revert(&input, &program).unwrap(), input);
        let view = Manifest::parse(&output, &program).unwrap().expect("the program is still there");
        assert_eq!(view.is_ours(), input != output, "{}", folder.display());
        for (flag, value) in &edit.flags {
            assert_eq!(&view.flag(flag), std::slice::from_ref(value), "{}", folder.display());
        }
        if input != output {
            let again = manifest::apply(&output, &program, &edit);
            assert!(matches!(again, Err(Unsupported::Shape(_))), "{}: applied twice", folder.display());
        }
        if folder.join("view.yaml").exists() {
            check_golden(&folder.join("view.yaml"), &describe(&Manifest::parse(&input, &program).unwrap().unwrap()));
        }
    }
}

#[test]
fn a_manifest_that_was_changed_since_loses_only_what_was_added() {
    for folder in cases("reverts") {
        let (input, name) = input(&folder);
        let (program, _) = read_edit(&folder);
        check_outcome(&folder, &name.replace("in.", "out."), &manifest::revert(&input, &program));
    }
}

fn cases(group: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(group);
    let mut folders: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn input(folder: &Path) -> (String, String) {
    for name in ["in.yaml", "in.json"] {
        if let Ok(text) = fs::read_to_string(folder.join(name)) {
            return (text, name.to_owned());
        }
    }
    panic!("{} has no in.yaml", folder.display());
}

fn read_edit(folder: &Path) -> (String, Edit) {
    let edit: Value = serde_yaml::from_str(&fs::read_to_string(folder.join("edit.yaml")).unwrap()).unwrap();
    let pairs = |key: &str| -> Vec<(String, Value)> {
        let pairs = edit.get(key).and_then(Value::as_mapping).cloned().unwrap_or_else(Mapping::new);
        pairs.into_iter().map(|(name, value)| (name.as_str().unwrap().to_owned(), value)).collect()
    };
    let strings = |key| pairs(key).into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned()));
    let edit_to_make = Edit {
        flags: strings("flags").collect(),
        feature_gates: pairs("featureGates").into_iter().map(|(name, on)| (name, on.as_bool().unwrap())).collect(),
        files: strings("files").map(|(volume, path)| FileMount { volume, path }).collect(),
        env: strings("env").collect(),
    };
    (edit["program"].as_str().unwrap().to_owned(), edit_to_make)
}

/// Compares with `out.yaml` or `refused.txt`; exactly one of them may be there.
fn check_outcome(folder: &Path, out: &str, outcome: &Result<String, Unsupported>) {
    let (name, other, text) = match outcome {
        Ok(text) => (out, "refused.txt", text.clone()),
        Err(refusal) => ("refused.txt", out, format!("{refusal}\n")),
    };
    assert!(!folder.join(other).exists(), "{}: {text}", folder.display());
    check_golden(&folder.join(name), &text);
}

fn check_golden(file: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(file, text).unwrap();
    }
    let golden = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}; it would be:\n{text}", file.display()));
    assert_same(file, "the golden file", &golden, text);
}

fn assert_same(place: &Path, what: &str, expected: &str, found: &str) {
    if expected != found {
        let diff = similar::TextDiff::from_lines(expected, found);
        panic!("{}: {what} differs:\n{}", place.display(), diff.unified_diff());
    }
}

/// What the manifest says, one line a fact.
fn describe(view: &Manifest) -> String {
    let mut lines = vec![format!("pod: {}/{}", view.namespace(), view.pod_name()), format!("image: {}", view.image())];
    lines.extend(view.argv().iter().map(|word| format!("argv: {word}")));
    for name in view.flag_names() {
        lines.push(format!("flag: {name} = {}", view.flag(&name).join(" | ")));
    }
    lines.extend(view.env_names().iter().map(|name| format!("env: {name}")));
    lines.extend(view.probes().iter().map(|probe| format!("probe: {}://{}:{}{}", probe.scheme, probe.host, probe.port, probe.path)));
    lines.push(format!("ours: {}", view.is_ours()));
    lines.join("\n") + "\n"
}
