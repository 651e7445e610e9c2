//! kube-apiserver: a configuration file, the flag that names it, and what keeps a dead collector from holding up a restart.

use super::obstacle::{self, FROM_KUBEADM};
use super::version::Version;
use super::{Addition, Fault, Obstacle, STATE_DIR, Wanted};
use crate::api::Reason;
use crate::api::node_tracing::{NodeSettings, hex12};
use crate::manifest::config::{ExtraVolume, Extras, Names, Section};
use crate::manifest::{Edit, FileMount, Manifest};

/// Names the tracing file.
const TRACING_FILE: &str = "tracing-config-file";
/// How long open watches get to end when the server stops. The default, 0, is to wait until the kubelet kills the server.
const WATCH_GRACE: &str = "shutdown-watch-termination-grace-period";
/// Sends the server's own connections, also those to the collector, through proxies.
const EGRESS_SELECTOR: &str = "egress-selector-config-file";
/// Switches features.
const FEATURE_GATES: &str = "feature-gates";
/// The feature.
const GATE: &str = "APIServerTracing";
/// The group of features that `GATE` belonged to while it was on by default.
const GATE_GROUP: &str = "AllBeta";
/// Name of the pod's volume for the tracing file.
const VOLUME: &str = "clustertracing";
/// Name of the pod's volume for the folder of the tracing file, where kubeadm makes the manifest.
const FOLDER_VOLUME: &str = "clustertracing-folder";
/// The first version that kubeadm's configuration is written for: earlier ones need a feature gate, which later ones refuse.
const KEPT_SINCE: Version = Version::new(1, 27, 0);

/// What the feature gate is to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Off unless it is switched on.
    Off,
    /// On unless it is switched off.
    On,
    /// On; a server that is told to switch it off does not start.
    Locked,
    /// Unknown: a server that is told of it does not start.
    Gone,
}

/// What is true of a version and all later ones, up to the next row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) since: Version,
    /// Newest `apiVersion` of the tracing file that it reads.
    pub(super) config_api: &'static str,
    pub(super) gate: Gate,
    /// Whether it knows the flag for the grace of open watches.
    pub(super) watch_grace: bool,
    /// Whether it crashes when it traces under an egress selector that says nothing of the control plane.
    pub(super) crashes_under_egress_selector: bool,
}

const V1ALPHA1: &str = "apiserver.config.k8s.io/v1alpha1";
const V1BETA1: &str = "apiserver.config.k8s.io/v1beta1";
const V1: &str = "apiserver.config.k8s.io/v1";

/// Everything that differs by version. Below the first row there is no tracing; above the last one, the last one is believed,
/// and the change is verified like every other.
#[rustfmt::skip]
pub(super) static TABLE: &[Row] = &[
    Row { since: Version::new(1, 22, 0), config_api: V1ALPHA1, gate: Gate::Off,    watch_grace: false, crashes_under_egress_selector: true },
    Row { since: Version::new(1, 26, 0), config_api: V1ALPHA1, gate: Gate::Off,    watch_grace: false, crashes_under_egress_selector: false },
    Row { since: Version::new(1, 27, 0), config_api: V1BETA1,  gate: Gate::On,     watch_grace: true,  crashes_under_egress_selector: false },
    Row { since: Version::new(1, 34, 0), config_api: V1,       gate: Gate::Locked, watch_grace: true,  crashes_under_egress_selector: false },
    Row { since: Version::new(1, 37, 0), config_api: V1,       gate: Gate::Gone,   watch_grace: true,  crashes_under_egress_selector: false },
];

/// The newest minor version that the table is known to be right for.
pub(super) const NEWEST_KNOWN: Version = Version::new(1, 37, 0);

const METRICS_LEAK: &str = "leaks memory through its OpenTelemetry metrics, traced or not";

/// Known faults: tracing neither causes this one nor makes it worse.
#[rustfmt::skip]
pub(super) static FAULTS: &[Fault] = &[
    Fault { from: Version::new(1, 29, 0), fixed_in: Version::new(1, 29, 10), what: METRICS_LEAK },
    Fault { from: Version::new(1, 30, 0), fixed_in: Version::new(1, 30, 6),  what: METRICS_LEAK },
    Fault { from: Version::new(1, 31, 0), fixed_in: Version::new(1, 31, 2),  what: METRICS_LEAK },
];

/// Environment of the exporter in the server. Without these limits a server whose collector is dead is still draining its span queue,
/// batch after batch, when the kubelet kills it at the end of its 30 s; with them it leaves in about a second.
pub(super) static ENV: &[(&str, &str)] = &[
    // milliseconds that one batch may take
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
    // one batch: what is queued at the end is sent, or given up, in one go
    ("OTEL_BSP_MAX_QUEUE_SIZE", "512"),
];

