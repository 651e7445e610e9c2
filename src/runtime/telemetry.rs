//! Log output, and the programs' own traces.
//!
//! A trace holds what the program did for one cause: a turn of the controller, a change of a node. Only spans of this crate are exported, so
//! that sending them makes none: a program that traced its own exports would feed on itself.

use opentelemetry::KeyValue;
use opentelemetry::trace::{TraceContextExt, TraceId, TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How a program tells what it does.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Telemetry {
    /// How log lines look. What is logged is set by `RUST_LOG`.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Where the program's own traces go: OTLP over gRPC without TLS, as `http://host:port`. Default: nowhere, and none are made.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_name = "URL")]
    own_traces: Option<String>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint cannot be used.
    #[error("send the program's own traces to {endpoint}: give it as http://host:port")]
    Exporter {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: ExporterBuildError,
    },
}

/// Sends what is left of the traces when it goes, as far as somebody takes it.
#[must_use]
#[derive(Debug, Default)]
pub struct Running(Option<SdkTracerProvider>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown_with_timeout(FLUSH)) {
            tracing::debug!("the last traces were not sent: {error}");
        }
    }
}

/// An end is not held up by a collector that is not there.
const FLUSH: std::time::Duration = std::time::Duration::from_secs(1);

/// kube's client logs each request that fails, and each probe of a server whose certificate is not checked, as an error or a warning:
/// whoever asked says so himself, with what he wanted, and an API server that restarts is nothing unusual here.
const DEFAULT: &str = "info,kube_client::client=off,kube_client=warn,kube_runtime=warn,opentelemetry_sdk=warn,h2=warn";

/// Writes logs to standard error, `info` and above or what `RUST_LOG` says, and sends traces where `telemetry` says. To be called within
/// a tokio runtime, which carries the traces. An endpoint that cannot be used is told and costs the traces only: the work goes on. A second call
/// changes nothing.
pub fn init(telemetry: &Telemetry, service: &'static str, instance: Option<&str>) -> Running {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match telemetry.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let provider = telemetry.own_traces.as_deref().map(|endpoint| provider(endpoint, service, instance)).transpose();
    let layer = provider.as_ref().ok().and_then(Option::as_ref).map(traces);
    let done = tracing_subscriber::registry().with(lines.with_filter(filter)).with(layer).try_init();
    if done.is_err() {
        tracing::debug!("log output was set up before");
    }
    Running(provider.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "going on without traces");
        None
    }))
}

fn provider(endpoint: &str, service: &'static str, instance: Option<&str>) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
    let instance = instance.map(|instance| KeyValue::new("service.instance.id", instance.to_owned()));
    let resource = Resource::builder().with_service_name(service).with_attributes(instance).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// The layer that makes traces: of this crate's spans, and of nothing that sending them does.
fn traces<S: Subscriber + for<'a> LookupSpan<'a>>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S> {
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(env!("CARGO_PKG_NAME"))).with_threads(false);
    layer.with_filter(filter_fn(is_ours))
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target() == env!("CARGO_CRATE_NAME") || metadata.target().starts_with(concat!(env!("CARGO_CRATE_NAME"), "::"));
    ours && *metadata.level() <= tracing::Level::INFO
}

/// Writes the current trace's id into the current span's field `trace_id`, so that every log line within tells it. Nothing where no traces
/// are made.
pub fn show_trace_id() {
    let span = tracing::Span::current();
    let id = span.context().span().span_context().trace_id();
    if id != TraceId::INVALID {
        span.record("trace_id", tracing::field::display(id));
    }
}

#[cfg(test)]
mod tests;
