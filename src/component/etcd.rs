//! etcd: flags whose names differ by version, and versions that cannot do what is asked.

use super::version::Version;
use super::{Addition, Fault, Obstacle, Wanted, obstacle};
use crate::api::Reason;
use crate::api::node_tracing::NodeSettings;
use crate::manifest::config::Extras;
use crate::manifest::{Edit, Manifest};

/// A file that makes etcd ignore every flag.
const CONFIG_FILE: &str = "config-file";
/// The member's name. kubeadm makes it the node's.
const NAME: &str = "name";
/// Part of the name of every tracing flag of every version, and of no other flag.
const MARK: &str = "distributed-tracing";

/// Names of the flags. The service's name is left at its default, `etcd`: it is what people look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    /// Switches tracing on.
    pub(super) enable: &'static str,
    /// `host:port` of the collector.
    pub(super) address: &'static str,
    /// Tells the members apart: spans carry it as `service.instance.id`.
    pub(super) instance_id: &'static str,
    /// Requests per million that are traced although they arrive without a trace. Without the flag none are.
    pub(super) sampling_rate: Option<&'static str>,
}

/// What is true of a version and all later ones, up to the next row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) since: Version,
    /// The flags, or why this version is not traced.
    pub(super) tracing: Result<Flags, &'static str>,
}

const EXPERIMENTAL: Flags = Flags {
    enable: "experimental-enable-distributed-tracing",
    address: "experimental-distributed-tracing-address",
    instance_id: "experimental-distributed-tracing-instance-id",
    sampling_rate: Some("experimental-distributed-tracing-sampling-rate"),
};
const STABLE: Flags = Flags {
    enable: "enable-distributed-tracing",
    address: "distributed-tracing-address",
    instance_id: "distributed-tracing-instance-id",
    sampling_rate: Some("distributed-tracing-sampling-rate"),
};

/// Everything that differs by version. Above the last row, the last one is believed, and the change is verified like every other.
#[rustfmt::skip]
pub(super) static TABLE: &[Row] = &[
    Row { since: Version::new(0, 0, 0),  tracing: Err("has no tracing") },
    Row { since: Version::new(3, 5, 0),  tracing: Err("traces every request, whatever rate is asked for, and leaks memory as long as it does") },
    Row { since: Version::new(3, 5, 5),  tracing: Ok(Flags { sampling_rate: None, ..EXPERIMENTAL }) },
    Row { since: Version::new(3, 5, 11), tracing: Ok(EXPERIMENTAL) },
    // Since 3.6 both families are known, since 3.7 this one alone: what is written on 3.6 survives the upgrade to 3.7.
    Row { since: Version::new(3, 6, 0),  tracing: Ok(STABLE) },
];

/// The newest minor version that the table is known to be right for.
pub(super) const NEWEST_KNOWN: Version = Version::new(3, 7, 0);

/// Known faults: this one is in the library that tracing switches on. etcd's clients have certificates, so it is told and not refused.
#[rustfmt::skip]
pub(super) static FAULTS: &[Fault] = &[
    Fault { from: Version::new(3, 5, 5), fixed_in: Version::new(3, 5, 11), what: "has CVE-2023-47108: a client can exhaust its memory through the tracing library" },
];

/// Environment of the exporter in etcd: milliseconds that a batch may take. 3.7 waits for its last batch before it ends: 10 s with the
/// exporter's default, when the collector is dead. Earlier versions do not wait.
pub(super) static ENV: &[(&str, &str)] = &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")];

/// The least that a start takes besides the flags of a change: a folder of its own. Its addresses are on the loopback by default.
pub(super) static ALONE: &[(&str, &str)] = &[("data-dir", "/tmp/etcd")];

/// Tracing flags that are set, on the command line or as variables.
pub(super) fn tracing_flags(manifest: &Manifest) -> Vec<String> {
    let flags = manifest.flag_names().into_iter().filter(|name| name.contains(MARK)).map(|name| format!("--{name}"));
    let variables = manifest.env_names().into_iter().filter(|name| flag_of(name).is_some_and(|flag| flag.contains(MARK)));
    flags.chain(variables).collect()
}

/// The name that the member gives itself.
pub(super) fn member_name(manifest: &Manifest) -> Option<String> {
    manifest.flag(NAME).pop()
}

/// The flag that an environment variable sets: etcd reads each of its flags from one.
fn flag_of(variable: &str) -> Option<String> {
    Some(variable.strip_prefix("ETCD_")?.to_ascii_lowercase().replace('_', "-"))
}

/// Whether a flag in kubeadm's configuration is about tracing.
pub(super) fn is_about_tracing(flag: &str) -> bool {
    flag.contains(MARK)
}

