//! The kubectl plugin: `kubectl tracing …`, for a person at a terminal or a pipeline.
//!
//! A command makes a [`Report`]: data for standard output, notes for standard error, and the exit code. The program prints it.
//! docs/kubectl-tracing.md is written from the same definitions as `--help`, by [`reference()`].
//!
//! `preview` holds what shows a change before it is made, `cluster` how a cluster is asked, [`trace`] what traces are drawn from.

mod bundle;
mod check;
mod cluster;
mod completion;
mod explain;
mod json;
mod output;
mod preview;
mod reference;
mod request;
mod rollout;
mod sample;
mod show;
mod status;
mod style;
mod table;
mod top;
pub mod trace;
mod traces;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use check::reference as checks_reference;
pub use output::Output;
pub use reference::{reference, schemas};
pub use style::{ColorChoice, Palette, Terminal};

/// Preview and explain tracing of kube-apiserver and etcd, and draw its traces.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-tracing",
    bin_name = "kubectl tracing",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "\
Examples:
  # What applying clustertracing.yaml would change, from a copy of a node's static-pod folder
  kubectl tracing diff -f clustertracing.yaml --manifests ./manifests

  # What a condition's or a refusal's reason means
  kubectl tracing explain UnsupportedManifest

Exit codes:
  0  ok
  1  differences, or findings
  2  wrong usage, bad input, or a change that is refused
  3  the cluster cannot be reached, or forbids what is needed
  4  what was waited for did not come in time"
)]
pub struct Cli {
    /// Use colours: auto (on a terminal, unless NO_COLOR is set or TERM is dumb), always or never
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN", hide_possible_values = true)]
    pub color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Diff(preview::Diff),
    Render(preview::Render),
    Explain(explain::Explain),
    Check(check::Check),
    Status(status::Status),
    Rollout(rollout::Rollout),
    Sample(sample::Sample),
    Show(show::Show),
    Traces(traces::Traces),
    Tail(traces::Tail),
    Top(top::Top),
    Ui(ui::Ui),
    Bundle(bundle::Bundle),
    Request(request::Request),
    /// Print the version of this program and of the API that it speaks
    #[command(after_help = "\
Examples:
  # Which version this is
  kubectl tracing version

  # Where kubectl finds it
  kubectl plugin list")]
    Version,
    /// Print a completion script of a shell, or of kubectl
    #[command(after_help = "\
Examples:
  # For kubectl tracing, in every shell that completes kubectl
  kubectl tracing completion kubectl > ~/.local/bin/kubectl_complete-tracing
  chmod +x ~/.local/bin/kubectl_complete-tracing

  # In this bash, for the program's own name
  source <(kubectl-tracing completion bash)

  # In every fish
  kubectl tracing completion fish > ~/.config/fish/completions/kubectl-tracing.fish")]
    Completion {
        /// The shell
        shell: completion::Shell,
    },
    /// What kubectl_complete-tracing asks
    #[command(name = "__complete", hide = true)]
    Candidates {
        /// Words so far; the last one may be empty, and is to be completed
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        words: Vec<std::ffi::OsString>,
    },
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well, and nothing differs.
    Ok,
    /// Something was found, or differs, or is not ready.
    Findings,
    /// Wrong usage, bad input, or a change that is refused. Nothing was written.
    BadInput,
    /// The cluster cannot be reached, or forbids what is needed.
    Unreachable,
    /// What was waited for did not come in time.
    TimedOut,
    /// As the program ended that was run.
    Program(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Findings => 1,
            Exit::BadInput => 2,
            Exit::Unreachable => 3,
            Exit::TimedOut => 4,
            Exit::Program(code) => code,
        })
    }
}

