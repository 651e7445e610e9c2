//! The layers of `src/lib.rs`, kept: reads the `use` lines and paths of every source file.

use std::path::{Path, PathBuf};

use clustertracing::api::Reason;
use strum::IntoEnumIterator;

/// What a module may import of this crate, and whether it is pure.
struct Layer {
    module: &'static str,
    may_use: &'static [&'static str],
    pure: bool,
}

const LAYERS: &[Layer] = &[
    Layer { module: "api", may_use: &[], pure: true },
    Layer { module: "manifest", may_use: &["api"], pure: true },
    Layer { module: "component", may_use: &["api", "manifest"], pure: true },
    Layer { module: "plan", may_use: &["api", "component", "manifest"], pure: true },
    Layer { module: "host", may_use: &["api", "component", "manifest"], pure: false },
    Layer { module: "runtime", may_use: &["api"], pure: false },
    Layer { module: "store", may_use: &["api"], pure: false },
    Layer { module: "agent", may_use: &["api", "component", "manifest", "host", "runtime"], pure: false },
    Layer { module: "controller", may_use: &["api", "component", "plan", "runtime", "store"], pure: false },
    Layer { module: "cli", may_use: &["api", "component", "manifest", "plan", "runtime"], pure: false },
];

/// Files of an impure module that decide, and so must be as pure as the pure layers.
const PURE_FILES: &[&str] = &[
    "agent/blockers.rs",
    "agent/check.rs",
    "agent/machine/back.rs",
    "agent/machine/exchange.rs",
    "agent/machine/forward.rs",
    "agent/machine/mod.rs",
    "agent/machine/types.rs",
    "agent/machine/verify.rs",
    "agent/report.rs",
    "agent/watchdog.rs",
    "cli/bundle/redact.rs",
    "cli/check/catalog.rs",
    "cli/check/facts.rs",
    "cli/check/reasons.rs",
    "cli/check/render.rs",
    "cli/check/report.rs",
    "cli/cluster/error.rs",
    "cli/explain.rs",
    "cli/json.rs",
    "cli/preview/diff.rs",
    "cli/preview/node.rs",
    "cli/preview/reported.rs",
    "cli/preview/resource.rs",
    "cli/preview/schema.rs",
    "cli/reference.rs",
    "cli/request/forward.rs",
    "cli/request/rights.rs",
    "cli/request/words.rs",
    "cli/status/rate.rs",
    "cli/status/screen.rs",
    "cli/style.rs",
    "cli/table.rs",
    "cli/top/etcd.rs",
    "cli/top/figures.rs",
    "cli/top/instances.rs",
    "cli/top/requests.rs",
    "cli/top/webhooks.rs",
];

/// Files that read and write what a person names, on the person's machine.
const PERSONS_FILES: &[&str] = &[
    "cli/bundle/archive.rs",
    "cli/preview/folder.rs",
    "cli/preview/mod.rs",
    "cli/preview/output.rs",
    "cli/request/kubectl.rs",
    "cli/show.rs",
];

/// What a pure file does not mention: clients, runtimes, files, environment, clocks, randomness.
const IMPURE: &[&str] = &[
    "kube::Client",
    "kube::Api",
    "kube::runtime",
    "kube::api::",
    "tokio",
    "std::fs",
    "std::env",
    "TcpStream",
    "UdpSocket",
    "ToSocketAddrs",
    "std::process",
    "rustix",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "rand::",
];

/// Folders of an impure module that are as pure as the pure layers.
const PURE_FOLDERS: &[&str] = &["cli/check/decide/", "cli/trace/"];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|name| name != "tests.rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The file's lines without comments and without its unit tests (which may also be a `tests.rs` beside it), numbered.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src/")).expect("a source lies in src").to_string_lossy().into_owned()
}

fn all() -> Vec<(String, String)> {
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")))
        .iter()
        .map(|p| (relative(p), std::fs::read_to_string(p).expect("a source can be read")))
        .collect()
}

