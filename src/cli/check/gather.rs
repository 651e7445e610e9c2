//! Reads what the checks look at, with the person's own rights: the only module here that asks anybody.

use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Container, Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, CustomResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::decide::fields;
use super::facts::{self, Definition, Facts, Read, Right, Unread, Workload};
use crate::api::{ClusterTracing, LABEL_CONTROL_PLANE, NodeTracing};
use crate::cli::cluster::{Cluster, Error};

/// On the API's image of a static pod, by the kubelet (k8s.io/kubernetes/pkg/kubelet/types).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How the kubelet's own annotations of such a pod begin.
const KUBELETS: &str = "kubernetes.io/config.";
/// Enough nodes to recognise a platform by, where none is of the control plane.
const OTHER_NODES: u32 = 20;

/// Reads all that the checks look at. `before`: with `--pre`.
///
/// # Errors
/// When nobody answers, or nobody who takes the person's credentials. What else cannot be read is a fact.
pub(super) async fn facts(cluster: &Cluster, before: bool) -> Result<Facts, Error> {
    let server = server(cluster).await?;
    let (nodes, namespace_labels) = tokio::join!(nodes(cluster), namespace_labels(cluster));
    let facts = Facts {
        now: Timestamp::now(),
        namespace: cluster.namespace.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        server,
        nodes,
        namespace_labels,
        pods: Read::Unasked,
        rights: Read::Unasked,
        definitions: Read::Unasked,
        controller: Read::Unasked,
        agents: Read::Unasked,
        collectors: Read::Unasked,
        lease: Read::Unasked,
        resource: Read::Unasked,
        node_tracings: Read::Unasked,
        store: Read::Unasked,
    };
    Ok(if before {
        let (pods, rights) = tokio::join!(pods(cluster, &facts.nodes), rights(cluster));
        Facts { pods, rights, ..facts }
    } else {
        let (definitions, controller, agents, collectors, lease, resource, node_tracings, store) = tokio::join!(
            definitions(cluster),
            controller(cluster),
            daemon_set(cluster, "clustertracing-agent"),
            daemon_set(cluster, "clustertracing-collector"),
            lease(cluster),
            resource(cluster),
            cluster.node_tracings(),
            store(cluster),
        );
        Facts { definitions, controller, agents, collectors, lease, resource, node_tracings: read(node_tracings), store, ..facts }
    })
}

/// What was read, or why not.
fn read<T>(result: Result<T, Error>) -> Read<T> {
    match result {
        Ok(value) => Read::Known(value),
        Err(error) => Read::Unread(Unread {
            unread: crate::cli::one_line(&error),
            forbidden: matches!(error, Error::Forbidden { .. } | Error::StoreForbidden { .. }),
        }),
    }
}

/// The first question: where nobody answers it, there is no other.
async fn server(cluster: &Cluster) -> Result<Read<String>, Error> {
    match cluster.client.apiserver_version().await {
        Ok(info) => Ok(Read::Known(info.git_version)),
        Err(kube::Error::Api(status)) if status.code == http::StatusCode::FORBIDDEN.as_u16() => {
            Ok(read(Err(Error::of("get /version", kube::Error::Api(status)))))
        }
        Err(error) => Err(Error::of("get /version", error)),
    }
}

/// One object of a kind; nothing where it is not there.
async fn one<K>(api: Api<K>, kind: &str, name: &str) -> Read<Option<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    read(api.get_opt(name).await.map_err(|error| Error::of(format!("get {kind} {name}"), error)))
}

impl<T> Read<T> {
    fn map<U>(self, of: impl FnOnce(T) -> U) -> Read<U> {
        match self {
            Self::Known(value) => Read::Known(of(value)),
            Self::Unread(unread) => Read::Unread(unread),
            Self::Unasked => Read::Unasked,
        }
    }
}

async fn nodes(cluster: &Cluster) -> Read<BTreeMap<String, facts::Node>> {
    let api = Api::<Node>::all(cluster.client.clone());
    let found = match api.list(&ListParams::default().labels(LABEL_CONTROL_PLANE)).await {
        Ok(found) if found.items.is_empty() => api.list(&ListParams::default().limit(OTHER_NODES)).await,
        found => found,
    };
    read(found.map_err(|error| Error::of("list nodes", error))).map(|found| found.items.into_iter().map(node).collect())
}

