//! The screen: what a person wants to know first, first. Pure, and the same for every state of the same resource.

use super::{Standing, condition, rate};
use crate::api::clustertracing::{NodeComponentStatus, NodeState, NodeStatus, SpanLoss, State};
use crate::api::collector::{CollectorMode, Exporter};
use crate::api::node_tracing::TracingFound;
use crate::api::{ClusterTracing, ConditionType};
use crate::cli::Palette;
use crate::cli::style::Tone;
use crate::cli::table::table;

/// Everything, as text.
pub(super) fn screen(resource: &ClusterTracing, standing: Standing, palette: Palette) -> String {
    let blocks = [summary(resource, standing, palette), conditions(resource), nodes(resource), receiver(resource), notes(resource)];
    let blocks: Vec<String> = blocks.into_iter().filter(|block| !block.is_empty()).collect();
    blocks.join("\n")
}

fn summary(resource: &ClusterTracing, standing: Standing, palette: Palette) -> String {
    let spec = &resource.spec;
    let status = resource.status.clone().unwrap_or_default();
    let tone = match standing {
        Standing::Ready => Tone::Good,
        Standing::Reconciling | Standing::Deleting => Tone::Wait,
        Standing::Stalled | Standing::NotReady => Tone::Bad,
    };
    let word: &str = standing.into();
    let mut lines = vec![format!("ClusterTracing: {}", palette.paint(tone, word)), format!("sampling:  {}", sampling(resource))];
    if let Some(boost) = &spec.boost {
        let until = boost.until.0.strftime("%F %TZ");
        lines.push(format!(
            "boost:     {} until {until}, then {}",
            rate::told(boost.sampling_rate_per_million),
            rate::told(spec.sampling_rate_per_million)
        ));
    }
    let revision = status.revision.map_or(String::new(), |revision| format!(", revision {revision}"));
    lines.push(format!("nodes:     {} as requested{revision}", status.nodes_ready.as_deref().unwrap_or("-")));
    // what is waited for, and why, is what a person came for
    let why = [ConditionType::Stalled, ConditionType::Reconciling, ConditionType::Ready];
    let why = why.into_iter().filter_map(|kind| condition(resource, kind)).find(|c| c.status == "True" || c.type_ == "Ready");
    lines.extend(why.filter(|_| standing != Standing::Ready).map(|why| format!("why:       {}: {}", why.reason, why.message)));
    lines.join("\n") + "\n"
}

fn sampling(resource: &ClusterTracing) -> String {
    if resource.spec.kube_api_server.state == State::Disabled {
        return "kube-apiserver is not traced".to_owned();
    }
    match resource.status.as_ref().and_then(|status| status.sampling_rate_per_million) {
        Some(rate) => format!("{} of API requests, in force on every node", rate::told(rate)),
        None => format!("{} of API requests, not in force on every node", rate::told(resource.spec.sampling_rate_per_million)),
    }
}

fn conditions(resource: &ClusterTracing) -> String {
    let conditions = resource.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if conditions.is_empty() {
        return "no conditions: the controller has not seen it (kubectl --namespace clustertracing-system get pods)\n".to_owned();
    }
    let row = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        vec![c.type_.clone(), c.status.clone(), c.reason.clone(), c.last_transition_time.0.strftime("%F %TZ").to_string()]
    };
    table(&["CONDITION", "STATUS", "REASON", "SINCE"], &conditions.iter().map(row).collect::<Vec<_>>())
}

fn nodes(resource: &ClusterTracing) -> String {
    let nodes = resource.status.as_ref().map(|status| status.nodes.as_slice()).unwrap_or_default();
    if nodes.is_empty() {
        return String::new();
    }
    let heads = ["NODE", "STATE", "REVISION", "KUBE-APISERVER", "TRACED", "SPANS", "ETCD", "TRACED", "SPANS", "CHANGED"];
    let row = |node: &NodeStatus| {
        let state = serde_json::to_value(node.state).ok().and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_default();
        let revision = node.revision.clone().unwrap_or_else(|| "-".to_owned());
        let changed = node.changed_time.as_ref().map_or_else(|| "-".to_owned(), |time| time.0.strftime("%F %TZ").to_string());
        [vec![node.name.clone(), state, revision], component(node.kube_api_server.as_ref()), component(node.etcd.as_ref()), vec![changed]]
            .concat()
    };
    table(&heads, &nodes.iter().map(row).collect::<Vec<_>>())
}

/// Version, whether it is traced, whether its spans flow.
fn component(component: Option<&NodeComponentStatus>) -> Vec<String> {
    let Some(component) = component else { return vec!["-".to_owned(); 3] };
    let version = component.version.clone().unwrap_or_else(|| "?".to_owned());
    let version = if component.healthy { version } else { format!("{version} unhealthy") };
    let traced = match component.tracing {
        TracingFound::Ours => "yes",
        TracingFound::NotConfigured => "no",
        TracingFound::Absent => "-",
        TracingFound::Foreign => "by others",
    };
    let spans = component.spans.as_ref().map_or("-", |spans| spans.state.into());
    vec![version, traced.to_owned(), spans.to_owned()]
}

fn receiver(resource: &ClusterTracing) -> String {
    let spec = &resource.spec.collector;
    let nodes = resource.status.as_ref().map_or(0, |status| status.nodes.len());
    let Some(status) = resource.status.as_ref().and_then(|status| status.collector.as_ref()) else { return String::new() };
    let mode = match spec.mode {
        CollectorMode::Node => "on each node",
        CollectorMode::Gateway => "on each node, and a gateway",
        CollectorMode::External => "somebody else's",
    };
    let ready = status.ready_nodes.map_or(String::new(), |ready| format!(", Ready on {ready} of {nodes} nodes"));
    let loss = match (status.span_loss, status.span_loss_per_million) {
        (Some(SpanLoss::Within), _) => ", less than 1 % of spans lost".to_owned(),
        (Some(SpanLoss::Exceeded), Some(lost)) => format!(", {} of spans lost", rate::told(lost)),
        (Some(SpanLoss::Exceeded), None) => ", more than 1 % of spans lost".to_owned(),
        (Some(SpanLoss::Unknown) | None, _) => String::new(),
    };
    let text = format!("collector: {mode}, at {}{ready}{loss}\n", status.endpoint);
    if spec.mode == CollectorMode::External {
        return text;
    }
    let exporter = |exporter: &Exporter| format!("{} ({})", exporter.name, exporter.endpoint);
    let exporters: Vec<String> = spec.exporters.iter().map(exporter).chain(["the operator's trace store".to_owned()]).collect();
    format!("{text}exporters: {}\n", exporters.join(", "))
}

/// What nodes and conditions have to say beside their state.
fn notes(resource: &ClusterTracing) -> String {
    let status = resource.status.clone().unwrap_or_default();
    let told = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled].map(<&str>::from);
    let of_conditions =
        status.conditions.iter().filter(|c| c.status != "True" && !told.contains(&c.type_.as_str()) && !c.message.is_empty());
    let of_conditions = of_conditions.map(|c| format!("{}: {}\n", c.type_, c.message));
    let of_nodes = status.nodes.iter().flat_map(|node| {
        let message = Some(&node.message).filter(|message| !message.is_empty() && node.state != NodeState::Pending);
        let drift = node.drift.iter().map(|drift| format!("{}: {drift}\n", node.name));
        message.map(|message| format!("{}: {message}\n", node.name)).into_iter().chain(drift)
    });
    of_conditions.chain(of_nodes).collect()
}
