//! `request`: runs kubectl, has its requests traced, and draws the trace.
//!
//! ```text
//! kubectl ─token→ proxy on 127.0.0.1 ─certificate, Impersonate-User: the person, traceparent→ kube-apiserver
//! ```
//!
//! `rights` and `forward` decide what is made and what is sent, `words` what is drawn and said; `identity` makes and takes away, `proxy`
//! forwards, `kubectl` runs, `find` asks the trace store.

mod find;
mod forward;
mod identity;
mod kubectl;
mod proxy;
mod rights;
mod words;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;

use super::cluster::{self, Cluster, Connection};
use super::output::Output;
use super::show::Look;
use super::{ColorChoice, Exit, Palette, Report, Terminal};
use crate::api::ComponentName;
use crate::component::spans::service_name;
use find::Search;
use identity::{Identity, gain};
use kubectl::{Ended, Kubeconfig, Stop};
use proxy::{Proxy, Sent};

/// Once somebody asked this program to end, a request under way gets this long to come to its end.
const MADE_WITHIN: Duration = Duration::from_secs(15);

/// Run kubectl, have its requests traced, and draw the trace
///
/// Runs kubectl with your own kubeconfig and rights; its input, output and exit code are as without this. Then the trace of its last request is
/// drawn on standard error. That works at any sampling rate, by a certificate of a few minutes that is made for this one run, if you may have
/// one: --explain tells what is made, and which rights that takes. Requests are traced, sessions are not (exec, attach, port-forward, cp).
/// docs/request.md tells more. Exit code: kubectl's, where kubectl failed; 0: drawn; 1: kubectl sent no request, or something could not be
/// removed; 3: the trace store or the cluster cannot be asked; 4: no trace came in time.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "kubectl tracing request [OPTIONS] [--] KUBECTL-ARGS...\n       kubectl tracing request --explain",
    after_help = "\
Examples:
  # What creating a pod waits for
  kubectl tracing request -- create -f pod.yaml

  # Only what took 5 ms or more of listing all pods
  kubectl tracing request --min 5ms -- get pods --all-namespaces

  # What is made for this, and which rights it takes: nothing is done
  kubectl tracing request --explain"
)]
pub(super) struct Request {
    /// What kubectl is to do: its own arguments. Which cluster, and as whom, is said by this command's options before them
    #[arg(value_name = "KUBECTL-ARGS", trailing_var_arg = true, required_unless_present = "explain")]
    command: Vec<OsString>,
    /// Say what is made for this, for how long and why, and which rights it takes; do nothing
    #[arg(long)]
    explain: bool,
    /// Draw the traces of all requests that kubectl sends, also of those that ask what the API server serves
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    connection: Connection,
}

