//! Writes what a plan says, and nothing else. No decisions: an order of writes in which each leaves a state that can be planned from.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::observe::Observation;
use super::{Context, Error};
use crate::api::{self, FIELD_MANAGER_CANARY, FIELD_MANAGER_CONTROLLER, NodeTracing, NodeTracingSpec};
use crate::component::kubeadm;
use crate::plan::canary::{ANNOTATION_VERDICT, CanaryPlan, Record};
use crate::plan::collector::{self, CollectorObjects};
use crate::plan::collector_check::{self, CheckPlan};
use crate::plan::observed::ANNOTATION_TERM;
use crate::plan::{CollectorPlan, GrantPlan, Plan, TargetPlan};

/// Writes `plan`.
pub(super) async fn apply(ctx: &Context, seen: &Observation, plan: &Plan) -> Result<(), Error> {
    if plan.add_finalizer {
        let ours = std::iter::once(api::FINALIZER.to_owned());
        set_finalizers(ctx, seen, seen.resource.finalizers().iter().cloned().chain(ours).collect()).await?;
    }
    for (name, uid) in &plan.orphans {
        let exactly = Preconditions { uid: Some(uid.clone()), resource_version: None };
        delete(&ctx.node_tracings(), name, &DeleteParams::default().preconditions(exactly)).await?;
    }
    for target in &plan.targets {
        apply_target(ctx, seen, target).await?;
    }
    apply_canaries(ctx, seen, &plan.canaries).await?;
    apply_check(ctx, &plan.collector_check).await?;
    match &plan.collector {
        CollectorPlan::Keep => {}
        CollectorPlan::Apply(objects) => apply_collector(ctx, objects).await?,
        CollectorPlan::Prune { config_maps, gateway } => {
            if *gateway {
                remove_gateway(ctx).await?;
            }
            for name in config_maps {
                delete(&ctx.in_namespace::<ConfigMap>(), name, &DeleteParams::default()).await?;
            }
        }
        CollectorPlan::Remove => remove_collector(ctx, seen).await?,
    }
    if let Some(text) = plan.kubeadm.text() {
        keep(ctx, seen, text).await?;
    }
    if let Some(grant) = &plan.grant {
        give(ctx, seen, grant).await?;
    }
    if plan.finish {
        remove_collector(ctx, seen).await?;
        for name in seen.node_tracings.keys() {
            delete(&ctx.node_tracings(), name, &DeleteParams::default()).await?;
        }
        let others = seen.resource.finalizers().iter().filter(|f| *f != api::FINALIZER).cloned().collect();
        set_finalizers(ctx, seen, others).await?;
    }
    Ok(())
}

/// Replaces the list of finalizers of the object as it was read: two writers do not undo each other.
async fn set_finalizers(ctx: &Context, seen: &Observation, finalizers: Vec<String>) -> Result<(), Error> {
    let patch = json!({ "metadata": { "resourceVersion": seen.resource.resource_version(), "finalizers": finalizers } });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()), ..PatchParams::default() };
    let written = ctx.cluster_tracings().patch(api::SINGLETON, &params, &Patch::Merge(patch)).await;
    written.map(|_| ()).or_else(gone_is_fine).map_err(write("the finalizer"))
}

/// By server-side apply, without the grant: that belongs to [`give`] and stays as it is.
/// With the `resourceVersion` that was read: a target is not changed under a grant that was given since.
async fn apply_target(ctx: &Context, seen: &Observation, target: &TargetPlan) -> Result<(), Error> {
    let version = match seen.node_tracings.get(&target.node) {
        Some(found) => found.resource_version(),
        None => create(ctx, target).await?.resource_version(),
    };
    let object = json!({
        "apiVersion": NodeTracing::api_version(&()),
        "kind": NodeTracing::kind(&()),
        "metadata": {
            "name": target.node,
            "resourceVersion": version,
            "annotations": { ANNOTATION_TERM: target.term },
            "ownerReferences": [owner(target)],
        },
        "spec": { "nodeUid": target.node_uid, "target": target.target },
    });
    let written = ctx.node_tracings().patch(&target.node, &server_side(), &Patch::Apply(object)).await;
    written.map(|_| ()).map_err(write(&format!("nodetracing {}", target.node)))
}

