//! The verdicts in one condition: status, reason, and words for people that name instances, hop and the next command.
//!
//! Instances with the same answer are told together. Nothing here changes with the time.

use std::collections::BTreeMap;

use super::wait::in_words;
use super::{Aim, Break, Cause, Doubt, Expected, ExpectedGateway, Member, NoProbe, Verdict};
use crate::api::{ComponentName, Reason};
use crate::plan::collector;

/// Where each reason is explained.
const HELP: &str = "docs/spans-flowing.md";

pub(super) fn summary(expected: &Expected, verdicts: &BTreeMap<Member, Verdict>) -> (Option<bool>, Reason, String) {
    if let Some(answer) = expected.aim.answer() {
        return answer;
    }
    if verdicts.is_empty() {
        return (None, Reason::WaitingForSpans, "no component is traced yet; condition Ready says why".to_owned());
    }
    let broken = grouped(verdicts, |verdict| match verdict {
        Verdict::Broken(broken) => Some(broken),
        _ => None,
    });
    if let Some(first) = broken.keys().next() {
        return (Some(false), first.reason(), sentences(broken.iter().map(|(broken, members)| broken.words(members, expected))));
    }
    let unknown = grouped(verdicts, |verdict| match verdict {
        Verdict::Unknown(doubt) => Some(doubt),
        _ => None,
    });
    if let Some(first) = unknown.keys().next() {
        return (None, first.reason(), sentences(unknown.iter().map(|(doubt, members)| doubt.words(members, expected))));
    }
    let count = verdicts.len();
    if expected.exporters.is_empty() {
        let message = format!(
            "spans of all {count} instances arrive at the operator's trace store, and go nowhere else, because no exporter is configured \
             (spec.collector.exporters)"
        );
        return (Some(true), Reason::StoreOnly, message);
    }
    (
        Some(true),
        Reason::SpansFlowing,
        match &expected.gateway {
            None => format!("spans of all {count} instances arrive, and are sent on to {}", expected.exporters.join(", ")),
            Some(ExpectedGateway { exporters, chooses }) => format!(
                "spans of all {count} instances arrive, and {} sent on to {} by the gateway",
                if *chooses { "those of chosen traces are" } else { "are" },
                exporters.join(", ")
            ),
        },
    )
}

impl Aim {
    /// What is to be said where no spans come to the operator's collectors.
    pub fn answer(&self) -> Option<(Option<bool>, Reason, String)> {
        match self {
            Self::Nowhere => Some((Some(false), Reason::Disabled, "nothing is to be traced, so that no spans are expected".to_owned())),
            Self::External(endpoint) => {
                let message = format!("spans go to {endpoint} and not through the operator's collectors: ask there whether they arrive");
                Some((None, Reason::ExternalEndpoint, message))
            }
            Self::Collectors => None,
        }
    }
}

/// Instances by what is to be told of them.
fn grouped<T: Ord>(verdicts: &BTreeMap<Member, Verdict>, told: impl Fn(&Verdict) -> Option<&T>) -> BTreeMap<&T, Vec<&Member>> {
    let mut groups: BTreeMap<&T, Vec<&Member>> = BTreeMap::new();
    for (member, verdict) in verdicts {
        if let Some(told) = told(verdict) {
            groups.entry(told).or_default().push(member);
        }
    }
    groups
}

fn sentences(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join("; ")
}

/// `kube-apiserver on cp1, cp2 and etcd on cp1`.
fn names(members: &[&Member]) -> String {
    let mut by_component: BTreeMap<ComponentName, Vec<&str>> = BTreeMap::new();
    for member in members {
        by_component.entry(member.component).or_default().push(&member.node);
    }
    let named = by_component.iter().map(|(component, nodes)| format!("{component} on {}", nodes.join(", ")));
    named.collect::<Vec<_>>().join(" and ")
}