/// The least that a start takes besides the flags of a change, far from the cluster: an etcd where nothing listens, and a service-account
/// key, which is the one that the server makes for its own certificate. It serves nothing before it has found its etcd.
pub(super) static ALONE: &[(&str, &str)] = &[
    ("etcd-servers", "http://127.0.0.1:1"),
    ("bind-address", "127.0.0.1"),
    // for documentation only (RFC 5737); without it the server asks for a route to the world
    ("advertise-address", "192.0.2.1"),
    ("cert-dir", "/tmp/kube-apiserver"),
    ("service-account-issuer", "https://canary.invalid"),
    ("service-account-signing-key-file", "/tmp/kube-apiserver/apiserver.key"),
    ("service-account-key-file", "/tmp/kube-apiserver/apiserver.crt"),
];

/// Tracing flags that are set.
pub(super) fn tracing_flags(manifest: &Manifest) -> Vec<String> {
    if spellings(manifest, TRACING_FILE).is_empty() { Vec::new() } else { vec![format!("--{TRACING_FILE}")] }
}

/// The note of a manifest that kubeadm made from [`extras`] without a place for a note. Nothing else writes this path beside this volume.
pub(super) fn note_of_kubeadm(manifest: &Manifest) -> Option<String> {
    let ours = manifest.flag(TRACING_FILE).iter().all(|path| is_ours(path)) && !manifest.flag(TRACING_FILE).is_empty();
    let rendered = manifest.volume_names().iter().any(|name| name == FOLDER_VOLUME);
    (ours && rendered).then(|| format!("flag:{TRACING_FILE},volume:{VOLUME},volume:{FOLDER_VOLUME}"))
}

/// What of kubeadm's configuration is ours whether or not there is a note of it.
pub(super) fn kept(section: &Section) -> Names {
    let args = section.args.iter().filter(|(name, value)| name == TRACING_FILE && is_ours(value)).map(|(name, _)| name.clone());
    let volumes = section.names.volumes.iter().filter(|name| [VOLUME, FOLDER_VOLUME].contains(&name.as_str())).cloned();
    Names { args: args.collect(), envs: Vec::new(), volumes: volumes.collect() }
}

/// Whether a flag in kubeadm's configuration is about tracing.
pub(super) fn is_about_tracing(flag: &str) -> bool {
    flag.replace('_', "-") == TRACING_FILE
}

