//! The programs that are measured, each as a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clustertracing::store::{Store, grpc, http};
use k8s_openapi::jiff::Timestamp;
use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint};

use crate::sender::Answered;
use crate::spans::{TRACE, batch};

/// The store's limit: the chart's default.
pub(crate) const STORE_MIB: usize = 64;
const STORE: usize = STORE_MIB * 1024 * 1024;

/// What receives spans.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// The trace store, with its JSON API, in a process that does nothing else.
    Store,
    /// The OpenTelemetry Collector with its OTLP receiver and the exporter that throws everything away.
    Collector,
    /// Jaeger's all-in-one with its memory store, which holds as many traces as the trace store can.
    Jaeger,
}

impl Receiver {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Store, Self::Collector, Self::Jaeger];

    /// What tables call it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Store => format!("trace store, {STORE_MIB} MiB"),
            Self::Collector => "otelcol 0.155, nop exporter".to_owned(),
            Self::Jaeger => "Jaeger 1.62, memory store".to_owned(),
        }
    }

    fn command(self, folder: &Path, otlp: u16, http: u16) -> Command {
        match self {
            Self::Store => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["serve", &otlp.to_string(), &http.to_string()]);
                command
            }
            Self::Collector => {
                let configuration = folder.join("otelcol.yaml");
                let text = format!(
                    "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{otlp}'}}}}}}}}\nexporters: {{nop: {{}}}}\n\
                     service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{traces: {{receivers: [otlp], exporters: [nop]}}}}}}\n"
                );
                fs::write(&configuration, text).unwrap();
                let mut command = Command::new(program("otelcol"));
                command.arg("--config").arg(configuration);
                command
            }
            Self::Jaeger => {
                let mut command = Command::new(program("jaeger-1.62.0"));
                command.args([
                    format!("--memory.max-traces={}", traces_of_the_store()),
                    // Its own limit is 2000 spans, of which a full queue drops without a word to the sender.
                    "--collector.queue-size=100000".to_owned(),
                    "--log-level=error".to_owned(),
                    format!("--collector.otlp.grpc.host-port=127.0.0.1:{otlp}"),
                    format!("--admin.http.host-port=127.0.0.1:{http}"),
                ]);
                let others = [
                    "collector.otlp.http.host-port",
                    "collector.grpc-server.host-port",
                    "collector.http-server.host-port",
                    "http-server.host-port",
                    "processor.jaeger-binary.server-host-port",
                    "processor.jaeger-compact.server-host-port",
                    "processor.zipkin-compact.server-host-port",
                    "query.grpc-server.host-port",
                    "query.http-server.host-port",
                ];
                command.args(others.map(|flag| format!("--{flag}=127.0.0.1:{}", free_port())));
                command
            }
        }
    }
}

fn program(name: &str) -> PathBuf {
    let cache =
        std::env::var("TESTBED_CACHE").unwrap_or_else(|_| format!("{}/.cache/clustertracing-testbed", std::env::var("HOME").unwrap()));
    let path = PathBuf::from(cache).join("bin").join(name);
    assert!(path.exists(), "{} is missing: `make bench-store` builds it", path.display());
    path
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// How many traces of the benchmark's the store holds when it is full.
fn traces_of_the_store() -> usize {
    let store = Store::new(STORE);
    let mut number = 0;
    while store.stats().counters.evicted_traces == 0 {
        store.store_spans(&batch(number), Timestamp::UNIX_EPOCH).unwrap();
        number += 1;
    }
    usize::try_from(store.stats().held.spans / TRACE).unwrap()
}

/// The trace store in this process, for as long as it lives: what [`Receiver::Store`] starts.
pub(crate) async fn serve(otlp: u16, http_port: u16) {
    let store = Arc::new(Store::new(STORE));
    let otlp = TcpListener::bind(("127.0.0.1", otlp)).await.unwrap();
    let api = TcpListener::bind(("127.0.0.1", http_port)).await.unwrap();
    tokio::spawn(http::serve(api, store.clone(), Arc::new(String::new)));
    grpc::serve(otlp, store).await.unwrap();
}

/// A receiver's process; it ends with this value.
pub(crate) struct Running {
    receiver: Receiver,
    process: Child,
    otlp: u16,
    http: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Running {
    /// Starts it, and waits until it listens.
    pub(crate) async fn start(receiver: Receiver, folder: &Path) -> Self {
        let (otlp, http) = (free_port(), free_port());
        let path = folder.join("receiver.log");
        let log = fs::File::create(&path).unwrap();
        let mut command = receiver.command(folder, otlp, http);
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let running = Self { receiver, process, otlp, http };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", otlp)).await.is_err() {
            let log = || fs::read_to_string(&path).unwrap_or_default();
            assert!(Instant::now() < deadline, "{} does not listen:\n{}", receiver.name(), log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        running
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Channel {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.otlp)).unwrap().connect().await.unwrap()
    }

    /// Waits until nothing of what was sent waits in the receiver, and returns how many of the spans that it said to have taken it has dropped.
    pub(crate) async fn settle(&self, sent: Answered) -> u64 {
        if self.receiver != Receiver::Jaeger {
            // The other two answer when they are done.
            return 0;
        }
        loop {
            let metrics = self.get("/metrics").await;
            let sum = |name: &str| {
                let values = metrics.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
                values.map(|value| value.parse::<f64>().unwrap() as u64).sum::<u64>()
            };
            let dropped = sum("jaeger_collector_spans_dropped_total");
            if sum("jaeger_collector_spans_saved_by_svc_total") + dropped >= sent.taken {
                return dropped;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the store tells of itself.
    pub(crate) async fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/api/v1/stats").await).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Seconds of CPU that the process has taken: its own and the kernel's for it (proc(5): fields 14 and 15 of `stat`).
    #[expect(clippy::cast_precision_loss, reason = "a hundred to the second")]
    pub(crate) fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let ticks: u64 =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// MiB that are resident now.
    pub(crate) fn resident(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// MiB that have been resident at most.
    pub(crate) fn most_resident(&self) -> f64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}
