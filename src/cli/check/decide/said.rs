//! What the operator says: reasons in conditions, of nodes, and of components; each goes to its one check.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::configuration::there;
use super::{Finding, Findings, Skip, error, finding, well};
use crate::api::clustertracing::SpanFlow;
use crate::api::node_tracing::{OutcomeResult, Verdict};
use crate::api::{ClusterTracing, ConditionType, NodeTracing, Reason};
use crate::cli::check::catalog::Check;
use crate::cli::check::facts::Facts;
use crate::cli::check::reasons;
use crate::cli::check::report::Severity;

/// A reason, and the words beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Said {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// All that is said of the one ClusterTracing, each thing once.
pub(super) fn said(facts: &Facts) -> Result<Vec<Said>, Skip> {
    let resource = there(facts)?;
    // a report that cannot be read has its own check
    let node_tracings = facts.node_tracings.known().map(Vec::as_slice).unwrap_or_default();
    let mut all: Vec<Said> = of_conditions(resource).chain(of_spans(resource)).collect();
    all.extend(node_tracings.iter().flat_map(|node| of_node(node, resource)));
    let mut once: Vec<Said> = Vec::new();
    for said in all {
        // the same cause stands in Ready, in Stalled, and in the agent's own report
        if !once.iter().any(|other| other.reason == said.reason && other.message.contains(&said.message)) {
            once.push(said);
        }
    }
    Ok(once)
}

fn of_conditions(resource: &ClusterTracing) -> impl Iterator<Item = Said> {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    conditions.filter_map(|condition| Some(Said::new(Reason::from_str(&condition.reason).ok()?, &condition.message)))
}

/// Components whose spans end somewhere, where condition SpansFlowing names another one first.
fn of_spans(resource: &ClusterTracing) -> impl Iterator<Item = Said> {
    let nodes = resource.status.iter().flat_map(|status| &status.nodes);
    nodes.flat_map(|node| {
        let components = [("kube-apiserver", &node.kube_api_server), ("etcd", &node.etcd)];
        components.into_iter().filter_map(|(component, found)| {
            let spans = found.as_ref()?.spans.as_ref().filter(|spans| spans.state == SpanFlow::Broken)?;
            Some(Said::new(spans.reason, format!("{component} on {}", node.name)))
        })
    })
}

fn of_node<'a>(node: &'a NodeTracing, resource: &ClusterTracing) -> impl Iterator<Item = Said> + 'a {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let status = node.status.iter();
    let of_preflight = status.clone().filter_map(|status| {
        let preflight = status.preflight.as_ref().filter(|preflight| preflight.verdict == Verdict::Refused)?;
        Some(Said::new(preflight.reason?, &preflight.message))
    });
    let generation = resource.metadata.generation;
    let of_outcome = status.clone().filter_map(move |status| {
        let outcome = status.last_outcome.as_ref()?;
        // what went wrong with earlier settings is over
        let counts = outcome.result != OutcomeResult::Succeeded && Some(outcome.generation) == generation;
        Some(Said::new(outcome.reason.filter(|_| counts)?, &outcome.message))
    });
    let of_blockers = status.flat_map(move |status| {
        status.blockers.iter().map(move |blocker| Said::new(blocker.reason, format!("node {name}: {}", blocker.message)))
    });
    of_preflight.chain(of_outcome).chain(of_blockers)
}

/// What of all that is said belongs to a check.
pub(super) fn findings(all: &[Said], check: Check) -> Vec<Finding> {
    let of = |said: &Said| {
        let (_, severity) = reasons::check(said.reason).filter(|(of, _)| *of == check)?;
        // what is well is told by the condition itself
        (severity > Severity::Success).then(|| finding(severity, format!("{}: {}", said.reason, said.message)))
    };
    all.iter().filter_map(of).collect()
}

/// What a condition says to the check that asks for it.
pub(super) fn condition(facts: &Facts, wanted: ConditionType, check: Check) -> Findings {
    let resource = there(facts)?;
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let Some(condition) = conditions.into_iter().find(|condition| condition.type_ == wanted.as_str()) else {
        return Ok(vec![error(format!("condition {} is not there: the controller has not looked yet", wanted.as_str()))]);
    };
    Ok(of_condition(condition, check).into_iter().collect())
}

fn of_condition(condition: &Condition, check: Check) -> Option<Finding> {
    let Condition { type_, status, reason, message, .. } = condition;
    let known = Reason::from_str(reason).ok().and_then(reasons::check);
    match known {
        Some((_, Severity::Success)) => Some(well(message)),
        // it is told in full there
        Some((other, severity)) if other != check && status != "True" => {
            Some(finding(severity, format!("{type_} is {status}: {reason} ({})", other.entry().code)))
        }
        Some((other, _)) if other != check => Some(well(message)),
        Some(_) => None,
        None if status == "True" => Some(well(format!("{reason}: {message}"))),
        None => Some(error(format!("{type_} is {status}: {reason}, which this program does not know: {message}"))),
    }
}
