//! etcd: flags whose names differ by version, and versions that cannot do what is asked.

use super::version::Version;
use super::{Addition, Obstacle, Wanted};
use crate::api::Reason;
use crate::manifest::{Edit, Manifest};

/// A file that makes etcd ignore every flag.
const CONFIG_FILE: &str = "config-file";
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

/// Environment of the exporter in etcd: milliseconds that a batch may take. 3.7 waits for its last batch before it ends: 10 s with the
/// exporter's default, when the collector is dead. Earlier versions do not wait.
pub(super) static ENV: &[(&str, &str)] = &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")];

/// Tracing flags that are set, on the command line or as variables.
pub(super) fn tracing_flags(manifest: &Manifest) -> Vec<String> {
    let flags = manifest.flag_names().into_iter().filter(|name| name.contains(MARK)).map(|name| format!("--{name}"));
    let variables = manifest.env_names().into_iter().filter(|name| flag_of(name).is_some_and(|flag| flag.contains(MARK)));
    flags.chain(variables).collect()
}

/// The flag that an environment variable sets: etcd reads each of its flags from one.
fn flag_of(variable: &str) -> Option<String> {
    Some(variable.strip_prefix("ETCD_")?.to_ascii_lowercase().replace('_', "-"))
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
                super::patch(r#"{"etcd":{"samplingRatePerMillion":0}}"#)
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
