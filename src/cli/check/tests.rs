//! Every check, provoked: `tests/check/before.yaml` (with `--pre`) and `after.yaml` hold facts with which all is well, and cases that change some of them; the
//! golden file beside each shows what is found. `UPDATE_GOLDEN=1 cargo test --lib cli::check` writes it anew: read the difference.
//!
//! In these files a condition, a node's status and a NodeTracing have their names as keys, `{copy: FILE, replacing: {a: b}}` is a file's text, and null
//! takes something away.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use kube::CustomResourceExt as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strum::IntoEnumIterator as _;

use super::catalog::{Check, When};
use super::facts::Facts;
use super::report::{CheckCategory, CheckReport, CheckResult, Severity};
use super::{Waited, decide, render, until_well};
use crate::api::{ClusterTracing, NodeTracing};
use crate::cli::cluster::Error;
use crate::cli::json::document;
use crate::cli::{ColorChoice, Output, Palette, Terminal};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    facts: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    says: String,
    change: Value,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The facts with `change` in them: what is no object replaces what is there.
fn merged(facts: &Value, change: &Value) -> Value {
    match (facts, change) {
        (Value::Object(facts), Value::Object(change)) if !change.contains_key("unread") => {
            let mut all = facts.clone();
            for (key, value) in change {
                let before = facts.get(key).unwrap_or(&Value::Null);
                all.insert(key.clone(), merged(before, value));
            }
            Value::Object(all)
        }
        _ => change.clone(),
    }
}

/// Nulls below the first level are taken away, and files are read.
fn expanded(value: Value, depth: usize) -> Value {
    match value {
        Value::Object(object) => {
            let Some(path) = object.get("copy").and_then(Value::as_str) else {
                let kept = object.into_iter().filter(|(_, value)| depth == 0 || !value.is_null());
                return Value::Object(kept.map(|(key, value)| (key, expanded(value, depth + 1))).collect());
            };
            let replacing = object.get("replacing").and_then(Value::as_object).into_iter().flatten();
            Value::String(replacing.fold(read(path), |text, (from, to)| {
                assert!(text.contains(from), "{path} does not contain {from:?}");
                text.replace(from, to.as_str().unwrap())
            }))
        }
        other => other,
    }
}

/// The values of an object as a list, each with its name in it.
fn listed(value: &mut Value, add: impl Fn(&str, &mut Map<String, Value>)) {
    let Some(object) = value.as_object().cloned() else { return };
    let items = object.into_iter().map(|(name, mut item)| {
        add(&name, item.as_object_mut().unwrap());
        item
    });
    *value = items.collect();
}

fn facts(value: Value) -> Facts {
    let mut value = expanded(value, 0);
    let spoken = json!("2026-11-22T09:00:00Z");
    if let Some(conditions) = value.pointer_mut("/resource/status/conditions") {
        listed(conditions, |name, item| {
            item.extend([("type".to_owned(), json!(name)), ("lastTransitionTime".to_owned(), spoken.clone())]);
        });
    }
    if let Some(nodes) = value.pointer_mut("/resource/status/nodes") {
        listed(nodes, |name, item| _ = item.insert("name".to_owned(), json!(name)));
    }
    if let Some(nodes) = value.get_mut("nodeTracings").filter(|nodes| nodes.get("unread").is_none()) {
        listed(nodes, |name, item| {
            let generation = item.remove("generation").unwrap_or(json!(1));
            item.extend([
                ("apiVersion".to_owned(), json!("clustertracing.dev/v1alpha1")),
                ("kind".to_owned(), json!("NodeTracing")),
                ("metadata".to_owned(), json!({ "name": name, "generation": generation })),
                ("spec".to_owned(), json!({ "nodeUid": name })),
            ]);
        });
    }
    if let Some(definitions) = value.get_mut("definitions").and_then(Value::as_object_mut) {
        for crd in [ClusterTracing::crd(), NodeTracing::crd()] {
            let there = definitions.get_mut(crd.metadata.name.as_deref().unwrap_or_default()).and_then(Value::as_object_mut);
            // those of this program, unless the case says otherwise
            if let Some(definition) = there {
                _ = definition.entry("fields").or_insert(json!(decide::fields(&crd)));
            }
        }
    }
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}"))
}

fn palette() -> Palette {
    Palette::new(ColorChoice::Never, &Terminal { locale: Some("C.UTF-8".to_owned()), ..Terminal::default() })
}

/// What is not well.
fn troubles(report: &CheckReport) -> CheckReport {
    let mut report = report.clone();
    for category in &mut report.categories {
        category.checks.retain(|check| check.result != Severity::Success);
    }
    report.categories.retain(|category| !category.checks.is_empty());
    report
}

/// Every case of a file: what is found, and by which checks.
fn run(name: &str, before: bool) -> (String, BTreeSet<String>) {
    let file: File = serde_yaml::from_str(&read(&format!("tests/check/{name}.yaml"))).unwrap();
    let well = decide::report(&facts(file.facts.clone()), before);
    let mut text = format!("# all is well\n\n{}", render::text(&well, palette()));
    let mut provoked = BTreeSet::new();
    for Case { says, change } in &file.cases {
        let report = decide::report(&facts(merged(&file.facts, change)), before);
        let troubles = troubles(&report);
        provoked.extend(troubles.checks().map(|check| check.code.clone()));
        text += &["\n# ", says, "\n\n", &render::text(&troubles, palette())].concat();
    }
    (text, provoked)
}