/// What kubeadm is asked to give every etcd that it makes a manifest for, or why it is not. The instance id is each member's own: the
/// agent adds it to the manifest, as one more change of one node.
pub(super) fn extras(version: Version, settings: &NodeSettings) -> Result<Extras, String> {
    // 3.6 came with names that later versions keep. Those of 3.5 are unknown to 3.7, which does not start with them.
    let row = super::row(TABLE, |row| row.since, version).filter(|row| row.tracing == Ok(STABLE));
    row.ok_or_else(|| format!("etcd {version} has no flags that later versions accept too"))?;
    let rate = settings.etcd.sampling_rate_per_million;
    let mut args = vec![(STABLE.enable, "true".to_owned()), (STABLE.address, settings.endpoint.clone())];
    args.extend(STABLE.sampling_rate.map(|name| (name, rate.to_string())));
    let envs = ENV.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    Ok(Extras { args, envs, volumes: Vec::new() })
}

/// What makes `manifest`, which carries nothing of ours, trace as wanted.
pub(super) fn addition(wanted: &Wanted, manifest: &Manifest) -> Result<Addition, Obstacle> {
    let variables = manifest.env_names();
    let config_file = manifest.flag_names().iter().any(|name| name == CONFIG_FILE);
    if config_file || variables.iter().any(|name| flag_of(name).as_deref() == Some(CONFIG_FILE)) {
        return Err(Obstacle {
            reason: Reason::UnsupportedManifest,
            cause: format!("etcd reads --{CONFIG_FILE} here, and ignores every flag beside it"),
            remedy: "set tracing in that file by hand".to_owned(),
        });
    }
    let flags = flags(wanted)?;
    let mut edit = Edit {
        flags: vec![
            (flags.enable.to_owned(), "true".to_owned()),
            (flags.address.to_owned(), wanted.settings.endpoint.clone()),
            (flags.instance_id.to_owned(), wanted.node_name.to_owned()),
        ],
        env: super::owned(ENV),
        ..Edit::default()
    };
    if let Some(sampling_rate) = flags.sampling_rate {
        edit.flags.push((sampling_rate.to_owned(), wanted.rate.to_string()));
    }
    Ok(Addition { edit, needs: Vec::new(), warnings: Vec::new() })
}

