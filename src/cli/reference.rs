//! docs/kubectl-tracing.md, from the same definitions as `--help`.

use clap::CommandFactory;

use super::trace::document;
use super::{Cli, check, json, status, top, traces};

/// Every command's help, as Markdown.
pub fn reference() -> String {
    let mut sections = vec![help(None)];
    let command = Cli::command();
    let names = command.get_subcommands().filter(|command| !command.is_hide_set()).map(clap::Command::get_name);
    sections.extend(names.map(|name| format!("## kubectl tracing {name}\n\n{}", help(Some(name)))));
    format!(
        "# kubectl tracing\n\n<!-- Generated from src/cli by `make generate`: do not edit. -->\n\n\
         The program is called `kubectl-tracing`: where it is found in the PATH, kubectl runs it as `kubectl tracing`. Data goes to standard output, \
         everything else to standard error.\n\n{}",
        sections.join("\n")
    )
}

/// The schemas of what commands print with `-o json`, by file name below `docs/schema`.
pub fn schemas() -> Vec<(&'static str, String)> {
    vec![
        ("check.json", json::schema::<check::report::CheckReport>()),
        ("status.json", json::schema::<status::Document>()),
        ("top.json", json::schema::<top::Summary>()),
        ("trace.json", json::schema::<document::Document>()),
        ("traces.json", json::schema::<traces::List>()),
    ]
}

/// What `--help` prints, on a terminal of 100 columns.
pub(super) fn help(subcommand: Option<&str>) -> String {
    let line = ["kubectl-tracing"].into_iter().chain(subcommand).chain(["--help"]);
    let printed = Cli::command().term_width(100).try_get_matches_from(line);
    let help = printed.err().map(|help| help.render().to_string()).unwrap_or_default();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    format!("```text\n{}\n```\n", lines.join("\n"))
}
