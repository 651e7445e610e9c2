//! Whether spans are taken, and arrive.

use super::configuration::there;
use super::installation::workload;
use super::said::condition;
use super::{Findings, Skip, error, well};
use crate::api::clustertracing::SpanLoss;
use crate::api::{CollectorMode, ConditionType, State};
use crate::cli::check::catalog::Check;
use crate::cli::check::facts::{Facts, Unread};

/// Whether the operator's own collectors run.
fn has_collectors(facts: &Facts) -> Result<bool, Skip> {
    let spec = &there(facts)?.spec;
    let traced = [spec.kube_api_server.state, spec.etcd.state].contains(&State::Enabled);
    Ok(traced && spec.collector.mode != CollectorMode::External)
}

pub(super) fn collectors(facts: &Facts) -> Findings {
    let mut findings = condition(facts, ConditionType::CollectorAvailable, Check::Collectors)?;
    if has_collectors(facts)? {
        findings.push(workload(&facts.collectors, "daemonset clustertracing-collector", facts)?);
    }
    Ok(findings)
}

pub(super) fn flowing(facts: &Facts) -> Findings {
    condition(facts, ConditionType::SpansFlowing, Check::SpansFlowing)
}

pub(super) fn loss(facts: &Facts) -> Findings {
    let collector = there(facts)?.status.as_ref().and_then(|status| status.collector.as_ref()).ok_or(Skip::Nothing)?;
    let per_million = collector.span_loss_per_million.map(|lost| format!(": some {lost} of a million")).unwrap_or_default();
    match collector.span_loss {
        None => Err(Skip::Nothing),
        Some(SpanLoss::Exceeded) => Ok(vec![error(format!("more than 1 % of the last 10 minutes' spans got lost{per_million}"))]),
        Some(SpanLoss::Within) => Ok(vec![well(format!("in the last 10 minutes{per_million}"))]),
        Some(SpanLoss::Unknown) => Ok(vec![well("too few spans were seen in the last 10 minutes to tell")]),
    }
}

pub(super) fn store(facts: &Facts) -> Findings {
    has_collectors(facts)?;
    match facts.store.known() {
        Ok(store) => Ok(vec![well(format!("it holds {} traces", store.traces))]),
        Err(Skip::Unread(Unread { unread, forbidden: false })) => Ok(vec![error(unread)]),
        Err(skip) => Err(skip),
    }
}
