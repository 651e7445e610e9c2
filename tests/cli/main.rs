//! The plugin's program as a person runs it: command lines, what they print, how they end, and what they write.
//!
//! A case is a folder of `tests/cli/cases`: `case.yaml` makes files in an empty folder and names command lines, which are run there one after
//! the other; `golden.txt` is what came of them. `UPDATE_GOLDEN=1 cargo test --test cli` writes it anew: read the difference before you
//! commit it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

mod api_server;
mod case;
mod folders;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program, with nothing in its environment that could change what it prints.
fn plugin(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-tracing"));
    command.current_dir(folder).args(line.split_whitespace()).env_clear();
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no cases", folder.display());
    paths
}

#[test]
fn every_case_prints_writes_and_ends_as_its_golden_file_shows() {
    let cases = subfolders(&root().join("tests/cli/cases"));
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    let differing: Vec<_> = cases.iter().filter_map(|folder| case::check(folder)).collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn the_session_that_opens_the_readme_is_what_the_program_prints() {
    let golden = fs::read_to_string(root().join("tests/cli/cases/session/golden.txt")).unwrap();
    let runs: Vec<String> = golden
        .split("\n$ kubectl tracing ")
        .skip(1)
        .map(|run| {
            let (line, printed) = run.split_once("\nexit 0\n--- stdout\n").unwrap();
            format!("$ kubectl tracing {line}\n{}\n", printed.trim_end())
        })
        .collect();
    let session = format!("```console\n{}```\n", runs.join("\n"));
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let opening =
        readme.split("```console").nth(1).map(|block| format!("```console{}```\n", block.split("```").next().unwrap_or_default()));
    assert_eq!(opening, Some(session), "README.md: put the session of tests/cli/cases/session into its first block");
}

#[test]
fn the_reference_for_people_is_what_help_says() {
    let reference = fs::read_to_string(root().join("docs/kubectl-tracing.md")).unwrap();
    assert!(reference == clustertracing::cli::reference(), "docs/kubectl-tracing.md: renew it with make generate");
    for line in [
        "",
        "diff",
        "render",
        "explain",
        "check",
        "status",
        "rollout",
        "sample",
        "show",
        "traces",
        "tail",
        "top",
        "ui",
        "bundle",
        "request",
        "version",
        "completion",
    ] {
        let help = plugin(root(), &format!("{line} --help")).output().unwrap();
        assert_eq!(help.status.code(), Some(0), "{line}");
        let help = String::from_utf8(help.stdout).unwrap();
        let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
        assert!(reference.contains(&help.join("\n")), "{line}: {}", help.join("\n"));
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    use std::process::Stdio;
    let mut child = plugin(root(), "explain").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn completion_of_every_shell_is_a_script() {
    for shell in ["bash", "zsh", "fish"] {
        let script = plugin(root(), &format!("completion {shell}")).output().unwrap();
        assert_eq!(script.status.code(), Some(0));
        assert!(String::from_utf8(script.stdout).unwrap().contains("kubectl-tracing"), "{shell}");
    }
}
