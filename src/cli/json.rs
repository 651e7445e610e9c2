//! What commands print for programs: one document, described by a schema below docs/schema.

use serde::Serialize;

/// The version of these documents: fields may come, none goes or changes its meaning.
pub(in crate::cli) const API_VERSION: &str = "cli.clustertracing.dev/v1";

/// Formats for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One JSON document.
    Json,
}

/// A document with its version in front, as kubectl's have.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Document<T> {
    /// `cli.clustertracing.dev/v1`
    api_version: &'static str,
    /// What follows it, with its `kind`.
    #[serde(flatten)]
    content: T,
}

/// The schema of a document.
pub(super) fn schema<T: schemars::JsonSchema>() -> String {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Document<T>)).unwrap_or_default();
    schema + "\n"
}

/// The text of a document.
pub(super) fn document(content: impl Serialize) -> String {
    // of plain values with texts as keys
    let text = serde_json::to_string_pretty(&Document { api_version: API_VERSION, content }).unwrap_or_default();
    text + "\n"
}
