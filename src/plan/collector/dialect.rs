//! What differs between the collector's versions.

use serde_json::Value;

use crate::api::ExporterProtocol;

/// What a collector's version calls its exporters, and where it batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before 0.144: `otlp`, `otlphttp`; batching by a processor.
    BatchProcessor,
    /// `otlp_grpc`, `otlp_http`; batching in the exporter's queue.
    BatchingQueue,
}

impl Dialect {
    /// By the version in the image's tag; the newest where the tag tells none.
    pub(super) fn of(image: &str) -> Self {
        match tag_version(image) {
            Some(version) if version < (0, 144) => Self::BatchProcessor,
            _ => Self::BatchingQueue,
        }
    }

    /// The processors that batch spans for the back ends.
    pub(super) fn batching(self) -> Vec<(String, Value)> {
        match self {
            Self::BatchProcessor => vec![("batch".to_owned(), super::config::batch(512, 2048))],
            Self::BatchingQueue => Vec::new(),
        }
    }

    /// The component that exports this flavour of OTLP.
    pub(super) fn exporter(self, protocol: ExporterProtocol) -> &'static str {
        match (self, protocol) {
            (Self::BatchingQueue, ExporterProtocol::Grpc) => "otlp_grpc",
            (Self::BatchingQueue, ExporterProtocol::Http) => "otlp_http",
            (Self::BatchProcessor, ExporterProtocol::Grpc) => "otlp",
            (Self::BatchProcessor, ExporterProtocol::Http) => "otlphttp",
        }
    }
}

/// `registry:5000/name:v0.155.0@sha256:…` → `(0, 155)`.
fn tag_version(image: &str) -> Option<(u32, u32)> {
    let name = image.split('@').next()?.rsplit('/').next()?;
    let tag = name.split_once(':')?.1;
    let mut numbers = tag.trim_start_matches('v').split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_tag() {
        let cases = [
            ("otelcol:0.155.0", Some((0, 155))),
            ("registry.example:5000/a/otelcol:v0.130.1", Some((0, 130))),
            ("registry.example:5000/a/otelcol", None),
            ("otelcol:0.143.0@sha256:0123", Some((0, 143))),
            ("otelcol@sha256:0123", None),
            ("otelcol:latest", None),
            ("otelcol:", None),
        ];
        for (image, version) in cases {
            assert_eq!(tag_version(image), version, "{image}");
        }
    }
}