/// An object that asks for nothing. By POST, which fails where there is one: a leader that slept since it saw none must not apply its
/// target over the object, and the grant, of the leader that came after it.
async fn create(ctx: &Context, target: &TargetPlan) -> Result<NodeTracing, Error> {
    let mut object = NodeTracing::new(&target.node, NodeTracingSpec { node_uid: target.node_uid.clone(), target: None, grant: None });
    object.metadata.owner_references = Some(vec![owner(target)]);
    let params = PostParams { field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
    ctx.node_tracings().create(&params, &object).await.map_err(write(&format!("nodetracing {}", target.node)))
}

/// When the Node object goes, so does its `NodeTracing`.
fn owner(target: &TargetPlan) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: target.node.clone(),
        uid: target.node_uid.clone(),
        ..OwnerReference::default()
    }
}

/// The one write that lets a node change: compare-and-swap on the object that the decision was made of.
async fn give(ctx: &Context, seen: &Observation, plan: &GrantPlan) -> Result<(), Error> {
    let Some(mut object) = seen.node_tracings.get(&plan.node).cloned() else { return Ok(()) };
    object.spec.grant = Some(plan.grant.clone());
    let params = PostParams { field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
    let written = ctx.node_tracings().replace(&plan.node, &params, &object).await;
    written.map_err(|source| Error::Grant { node: plan.node.clone(), source })?;
    tracing::info!(node = plan.node, grant = plan.grant.id, revision = plan.grant.revision, "node granted");
    Ok(())
}

/// Verdicts before their pods go: one that is not recorded is tried again.
async fn apply_canaries(ctx: &Context, seen: &Observation, plan: &CanaryPlan) -> Result<(), Error> {
    for (node, record) in &plan.record {
        record_verdict(ctx, seen, node, record).await?;
    }
    remove_pods(ctx, &plan.remove).await?;
    for pod in &plan.make {
        make_pod(ctx, pod).await?;
    }
    Ok(())
}

/// The verdict before its pod goes, and the configuration before the pod that reads it.
async fn apply_check(ctx: &Context, plan: &CheckPlan) -> Result<(), Error> {
    if let Some((config_map, record)) = &plan.record {
        // Strings and numbers in a struct are always serializable.
        let verdict = serde_json::to_string(record).unwrap_or_default();
        let patch = json!({ "metadata": { "annotations": { collector_check::ANNOTATION_VERDICT: verdict } } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER_CANARY.to_owned()), ..PatchParams::default() };
        let written = ctx.in_namespace::<ConfigMap>().patch(config_map, &params, &Patch::Merge(patch)).await;
        written.map_err(write(&format!("the verdict on the collector to configmap {config_map}")))?;
        tracing::info!(revision = record.revision, passed = record.refused.is_none(), "collector tried");
    }
    remove_pods(ctx, &plan.remove).await?;
    if let Some(make) = &plan.make {
        let (config_map, pod) = &**make;
        let name = config_map["metadata"]["name"].as_str().unwrap_or_default();
        let written = ctx.in_namespace::<ConfigMap>().patch(name, &server_side(), &Patch::Apply(config_map)).await;
        written.map_err(write(&format!("configmap {name}")))?;
        make_pod(ctx, pod).await?;
    }
    Ok(())
}

/// On the object as it was read, under a name of its own: the time of the controller's last update is when it granted.
async fn record_verdict(ctx: &Context, seen: &Observation, node: &str, record: &Record) -> Result<(), Error> {
    let Some(found) = seen.node_tracings.get(node) else { return Ok(()) };
    // Strings and numbers in a struct are always serializable.
    let verdict = serde_json::to_string(record).unwrap_or_default();
    let patch = json!({ "metadata": { "resourceVersion": found.resource_version(), "annotations": { ANNOTATION_VERDICT: verdict } } });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER_CANARY.to_owned()), ..PatchParams::default() };
    let written = ctx.node_tracings().patch(node, &params, &Patch::Merge(patch)).await;
    written.map_err(write(&format!("the canary's verdict to nodetracing {node}")))?;
    tracing::info!(node, key = record.key, passed = record.refused.is_none(), "canary ended");
    Ok(())
}

