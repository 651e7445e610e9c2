//! The operator's own installation.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::SignedDuration;
use kube::CustomResourceExt as _;

use super::configuration::there;
use super::{Finding, Findings, Skip, error, warning, well};
use crate::api::{ClusterTracing, NodeTracing, VERSION};
use crate::cli::check::facts::{Facts, Read, Workload};

/// The label of a namespace by which Pod Security refuses pods.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// The only level that lets pods use a node's folders, processes and network.
const PRIVILEGED: &str = "privileged";
/// A leader renews its Lease every 5 s and loses it after 15 s; the rest is for clocks that differ.
const LEASE_AGE: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn rights(facts: &Facts) -> Findings {
    let refused = facts.rights.known()?.iter().filter(|right| !right.allowed);
    Ok(refused.map(|right| error(format!("you may not {}", right.what))).collect())
}

pub(super) fn pod_security(facts: &Facts) -> Findings {
    let namespace = &facts.namespace;
    Ok(vec![match facts.namespace_labels.known()? {
        None => well(format!("namespace {namespace} is not there yet")),
        Some(labels) => match labels.get(ENFORCE).map(String::as_str) {
            None => well(format!("namespace {namespace} has no level of its own")),
            Some(PRIVILEGED) => well(format!("namespace {namespace} is {PRIVILEGED}")),
            Some(level) => error(format!("namespace {namespace} enforces {level}")),
        },
    }])
}

/// Fields of `spec` that this program knows.
pub(in crate::cli::check) fn fields(definition: &impl serde::Serialize) -> BTreeSet<String> {
    let definition = serde_json::to_value(definition).unwrap_or_default();
    let versions = definition.pointer("/spec/versions").and_then(|versions| versions.as_array()).cloned().unwrap_or_default();
    let spoken = versions.iter().find(|version| version["name"] == VERSION);
    let fields = spoken.and_then(|version| version.pointer("/schema/openAPIV3Schema/properties/spec/properties")?.as_object());
    fields.map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

pub(super) fn definitions(facts: &Facts) -> Findings {
    let there = facts.definitions.known()?;
    let ours = [ClusterTracing::crd(), NodeTracing::crd()];
    let of = |crd: &_| {
        let (name, known): (String, _) = (names(crd), fields(crd));
        let Some(definition) = there.get(&name) else { return Some(error(format!("customresourcedefinition {name} is not there"))) };
        if !definition.served.contains(VERSION) {
            return Some(error(format!("customresourcedefinition {name} does not serve {VERSION}")));
        }
        let missing: Vec<&str> = known.difference(&definition.fields).map(String::as_str).collect();
        (!missing.is_empty())
            .then(|| warning(format!("customresourcedefinition {name} is of an older version: it has no spec.{}", missing.join(", spec."))))
    };
    Ok(ours.iter().filter_map(of).collect())
}

/// A definition's own name.
fn names(crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition) -> String {
    crd.metadata.name.clone().unwrap_or_default()
}

/// Pods that are ready, of those that should be.
pub(super) fn workload(read: &Read<Option<Workload>>, what: &str, facts: &Facts) -> Result<Finding, Skip> {
    Ok(match read.known()? {
        None => error(format!("{what} is not there in namespace {}", facts.namespace)),
        Some(Workload { desired: 0, .. }) => error(format!("{what} wants no pod")),
        Some(Workload { desired, ready, .. }) if ready < desired => error(format!("{what}: {ready} of {desired} pods are ready")),
        Some(Workload { desired, ready, .. }) => well(format!("{ready} of {desired} pods are ready")),
    })
}

pub(super) fn controller(facts: &Facts) -> Findings {
    // one of several is enough to lead
    if let Some(Workload { desired, ready: ready @ 1.., .. }) =
        facts.controller.known()?.as_ref().filter(|there| there.ready < there.desired)
    {
        return Ok(vec![warning(format!("deployment clustertracing-controller: {ready} of {desired} pods are ready"))]);
    }
    workload(&facts.controller, "deployment clustertracing-controller", facts).map(|finding| vec![finding])
}

pub(super) fn leader(facts: &Facts) -> Findings {
    let lease = facts.lease.known()?.clone().unwrap_or_default();
    let (Some(holder), Some(renewed)) = (lease.holder.filter(|holder| !holder.is_empty()), lease.renewed) else {
        return Ok(vec![error("nobody holds lease clustertracing-controller".to_owned())]);
    };
    let age = facts.now.duration_since(renewed);
    Ok(vec![if age > LEASE_AGE {
        error(format!("{holder} led, and has not renewed its lease since {}", renewed.strftime("%Y-%m-%dT%H:%M:%SZ")))
    } else {
        well(holder)
    }])
}

pub(super) fn agents(facts: &Facts) -> Findings {
    let nodes = facts.nodes.known().map(|nodes| nodes.values().filter(|node| node.control_plane).count()).unwrap_or_default();
    let desired = facts.agents.known()?.as_ref().map_or(0, |there| usize::try_from(there.desired).unwrap_or_default());
    let finding = workload(&facts.agents, "daemonset clustertracing-agent", facts)?;
    let missing = (1..nodes).contains(&desired);
    let missing = missing.then(|| error(format!("daemonset clustertracing-agent: {desired} pods for {nodes} control-plane nodes")));
    Ok(std::iter::once(finding).chain(missing).collect())
}

pub(super) fn agent_reports(facts: &Facts) -> Findings {
    there(facts)?;
    let reports: BTreeMap<&str, &NodeTracing> =
        facts.node_tracings.known()?.iter().map(|node| (node.metadata.name.as_deref().unwrap_or_default(), node)).collect();
    let nodes = facts.nodes.known()?.iter().filter(|(_, node)| node.control_plane);
    let silent = nodes.clone().filter_map(|(name, _)| match reports.get(name.as_str()) {
        None => Some(error(format!("node {name} has no NodeTracing"))),
        Some(report) => {
            let status = report.status.as_ref().filter(|status| status.agent_version.is_some());
            match status.map(|status| status.observed_generation) {
                None => Some(error(format!("node {name}: its agent has never reported"))),
                Some(observed) if observed < report.metadata.generation => {
                    Some(error(format!("node {name}: its agent has not answered the newest settings")))
                }
                Some(_) => None,
            }
        }
    });
    let silent: Vec<Finding> = silent.collect();
    Ok(if silent.is_empty() { vec![well(nodes.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "))] } else { silent })
}

pub(super) fn program_versions(facts: &Facts) -> Findings {
    let controller = facts.controller.known()?.as_ref().and_then(|there| there.version.clone()).ok_or(Skip::Nothing)?;
    let mut findings = Vec::new();
    if controller != facts.program {
        findings.push(warning(format!("this program is {}, the operator {controller}", facts.program)));
    }
    // agents that cannot be read have their own check
    for node in facts.node_tracings.known().map(Vec::as_slice).unwrap_or_default() {
        let agent = node.status.as_ref().and_then(|status| status.agent_version.as_ref());
        if let (Some(agent), Some(name)) = (agent.filter(|agent| **agent != controller), &node.metadata.name) {
            findings.push(warning(format!("node {name}: its agent is {agent}, the controller {controller}")));
        }
    }
    Ok(if findings.is_empty() { vec![well(controller)] } else { findings })
}
