//! The trace store of a controller that leads, read as people read it: through a real API server's service proxy.
//!
//! From 1.37 on the proxy goes by `EndpointSlice`s, and before by `Endpoints`.
#![expect(clippy::panic, reason = "a test fails by a panic")]

#[path = "common/api_server.rs"]
mod api_server;

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::Duration;

use clap::Parser;
use clustertracing::api::State;
use clustertracing::controller::{self, TraceStore};
use clustertracing::plan::validate::Installation;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use api_server::ApiServer;

const NAMESPACE: &str = "clustertracing-system";
const STATS: &str = "/api/v1/namespaces/clustertracing-system/services/clustertracing-store:http/proxy/api/v1/stats";

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    trace_store: TraceStore,
}

/// This machine's address, which a pod's may be; no packet is sent.
fn address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("a route");
    socket.local_addr().expect("a local address").ip()
}

async fn make<K>(client: &Client, object: Value) -> K
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug + serde::Serialize,
    K: serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &serde_json::from_value(object).expect("an object")).await.expect("an object that is taken")
}

/// A pod that runs at `ip`, as far as the API server knows. Its UID.
async fn pod(client: &Client, name: &str, ip: IpAddr) -> String {
    let container = json!({ "name": "controller", "image": "clustertracing:dev" });
    let spec = json!({ "containers": [container], "nodeName": "cp1", "automountServiceAccountToken": false });
    let pod: Pod = make(client, json!({ "metadata": { "name": name }, "spec": spec })).await;
    let status = json!({ "status": { "podIP": ip.to_string(), "podIPs": [{ "ip": ip.to_string() }] } });
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status that is taken");
    pod.uid().expect("a UID")
}

async fn read(client: &Client) -> Result<Value, kube::Error> {
    let request = http::Request::get(STATS).body(Vec::new()).expect("a constant request");
    client.request::<Value>(request).await
}

async fn leads_and_is_read(kubernetes: &str, etcd: &str) {
    let server = ApiServer::start(kubernetes, etcd).await;
    let client = server.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({ "metadata": { "name": NAMESPACE } });
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).expect("a namespace")).await.expect("a namespace");
    let accounts = json!({ "metadata": { "name": "default" } });
    let _: k8s_openapi::api::core::v1::ServiceAccount = make(&client, accounts).await;
    let ports = json!([{ "name": "grpc", "port": 4317 }, { "name": "http", "port": 8080 }]);
    let _: Service = make(&client, json!({ "metadata": { "name": "clustertracing-store" }, "spec": { "ports": ports } })).await;

    let ip = address();
    let uid = pod(&client, "controller-0", ip).await;
    let [grpc, api] = [(); 2].map(|()| TcpListener::bind("0.0.0.0:0").expect("a free port"));
    let [grpc, api] = [grpc, api].map(|listener| listener.local_addr().expect("a bound port").port().to_string());
    let args = ["", "--pod-ip", &ip.to_string(), "--pod-uid", &uid, "--trace-store-grpc-port", &grpc, "--trace-store-http-port", &api];
    let trace_store = Args::parse_from(args).trace_store;
    let installation = Installation {
        namespace: NAMESPACE.into(),
        collector_image: "otelcol:0.155.0".into(),
        canary: State::Disabled,
        probe: State::Disabled,
    };
    let leader = tokio::spawn({
        let config = server.config();
        async move { controller::run(config, installation, "controller-0", &trace_store).await }
    });

    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), NAMESPACE);
    let all = tokio::time::timeout(Duration::from_secs(30), async {
        let mut every = tokio::time::interval(Duration::from_millis(200));
        loop {
            every.tick().await;
            // Read last: where there is no endpoint 1.37 answers 503, upon which kube's client tries again by itself, for minutes.
            let objects = (slices.get("clustertracing-store").await, endpoints.get("clustertracing-store").await);
            let (Ok(slice), Ok(endpoints)) = objects else { continue };
            if let Ok(stats) = read(&client).await {
                return (stats, slice, endpoints);
            }
        }
    });
    let (stats, slice, endpoints) = all.await.expect("the store is read through the API server");
    assert_eq!((&stats["limitBytes"], &stats["spans"]), (&json!(64 * 1024 * 1024), &json!(0)), "{kubernetes}");
    assert_eq!(slice.labels()["kubernetes.io/service-name"], "clustertracing-store");
    assert_eq!(slice.owner_references()[0].uid, uid);
    assert_eq!(endpoints.owner_references()[0].uid, uid);
    leader.abort();
}

#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn the_store_of_the_leader_is_read_through_the_api_server() {
    for (kubernetes, etcd) in [("1.36.3", "3.6.16"), ("1.37.1", "3.7.3")] {
        leads_and_is_read(kubernetes, etcd).await;
    }
}