async fn make_pod(ctx: &Context, pod: &Value) -> Result<(), Error> {
    let pod: Pod =
        serde_json::from_value(pod.clone()).map_err(|source| Error::Render { object: "the pod in which a change is tried", source })?;
    let params = PostParams { field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
    let made = ctx.in_namespace::<Pod>().create(&params, &pod).await;
    made.map_err(|source| Error::Canary { node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(), source })?;
    Ok(())
}

/// Removes pods in which something is tried: names and UIDs. What they try ends within a second.
pub(super) async fn remove_pods(ctx: &Context, pods: &[(String, String)]) -> Result<(), Error> {
    for (name, uid) in pods {
        let exactly = Preconditions { uid: Some(uid.clone()), resource_version: None };
        delete(&ctx.in_namespace::<Pod>(), name, &DeleteParams::default().preconditions(exactly)).await?;
    }
    Ok(())
}

/// Replaces kubeadm's configuration as it was read: it is another program's object, and `kubeadm upgrade` may write it at any moment.
async fn keep(ctx: &Context, seen: &Observation, text: &str) -> Result<(), Error> {
    let Some(mut object) = seen.kubeadm.clone() else { return Ok(()) };
    object.data.get_or_insert_default().insert(kubeadm::KEY.to_owned(), text.to_owned());
    let config_maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), kubeadm::NAMESPACE);
    let params = PostParams { field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
    let written = config_maps.replace(kubeadm::CONFIG_MAP, &params, &object).await;
    written.map_err(write(&format!("configmap {}/{}", kubeadm::NAMESPACE, kubeadm::CONFIG_MAP)))?;
    tracing::info!("kubeadm's configuration written");
    Ok(())
}

async fn apply_collector(ctx: &Context, objects: &CollectorObjects) -> Result<(), Error> {
    let config_maps = ctx.in_namespace::<ConfigMap>();
    let written = config_maps.patch(&objects.config_map_name, &server_side(), &Patch::Apply(&objects.config_map)).await;
    written.map_err(write(&format!("configmap {}", objects.config_map_name)))?;
    // Before those that send there.
    if let Some(gateway) = &objects.gateway {
        apply_gateway::<Service>(ctx, &gateway.service).await?;
        apply_gateway::<PodDisruptionBudget>(ctx, &gateway.disruption_budget).await?;
        apply_gateway::<Deployment>(ctx, &gateway.deployment).await?;
    }
    let daemon_sets = ctx.in_namespace::<DaemonSet>();
    let written = daemon_sets.patch(collector::NAME, &server_side(), &Patch::Apply(&objects.daemon_set)).await;
    written.map_err(write(&format!("daemonset {}", collector::NAME)))?;
    tracing::info!(revision = objects.revision, "collector applied");
    Ok(())
}

async fn apply_gateway<K>(ctx: &Context, object: &Value) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let written = ctx.in_namespace::<K>().patch(collector::GATEWAY, &server_side(), &Patch::Apply(object)).await;
    written.map_err(write(&format!("{} {}", K::kind(&()).to_lowercase(), collector::GATEWAY)))?;
    Ok(())
}

/// The `Deployment` last: while it is there, something of the gateway is.
async fn remove_gateway(ctx: &Context) -> Result<(), Error> {
    delete(&ctx.in_namespace::<PodDisruptionBudget>(), collector::GATEWAY, &DeleteParams::default()).await?;
    delete(&ctx.in_namespace::<Service>(), collector::GATEWAY, &DeleteParams::default()).await?;
    delete(&ctx.in_namespace::<Deployment>(), collector::GATEWAY, &DeleteParams::background()).await
}

async fn remove_collector(ctx: &Context, seen: &Observation) -> Result<(), Error> {
    if seen.observed.collector.daemon_set.is_some() {
        delete(&ctx.in_namespace::<DaemonSet>(), collector::NAME, &DeleteParams::background()).await?;
    }
    if seen.observed.collector.gateway.deployment.is_some() {
        remove_gateway(ctx).await?;
    }
    for name in &seen.observed.collector.config_maps {
        delete(&ctx.in_namespace::<ConfigMap>(), name, &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn delete<K>(api: &Api<K>, name: &str, params: &DeleteParams) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let deleted = api.delete(name, params).await.map(|_| ());
    deleted.or_else(gone_is_fine).map_err(write(&format!("the removal of {} {name}", K::kind(&()).to_lowercase())))
}

fn gone_is_fine(error: kube::Error) -> Result<(), kube::Error> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        other => Err(other),
    }
}

/// Server-side apply as this controller. Forced: nobody else has a say in these fields.
pub(super) fn server_side() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER_CONTROLLER).force()
}

fn write(object: &str) -> impl FnOnce(kube::Error) -> Error {
    let object = object.to_owned();
    move |source| Error::Write { object, source }
}
