//! What an etcd member tells of itself and of its cluster, without a certificate: paths, metrics, and what they mean.
//!
//! kubeadm gives etcd a plain-HTTP listener for the kubelet's probes (`--listen-metrics-urls`). The same listener serves `/health`, which
//! reads from a quorum and fails on any alarm, and `/metrics`. Names and forms were looked at on 3.5.6, 3.5.24, 3.6.16 and 3.7.3, and
//! `tests/members.rs` looks at them again.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::api::node_tracing::{EtcdMember, MemberHealth, MemberRole};
use crate::manifest::Probe;

/// Milliseconds between two readings of the metrics that tell members that are down or were removed from others (see
/// `Metrics::connected`). A member sends to each that it is connected to every 5/3 s at the latest (rafthttp's `ConnReadTimeout / 3`); a
/// leader every 100 ms (`--heartbeat-interval`).
pub const READ_AGAIN_AFTER: u64 = 2_000;

/// Where a member tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Whether it is well.
    pub health: Probe,
    /// Gauges and counters.
    pub metrics: Probe,
}

impl Endpoints {
    /// On the listener of the member's own plain-HTTP probes, if it has any.
    pub fn beside(probes: &[Probe]) -> Option<Self> {
        let probe = probes.iter().find(|p| p.scheme.eq_ignore_ascii_case("http"))?;
        let at = |path: &str| Probe { path: path.to_owned(), ..probe.clone() };
        Some(Self { health: at("/health"), metrics: at("/metrics") })
    }
}

/// The body of `/health`: `{"health":"false","reason":"ALARM NOSPACE"}`, with status 503 unless it is true.
#[derive(Deserialize)]
struct Health {
    health: String,
    #[serde(default)]
    reason: String,
}

/// What `/health` says. `answer`: status and body, if there was an answer at all.
pub fn health(answer: Option<(u16, &str)>) -> MemberHealth {
    let Some((_, body)) = answer else { return MemberHealth::Unhealthy };
    match serde_json::from_str::<Health>(body) {
        Err(_) => MemberHealth::Unknown,
        Ok(Health { health, .. }) if health == "true" => MemberHealth::Healthy,
        Ok(Health { reason, .. }) if reason.starts_with("ALARM") => MemberHealth::Alarm,
        Ok(Health { reason, .. }) if reason == "RAFT NO LEADER" => MemberHealth::NoLeader,
        Ok(_) => MemberHealth::Unhealthy,
    }
}

/// What of `/metrics` matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    leads: bool,
    learns: bool,
    has_leader: bool,
    /// Members, this one and learners included. Only etcd 3.6 and later say.
    known: Option<BTreeSet<String>>,
    /// Members that this one says it is connected to. One that was removed may stay among them until this one is started again: rafthttp
    /// passes over the end of a connection that it closed itself.
    active: BTreeSet<String>,
    /// Bytes sent to each member.
    sent: BTreeMap<String, f64>,
    /// How often sending to each member failed.
    failures: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads the text format of Prometheus; `None` when it holds nothing of an etcd member.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut metrics, mut is_member) = (Self::default(), false);
        for (name, labels, value) in text.lines().filter_map(sample) {
            let is_one = value == "1";
            let peer = |key| label(labels, key).map(str::to_owned);
            // a counter is a float: 1e+06 and more have an exponent
            let count = |key| Some((peer(key)?, value.parse().ok()?));
            match name {
                "etcd_server_has_leader" => (metrics.has_leader, is_member) = (is_one, true),
                "etcd_server_is_leader" => metrics.leads = is_one,
                "etcd_server_is_learner" => metrics.learns = is_one,
                // A member that was removed stays in the list, as 0.
                "etcd_network_known_peers" => metrics.known.get_or_insert_default().extend(peer("Remote").filter(|_| is_one)),
                "etcd_network_active_peers" if is_one => metrics.active.extend(peer("Remote")),
                "etcd_network_peer_sent_bytes_total" => metrics.sent.extend(count("To")),
                "etcd_network_peer_sent_failures_total" => metrics.failures.extend(count("To")),
                _ => {}
            }
        }
        is_member.then_some(metrics)
    }

    /// Whether one reading does not tell how many members there are, and a second one ([`READ_AGAIN_AFTER`]) does: with etcd 3.5, unless
    /// it is alone.
    pub fn should_be_read_again(&self) -> bool {
        self.known.is_none() && !(self.active.is_empty() && self.failures.is_empty())
    }

    /// What it is among the members.
    fn role(&self) -> Option<MemberRole> {
        match self {
            Self { learns: true, .. } => Some(MemberRole::Learner),
            Self { leads: true, .. } => Some(MemberRole::Leader),
            Self { has_leader: true, .. } => Some(MemberRole::Follower),
            _ => None,
        }
    }

    /// The others that it is connected to: of those that it says, without such as were removed. etcd 3.5 does not say which were: there
    /// they are those that it sends to no more.
    fn connected<'a>(&'a self, earlier: Option<&Self>) -> impl Iterator<Item = &'a String> {
        self.active.iter().filter(move |peer| match (&self.known, earlier) {
            (Some(known), _) => known.contains(*peer),
            (None, Some(earlier)) => grew(&earlier.sent, &self.sent, peer),
            (None, None) => true,
        })
    }

    /// How many members there are. etcd 3.5 does not say: there it is this one, those that it is connected to, and (the leader knows)
    /// those that it goes on sending to in vain, as it does not to one that was removed.
    fn members(&self, earlier: Option<&Self>) -> usize {
        let in_vain = |peer: &&String| !self.active.contains(*peer) && earlier.is_some_and(|e| grew(&e.failures, &self.failures, peer));
        let counted = || 1 + self.connected(earlier).count() + self.failures.keys().filter(in_vain).count();
        self.known.as_ref().map_or_else(counted, BTreeSet::len)
    }
}

