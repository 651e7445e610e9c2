//! The agent's program: arguments, log output, run; why it ended goes to the pod's status.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clustertracing::runtime::telemetry::{self, Telemetry};
use clustertracing::{agent, runtime};

/// Carries out tracing changes on the control-plane node that it runs on.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: agent::Config,
    #[command(flatten)]
    telemetry: Telemetry,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What else the program does than being the agent.
#[derive(Debug, Subcommand)]
enum Command {
    /// Goes on with a change when the agent cannot: what the agent's temporary static pod runs.
    Watchdog {
        /// Names the change that the pod was made for.
        #[arg(long)]
        flight: String,
    },
    /// Gives the node its original manifests back, for good: needs neither API server nor network. Ends with 0 when the original state serves.
    Restore {
        /// Say what would be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Args { config, telemetry, command } = Args::parse();
    let _running = telemetry::init(&telemetry, "clustertracing-agent", config.node_name.as_deref());
    let is_by_hand = matches!(command, Some(Command::Restore { .. }));
    let work = async {
        match command {
            None => Box::pin(agent::run(config)).await.map(|never| match never {}),
            Some(Command::Watchdog { flight }) => {
                tracing::info!(flight, "watching over a change");
                agent::watch_over(config).await.map(|never| match never {})
            }
            Some(Command::Restore { dry_run }) => agent::restore_by_hand(&config, dry_run, |line| println!("{line}")).await,
        }
    };
    let error = tokio::select! {
        ended = work => match ended {
            Ok(true) => return ExitCode::SUCCESS,
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => agent::chain(&error),
        },
        stopped = runtime::shutdown::requested() => match stopped {
            // stopping anywhere is safe: the journal tells the next process where to go on
            Ok(()) if is_by_hand => "stopped; run it again, to end what was begun".to_owned(),
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => format!("install the signal handlers: {error}"),
        },
    };
    tracing::error!("{error}");
    // there in a pod only
    let log = std::fs::File::options().write(true).open("/dev/termination-log");
    log.and_then(|mut log| log.write_all(error.as_bytes())).unwrap_or_else(|e| tracing::debug!("write /dev/termination-log: {e}"));
    ExitCode::FAILURE
}
