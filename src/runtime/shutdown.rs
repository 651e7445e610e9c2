//! The end of the process.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM (the kubelet) or SIGINT (a terminal).
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn requested() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
