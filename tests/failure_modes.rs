//! `docs/failure-modes.md`, held to its word: every row names what shows it, and what it names is there.

#![expect(clippy::panic, reason = "a row that cannot be read panics")]

use std::path::Path;

/// The catalogue of failures that the table answers has this many entries; rows beyond it are our own.
const CATALOGUE: usize = 79;

/// A row of the table.
struct Row<'a> {
    number: usize,
    required: &'a str,
    shown_by: &'a str,
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows(table: &str) -> Vec<Row<'_>> {
    table
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
            let number = cells[0].parse().ok()?;
            let [_, failure, required, shown_by] = cells[..] else { panic!("row {number} has {} cells instead of 4", cells.len()) };
            assert!(!failure.is_empty(), "row {number} names no failure");
            Some(Row { number, required, shown_by })
        })
        .collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What is wrong with `file::test`, `file::step of an e2e run` or the path of a golden case.
fn missing(evidence: &str) -> Option<String> {
    let (file, name) = evidence.split_once("::").map_or((evidence, None), |(file, name)| (file, Some(name)));
    if !file.starts_with("tests/") && !file.starts_with("src/") {
        return Some("is neither a test nor a case of one".to_owned());
    }
    let Some(name) = name else { return (!project().join(file).exists()).then(|| "is not there".to_owned()) };
    let Ok(source) = std::fs::read_to_string(project().join(file)) else { return Some(format!("{file} is not there")) };
    let is_test = if name.contains(' ') { is_step(&source, name) } else { is_test_function(&source, name) };
    (!is_test).then(|| format!("{file} has no such test"))
}

fn is_test_function(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        function.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let attributes = |at: usize| lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//")).copied();
    let is_marked = |at| attributes(at).any(|line| line == "#[test]" || line.starts_with("#[tokio::test"));
    lines.iter().enumerate().any(|(at, line)| is_it(line) && is_marked(at))
}

/// A step's text stands in the source, after the call that announces it.
fn is_step(source: &str, text: &str) -> bool {
    source.split("step(").skip(1).any(|after| after.split('"').nth(1).is_some_and(|said| said == text))
}

#[test]
fn every_row_says_what_is_required_and_names_tests_that_exist_or_why_it_is_open() {
    let table = std::fs::read_to_string(project().join("docs/failure-modes.md")).expect("the table can be read");
    let rows = rows(&table);
    let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
    assert!(numbers.len() > CATALOGUE, "{} rows", numbers.len());
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "each number stands once, in order");

    let mut wrong = Vec::new();
    for Row { number, required, shown_by } in rows {
        if required.is_empty() {
            wrong.push(format!("row {number}: nothing is required"));
        }
        let open = shown_by.split_once("open: ").is_some_and(|(_, reason)| !reason.trim().is_empty());
        if !open && quoted(shown_by).next().is_none() {
            wrong.push(format!("row {number}: names no test, and is not open for a reason"));
        }
        wrong.extend(quoted(shown_by).filter_map(|name| Some(format!("row {number}: {name}: {}", missing(name)?))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_test_that_does_not_exist_is_missed() {
    let there = "tests/failure_modes.rs::a_test_that_does_not_exist_is_missed";
    assert_eq!(missing(there), None);
    assert_eq!(missing("tests/failure_modes.rs"), None);
    let wrong = [
        "tests/failure_modes.rs::a_test_that_does_not",
        "tests/failure_modes.rs::is_step",
        "tests/failure_modes.rs::no such step",
        "tests/no_such_file.rs::a_test",
        "tests/plans/no-such-case.yaml",
        "docs/failure-modes.md",
    ];
    for name in wrong {
        assert!(missing(name).is_some(), "{name} counts as a test");
    }
    assert!(is_step("step(\"one\", x); step(&name(\"the other\"), y)", "the other"));
    assert!(!is_step("step(\"one\", x); note(\"the other\")", "the other"));
}

/// Row 54: what does not exist cannot be down.
#[test]
fn the_operator_has_no_webhook_and_serves_one_version() {
    let mut definitions = 0;
    for folder in ["crds", "config", "charts"] {
        for file in files(&project().join(folder)) {
            let text = std::fs::read_to_string(&file).expect("a manifest can be read");
            for word in ["WebhookConfiguration", "strategy: Webhook", "conversion:"] {
                assert!(!text.contains(word), "{} has {word:?}", file.display());
            }
            if text.contains("kind: CustomResourceDefinition\n") {
                definitions += 1;
                assert_eq!(text.matches("served: true").count(), 1, "{}", file.display());
                assert_eq!(text.matches("served: false").count(), 0, "{}", file.display());
            }
        }
    }
    assert!(definitions >= 2, "{definitions} definitions");
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder can be listed").map(|entry| entry.expect("it can be listed").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