fn node(node: Node) -> (String, facts::Node) {
    let status = node.status.unwrap_or_default();
    let is_ready = |condition: &k8s_openapi::api::core::v1::NodeCondition| condition.type_ == "Ready" && condition.status == "True";
    let ready = status.conditions.iter().flatten().any(is_ready);
    let info = status.node_info.unwrap_or_default();
    let labels = node.metadata.labels.unwrap_or_default();
    let facts = facts::Node {
        control_plane: labels.contains_key(LABEL_CONTROL_PLANE),
        ready,
        labels,
        annotations: node.metadata.annotations.unwrap_or_default(),
        os_image: info.os_image,
        kubelet_version: info.kubelet_version,
    };
    (node.metadata.name.unwrap_or_default(), facts)
}

async fn namespace_labels(cluster: &Cluster) -> Read<Option<BTreeMap<String, String>>> {
    let namespace = one(Api::<Namespace>::all(cluster.client.clone()), "namespace", &cluster.namespace).await;
    namespace.map(|namespace| namespace.map(|namespace| namespace.metadata.labels.unwrap_or_default()))
}

async fn pods(cluster: &Cluster, nodes: &Read<BTreeMap<String, facts::Node>>) -> Read<BTreeMap<String, facts::Pod>> {
    let Read::Known(nodes) = nodes else { return nodes.clone().map(|_| BTreeMap::new()) };
    let api = Api::<Pod>::all(cluster.client.clone());
    let mut all = BTreeMap::new();
    for name in nodes.iter().filter(|(_, node)| node.control_plane).map(|(name, _)| name) {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={name}"));
        match read(api.list(&on_node).await.map_err(|error| Error::of(format!("list the pods of node {name}"), error))) {
            Read::Known(found) => all.extend(found.items.into_iter().map(pod)),
            unread => return unread.map(|_| BTreeMap::new()),
        }
    }
    Read::Known(all)
}

fn pod(pod: Pod) -> (String, facts::Pod) {
    let (metadata, spec) = (pod.metadata, pod.spec.unwrap_or_default());
    let (name, namespace) = (metadata.name.unwrap_or_default(), metadata.namespace.unwrap_or_default());
    let of_host = spec.host_network.unwrap_or_default();
    let ports = |container: &Container| {
        let ports = container.ports.iter().flatten();
        ports.filter_map(|port| port.host_port.or(Some(port.container_port).filter(|_| of_host))).collect::<Vec<_>>()
    };
    let host_ports = spec.containers.iter().flat_map(ports).filter_map(|port| u16::try_from(port).ok());
    let mut annotations = metadata.annotations.unwrap_or_default();
    let is_mirror = annotations.contains_key(MIRROR);
    // what the kubelet adds stands in no manifest
    annotations.retain(|key, _| !key.starts_with(KUBELETS));
    let facts = facts::Pod {
        node: spec.node_name.clone().unwrap_or_default(),
        host_ports: host_ports.collect(),
        ours: metadata.labels.unwrap_or_default().get("app.kubernetes.io/name").is_some_and(|name| name == "clustertracing"),
        manifest: is_mirror.then(|| manifest(&name, &namespace, &annotations, &spec)),
        namespace,
    };
    (name, facts)
}

/// The pod as a manifest of the static-pod folder. JSON is YAML.
fn manifest(name: &str, namespace: &str, annotations: &BTreeMap<String, String>, spec: &k8s_openapi::api::core::v1::PodSpec) -> String {
    let metadata = if annotations.is_empty() {
        json!({ "name": name, "namespace": namespace })
    } else {
        json!({ "name": name, "namespace": namespace, "annotations": annotations })
    };
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }).to_string()
}

