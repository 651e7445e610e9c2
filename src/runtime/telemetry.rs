//! Log output.

use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// kube's client logs each request that fails, and each probe of a server whose certificate is not checked, as an error or a warning:
/// whoever asked says so himself, with what he wanted, and an API server that restarts is nothing unusual here.
const DEFAULT: &str = "info,kube_client::client=off,kube_client=warn,kube_runtime=warn";

/// Writes logs to standard error: `info` and above, or what `RUST_LOG` says. A second call does nothing.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if done.is_err() {
        tracing::debug!("log output was set up before");
    }
}
