//! `show`: draws traces of the trace store, of a file, or from another program.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster::{self, Connection};
use super::trace::draw::{Options, draw};
use super::trace::model::{self, Trace};
use super::trace::tree::{self, Filter, Tree};
use super::trace::{critical, document};
use super::{Exit, Palette, Report, json};
use crate::api::telemetry::TraceId;

/// Draw a trace as a waterfall, with what the request waited for
///
/// Takes the trace's id, as kubectl tracing traces lists it; or a file with OTLP/JSON, as the trace store answers it and the collector's file
/// exporter writes it. docs/waterfall.md explains the picture. Exit code 0: drawn; 1: there is no trace in the file; 2: there is no such trace
/// (any more), or the file is no OTLP/JSON.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # A trace of the operator's trace store
  kubectl tracing show 0af7651916cd43dd8448eb211c80319c

  # What took 5 ms or more of the traces in a file, 120 columns wide
  kubectl tracing show traces.json --min 5ms --width 120

  # A trace for a ticket, and later from there
  kubectl tracing show 0af7651916cd43dd8448eb211c80319c -o otlp > trace.json
  kubectl tracing show trace.json")]
pub(super) struct Show {
    /// A trace's id (32 hexadecimal digits), or a file with OTLP/JSON; - is standard input
    #[arg(value_name = "ID|FILE")]
    source: PathBuf,
    #[command(flatten)]
    look: Look,
    /// Instead of a picture, the spans: otlp is OTLP/JSON, which other tools and this one read; json has what the picture shows, one document
    /// for each trace, as docs/schema/trace.json describes it
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    connection: Connection,
}

/// What is printed instead of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// OTLP/JSON.
    Otlp,
    /// What the picture shows.
    Json,
}

/// How a trace is drawn, and what of it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Picture")]
pub(super) struct Look {
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
    /// The trace store was asked.
    #[error(transparent)]
    Cluster(cluster::Error),
}

impl Error {
    pub(super) fn exit(&self) -> Exit {
        if let Self::Cluster(error) = self { error.exit() } else { Exit::BadInput }
    }
}

impl Show {
    pub(super) async fn run(&self, palette: Palette) -> Result<Report, super::Error> {
        self.shown(palette).await.map_err(super::Error::Show)
    }

    async fn shown(&self, palette: Palette) -> Result<Report, Error> {
        let id = self.source.to_str().and_then(|text| text.parse::<TraceId>().ok());
        let (source, bytes, hosts) = if let Some(id) = id {
            let cluster = self.connection.open().await.map_err(Error::Cluster)?;
            let id = id.to_string();
            let (otlp, hosts) = tokio::join!(cluster.trace_as_otlp(&id), cluster.hosts());
            ("the trace store".to_owned(), otlp.map_err(Error::Cluster)?.into_bytes(), hosts)
        } else {
            let (file, bytes) = read(&self.source)?;
            (file, bytes, BTreeMap::new())
        };
        let traces = model::read(&bytes).map_err(|error| Error::Traces { file: source.clone(), source: error })?;
        if traces.is_empty() {
            return Ok(Report::nothing(format!("{source} has no span: the trace is not there any more, or not yet")));
        }
        if self.output == Some(Format::Otlp) {
            return Ok(Report::data(String::from_utf8_lossy(&bytes).trim_end().to_owned() + "\n"));
        }
        if self.output == Some(Format::Json) {
            let document = |trace: &Trace| {
                let tree = Tree::new(trace);
                json::document(document::document(&tree, critical::path(&tree).as_ref()))
            };
            return Ok(Report::data(traces.iter().map(document).collect()));
        }
        let drawn: Vec<_> = traces.iter().map(|trace| self.look.drawn(trace, &hosts, palette)).collect();
        Ok(Report::data(drawn.join("\n")))
    }
}

impl Look {
    /// The picture of a trace. `hosts`: what people call each `service.instance.id`.
    pub(super) fn drawn(&self, trace: &Trace, hosts: &BTreeMap<String, String>, palette: Palette) -> String {
        let tree = Tree::new(trace);
        let min = self.min.map_or(0, |min| u64::try_from(min.as_nanos()).unwrap_or(u64::MAX));
        let filter = Filter { min, depth: self.depth, only: self.only.clone(), all_steps: self.all_steps, ..Filter::default() };
        let options = Options { width: self.width.into(), ascii: self.ascii, instances: hosts.clone() };
        let drawing = draw(&tree, &tree::view(&tree, &filter), critical::path(&tree).as_ref(), &options);
        if palette.is_colored() { drawing.coloured() } else { drawing.plain() }
    }
}

/// The traces in a file.
pub(super) fn traces_of(file: &Path) -> Result<Vec<Trace>, Error> {
    let (file, bytes) = read(file)?;
    model::read(&bytes).map_err(|source| Error::Traces { file, source })
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
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "is no duration such as 5ms or 1s".to_owned())?;
    Duration::try_from(span).map_err(|_| "is negative".to_owned())
}
