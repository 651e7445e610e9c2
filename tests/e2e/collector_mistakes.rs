//! Mistakes in what the collector is told: each is refused before a static pod or a running collector is touched, and goes when it is corrected.

use std::collections::BTreeMap;
use std::time::Duration;

use clustertracing::api::collector::{ExporterTls, SecretRef};
use clustertracing::api::{ClusterTracing, CollectorMode, Reason, State};

use serde_json::json;

use crate::support::cluster::{Cluster, HOST, NAMESPACE};
use crate::support::files::{self, Digests};
use crate::support::operator::{Operator, at_rate};
use crate::support::process;
use crate::support::step::note;
use crate::support::wait::{holds, until};

/// Whose processes must stay.
const PROGRAMS: [&str; 3] = ["kube-apiserver", "etcd", "otelcol"];
/// The rate that the nodes have before and after.
const RATE: i32 = 250_000;
/// Another rate: with it every mistake would change every node.
const OTHER_RATE: i32 = 260_000;
/// A port that somebody else holds on the second node.
const PORT: i32 = 15317;
/// How long nothing may happen once a mistake was told.
const QUIET: Duration = Duration::from_secs(15);

/// Makes every mistake, on nodes that are traced at [`RATE`] and stay so.
pub(crate) async fn replace_nothing(cluster: &Cluster, operator: &Operator) {
    operator.apply_until_ready(&at_rate(RATE)).await;
    let scenario = Scenario { cluster, operator, files: files::manifests(cluster), starts: starts(cluster) };
    scenario.missing_secret().await;
    scenario.no_collector().await;
    scenario.bad_extra_config().await;
    scenario.taken_port().await;
    scenario.unreachable_endpoint().await;
    operator.apply(&at_rate(RATE)).await;
    operator.until_recovered().await;
    scenario.assert_untouched();
}

struct Scenario<'a> {
    cluster: &'a Cluster,
    operator: &'a Operator,
    files: Digests,
    starts: Starts,
}

/// Program → node → process.
type Starts = BTreeMap<&'static str, BTreeMap<String, (u32, u64)>>;

fn starts(cluster: &Cluster) -> Starts {
    PROGRAMS.into_iter().map(|program| (program, process::starts(cluster, program))).collect()
}

impl Scenario<'_> {
    async fn missing_secret(&self) {
        let mut tracing = at_rate(OTHER_RATE);
        let tls = ExporterTls { cert_secret_ref: Some(SecretRef { name: "not-there".into() }), ..ExporterTls::default() };
        tracing.spec.collector.exporters[0].tls = tls;
        self.is_refused(&tracing, Reason::SecretMissing, &["Secret", "not-there", "tls.crt", "kubectl"]).await;
    }

    /// Its `validate` cannot be run: whatever else is in that image would not take spans either.
    async fn no_collector(&self) {
        let mut tracing = at_rate(OTHER_RATE);
        tracing.spec.collector.image = Some("testbed/busybox:dev".into());
        self.is_refused(&tracing, Reason::CollectorConfigRefused, &["validate"]).await;
        let left =
            self.cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=collector-check", "-o", "name"]);
        assert_eq!(left, "", "the pod goes with its verdict");
    }

    /// Fits into the configuration, and the collector does not know it.
    async fn bad_extra_config(&self) {
        let mut tracing = at_rate(OTHER_RATE);
        let extra = json!({
            "processors": { "attribtues/cluster": {} },
            "service": { "pipelines": { "traces": { "processors": ["attribtues/cluster"] } } },
        });
        tracing.spec.collector.extra_config = extra.as_object().cloned();
        self.is_refused(&tracing, Reason::CollectorConfigRefused, &["unknown type", "attribtues"]).await;
    }

    async fn taken_port(&self) {
        let listens = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 15317)); s.listen(); time.sleep(600)";
        let pid = self.cluster.shell("cp2", &format!("setsid python3 -c \"{listens}\" > /dev/null 2>&1 < /dev/null & echo $!"));
        let mut tracing = at_rate(OTHER_RATE);
        tracing.spec.collector.port = PORT;
        self.is_refused(&tracing, Reason::PortTaken, &["cp2", "15317", "ss -ltnp"]).await;
        self.cluster.shell("cp2", &format!("kill {}", pid.trim()));
    }

    async fn unreachable_endpoint(&self) {
        let mut tracing = at_rate(OTHER_RATE);
        tracing.spec.collector.mode = CollectorMode::External;
        // nobody listens on the discard port
        tracing.spec.collector.endpoint = Some(format!("{HOST}:9"));
        tracing.spec.collector.exporters.clear();
        tracing.spec.kube_api_server.state = State::Enabled;
        self.operator.apply(&tracing).await;
        let message = until("the endpoint is said to be unreachable", Duration::from_mins(2), async || {
            let tracing = self.operator.get().await?;
            let ready = tracing.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == "Ready").cloned();
            let told = ready.filter(|c| c.reason == Reason::EndpointUnreachable.as_str());
            told.map(|c| c.message).ok_or_else(|| format!("{:?}", tracing.status.map(|status| status.conditions)))
        })
        .await;
        note(&message);
        assert!(message.contains("connection refused") && message.contains(HOST), "{message}");
        self.stays_untouched("the endpoint takes no connection").await;
    }

    async fn is_refused(&self, tracing: &ClusterTracing, reason: Reason, parts: &[&str]) {
        self.operator.apply(tracing).await;
        let message = self.operator.until_stalled(&[reason]).await;
        note(&format!("{reason}: {message}"));
        for part in parts {
            assert!(message.contains(part), "{part:?} is missing in {message:?}");
        }
        let status = self.operator.get().await.expect("the ClusterTracing can be read").status.unwrap_or_default();
        let available = status.conditions.iter().find(|c| c.type_ == "CollectorAvailable").map(|c| c.status.as_str());
        assert_eq!(available, Some("True"), "the collector that runs is there");
        self.stays_untouched(reason.as_str()).await;
    }

    async fn stays_untouched(&self, what: &str) {
        holds(what, QUIET, async || files::manifests(self.cluster)).await;
        self.assert_untouched();
    }

    /// What ran still runs. A canary of the same program may beside it.
    fn assert_untouched(&self) {
        assert_eq!(files::manifests(self.cluster), self.files, "no byte is written");
        for (program, nodes) in &self.starts {
            for (node, id) in nodes {
                let running = process::running(self.cluster, node, program);
                assert!(running.iter().any(|process| process.id() == *id), "{node}: {program} was restarted: {running:?}");
            }
        }
    }
}