/// Whether a peer's counter grew between two readings.
fn grew(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, peer: &str) -> bool {
    after.get(peer).is_some_and(|after| *after > before.get(peer).copied().unwrap_or(0.0))
}

/// What is reported of a member. `earlier` is a reading [`READ_AGAIN_AFTER`] before `metrics`.
pub fn member(health: MemberHealth, earlier: Option<&Metrics>, metrics: Option<&Metrics>) -> EtcdMember {
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    EtcdMember {
        health,
        role: metrics.and_then(Metrics::role),
        members: metrics.map(|m| number(m.members(earlier))),
        connected: metrics.map(|m| number(1 + m.connected(earlier).count())),
    }
}

/// `name{labels} value`; comments and names without the prefix of etcd are passed over.
fn sample(line: &str) -> Option<(&str, &str, &str)> {
    let (series, value) = line.strip_prefix("etcd_").and_then(|_| line.rsplit_once(' '))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name, labels.trim_end_matches('}'), value))
}

/// The value of a label; etcd's are hexadecimal, so that nothing is escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let pair = |pair: &'a str| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'));
    labels.split(',').find_map(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoints_are_on_the_plain_listener_of_the_members_own_probes() {
        let probe = |scheme: &str, path: &str| Probe { scheme: scheme.into(), host: "127.0.0.1".into(), port: 2381, path: path.into() };
        let endpoints = Endpoints::beside(&[probe("HTTPS", "/x"), probe("HTTP", "/livez")]).unwrap();
        assert_eq!((endpoints.health, endpoints.metrics), (probe("HTTP", "/health"), probe("HTTP", "/metrics")));
        assert_eq!(Endpoints::beside(&[probe("HTTPS", "/livez")]), None);
    }

    #[test]
    fn health_is_what_the_member_says_of_the_quorum_and_of_alarms() {
        for (answer, expected) in [
            (Some((200, r#"{"health":"true","reason":""}"#)), MemberHealth::Healthy),
            (Some((200, r#"{"health":"true"}"#)), MemberHealth::Healthy),
            (Some((503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#)), MemberHealth::Alarm),
            (Some((503, r#"{"health":"false","reason":"ALARM CORRUPT"}"#)), MemberHealth::Alarm),
            (Some((503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#)), MemberHealth::NoLeader),
            (Some((503, r#"{"health":"false","reason":"QGET ERROR:etcdserver: request timed out"}"#)), MemberHealth::Unhealthy),
            (Some((404, "404 page not found")), MemberHealth::Unknown),
            (None, MemberHealth::Unhealthy),
        ] {
            assert_eq!(health(answer), expected, "{answer:?}");
        }
    }

    fn mk_metrics(text: &str) -> Metrics {
        Metrics::parse(text).unwrap()
    }

    const FOLLOWER: &str = "# HELP etcd_server_has_leader x\netcd_server_has_leader 1\netcd_server_is_leader 0\netcd_server_is_learner 0\n";
    const LEADER: &str = "etcd_server_has_leader 1\netcd_server_is_leader 1\netcd_server_is_learner 0\n";

    #[test]
    fn roles() {
        let role = |text: &str| mk_metrics(text).role();
        assert_eq!(role(FOLLOWER), Some(MemberRole::Follower));
        assert_eq!(role(LEADER), Some(MemberRole::Leader));
        assert_eq!(role("etcd_server_has_leader 1\netcd_server_is_learner 1\n"), Some(MemberRole::Learner));
        assert_eq!(role("etcd_server_has_leader 0\netcd_server_is_leader 0\n"), None);
        assert_eq!(Metrics::parse("go_goroutines 7\n<html>"), None);
    }

    /// One sample of each named series, of this peer.
    fn mk_peer(peer: &str, samples: &[(&str, &str)]) -> String {
        let line = |(name, value): &(&str, &str)| {
            let label = if *name == "known_peers" || *name == "active_peers" { "Local=\"a\",Remote" } else { "To" };
            format!("etcd_network_{name}{{{label}=\"{peer}\"}} {value}\n")
        };
        samples.iter().map(line).collect()
    }

    #[test]
    fn members_are_those_that_3_6_knows_without_those_that_were_removed() {
        let known = |peer: &str, value: &str| mk_peer(peer, &[("known_peers", value)]);
        let metrics = mk_metrics(&format!("{FOLLOWER}{}{}{}", known("a", "1"), known("b", "1"), known("c", "0")));
        assert!(!metrics.should_be_read_again());
        assert_eq!(metrics.members(None), 2);
    }

    #[test]
    fn a_member_that_was_removed_and_is_still_said_to_be_connected_does_not_hide_one_that_is_not() {
        let peer = |peer: &str, known: &str, active: &str| mk_peer(peer, &[("known_peers", known), ("active_peers", active)]);
        let text = format!("{LEADER}{}{}{}", mk_peer("a", &[("known_peers", "1")]), peer("b", "1", "0"), peer("removed", "0", "1"));
        let report = member(MemberHealth::Healthy, None, Some(&mk_metrics(&text)));
        assert_eq!((report.members, report.connected), (Some(2), Some(1)));
    }

    #[test]
    fn the_leader_of_3_5_counts_a_member_that_is_down_and_not_one_that_was_removed() {
        let peer = |peer: &str, active: &str, failures: &str| {
            mk_peer(peer, &[("active_peers", active), ("peer_sent_bytes_total", failures), ("peer_sent_failures_total", failures)])
        };
        for (before, after) in [("27", "37"), ("999995", "1.000005e+06"), ("1.000005e+06", "1.000015e+06")] {
            let text = |n: &str| format!("{LEADER}{}{}{}", peer("b", "0", n), peer("c", "0", "5"), peer("d", "1", n));
            let (first, second) = (mk_metrics(&text(before)), mk_metrics(&text(after)));
            assert!(first.should_be_read_again());
            assert_eq!((first.members(None), second.members(Some(&first))), (2, 3), "a, d, and b in vain; c was removed");
        }
    }

    #[test]
    fn a_member_of_3_5_counts_none_that_was_removed_and_is_still_said_to_be_connected() {
        let peer = |peer: &str, sent: &str| mk_peer(peer, &[("active_peers", "1"), ("peer_sent_bytes_total", sent)]);
        let text = |b: &str, c: &str, removed: &str| format!("{FOLLOWER}{}{}{}", peer("b", b), peer("c", c), peer("removed", removed));
        let (first, second) = (mk_metrics(&text("1.5e+06", "70", "70")), mk_metrics(&text("1.500004e+06", "74", "70")));
        assert!(first.should_be_read_again());
        let report = member(MemberHealth::Healthy, Some(&first), Some(&second));
        assert_eq!((report.members, report.connected), (Some(3), Some(3)));
    }

    #[test]
    fn a_member_of_3_5_that_is_alone_is_read_once() {
        assert!(!mk_metrics(LEADER).should_be_read_again());
    }
}
