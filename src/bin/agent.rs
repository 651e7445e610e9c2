//! The agent's program: arguments, log output, run; why it ended goes to the pod's status.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clustertracing::runtime::telemetry::{self, LogFormat};
use clustertracing::{agent, component, runtime};

/// Carries out tracing changes on the control-plane node that it runs on.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// The kubelet's static-pod folder.
    #[arg(long, env = "MANIFESTS_DIR", default_value = "/etc/kubernetes/manifests")]
    manifests_dir: PathBuf,
    /// Folder for tracing files, backups and the journal.
    #[arg(long, env = "STATE_DIR", default_value = component::STATE_DIR)]
    state_dir: PathBuf,
    /// Where the node's processes are seen.
    #[arg(long, env = "PROC_DIR", default_value = "/proc")]
    proc: PathBuf,
    /// How log lines look. What is logged is set by `RUST_LOG`.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Args { node_name, manifests_dir, state_dir, proc, log_format } = Args::parse();
    telemetry::init(log_format);
    let error = tokio::select! {
        Err(error) = agent::run(agent::Config { node_name, manifests_dir, state_dir, proc }) => agent::chain(&error),
        // stopping anywhere is safe: the journal tells the next process where to go on
        Ok(()) = runtime::shutdown::requested() => return ExitCode::SUCCESS,
        else => "install the signal handlers".to_owned(),
    };
    tracing::error!("{error}");
    std::fs::write("/dev/termination-log", &error).unwrap_or_else(|e| tracing::debug!("write /dev/termination-log: {e}"));
    ExitCode::FAILURE
}
