//! What `component::upgrade` says of the next minor version, asked of the real programs: flag by flag, gate by gate.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use clustertracing::component::ManifestFile;
use clustertracing::component::upgrade::obstacles;

fn program(path: &str) -> PathBuf {
    let cache = std::env::var_os("TESTBED_CACHE").map(PathBuf::from);
    cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/clustertracing-testbed")).join("bin").join(path)
}

/// Both streams of a program that is asked for its version, and so starts nothing.
fn says(program: &PathBuf, flag: &str) -> (bool, String) {
    let output = Command::new(program).args([flag, "--version"]).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&words).into_owned())
}

/// Whether the table says that the version after `image`'s refuses the flag.
fn is_told(component: &str, image: &str, flag: &str) -> bool {
    let text = format!(
        "kind: Pod\nmetadata: {{name: {component}, namespace: kube-system}}\nspec:\n  containers:\n  - name: {component}\n    \
         image: {image}\n    command:\n    - {component}\n    - {flag}\n"
    );
    !obstacles(&[ManifestFile { name: format!("{component}.yaml"), text }]).is_empty()
}

fn help(program: &PathBuf) -> String {
    let output = Command::new(program).arg("--help").output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
#[ignore = "needs built kube-apiservers: make crds"]
fn every_gate_of_1_36_that_1_37_refuses_is_told_and_no_other() {
    let (old, new) = (program("kubernetes-1.36.3/kube-apiserver"), program("kubernetes-1.37.1/kube-apiserver"));
    let help = help(&old);
    // The help leaves out gates that are on for good: those of the table are asked for too.
    let table = include_str!("../src/component/upgrade/gates.rs").split('"').skip(1).step_by(2);
    let gates: BTreeSet<&str> =
        help.split(['\n', ' ', '(', ':']).filter_map(|word| word.strip_suffix("=true|false")).chain(table).collect();
    assert!(gates.len() > 250, "{gates:?}");
    let mut told = 0;
    for gate in gates {
        for on in [true, false] {
            let flag = format!("--feature-gates={gate}={on}");
            // What 1.36 refuses itself, unknown or locked, is no news.
            if !says(&old, &flag).0 {
                continue;
            }
            let (accepted, words) = says(&new, &flag);
            assert_eq!(is_told("kube-apiserver", "registry.k8s.io/kube-apiserver:v1.36.3", &flag), !accepted, "{flag}: {words}");
            told += usize::from(!accepted);
        }
    }
    assert!(told > 30, "{told}");
}

#[test]
#[ignore = "needs built etcds: make crds"]
fn every_flag_of_etcd_that_the_next_minor_refuses_is_told_and_no_other() {
    for (old, new) in [("3.5.24", "3.6.16"), ("3.6.16", "3.7.3")] {
        let (old_program, new_program) = (program(&format!("etcd-{old}")), program(&format!("etcd-{new}")));
        let help = help(&old_program);
        let flags: BTreeSet<&str> = help.lines().filter_map(|line| line.trim().strip_prefix("--")?.split_whitespace().next()).collect();
        assert!(flags.len() > 80, "{flags:?}");
        let unknown = |program, flag: &str| says(program, &format!("--{flag}=1")).1.contains("flag provided but not defined");
        for flag in flags.into_iter().filter(|flag| !unknown(&old_program, flag)) {
            let told = is_told("etcd", &format!("registry.k8s.io/etcd:{old}-0"), &format!("--{flag}=1"));
            assert_eq!(told, unknown(&new_program, flag), "{old} --{flag}");
        }
    }
}
