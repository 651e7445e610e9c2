//! How many spans the trace store takes for a second of CPU, beside the OpenTelemetry Collector that throws them away and Jaeger that keeps
//! them in memory: the same spans from the same sender over gRPC, one receiver after the other, round after round. `make bench-store`.
//!
//! ```text
//! cargo bench --bench store                    rounds, then 30 s of overload
//! cargo bench --bench store -- overload 300    five minutes of overload alone
//! ```

#![expect(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measurement that cannot go on panics; its figures are rounded")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use clustertracing::store::{Store, grpc};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const ROUNDS: usize = 5;
/// Spans of a batch, as a collector's `sending_queue.batch` makes them.
const BATCH: usize = 512;
/// Spans of a trace: an API request with its filters, its admission, its storage, and etcd's part.
const TRACE: usize = 12;
/// Batches that are made at a time, outside of what is measured.
const CHUNK: usize = 100;
/// Chunks of a round: 410,000 spans.
const CHUNKS: usize = 8;
/// Requests at a time.
const STREAMS: usize = 4;
const MIB: usize = 1024 * 1024;

const RECEIVERS: [Receiver; 3] = [Receiver::Store, Receiver::Collector, Receiver::Jaeger];

#[derive(Clone, Copy, PartialEq)]
enum Receiver {
    Store,
    Collector,
    Jaeger,
}

