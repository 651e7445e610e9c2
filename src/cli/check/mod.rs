//! `check`: whether the operator can be installed, or works.
//!
//! `gather` reads, with the person's own rights; all else is pure: `facts` is what was read, `decide` what of it is as it should be, `catalog` every
//! check with its code, `reasons` which reason belongs to which check, `report` and `render` what is told.

pub(in crate::cli) mod catalog;
mod decide;
mod facts;
mod gather;
pub(in crate::cli) mod reasons;
mod render;
pub(in crate::cli) mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Connection};
use super::json::{Format, document};
use super::output::Output;
use super::style::Palette;
use super::{Error, Exit, Report};
use report::CheckReport;

/// Between two looks while waiting.
const EVERY: Duration = Duration::from_secs(2);

/// Check whether the operator can be installed, or works
///
/// Each check has a stable code, and says what was found, why, one command, and where more is written: kubectl tracing explain CODE. What you may
/// not read is told, and the other checks go on. Exit code 0: no error, warnings are allowed; 1: errors; 3: the cluster cannot be reached; 4: --wait
/// ran out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # Before installing: platform, versions, conflicts, ports, rights
  kubectl tracing check --pre

  # In a pipeline: until all is well, for no longer than ten minutes
  kubectl tracing check --wait 10m -o json")]
pub(super) struct Check {
    /// Look at what installing needs, and not at the operator
    #[arg(long)]
    pre: bool,
    /// For programs: docs/schema/check.json describes it
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Repeat until there is no error, for no longer than this, such as 2m
    #[arg(long, value_name = "DURATION", value_parser = super::show::duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    connection: Connection,
}

/// How waiting ends.
#[derive(Debug, PartialEq, Eq)]
enum Waited {
    /// Without an error.
    Well(CheckReport),
    /// The time was over. Without a report where nobody answered the last time.
    Over(Option<CheckReport>),
}

/// Looks again and again, and says why not yet, once for each cause.
async fn until_well(
    within: Duration,
    output: &mut dyn Output,
    look: impl AsyncFn() -> Result<CheckReport, super::cluster::Error>,
) -> Result<Waited, Error> {
    let until = Instant::now() + within;
    let mut told = None;
    loop {
        let looked = match look().await {
            Ok(report) if report.success => return Ok(Waited::Well(report)),
            Ok(report) => Ok(report),
            Err(error) if error.may_pass() => Err(super::one_line(&error)),
            Err(error) => return Err(Error::Cluster(error)),
        };
        let why = looked.as_ref().map_or_else(|why| Some(why.clone()), CheckReport::first_error);
        if why != told {
            output.note(&format!("waiting: {}", why.as_deref().unwrap_or_default())).map_err(Error::Output)?;
            told = why;
        }
        if Instant::now() + EVERY > until {
            return Ok(Waited::Over(looked.ok()));
        }
        sleep(EVERY).await;
    }
}

/// docs/checks.md: every check.
pub fn reference() -> String {
    catalog::reference()
}

impl Check {
    pub(super) async fn run(&self, palette: Palette, output: &mut dyn Output) -> Result<Report, Error> {
        let cluster = self.connection.open().await.map_err(Error::Cluster)?;
        let Some(wait) = self.wait else {
            let report = self.look(&cluster).await.map_err(Error::Cluster)?;
            let exit = if report.success { Exit::Ok } else { Exit::Findings };
            return Ok(self.printed(&report, palette, exit));
        };
        Ok(match until_well(wait, output, async || self.look(&cluster).await).await? {
            Waited::Well(report) => self.printed(&report, palette, Exit::Ok),
            Waited::Over(Some(report)) => self.printed(&report, palette, Exit::TimedOut),
            Waited::Over(None) => {
                Report { data: String::new(), notes: vec!["error: the time of --wait is over".to_owned()], exit: Exit::TimedOut }
            }
        })
    }

    async fn look(&self, cluster: &Cluster) -> Result<CheckReport, super::cluster::Error> {
        // all questions at once make a large future
        Ok(decide::report(&Box::pin(gather::facts(cluster, self.pre)).await?, self.pre))
    }

    fn printed(&self, report: &CheckReport, palette: Palette, exit: Exit) -> Report {
        let data = match self.output {
            None => render::text(report, palette),
            Some(Format::Json) => document(report),
        };
        Report { data, notes: Vec::new(), exit }
    }
}
