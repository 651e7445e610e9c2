//! What the last turn's plan makes the flow of spans expect.

use std::collections::BTreeMap;

use super::{Aim, Expected, ExpectedCollector, ExpectedComponent, ExpectedNode};
use crate::api::node_tracing::{ComponentStatus, TracingFound};
use crate::api::{ComponentName, State};
use crate::component::spans::HOSTNAME_LABEL;
use crate::plan::Plan;
use crate::plan::observed::{Observed, ObservedNode};
use crate::plan::report::{NodeReport, Stand};
use crate::plan::validate::{Receiver, Validated};

impl Expected {
    /// Instances are the components that run traced by our doing, as their nodes' agents say; a node that has yet to be changed is not among them.
    pub fn new(v: &Validated, o: &Observed, plan: &Plan) -> Self {
        let nodes = plan.report.nodes.iter().filter(|n| n.selected).filter_map(|report| {
            let node = node(v, o, report, &plan.report.without_collector, o.nodes.get(&report.name)?);
            (!node.components.is_empty()).then(|| (report.name.clone(), node))
        });
        Self {
            namespace: v.installation.namespace.clone(),
            probe: v.probe,
            exporters: v.wanted_collector().map(|c| c.exporters.iter().map(|e| e.name.clone()).collect()).unwrap_or_default(),
            nodes: nodes.collect(),
            aim: Aim::new(v),
        }
    }
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
