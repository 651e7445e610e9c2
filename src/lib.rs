//! ClusterTracing.
pub mod api;
pub mod component;
pub mod manifest;
