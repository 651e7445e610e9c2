//! The last check of settings before they become flags of the cluster's most powerful processes.
//!
//! The resource's own rules have refused all this already. It is checked again as if it came from an enemy, because a stolen
//! token or a corrupted field reaches the agent past those rules. Only what is used is checked: a component that is off has no rate.

use std::net::Ipv6Addr;

use crate::api::node_tracing::{ComponentSettings, NodeSettings};
use crate::api::{ComponentName, State};

/// A setting that is refused: whose it is, and what is wrong with it.
pub(super) type Invalid = (ComponentName, String);

/// Highest sampling rate: every request.
const MILLION: i32 = 1_000_000;
/// Longest grace for open watches, in seconds. The kubelet kills long before it.
const LONGEST_GRACE: i32 = 3600;

/// Checks every setting that the edits will use.
pub(super) fn check(settings: &NodeSettings, node_name: &str) -> Result<(), Invalid> {
    let enabled = |of: &ComponentSettings| of.state == State::Enabled;
    if enabled(&settings.kube_api_server) {
        let invalid = |problem| (ComponentName::KubeApiserver, problem);
        check_endpoint(&settings.endpoint).map_err(invalid)?;
        check_rate(settings.kube_api_server.sampling_rate_per_million).map_err(invalid)?;
        if !(0..=LONGEST_GRACE).contains(&settings.watch_termination_grace_seconds) {
            let problem =
                format!("watchTerminationGraceSeconds {} is not within 0..{LONGEST_GRACE}", settings.watch_termination_grace_seconds);
            return Err(invalid(problem));
        }
    }
    if enabled(&settings.etcd) {
        let invalid = |problem| (ComponentName::Etcd, problem);
        check_endpoint(&settings.endpoint).map_err(invalid)?;
        check_rate(settings.etcd.sampling_rate_per_million).map_err(invalid)?;
        if !is_dns_name(node_name) {
            return Err(invalid(format!("the node's name {node_name:?} is not a name that Kubernetes gives to nodes")));
        }
    }
    Ok(())
}

fn check_rate(rate: i32) -> Result<(), String> {
    if (0..=MILLION).contains(&rate) { Ok(()) } else { Err(format!("samplingRatePerMillion {rate} is not within 0..{MILLION}")) }
}

/// `host:port`, nothing else: no scheme, no white space, no `$` (the kubelet expands `$(NAME)` in arguments), no comma.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let problem = |what: &str| Err(format!("the endpoint {endpoint:?} {what}"));
    let Some((host, port)) = endpoint.rsplit_once(':') else { return problem("must be host:port") };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if !digits || port.starts_with('0') || port.parse::<u16>().is_err() {
        return problem("has no port within 1..65535");
    }
    let link_local = if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let Ok(address) = address.parse::<Ipv6Addr>() else { return problem("has no IPv6 address between its brackets") };
        address.is_unicast_link_local() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_link_local())
    } else {
        if !is_dns_name(&host.to_ascii_lowercase()) {
            return problem("must be host:port without a scheme");
        }
        host.starts_with("169.254.")
    };
    if link_local { problem("is link-local: such addresses reach cloud metadata services") } else { Ok(()) }
}

/// Lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit: the name of a node, a host or an IPv4 address.
pub(super) fn is_dns_name(name: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 253
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_host_and_port_and_nothing_else() {
        for good in ["127.0.0.1:4317", "localhost:4317", "10.96.0.20:1", "Collector-1.example.org:65535", "[::1]:4317", "[fd00::1]:4317"] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":",
            ":4317",
            "localhost",
            "localhost:",
            "localhost:0",
            "localhost:04317",
            "localhost:65536",
            "localhost:+1",
            "http://localhost:4317",
            "dns:localhost:4317",
            "unix:///run/otel.sock",
            "::1:4317",
            "[::1:4317",
            "[::1%eth0]:4317",
            "[localhost]:4317",
            "a b:4317",
            "a\n--anonymous-auth=true:4317",
            "$(POD_IP):4317",
            "a,b:4317",
            "\"a\":4317",
            "a#b:4317",
            "-a:4317",
            "a.:4317",
            "ä:4317",
            "a\0:4317",
            "169.254.169.254:80",
            "[fe80::1]:4317",
            "[::ffff:169.254.169.254]:80",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad:?}");
        }
        assert!(check_endpoint(&format!("{}:4317", "a".repeat(254))).is_err());
    }

    fn settings() -> NodeSettings {
        let enabled = |rate| ComponentSettings { state: State::Enabled, sampling_rate_per_million: rate };
        NodeSettings {
            endpoint: "127.0.0.1:4317".to_owned(),
            receiver: crate::api::node_tracing::ReceiverKind::NodeCollector,
            kube_api_server: enabled(10_000),
            etcd: enabled(0),
            watch_termination_grace_seconds: 0,
            health_timeout_seconds: 120,
        }
    }

    #[test]
    fn each_setting_is_checked_and_the_component_named() {
        type Set = fn(&mut NodeSettings);
        let cases: [(Set, ComponentName); 6] = [
            (|s| s.endpoint = "http://a:1".to_owned(), ComponentName::KubeApiserver),
            (|s| s.kube_api_server.sampling_rate_per_million = 1_000_001, ComponentName::KubeApiserver),
            (|s| s.kube_api_server.sampling_rate_per_million = -1, ComponentName::KubeApiserver),
            (|s| s.etcd.sampling_rate_per_million = -1, ComponentName::Etcd),
            (|s| s.watch_termination_grace_seconds = -1, ComponentName::KubeApiserver),
            (|s| s.watch_termination_grace_seconds = 3601, ComponentName::KubeApiserver),
        ];
        for (case, (set, component)) in cases.into_iter().enumerate() {
            let mut hostile = settings();
            set(&mut hostile);
            assert_eq!(check(&hostile, "cp-1").map_err(|(whose, _)| whose), Err(component), "case {case}");
        }
        assert_eq!(check(&settings(), "cp-1"), Ok(()));
    }

    #[test]
    fn a_node_name_becomes_a_flag_and_is_checked_as_one() {
        for bad in ["", "cp-1 --force-new-cluster", "CP1", "$(HOSTNAME)", "../cp", "cp\n"] {
            assert!(check(&settings(), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_off_is_not_checked() {
        let mut off = settings();
        off.endpoint = String::new();
        off.kube_api_server = ComponentSettings { state: State::Disabled, sampling_rate_per_million: -1 };
        off.etcd = off.kube_api_server.clone();
        assert_eq!(check(&off, ""), Ok(()));
    }
}
