//! What the scenarios stand on: the cluster, clients, what nodes run and hold, Jaeger, waiting and reporting.

pub(crate) mod availability;
pub(crate) mod clients;
pub(crate) mod cluster;
mod dump;
pub(crate) mod files;
pub(crate) mod jaeger;
pub(crate) mod kubeadm;
pub(crate) mod operator;
pub(crate) mod process;
pub(crate) mod step;
pub(crate) mod tls;
pub(crate) mod traceparent;
pub(crate) mod wait;
pub(crate) mod webhook;