impl Receiver {
    fn name(self) -> &'static str {
        match self {
            Self::Store => "the trace store, 64 MiB",
            Self::Collector => "otelcol 0.155, nop exporter",
            Self::Jaeger => "Jaeger 1.62, memory",
        }
    }

    fn command(self, port: u16, folder: &std::path::Path) -> Command {
        match self {
            Self::Store => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["serve", &port.to_string()]);
                command
            }
            Self::Collector => {
                let configuration = folder.join("otelcol.yaml");
                let text = format!(
                    "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\nexporters: {{nop: {{}}}}\n\
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
                    "--memory.max-traces=50000",
                    "--log-level=error",
                    &format!("--collector.otlp.grpc.host-port=127.0.0.1:{port}"),
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
                    "admin.http.host-port",
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
    assert!(path.exists(), "{} is missing: tests/testbed/build.sh builds it", path.display());
    path
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A receiver's process; it ends with this value.
struct Running {
    process: Child,
    channel: Channel,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Running {
    async fn start(receiver: Receiver, folder: &std::path::Path) -> Self {
        let port = free_port();
        let log = fs::File::create(folder.join("receiver.log")).unwrap();
        let process = receiver.command(port, folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "{} does not listen", receiver.name());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        Self { process, channel: endpoint.connect().await.unwrap() }
    }

    /// Seconds of CPU that the process has taken: its own and the kernel's for it.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// Sends all of it, [`STREAMS`] at a time: how many batches were taken, and how many were not.
    async fn send(&self, batches: Vec<Bytes>) -> (u64, u64) {
        let (next, taken, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let batches = Arc::new(batches);
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            let (next, taken, refused, batches) = (next.clone(), taken.clone(), refused.clone(), batches.clone());
            let mut client = tonic::client::Grpc::new(self.channel.clone());
            streams.spawn(async move {
                while let Some(batch) = batches.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                    let sent = send(&mut client, batch.clone()).await;
                    if sent { &taken } else { &refused }.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        streams.join_all().await;
        (taken.load(Ordering::Relaxed), refused.load(Ordering::Relaxed))
    }
}

async fn send(client: &mut tonic::client::Grpc<Channel>, batch: Bytes) -> bool {
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    client.unary(Request::new(batch), path, Encoded).await.is_ok()
}

/// Batches are made and encoded before they are sent.
#[derive(Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// Spans as kube-apiserver 1.36 makes them, of ids that never come twice.
struct Spans {
    number: u64,
}

impl Spans {
    fn chunk(&mut self) -> Vec<Bytes> {
        (0..CHUNK).map(|_| self.batch()).collect()
    }

    fn batch(&mut self) -> Bytes {
        let text = |key: &str, value: &str| {
            let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
            KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
        };
        let number = |key: &str, value: i64| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(any_value::Value::IntValue(value)) }),
            ..KeyValue::default()
        };
        let spans = (0..BATCH).map(|_| {
            let (trace, place) = (self.number / TRACE as u64, self.number % TRACE as u64);
            let start = 1_800_000_000_000_000_000 + self.number * 1000;
            self.number += 1;
            let mut attributes = vec![text("audit-id", &format!("{:032x}", trace.wrapping_mul(0x9e37_79b9_7f4a_7c15)))];
            if place == 0 {
                attributes.extend([
                    text("http.request.method", "GET"),
                    text("server.address", "kube-apiserver"),
                    text("url.scheme", "https"),
                    text("user_agent.original", "kube-controller-manager/v1.36.3 (linux/amd64) kubernetes/4f5e0ab/shared-informers"),
                    text("network.protocol.version", "2.0"),
                    number("http.response.status_code", 200),
                    number("http.response.body.size", 18_532),
                ]);
            }
            let event = |name: &str| span::Event { time_unix_nano: start + 500, name: name.to_owned(), ..span::Event::default() };
            Span {
                trace_id: u128::from(trace + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes().to_vec(),
                span_id: (self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec(),
                parent_span_id: if place == 0 {
                    Vec::new()
                } else {
                    (self.number - place).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec()
                },
                name: if place == 0 { "GET /api/v1/namespaces/{:namespace}/pods/{:name}" } else { "etcdserverpb.KV/Range" }.to_owned(),
                kind: 2,
                flags: 0x101,
                start_time_unix_nano: start,
                end_time_unix_nano: start + 3_000_000,
                attributes,
                events: vec![event("About to List from storage"), event("Listing from storage done")],
                ..Span::default()
            }
        });
        let spans = spans.collect();
        let attributes = vec![
            text("service.name", "apiserver"),
            text("service.instance.id", "apiserver-lfbnywk3ycm4rhjzyiviz7yzgq"),
            text("telemetry.sdk.name", "opentelemetry"),
            text("telemetry.sdk.language", "go"),
            text("telemetry.sdk.version", "1.39.0"),
            text("k8s.node.name", "cp1"),
        ];
        let scope = InstrumentationScope { name: "k8s.io/apiserver/pkg/endpoints".to_owned(), ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
        let resource = Resource { attributes, ..Resource::default() };
        let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }
}

fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

async fn rounds(folder: &std::path::Path) {
    let mut figures: [(Vec<f64>, Vec<f64>, u64); 3] = Default::default();
    for round in 0..ROUNDS {
        for (receiver, (rates, resident, drops)) in RECEIVERS.iter().zip(&mut figures) {
            let running = Running::start(*receiver, folder).await;
            // The same ids for each receiver; the first chunk warms it up.
            let mut spans = Spans { number: 0 };
            running.send(spans.chunk()).await;
            let before = running.cpu();
            let (mut taken, mut refused) = (0, 0);
            for _ in 0..CHUNKS {
                let sent = running.send(spans.chunk()).await;
                taken += sent.0;
                refused += sent.1;
            }
            let rate = taken as f64 * BATCH as f64 / (running.cpu() - before);
            println!(
                "round {}: {:<28} {rate:>10.0} spans/CPU-s, {:>5.0} MiB, {refused} batches refused",
                round + 1,
                receiver.name(),
                running.resident_mib()
            );
            rates.push(rate);
            resident.push(running.resident_mib());
            *drops += refused;
        }
    }
    println!("\n{:<28} {:>10} {:>10} {:>10} {:>10} {:>8}", "spans per second of CPU", "min", "median", "max", "MiB", "refused");
    let mut medians = Vec::new();
    for (receiver, (rates, resident, drops)) in RECEIVERS.iter().zip(figures) {
        let ([least, median, most], [_, resident, _]) = (spread(rates), spread(resident));
        println!("{:<28} {least:>10.0} {median:>10.0} {most:>10.0} {resident:>10.0} {drops:>8}", receiver.name());
        medians.push(median);
    }
    println!("the trace store takes {:.1} times as many as the better of the others", medians[0] / medians[1].max(medians[2]));
}

/// Many connections send without a pause: more than one core can take.
async fn overload(folder: &std::path::Path, seconds: u64) {
    let running = Arc::new(Running::start(Receiver::Store, folder).await);
    let batches = Arc::new(Spans { number: 0 }.chunk());
    let (taken, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut senders = JoinSet::new();
    for sender in 0..40 {
        let (running, batches, taken, refused) = (running.clone(), batches.clone(), taken.clone(), refused.clone());
        senders.spawn(async move {
            let mut client = tonic::client::Grpc::new(running.channel.clone());
            for batch in batches.iter().cycle().skip(sender) {
                if Instant::now() > end {
                    return;
                }
                let sent = send(&mut client, batch.clone()).await;
                if sent { &taken } else { &refused }.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut most: f64 = 0.0;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(200)).await;
        most = most.max(running.resident_mib());
    }
    senders.join_all().await;
    let (taken, refused) = (taken.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!(
        "\noverload for {seconds} s, 40 senders without a pause: {:.0} spans/s taken, {} batches refused, {:.0} spans/CPU-s, at most {most:.0} MiB resident with 64 MiB of traces",
        taken as f64 * BATCH as f64 / seconds as f64,
        refused,
        taken as f64 * BATCH as f64 / running.cpu(),
    );
}

async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    grpc::serve(listener, Arc::new(Store::new(64 * MIB))).await.unwrap();
}

#[tokio::main]
async fn main() {
    let folder = std::env::temp_dir().join(format!("clustertracing-bench-{}", std::process::id()));
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    if let ["serve", port] = arguments[..] {
        return serve(port.parse().unwrap()).await;
    }
    fs::create_dir_all(&folder).unwrap();
    match arguments[..] {
        [] => {
            rounds(&folder).await;
            overload(&folder, 30).await;
        }
        ["overload", seconds] => overload(&folder, seconds.parse().unwrap()).await,
        _ => eprintln!("usage: cargo bench --bench store [-- overload SECONDS]"),
    }
    fs::remove_dir_all(&folder).unwrap();
}
