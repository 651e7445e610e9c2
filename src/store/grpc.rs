//! The OTLP/gRPC receiver: traces and metrics, bounded in everything that a sender can make it hold.
//!
//! A sender of its own choice may be anybody on the pod network. Connections, requests at a time, their sizes and their durations have limits,
//! and whatever is above them is refused and counted. A request's body is read only when there is room for it: until then it waits at the
//! sender's end, which is how a sender that is too fast is slowed down.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::Store;
use super::connection::Connections;

/// Bytes of a request of spans: gRPC's own default. A batch of 512 spans has some 250 000.
const LARGEST_SPANS: usize = 4 * 1024 * 1024;
/// Bytes of a request of metrics: a collector's own have some 10 000. Less than of spans, because metrics are decoded, which may take
/// sixty times the memory.
const LARGEST_METRICS: usize = 256 * 1024;
/// Requests whose bodies are read at a time.
const SPANS_AT_A_TIME: usize = 8;
/// A collector pushes metrics every five seconds.
const METRICS_AT_A_TIME: usize = 1;
/// How long a request waits for its turn. Collectors give up after five seconds.
const WAIT: Duration = Duration::from_secs(3);
/// How long a request may take once its body is read: one that trickles in gives its place up.
const REQUEST: Duration = Duration::from_secs(5);
/// Connections. A collector has two, one for spans and one for metrics.
const CONNECTIONS: usize = 64;
/// Requests of a connection at a time. The collectors that the controller runs send two.
const STREAMS: u32 = 8;
/// Bytes of a request that are taken in before they are asked for.
const STREAM_WINDOW: u32 = 64 * 1024;
/// And of all of a connection: less, and requests that wait for their turn would keep those out that have it.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// A connection that does not answer for so long is of a node that is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

const EXPORT_SPANS: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const EXPORT_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// Receives until the listener fails, which it does not.
///
/// # Errors
/// When a server cannot be made of its settings.
pub async fn serve(listener: TcpListener, store: Arc<Store>) -> Result<(), tonic::transport::Error> {
    let receiver =
        Receiver { store, spans: Arc::new(Semaphore::new(SPANS_AT_A_TIME)), metrics: Arc::new(Semaphore::new(METRICS_AT_A_TIME)) };
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .serve_with_incoming(receiver, Connections::new(listener, CONNECTIONS, None).stream())
        .await
}

/// Both services.
#[derive(Clone)]
struct Receiver {
    store: Arc<Store>,
    spans: Arc<Semaphore>,
    metrics: Arc<Semaphore>,
}

impl Service<http::Request<Body>> for Receiver {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let receiver = self.clone();
        Box::pin(async move { Ok(receiver.answer(request).await) })
    }
}

impl Receiver {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let (turns, largest, export) = match request.uri().path() {
            EXPORT_SPANS => (&self.spans, LARGEST_SPANS, Export::Spans),
            EXPORT_METRICS => (&self.metrics, LARGEST_METRICS, Export::Metrics),
            other => return Status::unimplemented(format!("no method {other}: this receives OTLP traces and metrics")).into_http(),
        };
        let Ok(_turn) = timeout(WAIT, turns.acquire()).await else {
            self.store.count_refused_request();
            return Status::resource_exhausted("the trace store has more requests than it can take: send fewer, or sample less")
                .into_http();
        };
        let mut grpc = Grpc::new(Encoded).max_decoding_message_size(largest);
        let answer = grpc.unary(Exporting { export, store: self.store.clone() }, request);
        let Ok(response) = timeout(REQUEST, answer).await else {
            self.store.count_refused_request();
            return Status::deadline_exceeded(format!("the request was not complete within {REQUEST:?}")).into_http();
        };
        response
    }
}

#[derive(Clone, Copy)]
enum Export {
    Spans,
    Metrics,
}

struct Exporting {
    export: Export,
    store: Arc<Store>,
}

impl UnaryService<Bytes> for Exporting {
    type Response = Vec<u8>;
    type Future = std::future::Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let now = Timestamp::now();
        std::future::ready(match self.export {
            Export::Spans => export_spans(&self.store, request.get_ref(), now),
            Export::Metrics => export_metrics(&self.store, request.get_ref(), now),
        })
    }
}

/// What is not stored is told as OTLP's "partial success", and not to be sent again.
fn export_spans(store: &Store, request: &[u8], now: Timestamp) -> Result<Response<Vec<u8>>, Status> {
    let rejected = store.store_spans(request, now).map_err(|malformed| {
        store.count_refused_request();
        Status::invalid_argument(format!("no spans: {malformed}"))
    })?;
    let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: "spans without a valid trace id, or larger than the store takes".to_owned(),
    });
    Ok(Response::new(ExportTraceServiceResponse { partial_success }.encode_to_vec()))
}

fn export_metrics(store: &Store, request: &[u8], now: Timestamp) -> Result<Response<Vec<u8>>, Status> {
    let metrics = ExportMetricsServiceRequest::decode(request).map_err(|_| {
        store.count_refused_request();
        Status::invalid_argument("no metrics: the request is not OTLP")
    })?;
    let partial_success = store.store_metrics(&metrics, now).err().map(|rejected| ExportMetricsPartialSuccess {
        rejected_data_points: 1,
        error_message: format!("metrics of collectors about spans are stored here: {rejected}"),
    });
    Ok(Response::new(ExportMetricsServiceResponse { partial_success }.encode_to_vec()))
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Vec<u8>;
    type Decode = Bytes;
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
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    /// Takes the message out of the buffer as it is, without a copy.
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_request_that_is_not_otlp_is_refused_and_counted() {
        let store = Store::new(2 << 20);
        let garbage = [0x0a, 5, 1];
        let spans = export_spans(&store, &garbage, Timestamp::UNIX_EPOCH).unwrap_err();
        let metrics = export_metrics(&store, &garbage, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!((spans.code(), spans.message()), (Code::InvalidArgument, "no spans: the message ends within a field"));
        assert_eq!(metrics.code(), Code::InvalidArgument);
        assert_eq!(store.stats().refused_requests, 2);
    }
}
