//! docs/kubectl-tracing.md, from the same definitions as `--help`.

use clap::CommandFactory;

use super::Cli;

/// Every command's help, as Markdown.
pub fn reference() -> String {
    // whatever terminal this runs in
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut sections = vec![help(&mut command.clone())];
    sections.extend(
        command
            .get_subcommands()
            .map(|subcommand| format!("## kubectl tracing {}\n\n{}", subcommand.get_name(), help(&mut subcommand.clone()))),
    );
    format!(
        "# kubectl tracing\n\n<!-- Generated from src/cli by `make generate`: do not edit. -->\n\n\
         The program is called `kubectl-tracing`: where it is found in the PATH, kubectl runs it as `kubectl tracing`. Data goes to standard output, \
         everything else to standard error.\n\n{}",
        sections.join("\n")
    )
}

fn help(command: &mut clap::Command) -> String {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    format!("```text\n{}\n```\n", lines.join("\n"))
}
