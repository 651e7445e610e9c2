//! Sends encoded batches by OTLP/gRPC, and counts what has become of their spans.

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::task::JoinSet;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::spans::BATCH;

/// What the receiver answered, in spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    /// It has taken them.
    pub(crate) taken: u64,
    /// It has refused the request that they were in.
    pub(crate) refused: u64,
    /// It has taken the request, but not these (OTLP's "partial success").
    pub(crate) rejected: u64,
}

impl AddAssign for Answered {
    fn add_assign(&mut self, other: Self) {
        self.taken += other.taken;
        self.refused += other.refused;
        self.rejected += other.rejected;
    }
}

/// Sends one batch, and waits for the answer.
pub(crate) async fn send(channel: Channel, batch: Bytes) -> Answered {
    let mut client = tonic::client::Grpc::new(channel);
    let path = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let response = match client.ready().await {
        Ok(()) => client.unary(Request::new(batch), path, Encoded).await,
        Err(error) => panic!("the receiver has gone: {error}"),
    };
    match response {
        Ok(response) => {
            let rejected = response.into_inner().partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0));
            Answered { taken: BATCH - rejected, rejected, refused: 0 }
        }
        Err(_) => Answered { refused: BATCH, ..Answered::default() },
    }
}

/// Sends all of them, `at_a_time`.
pub(crate) async fn send_all(channel: &Channel, batches: Vec<Bytes>, at_a_time: usize) -> Answered {
    let (batches, next) = (Arc::new(batches), Arc::new(AtomicUsize::new(0)));
    let mut streams = JoinSet::new();
    for _ in 0..at_a_time {
        let (batches, next, channel) = (batches.clone(), next.clone(), channel.clone());
        streams.spawn(async move {
            let mut answered = Answered::default();
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                answered += send(channel.clone(), batch.clone()).await;
            }
            answered
        });
    }
    let mut answered = Answered::default();
    for stream in streams.join_all().await {
        answered += stream;
    }
    answered
}

/// A request's bytes as they are: batches are encoded before their time is taken.
#[derive(Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
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
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        ExportTraceServiceResponse::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
