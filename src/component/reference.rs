//! The tables for people: docs/versions.md is this text, and a test keeps it so.

use std::fmt::Write as _;

use super::kube_apiserver::Gate;
use super::version::Version;
use super::{etcd, kube_apiserver};

/// The versions that can be traced, and what each gets, as Markdown.
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    let cell = |present: bool, what: &str| if present { what.to_owned() } else { "–".to_owned() };

    text += "\n## kube-apiserver\n\n";
    text += "| version | tracing file | feature gate | grace for open watches |\n| --- | --- | --- | --- |\n";
    line(&mut text, &["before 1.22", "refused: no tracing", "–", "–"]);
    let rows = kube_apiserver::TABLE;
    for (i, row) in rows.iter().enumerate() {
        let file = format!("`{}`", row.config_api);
        let refused = if row.crashes_under_egress_selector { "; refused with `--egress-selector-config-file`, under which it crashes" } else { "" };
        let gate = match row.gate {
            Gate::Off => "`APIServerTracing=true` is merged into `--feature-gates`",
            Gate::On => "on by default; nothing is written; switched off by somebody: `Conflict`",
            Gate::Locked => "locked on; nothing is written; a gate that names it gets a warning",
            Gate::Gone => "gone; nothing is written; a gate that names it: `Conflict`",
        };
        let grace = cell(row.watch_grace, "`--shutdown-watch-termination-grace-period`");
        line(&mut text, &[&span(row.since, rows.get(i + 1).map(|next| next.since)), &format!("{file}{refused}"), gate, &grace]);
    }
    text += "\nAlways: `--tracing-config-file`, with the file mounted read-only at its own path";
    environment(&mut text, kube_apiserver::ENV);
    text += "Known faults, told as a warning:\n\n";
    for fault in kube_apiserver::FAULTS {
        let _ = writeln!(text, "- {} to before {}: {}", fault.from, fault.fixed_in, fault.what);
    }

    text += "\n## etcd\n\n| version | flags | rate of its own |\n| --- | --- | --- |\n";
    let rows = etcd::TABLE;
    for (i, row) in rows.iter().enumerate() {
        let versions = span(row.since, rows.get(i + 1).map(|next| next.since));
        match row.tracing {
            Err(why) => line(&mut text, &[&versions, &format!("refused: {why}"), "–"]),
            Ok(flags) => {
                let names = [flags.enable, flags.address, flags.instance_id].map(|name| format!("`--{name}`")).join("<br>");
                let rate = flags.sampling_rate.map_or("none: refused unless 0".to_owned(), |name| format!("`--{name}`"));
                line(&mut text, &[&versions, &names, &rate]);
            }
        }
    }
    text += "\nAlways: the instance id is the node's name";
    environment(&mut text, etcd::ENV);
    text.pop();
    text
}

const INTRODUCTION: &str = "\
# What each version gets

<!-- Generated from src/component. To renew it: UPDATE_GOLDEN=1 cargo test --test components -->

A component's version is the tag of the image in its static pod's manifest: `v1.36.3`, `3.6.16-0`, also with a digest behind it, or with a
builder's suffix. A tag that does not name a release (`latest`), or none at all, is refused as `UnsupportedVersion`.

A version that is newer than the last row is treated like the last row, with a warning. That is no leap of faith: as with every change, the new
process has to run with the new flags and to answer its own probes, or the node gets its original manifests back.
";

fn line(text: &mut String, cells: &[&str]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn environment(text: &mut String, env: &[(&str, &str)]) {
    let env: Vec<String> = env.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
    let _ = writeln!(text, "; in the environment {}, unless the container has them already.\n", env.join(" and "));
}

/// The versions of a row.
fn span(since: Version, next: Option<Version>) -> String {
    match next {
        Some(next) if since == Version::new(0, 0, 0) => format!("before {next}"),
        Some(next) => format!("{since} to before {next}"),
        None => format!("{since} and later"),
    }
}
