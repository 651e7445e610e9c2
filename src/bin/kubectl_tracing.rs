//! The kubectl plugin's program: arguments, the command, its words.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use clustertracing::cli::{self, Cli, Output as _, Palette, Report, Terminal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let variable = |name| std::env::var(name).ok();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    let terminal = Terminal { is_terminal: io::stdout().is_terminal(), no_color: variable("NO_COLOR"), term: variable("TERM"), locale };
    let report = cli.run(Palette::new(cli.color, &terminal), &mut Standard).unwrap_or_else(|error| Report {
        data: String::new(),
        notes: vec![format!("error: {}", cli::one_line(&error))],
        exit: error.exit(),
    });
    match print(&report) {
        Ok(()) => report.exit.into(),
        // who reads the data has seen enough
        Err(error) if error.kind() == ErrorKind::BrokenPipe => report.exit.into(),
        Err(error) => {
            eprintln!("error: write standard output: {error}");
            cli::Exit::BadInput.into()
        }
    }
}

/// Standard output and standard error.
struct Standard;

impl cli::Output for Standard {
    fn data(&mut self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    fn note(&mut self, line: &str) -> io::Result<()> {
        writeln!(io::stderr().lock(), "{line}")
    }
}

fn print(report: &Report) -> io::Result<()> {
    Standard.data(&report.data)?;
    report.notes.iter().try_for_each(|note| Standard.note(note))
}
