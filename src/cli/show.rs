//! `show`: draws traces that are in a file, or come from another program.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::trace::critical;
use super::trace::draw::{Options, draw};
use super::trace::model::{self, Trace};
use super::trace::tree::{self, Filter, Tree};
use super::{Exit, Palette, Report};

/// Draw traces as waterfalls, with what each request waited for
///
/// Reads OTLP/JSON: what the operator's trace store answers, and what the collector's file exporter writes. docs/waterfall.md explains the
/// picture. Exit code 0: drawn; 1: there is no trace in it; 2: it is no OTLP/JSON.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # A trace of the operator's trace store, with your own rights
  kubectl get --raw /api/v1/namespaces/clustertracing-system/services/clustertracing-store:http/proxy/api/v1/traces/ID |
    kubectl tracing show -

  # What took 5 ms or more of the traces in a file, 120 columns wide
  kubectl tracing show traces.json --min 5ms --width 120")]
pub(super) struct Show {
    /// File with OTLP/JSON; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Columns of a line, 40 or more: from 96 on, with the time that spans spent themselves
    #[arg(long, default_value_t = 80, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=1000))]
    width: u16,
    /// Only spans that took this long or longer, such as 5ms or 1s, those that failed, and what these are part of
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min: Option<Duration>,
    /// Only so many levels below a trace's first span
    #[arg(long, value_name = "LEVELS")]
    depth: Option<usize>,
    /// Only spans of this component, such as etcd, and what these are part of
    #[arg(long, value_name = "COMPONENT")]
    only: Option<String>,
    /// Also the steps that every request passes through
    #[arg(long)]
    all_steps: bool,
    /// Draw with ASCII only
    #[arg(long)]
    ascii: bool,
}

/// Why nothing was drawn.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {file}")]
    Read {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no OTLP/JSON.
    #[error("{file} is no trace as the trace store answers it (kubectl get --raw .../api/v1/traces/ID)")]
    Traces {
        /// Which.
        file: String,
        /// Where it is wrong.
        source: model::Error,
    },
}

impl Show {
    pub(super) fn run(&self, palette: Palette) -> Result<Report, Error> {
        let (file, bytes) = read(&self.file)?;
        let traces = model::read(&bytes).map_err(|source| Error::Traces { file: file.clone(), source })?;
        if traces.is_empty() {
            return Ok(Report {
                data: String::new(),
                notes: vec![format!("{file} has no span: the trace is not there any more, or not yet")],
                exit: Exit::Findings,
            });
        }
        let drawn: Vec<_> = traces.iter().map(|trace| self.drawn(trace, palette)).collect();
        Ok(Report::data(drawn.join("\n")))
    }

    fn drawn(&self, trace: &Trace, palette: Palette) -> String {
        let tree = Tree::new(trace);
        let min = self.min.map_or(0, |min| u64::try_from(min.as_nanos()).unwrap_or(u64::MAX));
        let filter = Filter { min, depth: self.depth, only: self.only.clone(), all_steps: self.all_steps, ..Filter::default() };
        let options = Options { width: self.width.into(), ascii: self.ascii, ..Options::default() };
        let drawing = draw(&tree, &tree::view(&tree, &filter), critical::path(&tree).as_ref(), &options);
        if palette.is_colored() { drawing.coloured() } else { drawing.plain() }
    }
}

fn read(file: &Path) -> Result<(String, Vec<u8>), Error> {
    let mut bytes = Vec::new();
    let (file, read) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::stdin().read_to_end(&mut bytes).map(drop))
    } else {
        (file.display().to_string(), std::fs::read(file).map(|all| bytes = all))
    };
    read.map_err(|source| Error::Read { file: file.clone(), source })?;
    Ok((file, bytes))
}

/// `5ms`, `1s`, `1m30s`: the units of kubectl's own durations.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "is no duration such as 5ms or 1s".to_owned())?;
    Duration::try_from(span).map_err(|_| "is negative".to_owned())
}
