//! The processes of a node, as its kernel sees them: independent of what any agent reports.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clients::{Access, get};
use super::cluster::Cluster;
use super::wait::until;

/// A running process. Number and start time together name it: no other process ever has both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its number in the node.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the kernel did.
    pub(crate) started: u64,
    /// Its arguments; the first is the program.
    pub(crate) argv: Vec<String>,
}

impl Process {
    /// Its name among all processes that there ever were.
    pub(crate) fn id(&self) -> (u32, u64) {
        (self.pid, self.started)
    }

    /// Its program, by the last part of its path.
    pub(crate) fn program(&self) -> &str {
        self.argv.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default()
    }

    /// The value of a flag that is written `--name=value`, if it is given.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        let prefix = format!("--{name}=");
        self.argv.iter().find_map(|argument| argument.strip_prefix(&prefix))
    }
}

/// All processes of `program` in `node`.
pub(crate) fn running(cluster: &Cluster, node: &str, program: &str) -> Vec<Process> {
    all(cluster, node).into_iter().filter(|process| process.program() == program).collect()
}

/// All processes in `node`.
pub(crate) fn all(cluster: &Cluster, node: &str) -> Vec<Process> {
    // A process may end between the listing and the reading: it is left out. Fields are counted from behind the command's
    // name, which may have blanks and parentheses; the start time is then the 20th (field 22 of proc(5)).
    let script = r#"for folder in /proc/[0-9]*; do
        argv=$(tr '\0' '\037' 2> /dev/null < "$folder/cmdline") || continue
        stat=$(cat "$folder/stat" 2> /dev/null) || continue
        printf '%s %s %s\n' "${folder#/proc/}" "$(printf '%s' "${stat##*) }" | cut -d' ' -f20)" "$argv"
    done"#;
    cluster.shell(node, script).lines().filter_map(parse).collect()
}

/// The one process of `program` in `node`.
pub(crate) fn try_the_one(cluster: &Cluster, node: &str, program: &str) -> Result<Process, String> {
    let mut found = running(cluster, node, program);
    match (found.pop(), found.len()) {
        (Some(process), 0) => Ok(process),
        (None, _) => Err(format!("{node} runs no {program}")),
        (Some(_), more) => Err(format!("{node} runs {program} {} times", more + 1)),
    }
}

/// The one process of `program` in `node`; panics when there is none or more.
pub(crate) fn the_one(cluster: &Cluster, node: &str, program: &str) -> Process {
    try_the_one(cluster, node, program).unwrap_or_else(|error| panic!("{error}"))
}

/// The one process of `program` on every node, by the node's name.
pub(crate) fn everywhere(cluster: &Cluster, program: &str) -> BTreeMap<String, Process> {
    cluster.nodes().into_iter().map(|node| (node.clone(), the_one(cluster, &node, program))).collect()
}

/// When the one process of `program` on every node started.
pub(crate) fn starts(cluster: &Cluster, program: &str) -> BTreeMap<String, (u32, u64)> {
    everywhere(cluster, program).into_iter().map(|(node, process)| (node, process.id())).collect()
}

/// Waits until another process than `old` runs `program` in `node`, and the node's API server is ready.
pub(crate) async fn until_replaced(cluster: &Cluster, access: &Access, node: &str, program: &str, old: &Process, budget: Duration) {
    until(&format!("another {program} runs, and the API server is ready"), budget, async || {
        let new = try_the_one(cluster, node, program)?;
        if new.id() == old.id() {
            return Err("it is the old process".to_owned());
        }
        access.at(node).client().request_text(get("/readyz")).await.map_err(|error| error.to_string())
    })
    .await;
}

/// `pid start argv`, the arguments ended by the unit separator. `None` for a kernel thread, which has no arguments.
fn parse(line: &str) -> Option<Process> {
    let mut fields = line.splitn(3, ' ');
    let (pid, started, argv) = (fields.next()?, fields.next()?, fields.next()?);
    let argv: Vec<_> = argv.trim_end_matches('\u{1f}').split('\u{1f}').map(str::to_owned).collect();
    (!argv[0].is_empty()).then_some(Process { pid: pid.parse().ok()?, started: started.parse().ok()?, argv })
}

#[test]
fn a_line_of_the_listing_is_parsed() {
    let expected = Process { pid: 7, started: 4217, argv: vec!["/usr/bin/etcd".into(), "--name=a b".into()] };
    assert_eq!(parse("7 4217 /usr/bin/etcd\u{1f}--name=a b\u{1f}"), Some(expected));
    assert_eq!(parse("2 0 "), None);
}