fn nodes(members: &[&Member]) -> String {
    let mut nodes: Vec<_> = members.iter().map(|member| member.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.join(", ")
}

/// The command that shows the collectors' pods, or their logs.
fn collectors(verb: &str, expected: &Expected) -> String {
    format!("kubectl -n {} {verb} -l app.kubernetes.io/component=collector", expected.namespace)
}

impl Break {
    fn words(&self, members: &[&Member], expected: &Expected) -> String {
        let names = names(members);
        match self {
            Self::CollectorSilent { ready: false } => format!(
                "no spans of {names} arrive, and the collector on {} is not Ready and tells nothing; see its pods: {} -o wide",
                nodes(members),
                collectors("get pods", expected)
            ),
            Self::CollectorSilent { ready: true } => format!(
                "no spans of {names} arrive, and the collector on {} tells nothing although it is Ready: does a NetworkPolicy keep it from \
                 Service {}/clustertracing-store, port 4317? {}",
                nodes(members),
                expected.namespace,
                collectors("logs --tail=20", expected)
            ),
            Self::NoSpans => {
                let first = members.first().map(|member| format!("{}-{}", member.component, member.node)).unwrap_or_default();
                format!(
                    "no spans of {names} reach the collector of the node, which runs ({} -> collector); see what the exporter says: \
                     kubectl -n kube-system logs {first} | grep -i export",
                    senders(members)
                )
            }
            Self::CollectorRefusing => format!(
                "the collector on {} refuses spans of {names} ({} -> collector), as it does at its memory limit; give it more with \
                 spec.collector.resources, or see: {}",
                nodes(members),
                senders(members),
                collectors("logs --tail=20", expected)
            ),
            Self::Exporter { name, cause, of_gateway } => {
                let what = match cause {
                    Cause::QueueFull => "has a full queue and drops spans",
                    Cause::Failed => "gives spans up, because the back end refuses them or does not answer",
                    Cause::NothingSent => "has spans and sends none",
                };
                if *of_gateway {
                    return format!(
                        "exporter {name} of the gateway {what} (gateway -> back end): spans of {names} do not arrive there; see: kubectl -n {} \
                         logs --tail=20 -l {}",
                        expected.namespace,
                        collector::GATEWAY_SELECTOR
                    );
                }
                let hop = if expected.gateway.is_some() { "collector -> gateway" } else { "collector -> back end" };
                format!(
                    "exporter {name} on {} {what} ({hop}): spans of {names} do not arrive there; see: {}",
                    nodes(members),
                    collectors("logs --tail=20", expected)
                )
            }
        }
    }
}

fn senders(members: &[&Member]) -> String {
    let mut senders: Vec<_> = members.iter().map(|member| member.component.as_str()).collect();
    senders.sort_unstable();
    senders.dedup();
    senders.join(", ")
}

impl Doubt {
    fn words(&self, members: &[&Member], expected: &Expected) -> String {
        let (names, nodes) = (names(members), nodes(members));
        match self {
            Self::Changing => format!("{names}: being changed, or about to be; follow it: kubectl get nodetracings -w"),
            Self::NodeNotReady => format!("{names}: the node is not Ready; see: kubectl describe nodes {}", nodes.replace(',', "")),
            Self::Unhealthy => format!("{names}: not well; see: kubectl -n kube-system get pods -l tier=control-plane -o wide"),
            Self::CollectorRolling => format!(
                "{names}: the collector on {nodes} is started with a new configuration; see its pods: {} -o wide",
                collectors("get pods", expected)
            ),
            Self::NoIdentity => format!(
                "{names}: by which id its spans are told is not known, because no identity Lease of its host is kept or may be read; see: \
                 kubectl -n kube-system get leases -L kubernetes.io/hostname"
            ),
            Self::ProbeOff(off) => format!(
                "{names}: nothing is sampled at this rate but the operator's own probe, and that is off: {off}; see {HELP}, or raise \
                 spec.samplingRatePerMillion"
            ),
            Self::NotSampled(because) => format!(
                "{names}: nothing is sampled at this rate, and there is no probe, because {}; raise spec.samplingRatePerMillion to have it proved",
                because.words()
            ),
            Self::Wait { within, because } => format!(
                "{names}: a span has to come within {} at this sampling rate and the least traffic that a component has ({HELP}), and no probe makes it sooner, because {}",
                in_words(*within),
                because.words()
            ),
            Self::Starting => format!("{names}: began a moment ago; spans are expected within a minute"),
            Self::Uncounted => format!(
                "{names}: spans arrive at the trace store, and the collector on {nodes} has not told yet whether they are sent on; see: {}",
                collectors("logs --tail=20", expected)
            ),
        }
    }
}

impl NoProbe {
    fn words(&self) -> String {
        match self {
            Self::Disabled => "it is Disabled (spec.probe.state, or the installation's)".to_owned(),
            Self::Version(version) => format!("kube-apiserver {version} traces no request on demand (1.33 or later does)"),
            Self::ApiServerNotTraced => "it goes through kube-apiserver, which is not traced".to_owned(),
            Self::Off(off) => off.to_string(),
            Self::NotAnswered => "the API server does not answer it".to_owned(),
        }
    }
}
