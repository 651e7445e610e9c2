//! kubectl itself: where it is led, how it is run, and how it ends.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};

use k8s_openapi::ByteString;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::signal::unix::{self, SignalKind};

/// kubectl's options that say which cluster it asks, or as whom. With any of them it would not come through the proxy.
const ELSEWHERE: &[&str] = &[
    "--certificate-authority",
    "--client-certificate",
    "--client-key",
    "--cluster",
    "--context",
    "--insecure-skip-tls-verify",
    "--kubeconfig",
    "--password",
    "--server",
    "--tls-server-name",
    "--token",
    "--user",
    "--username",
    "-s",
];

/// The first option that would lead kubectl elsewhere. What stands behind `--` is not kubectl's own.
pub(super) fn leads_elsewhere(args: &[OsString]) -> Option<&'static str> {
    let texts = args.iter().filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--");
    texts.map(|arg| arg.split_once('=').map_or(arg, |(name, _)| name)).find_map(|name| ELSEWHERE.iter().find(|of| **of == name).copied())
}

/// Where the proxy is, and who may use it.
pub(super) struct Door<'a> {
    /// `https://127.0.0.1:port`
    pub(super) url: &'a str,
    /// Its certificate, as PEM.
    pub(super) certificate: &'a str,
    /// What lets in.
    pub(super) token: &'a str,
}

/// A folder that only this person can read, with a kubeconfig that leads to the proxy. It goes with this value.
pub(super) struct Kubeconfig(TempDir);

impl Kubeconfig {
    /// Named as the person's own context, and with its namespace.
    pub(super) fn write(context: &str, namespace: &str, door: &Door<'_>) -> io::Result<Self> {
        let own = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("kubectl-tracing-").permissions(own).tempdir()?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "contexts": [{ "name": context, "context": { "cluster": "traced", "user": "traced", "namespace": namespace } }],
            "clusters": [{ "name": "traced", "cluster": {
                "server": door.url, "certificate-authority-data": ByteString(door.certificate.as_bytes().to_vec()),
            } }],
            "users": [{ "name": "traced", "user": { "token": door.token } }],
        });
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.path().join("config"))?;
        file.write_all(config.to_string().as_bytes())?;
        Ok(Self(folder))
    }

    /// Starts kubectl, with this program's standard input, output and error.
    pub(super) fn kubectl(&self, args: &[OsString]) -> io::Result<Child> {
        let mut command = Command::new("kubectl");
        command.args(args).env("KUBECONFIG", self.0.path().join("config"));
        // It keeps what it discovers under the server's port, which is another one each time.
        command.env("KUBECACHEDIR", self.0.path().join("cache")).spawn()
    }

    /// Removes the folder, and tells if that cannot be done.
    pub(super) fn remove(self) -> io::Result<()> {
        let folder = self.0.keep();
        fs::remove_dir_all(folder)
    }
}

/// What asks this program to end.
pub(super) struct Stop {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Stop {
    /// From here on, none of these ends the program by itself.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hang_up: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hang_up.recv() => Signal::HUP,
        }
    }
}

/// How kubectl ended.
pub(super) struct Ended {
    /// Its exit code.
    pub(super) code: u8,
    /// Whether this program was asked to end meanwhile.
    pub(super) stopped: bool,
}

/// Waits for kubectl. What asks this program to end is passed on: the first time as it is, then by force.
pub(super) async fn wait(mut child: Child, stop: &mut Stop) -> io::Result<Ended> {
    let pid = Pid::from_child(&child);
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    let mut stopped = false;
    loop {
        tokio::select! {
            status = &mut ended => {
                let status = status.map_err(io::Error::other)??;
                return Ok(Ended { code: code(status), stopped });
            }
            signal = stop.next() => {
                let signal = if std::mem::replace(&mut stopped, true) { Signal::KILL } else { signal };
                // It may have ended in this moment; then there is nobody to tell.
                kill_process(pid, signal).unwrap_or_default();
            }
        }
    }
}

/// As a shell tells it: 128 and the signal's number for a program that a signal ended.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// The exit code of a program that this signal ended.
pub(super) fn code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_is_not_led_elsewhere() {
        for (line, expected) in [
            ("get pods -A", None),
            ("get pods --context=prod", Some("--context")),
            ("get pods --kubeconfig other", Some("--kubeconfig")),
            ("-s https://example.org get pods", Some("-s")),
            ("get pods --token=abc", Some("--token")),
            ("get pods --sort-by=.metadata.name --show-labels", None),
            ("run a --image b -- sh --token", None),
            ("get pods --as alice", None),
        ] {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            assert_eq!(leads_elsewhere(&args), expected, "{line}");
        }
    }

    #[test]
    fn nobody_else_can_read_the_kubeconfig_and_it_goes() {
        let door = Door { url: "https://127.0.0.1:1", certificate: "c", token: "t" };
        let kubeconfig = Kubeconfig::write("prod", "shop", &door).unwrap();
        let folder = kubeconfig.0.path().to_owned();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("config"))), (0o700, 0o600));
        let config: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("config")).unwrap()).unwrap();
        assert_eq!((&config["current-context"], &config["contexts"][0]["context"]["namespace"]), (&json!("prod"), &json!("shop")));
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority-data"], json!("Yw=="));
        kubeconfig.remove().unwrap();
        assert!(!folder.exists());
    }
}
