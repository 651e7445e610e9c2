//! ClusterTracing.
pub mod agent;
pub mod api;
pub mod component;
pub mod host;
pub mod manifest;
