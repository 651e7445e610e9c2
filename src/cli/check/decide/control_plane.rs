//! The cluster and its control plane: what the nodes and the API's images of their static pods tell before anything is installed.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use super::said::Said;
use super::{Findings, Skip, error, warning, well};
use crate::api::node_tracing::NodeSettings;
use crate::api::{
    COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT, ClusterTracing, ClusterTracingSpec, ComponentName, LABEL_CONTROL_PLANE, SINGLETON, State,
};
use crate::cli::check::facts::{Facts, Node, Pod};
use crate::component::owner::{NodeFacts, owner};
use crate::component::spans::adopts_trace_context;
use crate::component::{Found, ManifestFile, Refusal, Version, change, find, upgrade};
use crate::plan::validate::{Installation, validate};

/// With this many members of etcd or fewer, none can be spared: a majority of two is two.
const NONE_TO_SPARE: usize = 2;

/// The control plane's nodes by name.
fn control_plane(facts: &Facts) -> Result<BTreeMap<&String, &Node>, Skip> {
    Ok(facts.nodes.known()?.iter().filter(|(_, node)| node.control_plane).collect())
}

/// The API's images of each control-plane node's static pods, as files of its static-pod folder.
fn folders(facts: &Facts) -> Result<BTreeMap<&String, Vec<ManifestFile>>, Skip> {
    let pods = facts.pods.known()?;
    let of_node = |name: &String| {
        let manifest = |(pod, Pod { node, manifest, .. }): (&String, &Pod)| {
            let text = manifest.clone().filter(|_| node == name)?;
            // the kubelet puts the node's name behind the pod's, and kubeadm names the file after the pod
            let pod = pod.strip_suffix(name).and_then(|pod| pod.strip_suffix('-')).unwrap_or(pod);
            Some(ManifestFile { name: format!("{pod}.yaml"), text })
        };
        pods.iter().filter_map(manifest).collect()
    };
    let nodes = control_plane(facts)?;
    if nodes.is_empty() {
        return Err(Skip::Nothing);
    }
    Ok(nodes.keys().map(|name| (*name, of_node(name))).collect())
}

/// A component of a node, as its image in the API shows it.
fn found(files: &[ManifestFile]) -> Vec<Found> {
    // what cannot be made sense of is refused, and told as that
    find(files).unwrap_or_default()
}

/// What a ClusterTracing without any settings of its own asks of a node.
fn default_settings(component: ComponentName) -> Option<NodeSettings> {
    let spec: ClusterTracingSpec = serde_json::from_str("{}").ok()?;
    let installation = Installation {
        namespace: String::new(),
        collector_image: "collector:0.155.0".to_owned(),
        canary: State::Disabled,
        probe: State::Disabled,
    };
    let mut settings = validate(&ClusterTracing::new(SINGLETON, spec), &installation).ok()?.target(true).settings;
    match component {
        ComponentName::KubeApiserver => settings.etcd.state = State::Disabled,
        ComponentName::Etcd => settings.kube_api_server.state = State::Disabled,
    }
    Some(settings)
}

/// What an agent would make of a node's component: warnings, or a refusal.
fn preflight(node: &str, files: &[ManifestFile], component: ComponentName) -> Result<Vec<String>, Refusal> {
    let Some(settings) = default_settings(component) else { return Ok(Vec::new()) };
    let changes = change(files, &settings, node)?;
    Ok(changes.into_iter().filter(|change| change.component == component).flat_map(|change| change.warnings).collect())
}

/// The components that a node runs, and kube-apiserver, which it should.
fn components(files: &[ManifestFile]) -> Vec<ComponentName> {
    let runs_etcd = found(files).iter().any(|found| found.component == ComponentName::Etcd);
    std::iter::once(ComponentName::KubeApiserver).chain(runs_etcd.then_some(ComponentName::Etcd)).collect()
}

/// What the agents would refuse.
pub(super) fn said(facts: &Facts) -> Result<Vec<Said>, Skip> {
    let mut all: Vec<Said> = Vec::new();
    for (node, files) in folders(facts)? {
        for component in components(&files) {
            if let Err(Refusal { reason, message, .. }) = preflight(node, &files, component)
                && !all.iter().any(|said| said.message == message)
            {
                all.push(Said { reason, message });
            }
        }
    }
    Ok(all)
}

pub(super) fn trace_context(facts: &Facts) -> Findings {
    let version = facts.server.known()?;
    Ok(match adopts_trace_context(version) {
        Some(true) => Vec::new(),
        Some(false) => vec![warning(format!("the API server is {version}: the probe cannot be sent"))],
        None => vec![warning(format!("{version:?} names no release: whether the probe can be sent is not known"))],
    })
}

pub(super) fn nodes(facts: &Facts) -> Findings {
    let nodes = control_plane(facts)?;
    Ok(match nodes.len() {
        0 => vec![error(format!("none of the nodes has label {LABEL_CONTROL_PLANE}"))],
        _ => vec![well(nodes.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(", "))],
    })
}