/// The word that a text begins with.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Modules of this crate that a line names through `crate::` (nested braces of a `use` are looked through by their first names).
fn crate_modules(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .flat_map(|(at, _)| {
            let rest = &line[at + "crate::".len()..];
            let names = rest.strip_prefix('{').map_or_else(|| vec![rest], |list| list.split(", ").collect());
            names.into_iter().map(word).collect::<Vec<_>>()
        })
        .filter(|name| LAYERS.iter().any(|l| l.module == *name))
        .collect()
}

#[test]
fn modules_import_only_what_their_layer_may() {
    let mut broken = Vec::new();
    for (file, text) in all() {
        let Some(layer) = LAYERS.iter().find(|l| file.starts_with(&format!("{}/", l.module))) else { continue };
        for (number, line) in code(&text) {
            for module in crate_modules(line) {
                if module != layer.module && !layer.may_use.contains(&module) {
                    broken.push(format!("{file}:{number}: {} may not import {module}", layer.module));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn deciding_modules_are_pure() {
    let mut broken = Vec::new();
    for (file, text) in all() {
        let pure = LAYERS.iter().any(|l| l.pure && file.starts_with(&format!("{}/", l.module)))
            || PURE_FOLDERS.iter().any(|folder| file.starts_with(folder))
            || PURE_FILES.contains(&file.as_str());
        if !pure {
            continue;
        }
        for (number, line) in code(&text) {
            broken.extend(IMPURE.iter().filter(|word| line.contains(*word)).map(|word| format!("{file}:{number}: {word}")));
        }
    }
    assert!(broken.is_empty(), "a pure module takes values and returns values:\n{}", broken.join("\n"));
}

#[test]
fn only_component_knows_flag_names() {
    let mut broken = Vec::new();
    for (file, text) in all() {
        if file.starts_with("component/") {
            continue;
        }
        for (number, line) in code(&text) {
            for flag in ["distributed-tracing", "tracing-config-file", "shutdown-watch-termination", "APIServerTracing"] {
                if line.contains(flag) {
                    broken.push(format!("{file}:{number}: {flag}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "flags belong to src/component:\n{}", broken.join("\n"));
}

#[test]
fn only_host_touches_files_of_a_node() {
    let mut broken = Vec::new();
    for (file, text) in all() {
        if file.starts_with("host/") || file.starts_with("bin/") || PERSONS_FILES.contains(&file.as_str()) {
            continue;
        }
        for (number, line) in code(&text) {
            if ["std::fs", "tokio::fs", "rustix::fs"].iter().any(|w| line.contains(w)) {
                broken.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "files belong to src/host:\n{}", broken.join("\n"));
}

#[test]
fn every_reason_is_raised() {
    // a table that names every reason raises none
    let raises = |file: &str| !file.starts_with("api/") && file != "cli/check/reasons.rs";
    let code: String = all().iter().filter(|(file, _)| raises(file)).flat_map(|(_, text)| code(text)).map(|(_, line)| line).collect();
    let unused: Vec<_> =
        Reason::iter().map(Reason::as_str).filter(|name| !code.split("Reason::").skip(1).any(|rest| word(rest) == *name)).collect();
    assert!(unused.is_empty(), "reasons that nothing gives: {unused:?}");
}

#[test]
fn no_file_is_longer_than_800_lines() {
    let long: Vec<_> = all().into_iter().filter(|(_, text)| text.lines().count() > 800).map(|(file, _)| file).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn programs_are_thin() {
    let thick: Vec<_> = all()
        .into_iter()
        .filter(|(file, text)| {
            file.starts_with("bin/") && file != "bin/crdgen.rs" && code(text).filter(|(_, l)| !l.trim().is_empty()).count() > 60
        })
        .map(|(file, _)| file)
        .collect();
    assert!(thick.is_empty(), "a program parses its arguments and calls the library: {thick:?}");
}
