//! The agent's requests to the API server: watch its own `NodeTracing`, read it and its Node once more before a commit, and patch its status.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::chain;
use crate::api::node_tracing::NodeTracingStatus;
use crate::api::{FIELD_MANAGER_AGENT, NodeTracing};
use crate::runtime::backoff::Doubling;

/// A request that takes longer is given up and made again: the connection may lead to an API server that has gone.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after a failed request, doubled each time up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// This node's two objects.
pub struct Cluster {
    node_name: String,
    tracings: Api<NodeTracing>,
    nodes: Api<Node>,
}

/// A status to report, and of which object it speaks: one that was made anew has not lived through what the last one reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The object's UID.
    pub object_uid: Option<String>,
    /// What it is to say.
    pub status: NodeTracingStatus,
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error, or not at all.
    #[error("{operation} {name}")]
    Request {
        /// What was asked.
        operation: &'static str,
        /// Of which object.
        name: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{operation} {name}: no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// Of which object.
        name: String,
    },
    /// The Node object has no UID.
    #[error("node {name} has no UID")]
    NoUid {
        /// The node's name.
        name: String,
    },
}

/// Seconds after which the watch is begun anew: one that the API server forgot delays a grant by no more. 30 requests an hour.
const WATCH_SECONDS: u32 = 120;

impl Cluster {
    /// For the node of this name. Makes no request yet.
    pub fn new(client: Client, node_name: String) -> Self {
        Self { tracings: Api::all(client.clone()), nodes: Api::all(client), node_name }
    }

    /// UID of the Node object as it is now.
    pub async fn node_uid(&self) -> Result<String, Error> {
        Ok(self.node().await?.0)
    }

    /// UID of the Node object as it is now, and when its kubelet last said how the node is.
    pub async fn node(&self) -> Result<(String, Option<jiff::Timestamp>), Error> {
        let node = self.request("get node", self.nodes.get(&self.node_name)).await?;
        let uid = node.metadata.uid.ok_or_else(|| Error::NoUid { name: self.node_name.clone() })?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let heartbeat = conditions.into_iter().find(|c| c.type_ == "Ready").and_then(|ready| ready.last_heartbeat_time);
        Ok((uid, heartbeat.map(|time| time.0)))
    }

    /// The `NodeTracing` as it is now: read from etcd, not from a watch that may be behind.
    pub async fn read(&self) -> Result<NodeTracing, Error> {
        self.request("get nodetracing", self.tracings.get(&self.node_name)).await
    }

    /// Keeps `latest` up to date, for ever. `None` while there is no object.
    pub async fn follow(&self, latest: &watch::Sender<Option<NodeTracing>>) -> Infallible {
        let config = watcher::Config::default().timeout(WATCH_SECONDS).fields(&format!("metadata.name={}", self.node_name));
        let mut events = pin!(watcher(self.tracings.clone(), config).backoff(Doubling::default()));
        let mut listed = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(object)) => put(latest, Some(object)),
                Ok(watcher::Event::Delete(_)) => put(latest, None),
                Ok(watcher::Event::Init) => listed = None,
                Ok(watcher::Event::InitApply(object)) => listed = Some(object),
                Ok(watcher::Event::InitDone) => put(latest, listed.take()),
                Err(error) => tracing::warn!("watch nodetracing {}: {}", self.node_name, chain(&error)),
            }
        }
        // with a backoff the stream never ends
        pending().await
    }

    /// Reports the newest of `wanted`, for ever, with retries; `reported` is the one that the API server has.
    /// Makes no request when the object says the same already, is not there, or is another one of the same name.
    pub async fn report(
        &self,
        mut wanted: watch::Receiver<Option<Wanted>>,
        latest: &watch::Sender<Option<NodeTracing>>,
        reported: &watch::Sender<Option<NodeTracingStatus>>,
    ) -> Infallible {
        let mut objects = latest.subscribe();
        let mut wait = RETRY_FIRST;
        loop {
            let wanted_status = wanted.borrow_and_update().clone();
            let object = objects.borrow_and_update().clone();
            let of_it = wanted_status.zip(object).filter(|(wanted, object)| wanted.object_uid == object.metadata.uid);
            if let Some((Wanted { status, .. }, object)) = of_it {
                if object.status.as_ref() != Some(&status) {
                    match self.patch(&status).await {
                        // the answer is newer than what the watch has: it prevents a second patch before the watch is there too
                        Ok(object) => put(latest, Some(object)),
                        Err(error) => {
                            tracing::warn!("cannot report: {}", chain(&error));
                            sleep(wait).await;
                            wait = (wait * 2).min(RETRY_MOST);
                            continue;
                        }
                    }
                }
                wait = RETRY_FIRST;
                reported.send_if_modified(|last| last.replace(status.clone()) != Some(status));
            }
            tokio::select! {
                Ok(()) = wanted.changed() => {}
                Ok(()) = objects.changed() => {}
                else => pending().await,
            }
        }
    }

    async fn patch(&self, status: &NodeTracingStatus) -> Result<NodeTracing, Error> {
        let body = json!({
            "apiVersion": NodeTracing::api_version(&()),
            "kind": NodeTracing::kind(&()),
            "metadata": { "name": self.node_name },
            "status": status,
        });
        // force: the agent is the only writer of the status
        let parameters = PatchParams::apply(FIELD_MANAGER_AGENT).force();
        self.request("patch status of nodetracing", self.tracings.patch_status(&self.node_name, &parameters, &Patch::Apply(&body))).await
    }

    async fn request<T>(&self, operation: &'static str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        let name = self.node_name.clone();
        match timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(Error::Request { operation, name, source: Box::new(source) }),
            Err(_) => Err(Error::Timeout { operation, name }),
        }
    }
}

/// Takes over what was read, unless a newer version is known: the watch tells late what the answer to a report told at once.
fn put(latest: &watch::Sender<Option<NodeTracing>>, object: Option<NodeTracing>) {
    latest.send_if_modified(|last| {
        let is_late = last.as_ref().zip(object.as_ref()).is_some_and(|(last, object)| is_older(object, last));
        let changed = !is_late && *last != object;
        if changed {
            *last = object;
        }
        changed
    });
}

/// Versions of one object are etcd's revisions, which grow.
fn is_older(object: &NodeTracing, other: &NodeTracing) -> bool {
    let version = |object: &NodeTracing| object.metadata.resource_version.as_ref()?.parse::<u64>().ok();
    object.metadata.uid == other.metadata.uid && version(object).zip(version(other)).is_some_and(|(version, other)| version < other)
}

#[cfg(test)]
mod tests;