pub(super) fn platform(facts: &Facts) -> Findings {
    let owned = |(name, node): (&String, &Node)| {
        let Node { labels, annotations, os_image, kubelet_version, .. } = node;
        let platform = owner(&NodeFacts { labels, annotations, os_image, kubelet_version })?;
        Some((platform.name, format!("{}, as node {name} shows: {}", platform.name, platform.remedy)))
    };
    // one node of a platform speaks for all
    let platforms: BTreeMap<_, _> = facts.nodes.known()?.iter().rev().filter_map(owned).collect();
    Ok(platforms.into_values().map(error).collect())
}

pub(super) fn nodes_ready(facts: &Facts) -> Findings {
    let nodes = control_plane(facts)?;
    if nodes.is_empty() {
        return Err(Skip::Nothing);
    }
    Ok(nodes.iter().filter(|(_, node)| !node.ready).map(|(name, _)| error(format!("node {name} is not Ready"))).collect())
}

pub(super) fn static_pods(facts: &Facts) -> Findings {
    let folders = folders(facts)?;
    let runs = |files: &[ManifestFile]| found(files).iter().any(|f| f.component == ComponentName::KubeApiserver);
    let nodes: Vec<&str> = folders.iter().filter(|(_, files)| runs(files)).map(|(node, _)| node.as_str()).collect();
    Ok(vec![well(nodes.join(", "))])
}

pub(super) fn versions(facts: &Facts) -> Findings {
    let mut findings = Vec::new();
    for (node, files) in folders(facts)? {
        let found = found(&files);
        let versions = found.iter().map(|f| format!("{} {}", f.component, f.version.as_ref().unwrap_or(&f.image)));
        findings.push(well(format!("{node}: {}", versions.collect::<Vec<_>>().join(", "))));
        findings.extend(found.iter().flat_map(Found::about_version).map(|words| warning(format!("node {node}: {words}"))));
    }
    Ok(findings)
}

pub(super) fn manifests(facts: &Facts) -> Findings {
    let mut findings = Vec::new();
    for (node, files) in folders(facts)? {
        let about_versions: Vec<String> = found(&files).iter().flat_map(Found::about_version).collect();
        let warnings = components(&files).into_iter().filter_map(|component| preflight(node, &files, component).ok()).flatten();
        let others = warnings.filter(|words| !about_versions.contains(words));
        findings.extend(others.map(|words| warning(format!("node {node}: {words}"))));
    }
    Ok(findings)
}

pub(super) fn ports(facts: &Facts) -> Findings {
    let spans = default_settings(ComponentName::KubeApiserver).and_then(|settings| settings.endpoint.rsplit_once(':')?.1.parse().ok());
    let needed: Vec<u16> = spans.into_iter().chain([COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT]).collect();
    let taken = facts.pods.known()?.iter().filter(|(_, pod)| !pod.ours).flat_map(|(name, pod)| {
        let taken = needed.iter().filter(|port| pod.host_ports.contains(port));
        taken.map(move |port| error(format!("node {}: pod {}/{name} takes port {port}", pod.node, pod.namespace)))
    });
    Ok(taken.collect())
}

pub(super) fn etcd_on_nodes(facts: &Facts) -> Findings {
    let without = folders(facts)?.into_iter().filter(|(_, files)| !found(files).iter().any(|f| f.component == ComponentName::Etcd));
    Ok(without.map(|(node, _)| warning(format!("node {node} runs no static pod of etcd"))).collect())
}

pub(super) fn downtime(facts: &Facts) -> Findings {
    let nodes = control_plane(facts)?.len();
    if nodes == 1 {
        return Ok(vec![warning("the control plane is one node: the API is away for as long as each restart takes")]);
    }
    let members = folders(facts)?.values().filter(|files| found(files).iter().any(|f| f.component == ComponentName::Etcd)).count();
    Ok(vec![match members {
        1..=NONE_TO_SPARE => warning(format!("etcd has {members} members on the nodes: it has no quorum while one restarts")),
        _ => well(format!("{nodes} control-plane nodes, {members} members of etcd")),
    }])
}

pub(super) fn next_minor_version(facts: &Facts) -> Findings {
    let mut findings = Vec::new();
    for (node, files) in folders(facts)? {
        let obstacles = upgrade::obstacles(&files).into_iter();
        findings.extend(obstacles.map(|obstacle| warning(format!("node {node}: {}", obstacle.message))));
        for found in found(&files) {
            let version = found.version.as_deref().and_then(|version| Version::from_str(version).ok());
            if let Some(version) = version.filter(|version| !upgrade::is_next_known(found.component, *version)) {
                findings.push(warning(format!("node {node}: what comes after {} {version} is not known", found.component)));
            }
        }
    }
    Ok(findings)
}
