//! Writes the status where it changed, and publishes Events.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::api::Patch;
use kube::runtime::events::{Event, EventType};
use serde_json::json;

use super::apply::server_side;
use super::observe::Observation;
use super::{Context, Error};
use crate::api::{ClusterTracing, ClusterTracingStatus, SINGLETON};
use crate::plan::events::NewEvent;

/// Writes `status` by server-side apply on the subresource, unless it stands there already. Says whether it did.
pub(super) async fn update_status(ctx: &Context, seen: &Observation, status: &ClusterTracingStatus) -> Result<bool, Error> {
    if seen.resource.status.as_ref() == Some(status) {
        return Ok(false);
    }
    let object = json!({
        "apiVersion": ClusterTracing::api_version(&()),
        "kind": ClusterTracing::kind(&()),
        "metadata": { "name": SINGLETON },
        "status": status,
    });
    let written = ctx.cluster_tracings().patch_status(SINGLETON, &server_side(), &Patch::Apply(object)).await;
    written.map_err(|source| Error::Write { object: "the status of clustertracing".to_owned(), source })?;
    Ok(true)
}

/// Publishes Events on the resource. One that cannot be published is logged: Events tell, they do not decide.
pub(super) async fn publish(ctx: &Context, seen: &Observation, events: Vec<NewEvent>) {
    let regarding = seen.resource.object_ref(&());
    for event in events {
        tracing::info!(reason = event.reason.as_str(), node = event.node, "{}", event.note);
        // Also what keeps Events of two nodes apart: the recorder joins those that differ in their note alone.
        let secondary = event.node.as_ref().map(|name| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            uid: seen.observed.nodes.get(name).map(|n| n.uid.clone()),
            name: Some(name.clone()),
            ..ObjectReference::default()
        });
        let event = Event {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.as_str().to_owned(),
            note: Some(clip(&event.note)),
            action: event.action.to_owned(),
            secondary,
        };
        if let Err(error) = ctx.recorder.publish(&event, &regarding).await {
            tracing::warn!(error = &error as &dyn std::error::Error, reason = event.reason, "event not published");
        }
    }
}

/// A note may have 1024 bytes.
fn clip(note: &str) -> String {
    let mut end = note.len().min(1000);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    if end == note.len() { note.to_owned() } else { format!("{}…", &note[..end]) }
}
