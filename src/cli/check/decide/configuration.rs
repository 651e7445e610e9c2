//! The ClusterTracing: what it asks for, and what of it is in force on the nodes.

use super::said::condition;
use super::{Findings, Skip, error, warning, well};
use crate::api::clustertracing::NodeState;
use crate::api::{ClusterTracing, ConditionType, State};
use crate::cli::check::catalog::Check;
use crate::cli::check::facts::Facts;

/// The one ClusterTracing; without it, or without the right to read it, there is nothing to look at.
pub(super) fn there(facts: &Facts) -> Result<&ClusterTracing, Skip> {
    facts.resource.known().ok().and_then(Option::as_ref).ok_or(Skip::Nothing)
}

pub(super) fn resource(facts: &Facts) -> Findings {
    // without a definition there can be none
    if facts.definitions.known().is_ok_and(std::collections::BTreeMap::is_empty) {
        return Err(Skip::Nothing);
    }
    Ok(match facts.resource.known()? {
        None => vec![error("there is no ClusterTracing \"cluster\": nothing is traced".to_owned())],
        Some(resource) if resource.metadata.deletion_timestamp.is_some() => {
            vec![warning("clustertracing/cluster is being deleted: the nodes get their original manifests back".to_owned())]
        }
        Some(_) => Vec::new(),
    })
}

pub(super) fn observed(facts: &Facts) -> Findings {
    let resource = there(facts)?;
    let (wanted, observed) = (resource.metadata.generation, resource.status.as_ref().and_then(|status| status.observed_generation));
    Ok(match (wanted, observed) {
        (_, None) => vec![error("clustertracing/cluster has no status yet".to_owned())],
        (Some(wanted), Some(observed)) if observed < wanted => {
            vec![error(format!("clustertracing/cluster is of generation {wanted}, and its status of {observed}"))]
        }
        _ => Vec::new(),
    })
}

pub(super) fn rollout(facts: &Facts) -> Findings {
    condition(facts, ConditionType::Ready, Check::Rollout)
}

pub(super) fn sampling_rate(facts: &Facts) -> Findings {
    let spec = &there(facts)?.spec;
    if spec.kube_api_server.state == State::Disabled {
        return Err(Skip::Nothing);
    }
    Ok(vec![match spec.sampling_rate_per_million {
        0 => warning("samplingRatePerMillion is 0".to_owned()),
        rate => well(format!("{rate} of a million")),
    }])
}

pub(super) fn kube_apiserver_traced(facts: &Facts) -> Findings {
    condition(facts, ConditionType::KubeAPIServerTraced, Check::KubeApiserverTraced)
}

pub(super) fn etcd_traced(facts: &Facts) -> Findings {
    condition(facts, ConditionType::EtcdTraced, Check::EtcdTraced)
}

pub(super) fn upgrade_safe(facts: &Facts) -> Findings {
    condition(facts, ConditionType::UpgradeSafe, Check::NextMinorVersion)
}

pub(super) fn node_states(facts: &Facts) -> Findings {
    let status = there(facts)?.status.as_ref().ok_or(Skip::Nothing)?;
    let of = |node: &crate::api::clustertracing::NodeStatus| {
        let (name, message) = (&node.name, &node.message);
        match node.state {
            NodeState::UpToDate if message.is_empty() => None,
            NodeState::UpToDate => Some(warning(format!("node {name}: {message}"))),
            // they have their turn: the rollout's own check tells
            NodeState::Pending | NodeState::Changing => None,
            state => Some(error(format!("node {name} is {state:?}: {message}"))),
        }
    };
    let mut findings: Vec<_> = status.nodes.iter().filter_map(of).collect();
    findings.extend(status.nodes_ready.as_ref().map(|ready| well(format!("{ready} nodes"))));
    Ok(findings)
}

pub(super) fn drift(facts: &Facts) -> Findings {
    let status = there(facts)?.status.as_ref().ok_or(Skip::Nothing)?;
    let of = |node: &crate::api::clustertracing::NodeStatus| {
        let name = node.name.clone();
        node.drift.iter().map(move |drift| error(format!("node {name}: {drift}"))).collect::<Vec<_>>()
    };
    Ok(status.nodes.iter().flat_map(of).collect())
}