/// A path that [`addition`] gives.
fn is_ours(path: &str) -> bool {
    let digest = path.strip_prefix(STATE_DIR).and_then(|name| name.strip_prefix("/tracing-")?.strip_suffix(".yaml"));
    digest.is_some_and(|digest| digest.len() == 12 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What kubeadm is asked to give every API server that it makes a manifest for, or why it is not.
///
/// On a node that joins, the tracing file is not there, and an API server that cannot read it does not start. So the kubelet makes the
/// folder and an empty file where there is none: an empty file is one that says nothing, and the server samples nothing. The agent then
/// brings the manifest to what [`addition`] gives, as one more change of one node.
pub(super) fn extras(version: Version, settings: &NodeSettings) -> Result<Extras, String> {
    let row = super::row(TABLE, |row| row.since, version).filter(|_| version >= KEPT_SINCE);
    let row = row.ok_or_else(|| format!("kube-apiserver {version} traces under a feature gate that later versions refuse"))?;
    let (path, _) = tracing_file(row.config_api, settings);
    Ok(Extras {
        args: vec![(TRACING_FILE, path.clone())],
        envs: ENV.iter().map(|&(name, value)| (name, value.to_owned())).collect(),
        volumes: vec![
            ExtraVolume { name: VOLUME, path, path_type: "FileOrCreate" },
            ExtraVolume { name: FOLDER_VOLUME, path: STATE_DIR.to_owned(), path_type: "DirectoryOrCreate" },
        ],
    })
}

/// What makes `manifest`, which carries nothing of ours, trace as wanted.
pub(super) fn addition(wanted: &Wanted, manifest: &Manifest) -> Result<Addition, Obstacle> {
    let version = wanted.version;
    let row = super::row(TABLE, |row| row.since, version).ok_or_else(|| Obstacle {
        reason: Reason::UnsupportedVersion,
        cause: format!("kube-apiserver {version} has no tracing: it came with {}", TABLE[0].since),
        remedy: "upgrade Kubernetes".to_owned(),
    })?;
    if row.crashes_under_egress_selector && !spellings(manifest, EGRESS_SELECTOR).is_empty() {
        return Err(Obstacle {
            reason: Reason::UnsupportedVersion,
            cause: format!(
                "kube-apiserver {version} crashes when it traces with --{EGRESS_SELECTOR} and that file has no entry for the control plane, which this check cannot see"
            ),
            remedy: "upgrade Kubernetes to 1.26 or later".to_owned(),
        });
    }
    if !spellings(manifest, EGRESS_SELECTOR).is_empty() && is_loopback(&wanted.settings.endpoint) {
        return Err(Obstacle {
            reason: Reason::EgressSelector,
            cause: format!(
                "--{EGRESS_SELECTOR} may send spans through a proxy, from where {} is another machine; this check cannot see that file",
                wanted.settings.endpoint
            ),
            remedy: format!(
                "send spans to an endpoint that the file's controlplane entry reaches: {}",
                obstacle::patch(r#"{"collector":{"mode":"External","endpoint":"HOST:PORT"}}"#)
            ),
        });
    }
    let feature_gates = check_gate(row, version, &gates(manifest))?;

    let (path, contents) = tracing_file(row.config_api, wanted.settings);
    let mut flags = vec![(TRACING_FILE.to_owned(), path.clone())];
    let grace = wanted.settings.watch_termination_grace_seconds;
    if grace > 0 && row.watch_grace && spellings(manifest, WATCH_GRACE).is_empty() {
        flags.push((WATCH_GRACE.to_owned(), format!("{grace}s")));
    }
    Ok(Addition {
        edit: Edit {
            flags,
            feature_gates,
            files: vec![FileMount { volume: VOLUME.to_owned(), path: path.clone() }],
            env: super::owned(ENV),
        },
        needs: vec![(path, contents)],
        warnings: warnings(row, wanted, manifest),
    })
}

/// Path and contents. The file's name is the digest of its bytes, so that a manifest names exactly one content, and a changed rate is a
/// changed manifest. A changed comment would restart every API server.
fn tracing_file(config_api: &str, settings: &NodeSettings) -> (String, String) {
    let (endpoint, rate) = (&settings.endpoint, settings.kube_api_server.sampling_rate_per_million);
    // The endpoint has been checked to consist of characters that need no escape.
    let contents = format!(
        "# Written by ClusterTracing. To change it: kubectl edit clustertracing {}\napiVersion: {config_api}\nkind: TracingConfiguration\nendpoint: \"{endpoint}\"\nsamplingRatePerMillion: {rate}\n",
        crate::api::SINGLETON
    );
    (format!("{STATE_DIR}/tracing-{}.yaml", hex12(contents.as_bytes())), contents)
}

/// Whether an endpoint, which has been checked to be `host:port`, is the machine's own.
fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host).trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The gates to add, or why those that are set are in the way.
fn check_gate(row: &Row, version: Version, set: &[(String, bool)]) -> Result<Vec<(String, bool)>, Obstacle> {
    let value = |name: &str| set.iter().rev().find(|(gate, _)| gate == name).map(|(_, value)| *value);
    let conflict = |cause: String, remedy: String| Err(Obstacle { reason: Reason::Conflict, cause, remedy });
    let remove = || format!("remove {GATE} from --{FEATURE_GATES} in the manifest and {FROM_KUBEADM}");
    match (row.gate, value(GATE)) {
        (Gate::Gone, Some(value)) => conflict(
            format!("--{FEATURE_GATES} sets {GATE}={value}, and kube-apiserver {version} does not start with a gate that it does not know"),
            remove(),
        ),
        (_, Some(false)) => conflict(format!("--{FEATURE_GATES} switches tracing off ({GATE}=false)"), remove()),
        (Gate::On, None) if value(GATE_GROUP) == Some(false) => conflict(
            format!("--{FEATURE_GATES} switches tracing off ({GATE_GROUP}=false)"),
            format!("add {GATE}=true to --{FEATURE_GATES}"),
        ),
        (Gate::Off, None) => Ok(vec![(GATE.to_owned(), true)]),
        (Gate::Off, Some(true)) | (Gate::On | Gate::Locked, _) | (Gate::Gone, None) => Ok(Vec::new()),
    }
}

/// What an administrator should know, and what stops nothing.
fn warnings(row: &Row, wanted: &Wanted, manifest: &Manifest) -> Vec<String> {
    let version = wanted.version;
    let mut warnings = Vec::new();
    if wanted.settings.watch_termination_grace_seconds > 0 && !row.watch_grace {
        warnings.push(format!("kube-apiserver {version} does not know --{WATCH_GRACE}: watchTerminationGraceSeconds has no effect"));
    }
    if row.gate == Gate::Locked && gates(manifest).iter().any(|(gate, _)| gate == GATE) {
        warnings.push(format!("--{FEATURE_GATES} names {GATE}, with which Kubernetes 1.37 does not start: remove it before that upgrade"));
    }
    if !row.crashes_under_egress_selector && !spellings(manifest, EGRESS_SELECTOR).is_empty() {
        warnings.push(format!(
            "with --{EGRESS_SELECTOR} spans go the way of its controlplane entry, if there is one: {} must be reachable from there",
            wanted.settings.endpoint
        ));
    }
    warnings
}

/// The feature gates that are set, in order: the last one of a name counts.
fn gates(manifest: &Manifest) -> Vec<(String, bool)> {
    let values = spellings(manifest, FEATURE_GATES).into_iter().flat_map(|flag| manifest.flag(&flag));
    values.flat_map(|value| gates_of(&value)).collect()
}

/// Whether a flag switches features.
pub(super) fn is_feature_gates(flag: &str) -> bool {
    flag == FEATURE_GATES
}

/// The gates of a value of `--feature-gates`.
pub(super) fn gates_of(value: &str) -> Vec<(String, bool)> {
    let gate = |item: &str| {
        let (name, value) = item.split_once('=')?;
        // Since 1.32 a gate may be written with its component: kube:APIServerTracing=false.
        let name = name.rsplit(':').next().unwrap_or_default().trim().to_owned();
        Some((name, matches!(value.trim(), "1" | "t" | "T" | "true" | "TRUE" | "True")))
    };
    value.split(',').filter_map(gate).collect()
}

/// The names under which a flag is set: kube-apiserver takes `_` for `-`.
fn spellings(manifest: &Manifest, flag: &str) -> Vec<String> {
    let mut names = manifest.flag_names();
    names.retain(|name| name.replace('_', "-") == flag);
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(minor: u16) -> &'static Row {
        crate::component::row(TABLE, |row| row.since, Version::new(1, minor, 0)).unwrap()
    }

    #[test]
    fn every_minor_release_gets_the_newest_file_it_reads() {
        for minor in 22..=37 {
            let expected = match minor {
                22..=26 => V1ALPHA1,
                27..=33 => V1BETA1,
                _ => V1,
            };
            assert_eq!(row(minor).config_api, expected, "1.{minor}");
        }
        assert_eq!(row(45).config_api, V1, "a version that is not out yet is taken for the newest known one");
        assert!(super::super::row(TABLE, |row| row.since, Version::new(1, 21, 14)).is_none());
    }

    #[test]
    fn the_gate_is_added_where_it_is_off_by_default_and_nowhere_else() {
        for minor in 22..=37 {
            let added = check_gate(row(minor), Version::new(1, minor, 0), &[]).unwrap();
            assert_eq!(!added.is_empty(), (22..=26).contains(&minor), "1.{minor}");
        }
    }

    #[test]
    fn a_gate_that_somebody_set_is_respected() {
        let set = |gate: &str, value| vec![(gate.to_owned(), value)];
        let refused = |minor, set: &[(String, bool)]| check_gate(row(minor), Version::new(1, minor, 0), set).map_err(|o| o.reason);
        for minor in 22..=37 {
            assert_eq!(refused(minor, &set(GATE, false)), Err(Reason::Conflict), "1.{minor} off");
            let on = refused(minor, &set(GATE, true));
            assert_eq!(on, if minor < 37 { Ok(Vec::new()) } else { Err(Reason::Conflict) }, "1.{minor} on");
            let group = refused(minor, &set(GATE_GROUP, false));
            assert_eq!(group.is_err(), (27..=33).contains(&minor), "1.{minor} without beta features");
        }
        let last_one_counts = [(GATE.to_owned(), false), (GATE.to_owned(), true)];
        assert_eq!(refused(30, &last_one_counts), Ok(Vec::new()));
        let explicit_beats_group = [(GATE_GROUP.to_owned(), false), (GATE.to_owned(), true)];
        assert_eq!(refused(30, &explicit_beats_group), Ok(Vec::new()));
    }

    #[test]
    fn the_table_is_in_order_and_each_row_differs_from_the_one_before() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].since < pair[1].since);
            let facts = |row: &Row| (row.config_api, row.gate, row.watch_grace, row.crashes_under_egress_selector);
            assert_ne!(facts(&pair[0]), facts(&pair[1]), "{} says nothing new", pair[1].since);
        }
    }

    #[test]
    fn a_tracing_file_is_yaml_that_says_what_was_asked() {
        for endpoint in ["127.0.0.1:4317", "[::1]:4317"] {
            let settings = serde_json::json!({
                "endpoint": endpoint, "watchTerminationGraceSeconds": 0, "healthTimeoutSeconds": 120,
                "kubeAPIServer": {"state": "Enabled", "samplingRatePerMillion": 250_000}, "etcd": {"state": "Disabled", "samplingRatePerMillion": 0},
            });
            let (path, contents) = tracing_file(V1, &serde_json::from_value(settings).unwrap());
            assert!(is_ours(&path), "{path}");
            let file: serde_json::Value = serde_yaml::from_str(&contents).unwrap();
            let expected = serde_json::json!({
                "apiVersion": V1, "kind": "TracingConfiguration", "endpoint": endpoint, "samplingRatePerMillion": 250_000
            });
            assert_eq!(file, expected);
        }
    }
}
