//! The agent of one control-plane node: reads its arguments, and runs `clustertracing::agent`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clustertracing::{agent, component};
use tracing_subscriber::EnvFilter;

/// Carries out tracing changes on the control-plane node that it runs on.
#[derive(Parser)]
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
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Args { node_name, manifests_dir, state_dir, proc } = Args::parse();
    let filter = EnvFilter::try_from_env("LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Err(error) = agent::run(agent::Config { node_name, manifests_dir, state_dir, proc }).await;
    let message = agent::chain(&error);
    tracing::error!("{message}");
    if let Err(error) = std::fs::write("/dev/termination-log", &message) {
        tracing::debug!("cannot write the termination message: {error}");
    }
    ExitCode::FAILURE
}
