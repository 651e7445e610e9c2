//! Measures kube-apiserver before a change and after its soak time, so that the controller can compare.

use jiff::SignedDuration;

use super::facts::Facts;
use crate::api::node_tracing::{Measurement, OutcomeResult, Soak};
use crate::api::{ComponentName, NodeTracing, NodeTracingStatus};
use crate::host::{self, Host};

/// Requests whose median is the latency: enough that a few slow ones do not count, and over in a fraction of a second.
const REQUESTS: usize = 20;
const MIB: u64 = 1024 * 1024;

/// The memory of kube-apiserver's process, and the median time that it takes for its own first probe, over connections of their own.
/// `None` where it does not run or does not answer.
pub async fn measure<H: Host>(host: &H, facts: &Facts) -> Result<Option<Measurement>, host::Error> {
    let Some(component) = facts.component(ComponentName::KubeApiserver) else { return Ok(None) };
    let (Some(process), Some(probe)) = (component.process(&component.found.argv), component.found.probes.first()) else {
        return Ok(None);
    };
    let Some(memory) = host.memory_of(process.id)? else { return Ok(None) };
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = host.now()?.since_boot;
        if host.get(probe).await.told().is_none() {
            return Ok(None);
        }
        times.push(host.now()?.since_boot.saturating_sub(begun));
    }
    times.sort_unstable();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(Some(Measurement { memory_mib: number(memory / MIB), latency_milliseconds: number(times[REQUESTS / 2]) }))
}

/// What was measured before the change that `status` tells the success of, if its soak time is over and it is to be measured again.
pub fn due<'a>(object: &NodeTracing, status: &'a NodeTracingStatus, now: jiff::Timestamp) -> Option<&'a Soak> {
    let outcome = status.last_outcome.as_ref().filter(|o| o.result == OutcomeResult::Succeeded)?;
    let grant = object.spec.grant.as_ref().filter(|g| g.id == outcome.grant)?;
    let over = outcome.finished_time.0.checked_add(SignedDuration::from_secs(grant.measured_after?.into())).ok()?;
    status.soak.as_ref().filter(|s| s.grant == outcome.grant && s.before.is_some() && s.after.is_none() && now >= over)
}