async fn rights(cluster: &Cluster) -> Read<Vec<Right>> {
    let namespace = Some(cluster.namespace.as_str());
    let asked = [
        ("", "namespaces", None),
        ("apiextensions.k8s.io", "customresourcedefinitions", None),
        ("rbac.authorization.k8s.io", "clusterroles", None),
        ("rbac.authorization.k8s.io", "clusterrolebindings", None),
        ("rbac.authorization.k8s.io", "roles", Some("kube-system")),
        ("rbac.authorization.k8s.io", "rolebindings", Some("kube-system")),
        ("", "serviceaccounts", namespace),
        ("", "services", namespace),
        ("apps", "deployments", namespace),
        ("apps", "daemonsets", namespace),
        ("clustertracing.dev", "clustertracings", None),
    ];
    let api = Api::<SelfSubjectAccessReview>::all(cluster.client.clone());
    let mut rights = Vec::new();
    for (group, resource, namespace) in asked {
        let attributes = ResourceAttributes {
            verb: Some("create".to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        match read(api.create(&PostParams::default(), &review).await.map_err(|error| Error::of("ask what you may do", error))) {
            Read::Known(review) => {
                let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
                let allowed = review.status.is_some_and(|status| status.allowed);
                rights.push(Right { what: format!("create {resource}{group}{place}"), allowed });
            }
            unread => return unread.map(|_| Vec::new()),
        }
    }
    Read::Known(rights)
}

async fn definitions(cluster: &Cluster) -> Read<BTreeMap<String, Definition>> {
    let api = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let mut found = BTreeMap::new();
    for name in [ClusterTracing::crd_name(), NodeTracing::crd_name()] {
        match one(api.clone(), "customresourcedefinition", name).await {
            Read::Known(Some(crd)) => {
                let served = crd.spec.versions.iter().filter(|version| version.served).map(|version| version.name.clone()).collect();
                found.insert(name.to_owned(), Definition { served, fields: fields(&crd) });
            }
            Read::Known(None) => {}
            unread => return unread.map(|_| BTreeMap::new()),
        }
    }
    Read::Known(found)
}

/// What the chart labels its objects with.
fn version(labels: Option<BTreeMap<String, String>>) -> Option<String> {
    labels.unwrap_or_default().remove("app.kubernetes.io/version")
}

async fn controller(cluster: &Cluster) -> Read<Option<Workload>> {
    let api = Api::<Deployment>::namespaced(cluster.client.clone(), &cluster.namespace);
    let workload = |deployment: Deployment| Workload {
        // one, unless it says otherwise (apps/v1)
        desired: deployment.spec.replicas.unwrap_or(1),
        ready: deployment.status.and_then(|status| status.ready_replicas).unwrap_or_default(),
        version: version(deployment.metadata.labels),
    };
    one(api, "deployment", "clustertracing-controller").await.map(|found| found.map(workload))
}

async fn daemon_set(cluster: &Cluster, name: &str) -> Read<Option<Workload>> {
    let api = Api::<DaemonSet>::namespaced(cluster.client.clone(), &cluster.namespace);
    let workload = |daemon_set: DaemonSet| {
        let (desired, ready) = daemon_set.status.map(|status| (status.desired_number_scheduled, status.number_ready)).unwrap_or_default();
        Workload { desired, ready, version: version(daemon_set.metadata.labels) }
    };
    one(api, "daemonset", name).await.map(|found| found.map(workload))
}

async fn lease(cluster: &Cluster) -> Read<Option<facts::Lease>> {
    let api = Api::<Lease>::namespaced(cluster.client.clone(), &cluster.namespace);
    let lease = |lease: Lease| {
        let spec = lease.spec.unwrap_or_default();
        facts::Lease { holder: spec.holder_identity, renewed: spec.renew_time.map(|time| time.0) }
    };
    one(api, "lease", "clustertracing-controller").await.map(|found| found.map(lease))
}

async fn resource(cluster: &Cluster) -> Read<Option<ClusterTracing>> {
    match cluster.cluster_tracing().await {
        Err(Error::NoResource | Error::NotInstalled { .. }) => Read::Known(None),
        found => read(found.map(Some)),
    }
}

async fn store(cluster: &Cluster) -> Read<facts::Store> {
    let path = "/api/v1/stats";
    let answer = cluster.ask_store(path).await;
    read(answer.and_then(|body| serde_json::from_str(&body).map_err(|source| Error::StoreAnswer { path: path.to_owned(), source })))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_static_pod_is_given_back_as_its_manifest_and_told_from_others() {
        let text = r#"{"metadata": {"name": "etcd-cp-1", "namespace": "kube-system", "annotations": {"kubernetes.io/config.mirror": "1", "a": "b"}},
            "spec": {"hostNetwork": true, "nodeName": "cp-1", "containers": [{"name": "etcd", "image": "etcd:3.6.16-0", "command": ["etcd"],
            "ports": [{"containerPort": 2381}, {"containerPort": 70000}]}]}}"#;
        let (name, found) = pod(serde_json::from_str(text).unwrap());
        assert_eq!((name.as_str(), &found.host_ports), ("etcd-cp-1", &BTreeSet::from([2381])));
        let manifest = found.manifest.unwrap();
        assert!(manifest.contains(r#""annotations":{"a":"b"}"#), "{manifest}");
        let (_, other) = pod(serde_json::from_str(&text.replace("kubernetes.io/config.mirror", "x")).unwrap());
        assert_eq!(other.manifest, None);
    }
}
