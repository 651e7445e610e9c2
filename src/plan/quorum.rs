//! Whether etcd can spare a member: from what each member says of itself and of its cluster, in its node's report.
//!
//! Where etcd runs elsewhere no node reports a member: kube-apiserver alone is changed, which etcd does not notice, and these gates are open.

use super::observed::ObservedNodeTracing;
use super::report::{NodeReport, Stand, WaitingOn};
use super::rollout::{Situation, unwell_by_us};
use crate::api::ComponentName;
use crate::api::node_tracing::{EtcdMember, MemberHealth, MemberRole};

/// With this many voters or fewer, none can be spared: a majority of two is two.
const NONE_TO_SPARE: usize = 2;

/// The members on the control-plane nodes; `None` where a member has said nothing of itself.
fn members<'a>(s: &Situation<'a>) -> impl Iterator<Item = (&'a NodeReport, Option<&'a EtcdMember>)> {
    let nodes = s.nodes;
    let observed = s.observed;
    nodes.iter().filter_map(move |n| {
        let found: &ObservedNodeTracing = observed.node_tracings.get(&n.name)?;
        found.runs(ComponentName::Etcd).then_some((n, found.status.etcd.as_ref()))
    })
}

/// Members of the cluster: as many as the one that knows most of them counts. Nothing where none says.
fn counted(s: &Situation<'_>) -> Option<usize> {
    members(s).filter_map(|(_, member)| usize::try_from(member?.members?).ok()).max()
}

/// Members that vote.
pub fn voters(s: &Situation<'_>) -> usize {
    let learners = members(s).filter(|(_, member)| member.is_some_and(|m| m.role == Some(MemberRole::Learner))).count();
    counted(s).unwrap_or_else(|| members(s).count()).saturating_sub(learners)
}

/// Whether a node's member leads: it is changed last, so that there is one election and not one for each node.
pub fn leads(s: &Situation<'_>, node: &NodeReport) -> bool {
    let member = s.observed.node_tracings.get(&node.name).and_then(|n| n.status.etcd.as_ref());
    member.is_some_and(|m| m.role == Some(MemberRole::Leader))
}

/// Whether the API is away while these nodes change: there is no other API server to ask, or etcd loses its quorum with one member.
pub fn interrupts_the_api<'a>(s: &Situation<'_>, mut changing: impl Iterator<Item = &'a NodeReport>) -> bool {
    let (alone, none_to_spare) = (s.nodes.len() == 1, voters(s) <= NONE_TO_SPARE);
    changing.any(|node| (alone && restarts_anything(node)) || (none_to_spare && restarts_etcd(node)))
}

/// A change that puts a file's mode right restarts nothing.
fn restarts_anything(node: &NodeReport) -> bool {
    matches!(&node.stand, Stand::Pending { changes } if !changes.is_empty())
}

fn restarts_etcd(node: &NodeReport) -> bool {
    matches!(&node.stand, Stand::Pending { changes } if changes.contains(&ComponentName::Etcd))
}

/// Gate: every member is well, and there is no alarm. One that is unwell by our doing may be mended, if all others are well.
pub fn members_well(s: &Situation<'_>, candidate: &NodeReport) -> Option<WaitingOn> {
    let mended = |node: &NodeReport| node.name == candidate.name && unwell_by_us(s, node);
    members(s).find_map(|(node, member)| match member?.health {
        MemberHealth::Alarm => Some(WaitingOn::EtcdAlarm { node: node.name.clone() }),
        MemberHealth::Unhealthy | MemberHealth::NoLeader if !mended(node) => {
            Some(WaitingOn::EtcdUnhealthy { node: node.name.clone(), health: member?.health })
        }
        _ => None,
    })
}

/// Gate: a change that restarts a member waits until all members are known, are well, and are connected to each other.
pub fn members_known(s: &Situation<'_>, candidate: &NodeReport) -> Option<WaitingOn> {
    if !restarts_etcd(candidate) {
        return None;
    }
    let learner = members(s).find(|(_, member)| member.is_some_and(|m| m.role == Some(MemberRole::Learner)));
    if let Some((node, _)) = learner {
        return Some(WaitingOn::EtcdLearner { node: node.name.clone() });
    }
    let at_risk = |node: &NodeReport, known| WaitingOn::QuorumAtRisk { node: node.name.clone(), known, seen: members(s).count() };
    let dark = |member: Option<&EtcdMember>| member.is_none_or(|m| m.health == MemberHealth::Unknown || m.members.is_none());
    let mended = |node: &NodeReport| node.name == candidate.name && unwell_by_us(s, node);
    if let Some((node, _)) = members(s).find(|(node, member)| dark(*member) && !mended(node)) {
        return Some(at_risk(node, None));
    }
    let known = counted(s)?;
    // What is to be mended is one that the others may miss.
    let missed = i32::from(members(s).any(|(node, member)| mended(node) && member.is_none_or(|m| m.health != MemberHealth::Healthy)));
    members(s).find_map(|(node, member)| {
        let apart =
            !mended(node) && member.is_some_and(|m| m.members.zip(m.connected).is_some_and(|(all, reached)| all - reached > missed));
        (known != members(s).count() || apart).then(|| at_risk(node, Some(known)))
    })
}
