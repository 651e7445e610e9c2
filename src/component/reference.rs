//! The tables for people: docs/versions.md is this text, and a test keeps it so.

use super::kube_apiserver::Gate;
use super::{Fault, Version, etcd, kube_apiserver};

/// The versions that can be traced, and what each gets, as Markdown.
pub fn reference() -> String {
    let etcd = table(["version", "flags", "rate of its own"], etcd_rows());
    let kube_apiserver = table(["version", "tracing file", "feature gate", "grace for open watches"], kube_apiserver_rows());
    let (etcd_env, kube_apiserver_env) = (environment(etcd::ENV), environment(kube_apiserver::ENV));
    let (etcd_faults, kube_apiserver_faults) = (faults(etcd::FAULTS), faults(kube_apiserver::FAULTS));
    format!(
        "\
# What each version gets

<!-- Generated from src/component by `make generate`: do not edit. -->

A component's version is the tag of the image in its static pod's manifest: `v1.36.3`, `3.6.16-0`, also with a digest behind it, or with a
builder's suffix. A tag that does not name a release (`latest`), or none at all, is refused as `UnsupportedVersion`.

A version that is newer than the last row is treated like the last row, with a warning. That is no leap of faith: as with every change, the new
process has to run with the new flags and to answer its own probes, or the node gets its original manifests back.

Where somebody else set a tracing flag, the change is refused as `Conflict`.

## kube-apiserver

{kube_apiserver}
Always: `--tracing-config-file`, with the file mounted read-only at its own path; in the environment {kube_apiserver_env},
unless the container has them already. The grace flag is written only where `rollout.watchTerminationGraceSeconds` asks for it and nobody else
set it. With `--egress-selector-config-file`, spans go the way of its `controlplane` entry, if there is one: an endpoint on the node's
loopback is refused as `EgressSelector`, another one is taken with a warning.

Known faults, told as a warning:

{kube_apiserver_faults}
## etcd

{etcd}
Always: the instance id is the node's name; in the environment {etcd_env}, unless the container has it already.
An etcd that reads `--config-file` ignores all flags, and is refused as `UnsupportedManifest`. Where no static pod of the node runs etcd,
kube-apiserver alone is traced, with a warning.

Known faults, told as a warning:

{etcd_faults}"
    )
}

fn kube_apiserver_rows() -> Vec<Vec<String>> {
    let first = kube_apiserver::TABLE[0].since;
    let mut lines = vec![[format!("before {first}"), "refused: has no tracing".to_owned(), none(), none()].to_vec()];
    lines.extend(spans(kube_apiserver::TABLE, |row| row.since).map(|(versions, row)| {
        let refused =
            if row.crashes_under_egress_selector { "; refused with `--egress-selector-config-file`, under which it may crash" } else { "" };
        let gate = match row.gate {
            Gate::Off => "`APIServerTracing=true` is merged into `--feature-gates`; switched off there: `Conflict`",
            Gate::On => "on by default, nothing is written; switched off: `Conflict`",
            Gate::Locked => "locked on, nothing is written; switched on by somebody: a warning; switched off: `Conflict`",
            Gate::Gone => "gone, nothing is written; set by somebody: `Conflict`",
        };
        let grace = if row.watch_grace { "`--shutdown-watch-termination-grace-period`".to_owned() } else { none() };
        vec![versions, format!("`{}`{refused}", row.config_api), gate.to_owned(), grace]
    }));
    lines
}

fn etcd_rows() -> Vec<Vec<String>> {
    let line = |(versions, row): (String, &etcd::Row)| match row.tracing {
        Err(why) => vec![versions, format!("refused: {why}"), none()],
        Ok(flags) => {
            let names = [flags.enable, flags.address, flags.instance_id].map(|name| format!("`--{name}`"));
            let rate = flags.sampling_rate.map_or_else(|| "none: refused unless 0".to_owned(), |name| format!("`--{name}`"));
            vec![versions, names.join("<br>"), rate]
        }
    };
    spans(etcd::TABLE, |row| row.since).map(line).collect()
}

/// Each row, with the versions that it is for.
fn spans<R>(rows: &[R], since: impl Fn(&R) -> Version) -> impl Iterator<Item = (String, &R)> {
    rows.iter().enumerate().map(move |(i, row)| {
        let versions = match (since(row), rows.get(i + 1).map(&since)) {
            (first, Some(next)) if first == Version::new(0, 0, 0) => format!("before {next}"),
            (first, Some(next)) => format!("{first} to before {next}"),
            (first, None) => format!("{first} and later"),
        };
        (versions, row)
    })
}

fn table<const N: usize>(head: [&str; N], rows: Vec<Vec<String>>) -> String {
    let head = [head.map(str::to_owned).to_vec(), vec!["---".to_owned(); N]];
    let lines: Vec<String> = head.into_iter().chain(rows).map(|cells| format!("| {} |\n", cells.join(" | "))).collect();
    lines.concat()
}

fn environment(env: &[(&str, &str)]) -> String {
    env.iter().map(|(name, value)| format!("`{name}={value}`")).collect::<Vec<_>>().join(" and ")
}

fn faults(faults: &[Fault]) -> String {
    let line = |fault: &Fault| format!("- {} to before {} {}\n", fault.from, fault.fixed_in, fault.what);
    faults.iter().map(line).collect::<Vec<_>>().concat()
}

fn none() -> String {
    "–".to_owned()
}
