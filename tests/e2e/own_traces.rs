//! The operator's own traces, when they are asked for: an agent's go through its node's collector, and the controller's, which no collector of a
//! node listens to, through one that the testbed runs beside Jaeger.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::support::cluster::{Cluster, HOST, project};
use crate::support::jaeger::{Jaeger, Trace};
use crate::support::step::note;
use crate::support::wait::until;

/// What they are recorded under.
const CONTROLLER: &str = "clustertracing-controller";
const AGENT: &str = "clustertracing-agent";
/// Name of the process among those that end with the cluster.
const PROCESS: &str = "own-traces";
/// Port of the collector on the host.
const PORT: u16 = 14317;
/// From a span's end to Jaeger: the program's batch (5 s), the collector's, and the two cores' other work.
const ARRIVAL: Duration = Duration::from_secs(30);
/// Once the last change is over: what it has begun ends, and is sent.
const SETTLED: Duration = Duration::from_secs(10);
/// Turns of the controller in a minute in which nothing happens; each sending that made a turn would be twelve.
const TURNS_A_MINUTE: usize = 5;

/// Starts the collector on the host, which speaks to Jaeger without TLS. It ends with the cluster.
pub(crate) fn collect(cluster: &Cluster) {
    let config = json!({
        "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": format!("{HOST}:{PORT}") } } } },
        "exporters": { "otlp_http": { "endpoint": format!("http://{HOST}:4318") } },
        "service": {
            "telemetry": { "metrics": { "level": "none" } },
            "pipelines": { "traces": { "receivers": ["otlp"], "exporters": ["otlp_http"] } },
        },
    });
    let path = Command::new(project().join("tests/testbed/build.sh")).args(["path", "otelcol"]).output().expect("build.sh can be started");
    let program = String::from_utf8(path.stdout).expect("a path is text");
    cluster.stop(PROCESS);
    cluster.daemon(PROCESS, &[program.trim(), "--config", &format!("yaml:{config}")]);
}

/// Values of the chart with which both programs send their traces.
pub(crate) fn values() -> Vec<String> {
    vec![format!("ownTraces.controller=http://{HOST}:{PORT}"), "ownTraces.agent=http://127.0.0.1:4317".to_owned()]
}

/// After a rollout that began at `since`: a turn with its parts is one trace, and so is each node's change.
pub(crate) async fn arrive(cluster: &Cluster, jaeger: &Jaeger, since: SystemTime) {
    let turn = until("a turn of the controller is a trace", ARRIVAL, async || {
        let parts = BTreeSet::from(["apply", "observe", "plan"]);
        one(jaeger.traces_since(CONTROLLER, since).await?, |trace| trace.names_below("reconcile").is_superset(&parts))
    })
    .await;
    note(&format!("a turn:\n{}", turn.tree()));
    for node in cluster.nodes() {
        let change = until("a node's change is a trace", ARRIVAL, async || {
            let steps = |trace: &Trace| trace.names_below("change").len();
            one(jaeger.traces_since(AGENT, since).await?, |trace| trace.instances(AGENT).contains(node.as_str()) && steps(trace) > 2)
        })
        .await;
        note(&format!("{node}'s change:\n{}", change.tree()));
    }
}

fn one(traces: Vec<Trace>, is_it: impl Fn(&Trace) -> bool) -> Result<Trace, String> {
    let trees: Vec<_> = traces.iter().take(3).map(Trace::tree).collect();
    traces.into_iter().find(is_it).ok_or_else(|| format!("the first traces are\n{}", trees.join("\n")))
}

/// After a minute, begun at `since`, in which nothing happened: sending traces has made none.
pub(crate) async fn feed_on_nothing(jaeger: &Jaeger, since: SystemTime) {
    let since = since + SETTLED;
    let turns = jaeger.traces_since(CONTROLLER, since).await.expect("Jaeger can be asked");
    let changes = jaeger.traces_since(AGENT, since).await.expect("Jaeger can be asked");
    note(&format!("in an idle minute: {} turns of the controller, {} changes of nodes", turns.len(), changes.len()));
    assert!(turns.len() <= TURNS_A_MINUTE, "{}", turns.iter().map(Trace::tree).collect::<String>());
    assert!(changes.is_empty(), "{}", changes.iter().map(Trace::tree).collect::<String>());
}
