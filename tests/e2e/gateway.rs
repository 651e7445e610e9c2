//! The collectors send through a gateway, with a configuration that a person adds to; and without it again.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clustertracing::api::CollectorMode;
use serde_json::json;

use crate::support::clients::Access;
use crate::support::cluster::{Cluster, NAMESPACE};
use crate::support::jaeger::Jaeger;
use crate::support::operator::{Operator, at_rate};
use crate::support::process;
use crate::support::wait::until;
use crate::{checks, flow};

/// What the added configuration puts on every span.
const MARK: (&str, &str) = ("k8s.cluster.name", "$e2e");

/// Spans of every instance come through the gateway, marked by what was added; no component restarts for it, and nothing of it is left over.
pub(crate) async fn comes_and_goes(cluster: &Cluster, access: &Access, operator: &Operator, jaeger: &Jaeger, rate: i32) {
    let before = starts(cluster);
    let mut tracing = at_rate(rate);
    tracing.spec.collector.mode = CollectorMode::Gateway;
    let extra = json!({
        "processors": { "attributes/cluster": { "actions": [{ "key": MARK.0, "value": MARK.1, "action": "insert" }] } },
        "service": { "pipelines": { "traces": { "processors": ["attributes/cluster"] } } },
    });
    tracing.spec.collector.extra_config = extra.as_object().cloned();
    operator.apply_until_ready(&tracing).await;
    checks::assert_spans_of_every_instance_arrive(cluster, access, jaeger).await;
    let message = flow::until_flowing(operator).await;
    assert!(message.contains("sent on to jaeger by the gateway"), "{message}");
    let since = SystemTime::now();
    until("a span with the mark arrives", Duration::from_mins(1), async || {
        if jaeger.has_tagged("apiserver", MARK, since).await? { Ok(()) } else { Err("no span has it".to_owned()) }
    })
    .await;
    operator.apply_until_ready(&at_rate(rate)).await;
    checks::assert_spans_of_every_instance_arrive(cluster, access, jaeger).await;
    let left = [
        "get",
        "deployments,services,poddisruptionbudgets",
        "-n",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/component=collector-gateway",
        "-o",
        "name",
    ];
    until("the gateway is gone", Duration::from_mins(1), async || {
        let left = cluster.kubectl(&left);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(starts(cluster), before, "a gateway restarts no component");
}

fn starts(cluster: &Cluster) -> [BTreeMap<String, (u32, u64)>; 2] {
    ["kube-apiserver", "etcd"].map(|program| process::starts(cluster, program))
}