/// What a command says, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For standard output.
    pub data: String,
    /// For standard error, one line each.
    pub notes: Vec<String>,
    /// How it ends.
    pub exit: Exit,
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `diff` or `render`.
    #[error(transparent)]
    Preview(preview::Error),
    /// `explain`.
    #[error(transparent)]
    Explain(explain::Unknown),
    /// `show`.
    #[error(transparent)]
    Show(show::Error),
    /// `request`.
    #[error(transparent)]
    Request(request::Error),
    /// A command that asks the cluster.
    #[error(transparent)]
    Cluster(cluster::Error),
    /// `bundle`.
    #[error(transparent)]
    Archive(bundle::Error),
    /// kubectl does not run.
    #[error("run kubectl: it has to be in the PATH")]
    Kubectl {
        /// The cause.
        source: std::io::Error,
    },
    /// What came before the end cannot be printed.
    #[error("write the output")]
    Output(#[source] std::io::Error),
    /// The program cannot wait for several things at once.
    #[error("begin to work")]
    Runtime(#[source] std::io::Error),
}

impl Error {
    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Explain(_) | Self::Archive(_) | Self::Kubectl { .. } | Self::Output(_) | Self::Runtime(_) => Exit::BadInput,
            Self::Preview(error) => error.exit(),
            Self::Show(error) => error.exit(),
            Self::Request(error) => error.exit(),
            Self::Cluster(error) => error.exit(),
        }
    }
}

impl Cli {
    /// Does what the command line asks for. What goes on for a while prints on the way; the rest is in the report.
    pub fn run(&self, palette: Palette, output: &mut dyn Output) -> Result<Report, Error> {
        match &self.command {
            Command::Diff(diff) => waiting(diff.run(palette)),
            Command::Render(render) => render.run().map_err(Error::Preview),
            Command::Explain(explain) => explain.run().map_err(Error::Explain),
            Command::Check(check) => waiting(check.run(palette, output)),
            Command::Status(status) => waiting(status.run(palette)),
            Command::Rollout(rollout) => waiting(rollout.run(output)),
            Command::Sample(sample) => waiting(sample.run(output)),
            Command::Show(show) => waiting(show.run(palette)),
            Command::Traces(traces) => waiting(traces.run()),
            Command::Tail(tail) => waiting(tail.run(output)),
            Command::Top(top) => waiting(top.run()),
            Command::Ui(ui) => waiting(ui.run(output)),
            Command::Bundle(bundle) => waiting(bundle.run(output)),
            Command::Candidates { words } => Ok(Report::data(completion::candidates(words))),
            Command::Request(request) => waiting(request.run(self.color, palette, output)),
            Command::Version => {
                Ok(Report::data(format!("kubectl-tracing {}\n{}/{}\n", env!("CARGO_PKG_VERSION"), crate::api::GROUP, crate::api::VERSION)))
            }
            Command::Completion { shell } => Ok(Report::data(completion::script(*shell))),
        }
    }
}

impl Report {
    /// Nothing but data, and all is well.
    fn data(data: String) -> Self {
        Self { data, notes: Vec::new(), exit: Exit::Ok }
    }

    /// Nothing to show, and why.
    fn nothing(note: String) -> Self {
        Self { data: String::new(), notes: vec![note], exit: Exit::Findings }
    }
}

/// Waits for a command that asks the cluster.
fn waiting(command: impl Future<Output = Result<Report, Error>>) -> Result<Report, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?.block_on(command)
}

/// An error and its causes, on one line. Some libraries say the cause's words themselves: they are said once.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    let mut told: Vec<String> = Vec::new();
    for words in chain {
        if told.last().is_none_or(|last| !last.ends_with(&words)) {
            told.push(words);
        }
    }
    told.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_two_examples_and_is_called_as_kubectl_calls_it() {
        for subcommand in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = reference::help(Some(subcommand.get_name()));
            let is_example = |line: &&str| line.starts_with("  kubectl ") || line.starts_with("  source <(kubectl-tracing ");
            assert!(help.lines().filter(is_example).count() >= 2, "{help}");
            assert!(help.contains("Usage: kubectl tracing "), "{help}");
        }
    }
}
