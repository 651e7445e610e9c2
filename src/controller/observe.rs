//! Reads what a plan is made of. Every read goes to the API server, none to a cache: a plan of an old view could give a second grant.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Context, Error};
use crate::api::{self, ClusterTracing, CollectorMode, NodeTracing};
use crate::component::kubeadm;
use crate::plan::collector_check::observed::trouble;
use crate::plan::observed::{KubeadmConfig, Observed, ObservedCollector, ObservedGateway, platform};
use crate::plan::secret::{self, ObservedSecret};
use crate::plan::validate::{Invalid, Validated, validate};
use crate::plan::{canary, collector, collector_check};

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// The resource.
    pub(super) resource: ClusterTracing,
    /// What it asks for, or why it cannot be used.
    pub(super) validated: Result<Validated, Invalid>,
    /// What the plan is made of.
    pub(super) observed: Observed,
    /// The `NodeTracing`s as they were read: a grant replaces exactly one of them.
    pub(super) node_tracings: BTreeMap<String, NodeTracing>,
    /// kubeadm's ConfigMap as it was read: a write replaces exactly this one.
    pub(super) kubeadm: Option<ConfigMap>,
}

/// Reads everything; `None` when there is no `ClusterTracing`. `now`: for which time the resource is read.
pub(super) async fn observe(ctx: &Context, now: Timestamp) -> Result<Option<Observation>, Error> {
    let read = |object| move |source| Error::Read { object, source };
    let Some(resource) = ctx.cluster_tracings().get_opt(api::SINGLETON).await.map_err(read("clustertracing"))? else {
        return Ok(None);
    };
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    let all = nodes;
    let nodes = all.list(&ListParams::default().labels(api::LABEL_CONTROL_PLANE)).await.map_err(read("nodes"))?.items;
    // Whoever runs the control plane elsewhere has left traces on the nodes that are here; a few tell as much as all.
    let others = if nodes.is_empty() { all.list(&ListParams::default().limit(10)).await.map_err(read("nodes"))?.items } else { Vec::new() };
    let ours = ListParams::default().labels(collector::SELECTOR);
    let daemon_set = ctx.in_namespace::<DaemonSet>().get_opt(collector::NAME).await.map_err(read("the collector's daemonset"))?;
    let config_maps = ctx.in_namespace::<ConfigMap>().list(&ours).await.map_err(read("the collector's configmaps"))?.items;
    let pods = ctx.in_namespace::<Pod>().list(&ours).await.map_err(read("the collector's pods"))?.items;
    let canaries = ListParams::default().labels(canary::SELECTOR);
    let canaries = ctx.in_namespace::<Pod>().list(&canaries).await.map_err(read("the canary pods"))?.items;
    let checks = ListParams::default().labels(collector_check::SELECTOR);
    let checks = ctx.in_namespace::<Pod>().list(&checks).await.map_err(read("the collector's check pods"))?.items;
    let validated = validate(&resource, &ctx.installation).map(|validated| validated.at(now));
    let secrets = secrets(ctx, validated.as_ref().ok()).await?;
    let kubeadm: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), kubeadm::NAMESPACE);
    let (kubeadm_config, kubeadm) = match kubeadm.get_opt(kubeadm::CONFIG_MAP).await {
        Ok(found) => {
            let text = found.as_ref().and_then(|object| object.data.as_ref()?.get(kubeadm::KEY).cloned());
            (text.map_or(KubeadmConfig::Absent, KubeadmConfig::Found), found)
        }
        Err(kube::Error::Api(status)) if status.code == 403 => (KubeadmConfig::Forbidden, None),
        Err(source) => return Err(Error::Read { object: "kubeadm's configmap", source }),
    };
    // Last, so that it is newest: whether a grant may be given is read here.
    let node_tracings = ctx.node_tracings().list(&ListParams::default()).await.map_err(read("nodetracings"))?.items;

    let collector = ObservedCollector::new(daemon_set, &config_maps, &pods, gateway(ctx, &resource).await?);
    let observed = Observed {
        elsewhere: others.iter().find_map(platform),
        kubeadm_config,
        collector_checks: checks.iter().map(Into::into).collect(),
        secrets,
        flow: ctx.told.flow(),
        ..Observed::new(&ctx.term, &nodes, &node_tracings, collector, &canaries, resource.status.clone().unwrap_or_default())
    };
    let node_tracings = node_tracings.into_iter().map(|n| (n.name_any(), n)).collect();
    Ok(Some(Observation { resource, validated, observed, node_tracings, kubeadm }))
}

/// The gateway. Its `Service` and `PodDisruptionBudget` are looked for where they should be.
async fn gateway(ctx: &Context, resource: &ClusterTracing) -> Result<ObservedGateway, Error> {
    let read = |object| move |source| Error::Read { object, source };
    let deployment = ctx.in_namespace::<Deployment>().get_opt(collector::GATEWAY).await.map_err(read("the gateway's deployment"))?;
    if resource.spec.collector.mode != CollectorMode::Gateway {
        return Ok(ObservedGateway { deployment, ..ObservedGateway::default() });
    }
    let ours = ListParams::default().labels(collector::GATEWAY_SELECTOR);
    let pods = ctx.in_namespace::<Pod>().list(&ours).await.map_err(read("the gateway's pods"))?.items;
    let disruption_budgets = ctx.in_namespace::<PodDisruptionBudget>();
    Ok(ObservedGateway {
        deployment,
        service: ctx.in_namespace::<Service>().get_opt(collector::GATEWAY).await.map_err(read("the gateway's service"))?,
        disruption_budget: disruption_budgets.get_opt(collector::GATEWAY).await.map_err(read("the gateway's poddisruptionbudget"))?,
        words: pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).find_map(trouble),
    })
}

/// The Secrets that the wanted collector names. One that may not be read is not known: its lack is then told by a pod that does not start.
async fn secrets(ctx: &Context, validated: Option<&Validated>) -> Result<BTreeMap<String, Option<ObservedSecret>>, Error> {
    let mut found = BTreeMap::new();
    for name in validated.and_then(Validated::wanted_collector).into_iter().flat_map(secret::names) {
        match ctx.in_namespace::<Secret>().get_opt(&name).await {
            Ok(object) => drop(found.insert(name, object.as_ref().map(secret::observed))),
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            Err(source) => return Err(Error::Read { object: "the collector's secrets", source }),
        }
    }
    Ok(found)
}