/// Why kubectl was not run, or its requests could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option of kubectl's would have it not come through the proxy.
    #[error(
        "kubectl's {option} would lead past the proxy: say --context or --kubeconfig before kubectl's arguments, or change the kubeconfig"
    )]
    Elsewhere {
        /// Which.
        option: &'static str,
    },
    /// The cluster was asked.
    #[error(transparent)]
    Cluster(cluster::Error),
    /// The proxy.
    #[error("start the proxy for kubectl")]
    Proxy(#[source] proxy::Error),
    /// The file that leads kubectl to the proxy.
    #[error("write a kubeconfig into the temporary directory (TMPDIR names another one)")]
    Kubeconfig(#[source] io::Error),
    /// kubectl.
    #[error("run kubectl, which must be in the PATH")]
    Kubectl(#[source] io::Error),
    /// Ctrl-C could not be heard.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// Nobody answers to what was being made.
    #[error(
        "end, as asked: the API server does not answer, so what it was being asked to make may be there, and is removed by a later run \
         (kubectl tracing request --explain)"
    )]
    Late,
    /// No name for what is made.
    #[error("make a random name")]
    Random(#[source] getrandom::Error),
}

impl Error {
    pub(super) fn exit(&self) -> Exit {
        if let Self::Cluster(error) = self { error.exit() } else { Exit::BadInput }
    }
}

/// What came of kubectl.
struct Run {
    ended: Ended,
    sent: Vec<Sent>,
    notes: Vec<String>,
}

impl Request {
    /// `palette` is standard output's; the picture goes to standard error.
    pub(super) async fn run(&self, color: ColorChoice, palette: Palette, output: &mut dyn Output) -> Result<Report, super::Error> {
        let is_seen = color == ColorChoice::Always || io::stderr().is_terminal();
        let palette = if is_seen { palette } else { Palette::new(ColorChoice::Never, &Terminal::default()) };
        Box::pin(self.traced(palette, output)).await.map_err(super::Error::Request)
    }

    async fn traced(&self, palette: Palette, output: &mut dyn Output) -> Result<Report, Error> {
        if self.explain {
            return Ok(Report::data(words::explained(self.connection.operator_namespace())));
        }
        if let Some(option) = kubectl::leads_elsewhere(&self.command) {
            return Err(Error::Elsewhere { option });
        }
        let mut stop = Stop::new().map_err(Error::Signals)?;
        let cluster = self.connection.open().await.map_err(Error::Cluster)?;
        // Who may not read traces is told so before anything is made or done.
        let services = cluster.services().await.map_err(Error::Cluster)?;
        let name = identity::name().map_err(Error::Random)?;
        let ((), identity) = tokio::join!(identity::tidy(&cluster.client, Timestamp::now()), gained(&cluster, name, &mut stop));
        let (identity, interrupted) = identity?;
        let made = identity.made.clone();
        let run = match interrupted {
            None => self.run_kubectl(&cluster, identity, &mut stop, output).await,
            Some(code) => Ok(Run { ended: Ended { code, stopped: true }, sent: Vec::new(), notes: Vec::new() }),
        };
        let since = Instant::now();
        let search = Search { cluster: &cluster, etcd: services.contains(service_name(ComponentName::Etcd)), since };
        let (left, drawn) = tokio::join!(made.take_away(&cluster.client), self.draw(&search, run, palette, &mut stop, output));
        for left in &left {
            // Nobody who reads notes has gone for want of one.
            drop(output.note(&words::left(left)));
        }
        let mut report = drawn?;
        if !left.is_empty() && report.exit == Exit::Ok {
            report.exit = Exit::Findings;
        }
        Ok(report)
    }

    /// Runs kubectl behind a proxy, both of which have ended afterwards.
    async fn run_kubectl(&self, cluster: &Cluster, identity: Identity, stop: &mut Stop, output: &mut dyn Output) -> Result<Run, Error> {
        if let Some(why) = &identity.why {
            // Nobody who reads notes has gone for want of one.
            drop(output.note(&words::by_chance(why)));
        }
        let proxy = Proxy::start(identity.senders).await.map_err(Error::Proxy)?;
        let door = kubectl::Door { url: &proxy.url, certificate: &proxy.certificate, token: &proxy.token };
        let kubeconfig = Kubeconfig::write(&cluster.context, &cluster.config.default_namespace, &door).map_err(Error::Kubeconfig)?;
        let child = kubeconfig.kubectl(&self.command).map_err(Error::Kubectl)?;
        let ended = kubectl::wait(child, stop).await.map_err(Error::Kubectl)?;
        let removed = kubeconfig.remove().err();
        let notes = removed.map(|error| format!("left behind: a temporary kubeconfig, which is of no use any more: {error}"));
        Ok(Run { ended, sent: proxy.sent(), notes: notes.into_iter().collect() })
    }

    /// Finds and draws what kubectl's requests left.
    async fn draw(
        &self,
        search: &Search<'_>,
        run: Result<Run, Error>,
        palette: Palette,
        stop: &mut Stop,
        output: &mut dyn Output,
    ) -> Result<Report, Error> {
        let Run { ended, sent, mut notes } = run?;
        let exit = if ended.code == 0 { Exit::Ok } else { Exit::Program(ended.code) };
        let report = |notes, exit| Ok(Report { data: String::new(), notes, exit });
        if ended.stopped {
            return report(notes, exit);
        }
        let drawn = words::chosen(&sent, self.all);
        if drawn.is_empty() {
            notes.push("kubectl sent no request to the API server: there is nothing to trace".to_owned());
            return report(notes, if exit == Exit::Ok { Exit::Findings } else { exit });
        }
        let drawing = self.draw_each(search, &drawn, palette, output);
        let complete = tokio::select! {
            complete = drawing => complete.map_err(Error::Cluster),
            signal = stop.next() => return report(notes, Exit::Program(kubectl::code_of(signal))),
        };
        notes.extend(words::others(&sent, &drawn));
        match complete {
            Ok(true) => report(notes, exit),
            Ok(false) => report(notes, if exit == Exit::Ok { Exit::TimedOut } else { exit }),
            Err(error) if exit == Exit::Ok => Err(error),
            Err(error) => {
                notes.push(format!("error: {}", super::one_line(&error)));
                report(notes, exit)
            }
        }
    }

    /// Whether each of them was drawn.
    async fn draw_each(
        &self,
        search: &Search<'_>,
        requests: &[&Sent],
        palette: Palette,
        output: &mut dyn Output,
    ) -> Result<bool, cluster::Error> {
        let hosts = search.cluster.hosts().await;
        let mut complete = true;
        for sent in requests {
            let trace = search.trace(sent, output).await?;
            complete &= trace.is_some();
            let drawn = trace.map(|trace| format!("\n{}", self.look.drawn(&trace, &hosts, palette).trim_end()));
            let text = drawn.unwrap_or_else(|| words::none_came(sent));
            // Nobody who reads notes has gone for want of one.
            drop(output.note(&text));
        }
        Ok(complete)
    }
}

/// The identity, and the exit code if somebody asked this program to end meanwhile. Nothing is given up while it is made: of a request under way
/// nobody knew whether it left something.
async fn gained(cluster: &Cluster, name: String, stop: &mut Stop) -> Result<(Identity, Option<u8>), Error> {
    let mut gaining = std::pin::pin!(gain(cluster, name));
    tokio::select! {
        identity = &mut gaining => Ok((identity.map_err(Error::Cluster)?, None)),
        signal = stop.next() => {
            let late = |_| Error::Late;
            let identity = timeout(MADE_WITHIN, gaining).await.map_err(late)?.map_err(Error::Cluster)?;
            Ok((identity, Some(kubectl::code_of(signal))))
        }
    }
}