fn golden(name: &str, text: &str) {
    let path = root().join(format!("tests/check/{name}.out"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{}:\n{}", path.display(), similar::TextDiff::from_lines(expected.as_str(), text).unified_diff());
}

fn made(before: bool) -> BTreeSet<String> {
    Check::iter().map(Check::entry).filter(|entry| entry.when.is_now(before)).map(|entry| entry.code.to_owned()).collect()
}

#[test]
fn before_installing_every_check_finds_what_its_case_provokes() {
    let (text, provoked) = run("before", true);
    golden("before", &text);
    assert_eq!(provoked, made(true), "every check that --pre makes is provoked");
}

#[test]
fn of_an_installed_operator_every_check_finds_what_its_case_provokes() {
    let (text, provoked) = run("after", false);
    golden("after", &text);
    assert_eq!(provoked, made(false), "every check is provoked");
}

#[test]
fn there_are_enough_checks_of_both_kinds() {
    assert!(Check::iter().count() >= 25);
    assert!(Check::iter().any(|check| check.entry().when == When::Before));
}

#[test]
fn where_all_is_well_every_check_says_so() {
    for (name, before) in [("before", true), ("after", false)] {
        let file: File = serde_yaml::from_str(&read(&format!("tests/check/{name}.yaml"))).unwrap();
        let report = decide::report(&facts(file.facts), before);
        let told: BTreeSet<_> = report.checks().map(|check| check.code.clone()).collect();
        assert!(report.success && report.count(Severity::Warning) == 0, "{}", render::text(&troubles(&report), palette()));
        assert_eq!(told, made(before));
    }
}

/// Whether a value has the fields of its schema, and no others, with values that it names.
fn fits(value: &Value, schema: &Value, definitions: &Value) -> bool {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        return fits(value, &definitions[name], definitions);
    }
    let named = |one: &Value| one["const"].is_null() || one["const"] == *value;
    let is_named = schema["oneOf"].as_array().is_none_or(|all| all.iter().any(named)) && named(schema);
    is_named
        && match value {
            Value::Array(items) => items.iter().all(|item| fits(item, &schema["items"], definitions)),
            Value::Object(fields) => {
                let known = |(name, value): (&String, &Value)| {
                    schema["properties"].get(name).is_some_and(|schema| fits(value, schema, definitions))
                };
                let required = schema["required"].as_array().into_iter().flatten();
                fields.iter().all(known) && required.into_iter().all(|name| fields.contains_key(name.as_str().unwrap_or_default()))
            }
            _ => true,
        }
}

#[test]
fn every_report_is_what_the_published_schema_describes() {
    let schema: Value = serde_json::from_str(&read("docs/schema/check.json")).unwrap();
    for (name, before) in [("before", true), ("after", false)] {
        let file: File = serde_yaml::from_str(&read(&format!("tests/check/{name}.yaml"))).unwrap();
        for Case { says, change } in &file.cases {
            let report = decide::report(&facts(merged(&file.facts, change)), before);
            let printed: Value = serde_json::from_str(&document(&report)).unwrap();
            assert!(fits(&printed, &schema, &schema["$defs"]), "{says}: {printed:#}");
            let mut without = printed.clone();
            without["categories"][0]["checks"][0].as_object_mut().unwrap().remove("docs");
            assert!(!fits(&without, &schema, &schema["$defs"]), "a field that is missing is seen");
        }
    }
}

#[test]
fn the_page_of_the_checks_is_of_this_program() {
    assert!(read("docs/checks.md") == super::reference(), "docs/checks.md: renew it with make generate");
}

/// Remembers what it is told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Output for Notes {
    fn data(&mut self, text: &str) -> io::Result<()> {
        self.note(text)
    }

    fn note(&mut self, line: &str) -> io::Result<()> {
        self.0.push(line.to_owned());
        Ok(())
    }
}

/// A report of one check: what it found wrong, if anything.
fn mk_report(found: Option<&str>) -> CheckReport {
    let check = CheckResult {
        code: "CT0404".to_owned(),
        description: "d".to_owned(),
        result: if found.is_some() { Severity::Error } else { Severity::Success },
        found: found.map(str::to_owned).into_iter().collect(),
        cause: None,
        fix: None,
        docs: String::new(),
    };
    CheckReport::new(vec![CheckCategory { name: "c".to_owned(), checks: vec![check] }])
}

fn mk_away() -> Error {
    Error::StoreAway { namespace: "n".to_owned(), message: "m".to_owned() }
}

/// Looks that come out as `looks` say, the last one for ever; an error: nobody answers.
async fn wait_for(seconds: u64, looks: &[Result<Option<&str>, ()>]) -> (Waited, Vec<String>, usize) {
    let (mut notes, count) = (Notes::default(), Cell::new(0));
    let look = async || {
        let look = looks[count.get().min(looks.len() - 1)];
        count.set(count.get() + 1);
        look.map(mk_report).map_err(|()| mk_away())
    };
    let waited = until_well(Duration::from_secs(seconds), &mut notes, look).await.unwrap();
    (waited, notes.0, count.get())
}

#[tokio::test(start_paused = true)]
async fn waiting_says_each_cause_once_and_ends_when_there_is_none() {
    let (waited, notes, looks) = wait_for(60, &[Err(()), Err(()), Ok(Some("a")), Ok(Some("a")), Ok(Some("b")), Ok(None)]).await;
    assert_eq!((waited, looks), (Waited::Well(mk_report(None)), 6));
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert_eq!(notes[1..], ["waiting: CT0404 d: a", "waiting: CT0404 d: b"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_its_time_and_with_what_was_seen_last() {
    assert_eq!(
        wait_for(10, &[Ok(Some("a"))]).await,
        (Waited::Over(Some(mk_report(Some("a")))), vec!["waiting: CT0404 d: a".to_owned()], 6)
    );
    let (waited, ..) = wait_for(10, &[Ok(Some("a")), Err(())]).await;
    assert_eq!(waited, Waited::Over(None));
}
