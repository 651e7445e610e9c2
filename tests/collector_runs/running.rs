//! Runs a collector as a process, between what sends to it and what takes spans from it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clustertracing::api::{ClusterTracing, State};
use clustertracing::plan::collector::{self, GATEWAY, GATEWAY_PORT, STORE, STORE_PORT};
use clustertracing::plan::validate::{Installation, validate};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::{Request, Response};

const BUDGET: Duration = Duration::from_secs(30);

/// Takes spans and keeps them.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans;
        self.0.lock().unwrap().extend(resources.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Sink {
    pub(crate) async fn start() -> (Self, SocketAddr) {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> (Self, SocketAddr) {
        let sink = Self::default();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(TraceServiceServer::new(sink.clone())).serve_with_incoming(incoming));
        (sink, address)
    }

    /// The spans, once there are `count`.
    pub(crate) async fn spans(&self, count: usize) -> Vec<Span> {
        let started = Instant::now();
        loop {
            let spans = self.0.lock().unwrap().clone();
            if spans.len() >= count {
                return spans;
            }
            assert!(started.elapsed() < BUDGET, "{} of {count} spans arrived", spans.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A running collector, and its gateway; they end with this value, as a crash ends them.
pub(crate) struct Collector {
    processes: Vec<Child>,
    port: u16,
    _folder: Arc<TempDir>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

impl Collector {
    /// Runs what is rendered for `spec.collector`, on ports of its own, with one exporter to `user` and the trace store at `store`; behind it, in
    /// mode Gateway, the gateway.
    pub(crate) async fn start(program: &OsStr, spec: Value, user: SocketAddr, store: SocketAddr) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), program, spec, user, store).await
    }

    /// The same, with what an earlier one has left in its folder.
    pub(crate) async fn start_in(folder: Arc<TempDir>, program: &OsStr, mut spec: Value, user: SocketAddr, store: SocketAddr) -> Self {
        let [port, gateway] = [(); 2].map(|()| free_port());
        spec["port"] = port.into();
        let exporter = json!({ "name": "user", "endpoint": user.to_string(), "compression": "none", "tls": { "state": "Disabled" } });
        spec.as_object_mut().unwrap().entry("exporters").or_insert_with(|| json!([exporter]));
        let resource = ClusterTracing::new("cluster", serde_json::from_value(json!({ "collector": spec })).unwrap());
        let installation = Installation {
            namespace: "clustertracing".into(),
            collector_image: "otelcol-k8s:0.155.0".into(),
            canary: State::Disabled,
            probe: State::Enabled,
        };
        let v = validate(&resource, &installation).unwrap();
        let objects = collector::render(&v, v.wanted_collector().unwrap(), &BTreeMap::new());
        let env = objects.daemon_set["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().iter();
        let proxy: Vec<_> = env.filter_map(|e| Some((e["name"].as_str()?.to_owned(), e["value"].as_str()?.to_owned()))).collect();
        let files = objects.config_map["data"].as_object().unwrap().iter().rev();
        let mut processes = Vec::new();
        for (file, listens) in
            files.map(|(file, text)| (file, (text.as_str().unwrap(), if file == "gateway.yaml" { gateway } else { port })))
        {
            let (config, listens) = listens;
            let queue = folder.path().join(file).with_extension("queue");
            std::fs::create_dir_all(&queue).unwrap();
            let config = config
                .replace("127.0.0.1:13133", &format!("127.0.0.1:{}", free_port()))
                .replace("endpoint: :13133", &format!("endpoint: 127.0.0.1:{}", free_port()))
                .replace("endpoint: :4317", &format!("endpoint: 127.0.0.1:{gateway}"))
                .replace("port: 8888", &format!("port: {}", free_port()))
                .replace("/var/lib/clustertracing/queue", &queue.display().to_string())
                .replace(&format!("{GATEWAY}.clustertracing.svc:{GATEWAY_PORT}"), &format!("127.0.0.1:{gateway}"))
                .replace(&format!("{STORE}.clustertracing.svc:{STORE_PORT}"), &store.to_string());
            let path = folder.path().join(file);
            std::fs::write(&path, config).unwrap();
            let log = path.with_extension("log");
            let process = Command::new(program)
                .arg(format!("--config=file:{}", path.display()))
                .env("NODE_NAME", "cp-1")
                .env("POD_NAME", "clustertracing-gateway-0")
                .envs(proxy.iter().cloned())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(&log).unwrap())
                .spawn()
                .unwrap();
            processes.push(process);
            let started = Instant::now();
            while tokio::net::TcpStream::connect(("127.0.0.1", listens)).await.is_err() {
                assert!(started.elapsed() < BUDGET, "{file}: it does not answer: {}", std::fs::read_to_string(&log).unwrap());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Self { processes, port, _folder: folder }
    }

    pub(crate) async fn send(&self, spans: Vec<Span>) {
        let mut client = TraceServiceClient::connect(format!("http://127.0.0.1:{}", self.port)).await.unwrap();
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let request = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] };
        client.export(request).await.unwrap();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn program() -> Option<OsString> {
    let program = std::env::var_os("CLUSTERTRACING_OTELCOL");
    if program.is_none() {
        println!("CLUSTERTRACING_OTELCOL is not set: no collector was run");
    }
    program
}
