//! Reads what a plan is made of. Every read goes to the API server, none to a cache: a plan of an old view could give a second grant.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Context, Error};
use crate::api::{self, ClusterTracing, NodeTracing};
use crate::plan::collector;
use crate::plan::observed::{Observed, ObservedCollector};

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// The resource.
    pub(super) resource: ClusterTracing,
    /// What the plan is made of.
    pub(super) observed: Observed,
    /// The `NodeTracing`s as they were read: a grant replaces exactly one of them.
    pub(super) node_tracings: BTreeMap<String, NodeTracing>,
}

/// Reads everything; `None` when there is no `ClusterTracing`.
pub(super) async fn observe(ctx: &Context) -> Result<Option<Observation>, Error> {
    let read = |object| move |source| Error::Read { object, source };
    let Some(resource) = ctx.cluster_tracings().get_opt(api::SINGLETON).await.map_err(read("clustertracing"))? else {
        return Ok(None);
    };
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    let nodes = nodes.list(&ListParams::default().labels(api::LABEL_CONTROL_PLANE)).await.map_err(read("nodes"))?.items;
    let ours = ListParams::default().labels(collector::SELECTOR);
    let daemon_set = ctx.in_namespace::<DaemonSet>().get_opt(collector::NAME).await.map_err(read("the collector's daemonset"))?;
    let config_maps = ctx.in_namespace::<ConfigMap>().list(&ours).await.map_err(read("the collector's configmaps"))?.items;
    let pods = ctx.in_namespace::<Pod>().list(&ours).await.map_err(read("the collector's pods"))?.items;
    // Last, so that it is newest: whether a grant may be given is read here.
    let node_tracings = ctx.node_tracings().list(&ListParams::default()).await.map_err(read("nodetracings"))?.items;

    let collector = ObservedCollector::new(daemon_set, &config_maps, &pods);
    let observed = Observed::new(&ctx.term, &nodes, &node_tracings, collector, resource.status.clone().unwrap_or_default());
    let node_tracings = node_tracings.into_iter().map(|n| (n.name_any(), n)).collect();
    Ok(Some(Observation { resource, observed, node_tracings }))
}
