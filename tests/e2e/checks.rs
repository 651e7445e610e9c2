//! What must be true on the nodes and in Jaeger, seen without the operator's help.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::support::clients::{Access, get};
use crate::support::cluster::Cluster;
use crate::support::files::STATE;
use crate::support::jaeger::{Jaeger, Trace};
use crate::support::process;
use crate::support::traceparent::Traceparent;
use crate::support::wait::until;

/// Where the sample makes both components send spans.
const ENDPOINT: &str = "127.0.0.1:4317";
/// From a request to its spans in Jaeger: the batches of the API server (5 s) and of the collector, and the two cores' other work.
const ARRIVAL: Duration = Duration::from_mins(2);
/// An object whose every read goes to etcd, and not to the API server's cache.
const STORED: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";

/// Every API server runs with a tracing file of this rate, and every etcd member with the flags of its version.
pub(crate) fn assert_traced(cluster: &Cluster, rate: i32) {
    for (node, process) in process::everywhere(cluster, "kube-apiserver") {
        let file = process.flag("tracing-config-file").unwrap_or_else(|| panic!("{node}: no tracing file in {:?}", process.argv));
        assert!(file.starts_with(STATE), "{node}: the tracing file is {file}");
        let settings: Value = serde_yaml::from_str(&cluster.exec(&node, &["cat", file])).expect("the tracing file is YAML");
        let found = (&settings["kind"], &settings["endpoint"], &settings["samplingRatePerMillion"]);
        assert_eq!(found, (&"TracingConfiguration".into(), &ENDPOINT.into(), &rate.into()), "{node}: {file}");
        assert_eq!(process.flag("feature-gates"), None, "{node}: from 1.27 on no gate is needed, and 1.37 does not start with it");
        assert_eq!(process.flag("shutdown-watch-termination-grace-period"), Some("5s"), "{node}");
    }
    for (node, process) in process::everywhere(cluster, "etcd") {
        let tracing: BTreeSet<_> = process.argv.iter().filter(|argument| argument.contains("tracing")).map(String::as_str).collect();
        assert!(tracing.contains("--enable-distributed-tracing=true"), "{node}: {tracing:?}");
        assert_eq!(process.flag("distributed-tracing-address"), Some(ENDPOINT), "{node}: {tracing:?}");
        assert_eq!(process.flag("distributed-tracing-instance-id"), Some(node.as_str()), "{node}: {tracing:?}");
        assert!(tracing.iter().all(|argument| !argument.contains("experimental")), "{node}: names that 3.7 does not know: {tracing:?}");
    }
}

/// No process runs with a tracing flag.
pub(crate) fn assert_untraced(cluster: &Cluster) {
    for program in ["kube-apiserver", "etcd"] {
        for (node, process) in process::everywhere(cluster, program) {
            assert!(process.argv.iter().all(|argument| !argument.contains("tracing")), "{node}: {program} has {:?}", process.argv);
        }
    }
}

/// The name of each node's API server in its spans: that of its identity Lease.
pub(crate) async fn api_server_identities(client: Client) -> BTreeMap<String, String> {
    let leases: Api<Lease> = Api::namespaced(client, "kube-system");
    let labelled = ListParams::default().labels("apiserver.kubernetes.io/identity=kube-apiserver");
    let leases = leases.list(&labelled).await.expect("Leases can be listed").items;
    let identity = |lease: Lease| {
        let host = lease.metadata.labels.and_then(|mut labels| labels.remove("kubernetes.io/hostname")).expect("the Lease names its node");
        (host, lease.metadata.name.expect("a Lease has a name"))
    };
    leases.into_iter().map(identity).collect()
}

/// Among ordinary requests, spans of every API server and of every etcd member arrive, and of nobody else.
pub(crate) async fn assert_spans_of_every_instance_arrive(cluster: &Cluster, access: &Access, jaeger: &Jaeger) {
    let since = SystemTime::now();
    let api_servers: BTreeSet<_> = api_server_identities(access.client()).await.into_values().collect();
    let members: BTreeSet<_> = cluster.nodes().into_iter().collect();
    assert_eq!(api_servers.len(), members.len(), "every API server has its identity: {api_servers:?}");
    let clients: Vec<_> = cluster.nodes().iter().map(|node| access.at(node).client()).collect();
    until("spans of every instance arrive", ARRIVAL, async || {
        for client in &clients {
            for _ in 0..100 {
                client.request_text(get(STORED)).await.map_err(|error| error.to_string())?;
            }
        }
        let found = (jaeger.instances("apiserver", since).await?, jaeger.instances("etcd", since).await?);
        if found == (api_servers.clone(), members.clone()) { Ok(()) } else { Err(format!("spans are of {found:?}")) }
    })
    .await;
}

/// One request of a caller who may ask for a trace, at each node's own API server, has its spans of that API server and of that
/// node's etcd member in one trace: the check of Kubernetes' own integration test. Gives the last trace.
pub(crate) async fn assert_one_request_is_one_trace(cluster: &Cluster, access: &Access, jaeger: &Jaeger) -> Trace {
    let identities = api_server_identities(access.client()).await;
    let mut last = None;
    for node in cluster.nodes() {
        let parent = Traceparent::new();
        let client = access.at(&node).client();
        client.request_text(parent.of(get("/api/v1/nodes"))).await.unwrap_or_else(|error| panic!("list nodes at {node}: {error}"));
        let identity = identities.get(&node).unwrap_or_else(|| panic!("{node}'s API server has no identity Lease: {identities:?}"));
        let expected =
            [("apiserver", identity, "GET /api/v1/nodes"), ("apiserver", identity, "List"), ("etcd", &node, "etcdserverpb.KV/Range")];
        last = Some(until_trace(jaeger, &parent, &expected.map(|(s, i, n)| (s, i.as_str(), n))).await);
    }
    last.expect("a cluster has a node")
}

/// Waits until a trace has spans of all these services, instances and names.
pub(crate) async fn until_trace(jaeger: &Jaeger, parent: &Traceparent, expected: &[(&str, &str, &str)]) -> Trace {
    until("the spans of one request are in one trace", ARRIVAL, async || {
        let trace = jaeger.trace(&parent.trace).await?;
        match expected.iter().find(|(service, instance, name)| !trace.has(service, instance, name)) {
            None => Ok(trace),
            Some(missing) => Err(format!("{missing:?} is missing in\n{}", trace.tree())),
        }
    })
    .await
}