/// The flags of the wanted version, or why it cannot do what is asked.
fn flags(wanted: &Wanted) -> Result<Flags, Obstacle> {
    let (version, rate) = (wanted.version, wanted.rate);
    let refused = |cause: String, remedy: String| Obstacle { reason: Reason::UnsupportedVersion, cause, remedy };
    let row = super::row(TABLE, |row| row.since, version).expect("the first row begins at 0.0.0");
    let flags = row.tracing.map_err(|why| {
        let first = first_with(|_| true);
        refused(format!("etcd {version} {why}"), format!("upgrade etcd to {first} or later"))
    })?;
    if flags.sampling_rate.is_none() && rate != 0 {
        let first = first_with(|flags| flags.sampling_rate.is_some());
        return Err(refused(
            format!("etcd {version} has no sampling rate of its own, and {rate} per million are asked for"),
            format!(
                "upgrade etcd to {first} or later, or trace it under sampled API requests only: {}",
                obstacle::patch(r#"{"etcd":{"samplingRatePerMillion":0}}"#)
            ),
        ));
    }
    Ok(flags)
}

/// The first version that is traced by flags that can do something.
fn first_with(can: impl Fn(&Flags) -> bool) -> Version {
    let row = TABLE.iter().find(|row| row.tracing.as_ref().is_ok_and(&can));
    row.expect("the table ends with flags that can do everything").since
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::State;
    use crate::api::node_tracing::ComponentSettings;

    /// What etcd of a version can do.
    #[derive(Debug, PartialEq, Eq)]
    enum Can {
        Nothing,
        FollowSampledRequests,
        Sample(&'static str),
    }

    fn can(version: Version) -> Can {
        let component = |rate| ComponentSettings { state: State::Enabled, sampling_rate_per_million: rate };
        let settings = NodeSettings {
            endpoint: "127.0.0.1:4317".to_owned(),
            receiver: crate::api::node_tracing::ReceiverKind::NodeCollector,
            kube_api_server: component(0),
            etcd: component(0),
            watch_termination_grace_seconds: 0,
            health_timeout_seconds: 120,
        };
        let at = |rate| flags(&Wanted { version, rate, settings: &settings, node_name: "cp-1" });
        match (at(0), at(1_000)) {
            (Err(_), Err(_)) => Can::Nothing,
            (Ok(_), Err(_)) => Can::FollowSampledRequests,
            (Ok(_), Ok(flags)) => Can::Sample(flags.sampling_rate.unwrap()),
            (Err(_), Ok(_)) => unreachable!("more is possible at a higher rate"),
        }
    }

    const FOLLOW: Can = Can::FollowSampledRequests;
    const EXPERIMENTAL_FLAG: Can = Can::Sample("experimental-distributed-tracing-sampling-rate");
    const STABLE_FLAG: Can = Can::Sample("distributed-tracing-sampling-rate");

    #[test]
    fn flags_are_named_by_the_version_of_etcd() {
        for (version, expected) in [
            ("3.4.37", Can::Nothing),
            ("3.5.0", Can::Nothing),
            ("3.5.4", Can::Nothing),
            ("3.5.5", FOLLOW),
            ("3.5.10", FOLLOW),
            ("3.5.11", EXPERIMENTAL_FLAG),
            ("3.5.99", EXPERIMENTAL_FLAG),
            ("3.6.0-rc.0", STABLE_FLAG),
            ("3.6.16", STABLE_FLAG),
            ("3.7.0", STABLE_FLAG),
            ("3.7.3", STABLE_FLAG),
            ("3.8.0", STABLE_FLAG),
            ("4.0.0", STABLE_FLAG),
        ] {
            assert_eq!(can(version.parse().unwrap()), expected, "etcd {version}");
        }
    }

    /// The images that kubeadm names by default, by its release.
    #[rustfmt::skip]
    #[test]
    fn every_etcd_that_kubeadm_ships_is_traced_or_refused_with_a_reason() {
        for (kubernetes, shipped) in [
            ("1.22", &[("3.5.0-0", Can::Nothing), ("3.5.6-0", FOLLOW)][..]),
            ("1.23", &[("3.5.1-0", Can::Nothing), ("3.5.5-0", FOLLOW), ("3.5.6-0", FOLLOW)]),
            ("1.24", &[("3.5.3-0", Can::Nothing), ("3.5.5-0", FOLLOW), ("3.5.6-0", FOLLOW)]),
            ("1.25", &[("3.5.4-0", Can::Nothing), ("3.5.5-0", FOLLOW), ("3.5.9-0", FOLLOW)]),
            ("1.26", &[("3.5.6-0", FOLLOW), ("3.5.9-0", FOLLOW), ("3.5.10-0", FOLLOW)]),
            ("1.27", &[("3.5.7-0", FOLLOW), ("3.5.9-0", FOLLOW), ("3.5.10-0", FOLLOW), ("3.5.12-0", EXPERIMENTAL_FLAG)]),
            ("1.28", &[("3.5.9-0", FOLLOW), ("3.5.10-0", FOLLOW), ("3.5.12-0", EXPERIMENTAL_FLAG), ("3.5.15-0", EXPERIMENTAL_FLAG)]),
            ("1.29", &[("3.5.10-0", FOLLOW), ("3.5.12-0", EXPERIMENTAL_FLAG), ("3.5.15-0", EXPERIMENTAL_FLAG), ("3.5.16-0", EXPERIMENTAL_FLAG)]),
            ("1.30", &[("3.5.12-0", EXPERIMENTAL_FLAG), ("3.5.15-0", EXPERIMENTAL_FLAG)]),
            ("1.31", &[("3.5.15-0", EXPERIMENTAL_FLAG), ("3.5.24-0", EXPERIMENTAL_FLAG)]),
            ("1.32", &[("3.5.16-0", EXPERIMENTAL_FLAG), ("3.5.24-0", EXPERIMENTAL_FLAG)]),
            ("1.33", &[("3.5.21-0", EXPERIMENTAL_FLAG), ("3.5.24-0", EXPERIMENTAL_FLAG)]),
            ("1.34", &[("3.6.4-0", STABLE_FLAG), ("3.6.5-0", STABLE_FLAG), ("3.6.11-0", STABLE_FLAG)]),
            ("1.35", &[("3.6.6-0", STABLE_FLAG), ("3.6.11-0", STABLE_FLAG)]),
            ("1.36", &[("3.6.8-0", STABLE_FLAG), ("3.6.11-0", STABLE_FLAG)]),
            ("1.37", &[("3.7.0-rc.0-0", STABLE_FLAG), ("3.7.0-0", STABLE_FLAG), ("3.7.1-0", STABLE_FLAG)]),
        ] {
            for (tag, expected) in shipped {
                assert_eq!(&can(tag.parse().unwrap()), expected, "etcd {tag} of Kubernetes {kubernetes}");
            }
        }
    }

    #[test]
    fn the_table_is_in_order_and_ends_with_a_version_that_can_sample() {
        assert!(TABLE.windows(2).all(|pair| pair[0].since < pair[1].since && pair[0].tracing != pair[1].tracing));
        assert_eq!(TABLE[0].since, Version::new(0, 0, 0));
        assert!(TABLE.last().unwrap().tracing.is_ok_and(|flags| flags.sampling_rate.is_some()));
    }

    #[test]
    fn every_tracing_flag_of_the_table_is_recognised_when_somebody_else_set_it() {
        for flags in TABLE.iter().filter_map(|row| row.tracing.ok()) {
            for flag in [Some(flags.enable), Some(flags.address), Some(flags.instance_id), flags.sampling_rate].into_iter().flatten() {
                assert!(flag.contains(MARK), "{flag}");
            }
        }
        assert_eq!(flag_of("ETCD_EXPERIMENTAL_ENABLE_DISTRIBUTED_TRACING").as_deref(), Some(EXPERIMENTAL.enable));
        assert_eq!(flag_of("ETCDCTL_API"), None);
    }
}
