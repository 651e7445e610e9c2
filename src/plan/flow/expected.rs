//! What the last turn's plan makes the flow of spans expect.

use std::collections::BTreeMap;

use super::{Aim, Expected, ExpectedCollector, ExpectedComponent, ExpectedGateway, ExpectedNode};
use crate::api::node_tracing::{ComponentStatus, TracingFound};
use crate::api::{ComponentName, State};
use crate::component::spans::HOSTNAME_LABEL;
use crate::plan::Plan;
use crate::plan::collector::{GATEWAY, extra};
use crate::plan::observed::{Observed, ObservedNode};
use crate::plan::report::{NodeReport, Stand};
use crate::plan::validate::{Collector, Receiver, Validated};

impl Expected {
    /// Instances are the components that run traced by our doing, as their nodes' agents say; a node that has yet to be changed is not among them.
    pub fn new(v: &Validated, o: &Observed, plan: &Plan) -> Self {
        let nodes = plan.report.nodes.iter().filter(|n| n.selected).filter_map(|report| {
            let node = node(v, o, report, &plan.report.lacking.nodes, o.nodes.get(&report.name)?);
            (!node.components.is_empty()).then(|| (report.name.clone(), node))
        });
        let collector = v.wanted_collector();
        let back_ends = collector.map(back_ends).unwrap_or_default();
        let gateway = collector.and_then(|collector| collector.gateway.as_ref());
        let chooses = gateway.is_some_and(|gateway| gateway.tail_sampling.is_some());
        Self {
            namespace: v.installation.namespace.clone(),
            probe: v.probe,
            exporters: if gateway.is_some() { vec![GATEWAY.to_owned()] } else { back_ends.clone() },
            gateway: gateway.map(|_| ExpectedGateway { exporters: back_ends, chooses }),
            nodes: nodes.collect(),
            aim: Aim::new(v),
        }
    }
}

/// Names of the exporters to back ends: those that the resource names, and those that it adds to their pipeline.
fn back_ends(collector: &Collector) -> Vec<String> {
    let added = extra::exporters(&collector.extra).map(|id| id.split_once('/').map_or(id, |(_, name)| name).to_owned());
    collector.exporters.iter().map(|e| e.name.clone()).chain(added).collect()
}

impl Aim {
    /// What the spec asks for.
    pub fn new(v: &Validated) -> Self {
        match &v.receiver {
            _ if !v.traces_anything() => Self::Nowhere,
            Receiver::External(endpoint) => Self::External(endpoint.to_string()),
            Receiver::Node(_) => Self::Collectors,
        }
    }
}

fn node(v: &Validated, o: &Observed, report: &NodeReport, without_collector: &[String], found: &ObservedNode) -> ExpectedNode {
    let tracing = o.node_tracings.get(&report.name).filter(|n| n.node_uid == found.uid);
    let changing = tracing.is_some_and(|n| n.in_flight().is_some()) || report.stand == Stand::Settling;
    let components = tracing.iter().flat_map(|n| &n.status.components);
    let traced: BTreeMap<_, _> = components
        .filter(|c| c.tracing == TracingFound::Ours && wanted(v, c.name) == State::Enabled)
        .map(|c| (c.name, component(v, report, c)))
        .collect();
    let missing = without_collector.contains(&report.name);
    ExpectedNode {
        hostname: found.labels.get(HOSTNAME_LABEL).unwrap_or(&report.name).clone(),
        addresses: found.addresses.clone(),
        ready: found.ready,
        changing,
        changed: tracing.and_then(|n| n.status.last_outcome.as_ref()).map(|outcome| outcome.finished_time.0),
        collector: match o.collector.applied.filter(|_| missing) {
            Some(at) => ExpectedCollector::Rolling(at),
            None if missing => ExpectedCollector::Missing,
            None => ExpectedCollector::Ready,
        },
        components: traced,
    }
}

fn wanted(v: &Validated, component: ComponentName) -> State {
    match component {
        ComponentName::KubeApiserver => v.kube_api_server.state,
        ComponentName::Etcd => v.etcd.state,
    }
}

fn component(v: &Validated, report: &NodeReport, found: &ComponentStatus) -> ExpectedComponent {
    // etcd's requests come from kube-apiserver, which says of each whether it is traced; of those that it does not trace itself it says nothing.
    let decides = match found.name {
        ComponentName::Etcd if v.kube_api_server.state == State::Disabled => &v.etcd,
        _ => &v.kube_api_server,
    };
    ExpectedComponent {
        version: found.version.clone(),
        healthy: found.healthy,
        started: found.started_time.as_ref().map(|started| started.0),
        sampling_rate_per_million: (report.stand == Stand::UpToDate).then_some(decides.sampling_rate_per_million),
    }
}
