//! The controller against a real API server: server-side apply, compare-and-swap, subresources, finalizer, Events, watches.
//! There is no kubelet and no agent here: the test reports in their place.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

#[path = "common/api_server.rs"]
mod api_server;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use api_server::ApiServer;
use clustertracing::api::{ClusterTracing, NodeTracing, State};
use clustertracing::component::kubeadm;
use clustertracing::controller::{self, Category, Context, TraceStore, turn};
use clustertracing::plan::validate::Installation;
use clustertracing::plan::{canary, collector, collector_check};
use clustertracing::runtime::lease::Leadership;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NAMESPACE: &str = "clustertracing";
const NODES: [&str; 3] = ["cp-1", "cp-2", "cp-3"];

/// The cluster, the controller, and what stands in for nodes.
struct Cluster {
    client: Client,
    context: Context,
}

impl Cluster {
    /// Definitions, namespace, nodes, and a `ClusterTracing` without soak time.
    async fn new(client: Client) -> Self {
        let cluster = Self { context: context(&client, "first"), client };
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let crd: CustomResourceDefinition = serde_yaml::from_str(&text).unwrap();
            let name = crd.name_any();
            let crds = Api::all(cluster.client.clone());
            crds.create(&PostParams::default(), &crd).await.unwrap();
            await_condition(crds, &name, conditions::is_crd_established()).await.unwrap();
        }
        cluster.create(&Api::<Namespace>::all(cluster.client.clone()), json!({ "metadata": { "name": NAMESPACE } })).await;
        for account in [collector::NAME, "default"] {
            cluster.create(&cluster.api::<ServiceAccount>(), json!({ "metadata": { "name": account } })).await;
        }
        for name in NODES {
            cluster.add_node(name).await;
        }
        let resource = json!({
            "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing",
            "metadata": { "name": "cluster" }, "spec": { "rollout": { "soakSeconds": 0 } },
        });
        cluster.create(&cluster.resources(), resource).await;
        cluster
    }

    fn resources(&self) -> Api<ClusterTracing> {
        Api::all(self.client.clone())
    }

    fn node_tracings(&self) -> Api<NodeTracing> {
        Api::all(self.client.clone())
    }

    fn api<K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn create<K: Clone + Debug + DeserializeOwned + Serialize>(&self, api: &Api<K>, object: Value) -> K {
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    async fn add_node(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        self.create(&nodes, json!({ "metadata": { "name": name, "labels": { "node-role.kubernetes.io/control-plane": "" } } })).await;
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    }

    async fn turn(&self) {
        turn(&self.context, Timestamp::now()).await.unwrap();
    }

    async fn resource(&self) -> ClusterTracing {
        self.resources().get("cluster").await.unwrap()
    }

    /// What a DaemonSet's controller and kubelets would do: a Ready pod of the current template on each node.
    async fn start_collectors(&self) {
        let Some(daemon_set) = self.api::<DaemonSet>().get_opt(collector::NAME).await.unwrap() else { return };
        let template = serde_json::to_value(daemon_set.spec.template).unwrap();
        let pods = self.api::<Pod>();
        let revision = &template["metadata"]["annotations"][collector::ANNOTATION_REVISION];
        for node in NODES {
            let name = format!("collector-{node}-{}", revision.as_str().unwrap());
            if pods.get_opt(&name).await.unwrap().is_some() {
                continue;
            }
            let on_node = ListParams::default().labels(collector::SELECTOR).fields(&format!("spec.nodeName={node}"));
            for old in pods.list(&on_node).await.unwrap() {
                pods.delete(&old.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
            }
            let mut pod = template.clone();
            pod["metadata"]["name"] = json!(name);
            pod["spec"]["nodeName"] = json!(node);
            self.create(&pods, pod).await;
            let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
        }
    }

    /// What kubelets would do: start canary pods, and end those that are removed. Those that they saw are kept by node.
    async fn start_canaries(&self) {
        let pods = self.api::<Pod>();
        for pod in pods.list(&ListParams::default().labels(canary::SELECTOR)).await.unwrap() {
            let name = pod.name_any();
            let spec = pod.spec.unwrap();
            assert!(
                matches!(spec.service_account_name.as_deref(), None | Some("default"))
                    && spec.automount_service_account_token == Some(false)
            );
            if pod.metadata.deletion_timestamp.is_some() {
                let ended = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
                assert!(ended.is_ok() || matches!(&ended, Err(kube::Error::Api(status)) if status.code == 404), "{ended:?}");
                continue;
            }
            let containers = spec.containers.iter().map(|c| {
                json!({ "name": c.name, "image": c.image, "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} } })
            });
            let status = json!({ "status": { "phase": "Running", "containerStatuses": containers.collect::<Vec<_>>() } });
            match pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await {
                // a controller that runs by itself may have removed it since it was listed
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                started => drop(started.unwrap()),
            }
        }
    }

    /// What kubelets would do: run the collector's check to its end, and end pods that are removed.
    async fn end_checks(&self, exit_code: i32, message: &str) {
        let pods = self.api::<Pod>();
        for pod in pods.list(&ListParams::default().labels(collector_check::SELECTOR)).await.unwrap() {
            let name = pod.name_any();
            if pod.metadata.deletion_timestamp.is_some() {
                let ended = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
                assert!(ended.is_ok() || matches!(&ended, Err(kube::Error::Api(status)) if status.code == 404), "{ended:?}");
                continue;
            }
            let terminated = json!({ "terminated": { "exitCode": exit_code, "message": message } });
            let container =
                json!({ "name": "collector", "image": "otelcol", "imageID": "", "ready": false, "restartCount": 0, "state": terminated });
            let status = json!({ "status": { "containerStatuses": [container] } });
            match pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await {
                // a controller that runs by itself may have removed it since it was listed
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                ended => drop(ended.unwrap()),
            }
        }
    }

    /// What agents would do: check, and carry out a grant. `carries` is what stands in each node's manifests.
    async fn agents(&self, carries: &mut BTreeMap<String, Value>) {
        for object in self.node_tracings().list(&ListParams::default()).await.unwrap() {
            let (name, spec) = (object.name_any(), serde_json::to_value(&object.spec).unwrap());
            let Some(target) = object.spec.target.clone() else { continue };
            let wanted = |c: &str| {
                let component = &spec["target"]["settings"][c];
                if component["state"] == "Enabled" { component["samplingRatePerMillion"].clone() } else { Value::Null }
            };
            let wanted = json!({ "kube-apiserver": wanted("kubeAPIServer"), "etcd": wanted("etcd") });
            let found = carries.entry(name.clone()).or_insert(json!({ "kube-apiserver": null, "etcd": null }));
            let mut outcome = object.status.as_ref().and_then(|s| s.last_outcome.clone());
            if let Some(grant) = object.spec.grant.filter(|g| outcome.as_ref().is_none_or(|o| o.grant < g.id)) {
                *found = wanted.clone();
                outcome = Some(
                    serde_json::from_value(json!({
                        "grant": grant.id, "revision": grant.revision, "generation": grant.generation,
                        "result": "Succeeded", "finishedTime": Timestamp::now(), "seconds": 1,
                    }))
                    .unwrap(),
                );
            }
            let changes: Vec<_> = ["kube-apiserver", "etcd"].into_iter().filter(|c| found[c] != wanted[c]).collect();
            let component = |name: &str| {
                let (version, image) = if name == "etcd" { ("3.6.16-0", "etcd:3.6.16-0") } else { ("v1.36.3", "kube-apiserver:v1.36.3") };
                let tracing = if found[name].is_null() { "NotConfigured" } else { "Ours" };
                json!({ "name": name, "version": version, "image": image, "manifest": format!("{name}.yaml"), "tracing": tracing, "healthy": true })
            };
            let mut status = json!({
                "observedGeneration": object.metadata.generation,
                "components": [component("kube-apiserver"), component("etcd")],
                "preflight": { "revision": target.revision, "verdict": if changes.is_empty() { "Unchanged" } else { "Ready" }, "changes": changes },
                "step": "Idle",
                "etcd": { "health": "Healthy", "role": "Follower", "members": NODES.len(), "connected": NODES.len() },
            });
            if changes.is_empty() {
                status["currentRevision"] = json!(target.revision);
            }
            if let Some(outcome) = outcome {
                status["lastOutcome"] = serde_json::to_value(outcome).unwrap();
            }
            let body = json!({
                "apiVersion": "clustertracing.dev/v1alpha1", "kind": "NodeTracing", "metadata": { "name": name }, "status": status,
            });
            let params = PatchParams::apply("clustertracing-agent").force();
            match self.node_tracings().patch_status(&name, &params, &Patch::Apply(body)).await {
                // a controller that runs by itself may have removed it since it was listed
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                reported => drop(reported.unwrap()),
            }
        }
    }

    /// Nodes with a grant and no outcome.
    async fn in_flight(&self) -> Vec<String> {
        let all = self.node_tracings().list(&ListParams::default()).await.unwrap();
        let ended = |n: &NodeTracing| n.status.as_ref().and_then(|s| s.last_outcome.as_ref()).map(|o| o.grant);
        all.iter().filter(|n| n.spec.grant.as_ref().is_some_and(|g| Some(g.id) != ended(n))).map(ResourceExt::name_any).collect()
    }

    /// Turns until `done`; never two nodes in flight.
    async fn run_until(&self, carries: &mut BTreeMap<String, Value>, done: impl Fn(Option<&ClusterTracing>) -> bool) {
        for _ in 0..40 {
            self.turn().await;
            assert!(self.in_flight().await.len() <= 1, "two nodes in flight");
            self.start_collectors().await;
            self.start_canaries().await;
            self.end_checks(0, "").await;
            self.agents(carries).await;
            if done(self.resources().get_opt("cluster").await.unwrap().as_ref()) {
                return;
            }
        }
        panic!("it does not end: {:#?}", self.resources().get_opt("cluster").await.unwrap().map(|r| r.status));
    }

    /// `resourceVersion`s of everything that the controller writes.
    async fn versions(&self) -> Vec<String> {
        let mut versions = vec![self.resource().await.resource_version().unwrap()];
        versions.extend(self.node_tracings().list(&ListParams::default()).await.unwrap().iter().filter_map(ResourceExt::resource_version));
        versions
            .extend(self.api::<DaemonSet>().list(&ListParams::default()).await.unwrap().iter().filter_map(ResourceExt::resource_version));
        versions
            .extend(self.api::<ConfigMap>().list(&ListParams::default()).await.unwrap().iter().filter_map(ResourceExt::resource_version));
        versions
    }
}

fn context(client: &Client, term: &str) -> Context {
    let installation = Installation {
        namespace: NAMESPACE.into(),
        collector_image: "otelcol:0.155.0".into(),
        canary: State::Enabled,
        probe: State::Enabled,
    };
    Context::new(client.clone(), installation, "controller-0", Leadership::assumed(), term.into())
}

fn is_ready(resource: Option<&ClusterTracing>) -> bool {
    let Some(resource) = resource else { return false };
    let status = resource.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && status.observed_generation == resource.metadata.generation
}

#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn a_whole_life_on_a_real_api_server() {
    let server = ApiServer::start("1.36.3", "3.6.16").await;
    let mut cluster = Cluster::new(server.client()).await;
    let mut carries = BTreeMap::new();

    cluster.run_until(&mut carries, is_ready).await;
    let status = cluster.resource().await.status.unwrap();
    assert_eq!((status.nodes_ready.as_deref(), status.sampling_rate_per_million), (Some("3/3"), Some(10_000)));
    assert!(carries.values().all(|c| c["kube-apiserver"] == json!(10_000) && c["etcd"] == json!(0)), "{carries:?}");
    for object in cluster.node_tracings().list(&ListParams::default()).await.unwrap() {
        let verdict = object.annotations().get(canary::ANNOTATION_VERDICT);
        assert!(verdict.is_some_and(|verdict| !verdict.contains("refused")), "{}: {verdict:?}", object.name_any());
    }

    // Nothing is written where nothing changes.
    cluster.turn().await;
    let before = cluster.versions().await;
    for _ in 0..100 {
        cluster.turn().await;
    }
    assert_eq!(cluster.versions().await, before);

    // Quantities as people write them are no reason to write either, and a configuration change moves no node.
    let edit = json!({ "spec": { "collector": {
        "exporters": [{ "name": "tempo", "endpoint": "tempo:4317" }], "resources": { "limits": { "cpu": "0.5", "memory": "0.25Gi" } },
    } } });
    cluster.resources().patch("cluster", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    cluster.run_until(&mut carries, is_ready).await;
    cluster.turn().await;
    let before = cluster.versions().await;
    cluster.turn().await;
    assert_eq!(cluster.versions().await, before);
    let grants = cluster.node_tracings().list(&ListParams::default()).await.unwrap();
    assert_eq!(grants.iter().filter_map(|n| n.spec.grant.as_ref().map(|g| g.id)).max(), Some(3), "no node was granted again");
    let config_maps = cluster.api::<ConfigMap>().list(&ListParams::default().labels(collector::SELECTOR)).await.unwrap();
    assert_eq!(config_maps.iter().count(), 1, "earlier configurations are removed");

    // Another rate, while another controller takes over: its fence changes what the first one has read.
    let edit = json!({ "spec": { "samplingRatePerMillion": 250_000 } });
    cluster.resources().patch("cluster", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    cluster.turn().await;
    cluster.agents(&mut carries).await;
    let mut read = cluster.node_tracings().get("cp-3").await.unwrap();
    cluster.context = context(&cluster.client, "second");
    cluster.turn().await;
    read.spec.grant = serde_json::from_value(json!({ "id": 99, "revision": "an-old-decision", "generation": 1 })).unwrap();
    let late = cluster.node_tracings().replace("cp-3", &PostParams::default(), &read).await;
    assert!(matches!(&late, Err(kube::Error::Api(status)) if status.is_conflict()), "{late:?}");
    cluster.run_until(&mut carries, is_ready).await;
    assert!(carries.values().all(|c| c["kube-apiserver"] == json!(250_000)), "{carries:?}");

    let events = Api::<Event>::namespaced(cluster.client.clone(), "default").list(&ListParams::default()).await.unwrap();
    let told: Vec<_> = events.iter().filter_map(|e| Some((e.reason.clone()?, e.related.as_ref().and_then(|r| r.name.clone())))).collect();
    for node in NODES {
        assert!(told.contains(&("NodeGranted".into(), Some(node.into()))), "{told:?}");
        assert!(told.contains(&("NodeChanged".into(), Some(node.into()))), "{told:?}");
    }

    // Deleting gives everything back, and leaves nothing.
    cluster.resources().delete("cluster", &DeleteParams::default()).await.unwrap();
    cluster.run_until(&mut carries, |resource| resource.is_none()).await;
    assert!(carries.values().all(|c| c["kube-apiserver"].is_null() && c["etcd"].is_null()), "{carries:?}");
    assert!(cluster.node_tracings().list(&ListParams::default()).await.unwrap().items.is_empty());
    cluster.start_canaries().await;
    assert!(cluster.api::<Pod>().list(&ListParams::default().labels(canary::SELECTOR)).await.unwrap().items.is_empty());
    assert!(cluster.api::<DaemonSet>().list(&ListParams::default()).await.unwrap().items.is_empty());
    assert!(cluster.api::<ConfigMap>().list(&ListParams::default().labels(collector::SELECTOR)).await.unwrap().items.is_empty());
}

/// kubeadm's configuration is another program's object: it is written when every node carries the settings, as it was read, and given back
/// to the byte before the first node is.
#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn kubeadms_configuration_keeps_the_settings_and_is_given_back() {
    let server = ApiServer::start("1.36.3", "3.6.16").await;
    let cluster = Cluster::new(server.client()).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), kubeadm::NAMESPACE);
    let original = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubeadm-config/1.36.3-own/in.yaml")).unwrap();
    let object = json!({
        "metadata": { "name": kubeadm::CONFIG_MAP, "annotations": { "example.org/theirs": "1" } },
        "data": { kubeadm::KEY: original, "Other": "theirs" },
    });
    cluster.create(&config_maps, object).await;
    let text = async || config_maps.get(kubeadm::CONFIG_MAP).await.unwrap().data.unwrap()[kubeadm::KEY].clone();

    // Nothing of it before the last node carries the settings.
    let mut carries = BTreeMap::new();
    let in_all = |carries: &BTreeMap<String, Value>| carries.len() == NODES.len() && carries.values().all(|c| !c["etcd"].is_null());
    for _ in 0..40 {
        assert_eq!(text().await, original);
        cluster.turn().await;
        cluster.start_collectors().await;
        cluster.start_canaries().await;
        cluster.end_checks(0, "").await;
        cluster.agents(&mut carries).await;
        if in_all(&carries) {
            break;
        }
    }
    assert!(in_all(&carries), "the rollout does not end: {carries:?}");
    cluster.run_until(&mut carries, is_ready).await;
    let kept = text().await;
    assert!(kept.contains("tracing-config-file") && kept.contains("enable-distributed-tracing"), "{kept}");
    let condition = async || {
        let conditions = cluster.resource().await.status.unwrap().conditions;
        let safe = conditions.into_iter().find(|c| c.type_ == "UpgradeSafe").unwrap();
        (safe.status, safe.reason)
    };
    assert_eq!(condition().await, ("True".into(), "UpgradeSafe".into()));
    cluster.turn().await;
    let version = async || config_maps.get(kubeadm::CONFIG_MAP).await.unwrap().resource_version();
    let before = (version().await, cluster.versions().await);
    for _ in 0..20 {
        cluster.turn().await;
    }
    assert_eq!((version().await, cluster.versions().await), before, "an idle cluster writes nothing");

    // Somebody writes it meanwhile: theirs stays, and a gate that the next version refuses is told.
    let theirs = kept.replace("  - name: v\n", "  - name: feature-gates\n    value: APIServerTracing=true\n  - name: v\n");
    assert_ne!(theirs, kept);
    let patch = json!({ "data": { kubeadm::KEY: theirs } });
    config_maps.patch(kubeadm::CONFIG_MAP, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    cluster.turn().await;
    assert_eq!(condition().await, ("False".into(), "UpgradeWouldFail".into()));
    assert_eq!(text().await, theirs);

    // Off: it goes before the first node is granted.
    cluster.resources().delete("cluster", &DeleteParams::default()).await.unwrap();
    cluster.turn().await;
    let expected = original.replace("  - name: v\n", "  - name: feature-gates\n    value: APIServerTracing=true\n  - name: v\n");
    assert_eq!(text().await, expected);
    assert!(in_all(&carries));
    cluster.run_until(&mut carries, |resource| resource.is_none()).await;
    let object = config_maps.get(kubeadm::CONFIG_MAP).await.unwrap();
    assert_eq!(object.annotations().get("example.org/theirs").map(String::as_str), Some("1"));
    let data = object.data.unwrap();
    assert_eq!((data.len(), data[kubeadm::KEY].as_str(), data["Other"].as_str()), (2, expected.as_str(), "theirs"));
}

/// What a lease cannot promise: two that believe they lead, at the same time, in every turn. Each in a term of its own, as the lease gives
/// them; the fence of the one and the grant of the other meet at the API server.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn two_controllers_at_once_never_grant_two_nodes() {
    const ROUNDS: i32 = 40;
    const GRANTS: i32 = 10;
    /// Who takes a node over has to read it again before a grant: where the two take strict turns, nobody is ever granted. So the first has two
    /// turns in a row, and the second begins before, in, between, and after them.
    const ATTEMPTS: u32 = 12;
    let server = ApiServer::start("1.36.3", "3.6.16").await;
    let mut cluster = Cluster::new(server.client()).await;
    let mut carries = BTreeMap::new();
    cluster.run_until(&mut carries, is_ready).await;
    cluster.context = context(&cluster.client, "second");
    let other = context(&cluster.client, "third");
    let (mut granted, mut fenced) = (0, 0);
    let mut span = Duration::from_millis(100);
    for round in 0..ROUNDS {
        if granted == GRANTS {
            break;
        }
        // Every node is to change again, by settings that were tried before: only grants are raced for.
        let edit = json!({ "spec": { "samplingRatePerMillion": 10_000 + round } });
        cluster.resources().patch("cluster", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
        for attempt in 0..ATTEMPTS {
            // Each may lose a race to the other, over one object or another: that is an error, and nothing else.
            let later = span * attempt / (ATTEMPTS - 2);
            let first = async {
                let start = Instant::now();
                let turns = [turn(&cluster.context, Timestamp::now()).await, turn(&cluster.context, Timestamp::now()).await];
                span = start.elapsed();
                turns
            };
            let second = async {
                tokio::time::sleep(later).await;
                [turn(&other, Timestamp::now()).await]
            };
            let (first, second) = tokio::join!(first, second);
            for error in first.into_iter().chain(second).filter_map(Result::err) {
                assert_eq!(error.category(), Category::Conflict, "{error:?}");
                fenced += i32::from(error.to_string().starts_with("grant"));
            }
            let in_flight = cluster.in_flight().await;
            assert!(in_flight.len() <= 1, "round {round}: {in_flight:?}");
            if !in_flight.is_empty() {
                granted += 1;
                break;
            }
            cluster.start_canaries().await;
            cluster.agents(&mut carries).await;
        }
        cluster.agents(&mut carries).await;
    }
    assert_eq!(granted, GRANTS, "in {ROUNDS} rounds");
    assert!(fenced > 0, "no grant met the other's fence: nothing was raced for");
}

/// The program itself: lease, watches, turns. Two of them: one leads, and the other takes over when it goes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn the_running_controller_follows_its_watches_and_hands_over() {
    let server = ApiServer::start("1.36.3", "3.6.16").await;
    let cluster = Cluster::new(server.client()).await;
    let installation = || Installation {
        namespace: NAMESPACE.into(),
        collector_image: "otelcol:0.155.0".into(),
        canary: State::Enabled,
        probe: State::Enabled,
    };
    let first = {
        let config = server.config();
        tokio::spawn(async move { controller::run(config, installation(), "first", &TraceStore::anywhere()).await })
    };
    let mut carries = BTreeMap::new();
    let mut follow = async |done: &(dyn Fn(Option<&ClusterTracing>) -> bool + Sync)| {
        let followed = tokio::time::timeout(Duration::from_secs(90), async {
            loop {
                cluster.start_collectors().await;
                cluster.start_canaries().await;
                cluster.end_checks(0, "").await;
                cluster.agents(&mut carries).await;
                if done(cluster.resources().get_opt("cluster").await.unwrap().as_ref()) {
                    return;
                }
                // The controller's own pace, not this test's, is what is waited for.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(followed.await.is_ok(), "{:#?}", cluster.resources().get_opt("cluster").await.unwrap());
    };
    follow(&is_ready).await;

    // The first one dies with the lease in its hand.
    first.abort();
    let config = server.config();
    let second = tokio::spawn(async move { controller::run(config, installation(), "second", &TraceStore::anywhere()).await });
    let edit = json!({ "spec": { "samplingRatePerMillion": 5 } });
    cluster.resources().patch("cluster", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    follow(&|r| is_ready(r) && r.is_some_and(|r| r.status.as_ref().is_some_and(|s| s.sampling_rate_per_million == Some(5)))).await;

    cluster.resources().delete("cluster", &DeleteParams::default()).await.unwrap();
    follow(&|resource| resource.is_none()).await;
    second.abort();
}

/// A cluster that enforces the strictest of the Pod Security Standards takes the pod as it is.
#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn the_canary_pod_keeps_to_the_restricted_pod_security_standard() {
    let server = ApiServer::start("1.37.1", "3.7.3").await;
    let cluster = Cluster::new(server.client()).await;
    cluster.turn().await;
    cluster.start_collectors().await;
    let enforced = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(enforced)).await.unwrap();
    cluster.agents(&mut BTreeMap::new()).await;
    cluster.turn().await;
    let canaries = cluster.api::<Pod>().list(&ListParams::default().labels(canary::SELECTOR)).await.unwrap();
    assert_eq!(canaries.items.len(), NODES.len());
    let privileged = json!({ "metadata": { "name": "privileged" }, "spec": { "containers": [{ "name": "x", "image": "x" }] } });
    let refused = cluster.api::<Pod>().create(&PostParams::default(), &serde_json::from_value(privileged).unwrap()).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "the standard is enforced: {refused:?}");
}

/// A configuration that the collector refuses replaces nothing, and a Secret that is not there is named; both leave the verdict or the words,
/// and the pod goes.
#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn a_collector_that_would_not_run_replaces_none_that_does() {
    let server = ApiServer::start("1.37.1", "3.7.3").await;
    let cluster = Cluster::new(server.client()).await;
    let mut carries = BTreeMap::new();
    cluster.run_until(&mut carries, is_ready).await;
    let running = async || cluster.api::<DaemonSet>().get(collector::NAME).await.unwrap().resource_version();
    let before = running().await;
    let stalled = async || {
        let conditions = cluster.resource().await.status.unwrap().conditions;
        let of = |kind: &str| conditions.iter().find(|c| c.type_ == kind).cloned();
        assert_eq!(of("CollectorAvailable").unwrap().status, "True", "the one that runs is there");
        of("Stalled").map(|c| (c.reason, c.message))
    };
    let edit = async |spec: Value| {
        cluster.resources().patch("cluster", &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await.unwrap();
    };

    // A Secret that is not there, then one without the key.
    let header = json!([{ "name": "x-key", "secretKeyRef": { "name": "vendor", "key": "token" } }]);
    edit(json!({ "collector": { "exporters": [{ "name": "tempo", "endpoint": "tempo:4317", "headers": header }] } })).await;
    cluster.turn().await;
    let (reason, message) = stalled().await.unwrap();
    assert!(reason == "SecretMissing" && message.contains("there is no Secret clustertracing/vendor"), "{reason}: {message}");
    let secrets = cluster.api::<Secret>();
    cluster.create(&secrets, json!({ "metadata": { "name": "vendor" }, "stringData": { "other": "x" } })).await;
    cluster.turn().await;
    assert!(stalled().await.unwrap().1.contains("has no key token"));
    let key = json!({ "stringData": { "token": "x" } });
    secrets.patch("vendor", &PatchParams::default(), &Patch::Merge(key)).await.unwrap();

    // The restricted standard takes the pod; the collector says no.
    let enforced = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    Api::<Namespace>::all(cluster.client.clone()).patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(enforced)).await.unwrap();
    cluster.turn().await;
    let checks = || async { cluster.api::<Pod>().list(&ListParams::default().labels(collector_check::SELECTOR)).await.unwrap().items };
    assert_eq!(checks().await.len(), 1);
    cluster.end_checks(1, "Error: exporters::otlp_grpc/tempo: no").await;
    cluster.turn().await;
    cluster.end_checks(1, "").await;
    cluster.turn().await;
    let (reason, message) = stalled().await.unwrap();
    assert!(reason == "CollectorConfigRefused" && message.contains("exporters::otlp_grpc/tempo: no"), "{reason}: {message}");
    assert_eq!((running().await, checks().await.len()), (before.clone(), 0));
    let versions = cluster.versions().await;
    for _ in 0..10 {
        cluster.turn().await;
    }
    assert_eq!(cluster.versions().await, versions, "a refusal that stands writes nothing");

    // An edit tries again, and the earlier configurations go.
    let lift = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": null } } });
    Api::<Namespace>::all(cluster.client.clone()).patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(lift)).await.unwrap();
    edit(json!({ "samplingRatePerMillion": 20_000 })).await;
    cluster.run_until(&mut carries, is_ready).await;
    assert_ne!(running().await, before);
    cluster.turn().await;
    let config_maps = cluster.api::<ConfigMap>().list(&ListParams::default().labels(collector::SELECTOR)).await.unwrap();
    assert_eq!((config_maps.items.len(), checks().await.len()), (1, 0));
}
