//! What would keep the next minor version from starting: flags and feature gates that it refuses, whoever wrote them.
//!
//! `kubeadm upgrade` goes one minor version at a time, and a component that does not start with a flag stays down until the flag is gone.
//! The facts are one table by version for each component; what is not in them is not claimed: see [`is_next_known`].

mod gates;

use super::obstacle::FROM_KUBEADM;
use super::version::Version;
use super::{ManifestFile, folder, kube_apiserver, version_of};
use crate::api::ComponentName;
use crate::api::node_tracing::UpgradeObstacle;
use crate::manifest::config;

/// Flags that a version refuses and the one before it took.
struct Flags {
    since: Version,
    /// Whole names.
    names: &'static [&'static str],
    /// How names begin that are refused too.
    prefix: Option<&'static str>,
}

/// kube-apiserver's own, from 1.32 on: found by asking 1.34, 1.36 and 1.37 for every flag that 1.31 to 1.36 registers.
static KUBE_APISERVER: &[Flags] = &[Flags { since: Version::new(1, 33, 0), names: &["cloud-config", "cloud-provider"], prefix: None }];

/// etcd's: found by asking 3.6.16 and 3.7.3 for every flag of 3.5.24 and 3.6.16.
static ETCD: &[Flags] = &[
    Flags {
        since: Version::new(3, 6, 0),
        names: &[
            "enable-v2",
            "experimental-enable-v2v3",
            "proxy",
            "proxy-dial-timeout",
            "proxy-failure-wait",
            "proxy-read-timeout",
            "proxy-refresh-interval",
            "proxy-write-timeout",
        ],
        prefix: None,
    },
    Flags { since: Version::new(3, 7, 0), names: &["discovery", "discovery-proxy"], prefix: Some("experimental-") },
];

/// What stands in the manifests of a static-pod folder and would keep the next minor version of its component from starting.
///
/// A folder that cannot be made sense of has nothing here: [`super::find`] says what is wrong with it.
pub fn obstacles(files: &[ManifestFile]) -> Vec<UpgradeObstacle> {
    let located = folder::locate(files).unwrap_or_default();
    let of = |located: &folder::Located<'_>| {
        let Ok(version) = version_of(located.manifest.image()) else { return Vec::new() };
        let flags = located.manifest.flag_names();
        let flags = flags.into_iter().flat_map(|name| located.manifest.flag(&name).into_iter().map(move |value| (name.clone(), value)));
        let remedy = format!("remove it from {} and {FROM_KUBEADM}", located.file.name);
        refused(located.component, version, flags, &located.file.name, &remedy)
    };
    sorted(located.iter().flat_map(of))
}

/// The same of what kubeadm's configuration asks for, with the versions that run.
pub fn obstacles_of_kubeadm(text: &str, kube_apiserver: Option<Version>, etcd: Option<Version>) -> Vec<UpgradeObstacle> {
    let place = format!("configmap {}/{}", super::kubeadm::NAMESPACE, super::kubeadm::CONFIG_MAP);
    let remedy = format!("remove it: kubectl -n {} edit configmap {}", super::kubeadm::NAMESPACE, super::kubeadm::CONFIG_MAP);
    let of = |(component, version): (ComponentName, Option<Version>)| {
        let section = config::section(text, super::kubeadm::path(component)).ok().flatten();
        let found = section.zip(version).map(|(section, version)| refused(component, version, section.args.into_iter(), &place, &remedy));
        found.unwrap_or_default()
    };
    sorted([(ComponentName::KubeApiserver, kube_apiserver), (ComponentName::Etcd, etcd)].into_iter().flat_map(of))
}

/// Whether all that the next minor version refuses is known.
pub fn is_next_known(component: ComponentName, version: Version) -> bool {
    let (oldest, newest) = match component {
        ComponentName::KubeApiserver => (gates::OLDEST_KNOWN, gates::MINORS.last().map_or(gates::OLDEST_KNOWN, |minor| minor.version)),
        ComponentName::Etcd => (Version::new(3, 5, 0), Version::new(3, 7, 0)),
    };
    version >= oldest && next(version) <= newest
}

/// The first release of the next minor version.
pub fn next(version: Version) -> Version {
    Version::new(version.major, version.minor + 1, 0)
}

/// The flags among these that the next minor version refuses.
fn refused(
    component: ComponentName,
    version: Version,
    flags: impl Iterator<Item = (String, String)>,
    place: &str,
    remedy: &str,
) -> Vec<UpgradeObstacle> {
    let next = next(version);
    let table = match component {
        ComponentName::KubeApiserver => KUBE_APISERVER,
        ComponentName::Etcd => ETCD,
    };
    let obstacle = |what: String, why: &str| {
        let Version { major, minor, .. } = next;
        let message = format!("{component} {major}.{minor} does not start with {what} ({place}): {why}; {remedy}");
        UpgradeObstacle { component, what, message }
    };
    flags
        .flat_map(|(name, value)| {
            let name = name.replace('_', "-");
            let rows = table.iter().filter(|row| row.since <= next);
            let is_refused = |row: &Flags| row.names.contains(&name.as_str()) || row.prefix.is_some_and(|prefix| name.starts_with(prefix));
            if rows.into_iter().any(is_refused) {
                return vec![obstacle(format!("--{name}"), "it does not know the flag")];
            }
            if component != ComponentName::KubeApiserver || !kube_apiserver::is_feature_gates(&name) {
                return Vec::new();
            }
            let gates = kube_apiserver::gates_of(&value).into_iter();
            let refusals = gates.filter_map(|(gate, on)| Some((format!("--{name}={gate}={on}"), refuses_gate(next, &gate, on)?)));
            refusals.map(|(what, why)| obstacle(what, why)).collect()
        })
        .collect()
}

/// Why a version refuses a gate with this value, if it does.
fn refuses_gate(version: Version, gate: &str, on: bool) -> Option<&'static str> {
    gates::MINORS.iter().filter(|minor| minor.version <= version).find_map(|minor| match on {
        _ if minor.gone.contains(&gate) => Some("it does not know the gate"),
        false if minor.locked_on.contains(&gate) => Some("the gate is locked to true"),
        true if minor.locked_off.contains(&gate) => Some("the gate is locked to false"),
        _ if minor.unmet.contains(&(gate, on)) => Some("gates that are on by default depend on it, unless they are set too"),
        _ => None,
    })
}

fn sorted(obstacles: impl Iterator<Item = UpgradeObstacle>) -> Vec<UpgradeObstacle> {
    let mut obstacles: Vec<_> = obstacles.collect();
    obstacles.sort_by(|a, b| (a.component, &a.what).cmp(&(b.component, &b.what)));
    obstacles.dedup_by(|a, b| a.component == b.component && a.what == b.what);
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_gates(version: &str, value: &str) -> Vec<String> {
        let flags = [("feature-gates".to_owned(), value.to_owned())].into_iter();
        refused(ComponentName::KubeApiserver, version.parse().unwrap(), flags, "file", "remedy").into_iter().map(|o| o.what).collect()
    }

    fn of_flag(component: ComponentName, version: &str, flag: &str) -> bool {
        let flags = [(flag.to_owned(), "true".to_owned())].into_iter();
        !refused(component, version.parse().unwrap(), flags, "file", "remedy").is_empty()
    }

    #[test]
    fn a_gate_is_refused_by_the_version_that_removed_or_locked_it_and_not_before() {
        let nothing: [&str; 0] = [];
        assert_eq!(of_gates("1.36.3", "APIServerTracing=true"), ["--feature-gates=APIServerTracing=true"]);
        assert_eq!(of_gates("1.35.4", "APIServerTracing=true"), nothing);
        assert_eq!(of_gates("1.33.13", "APIServerTracing=false"), ["--feature-gates=APIServerTracing=false"]);
        assert_eq!(of_gates("1.36.3", "kube:APIServerTracing=true,NoSuchGate=true"), ["--feature-gates=APIServerTracing=true"]);
        assert_eq!(of_gates("1.36.3", "DeclarativeValidationTakeover=true"), ["--feature-gates=DeclarativeValidationTakeover=true"]);
        assert_eq!(of_gates("1.36.3", "DeclarativeValidationTakeover=false"), nothing);
    }

    #[test]
    fn a_flag_is_refused_by_the_version_that_removed_it_and_not_before() {
        for (component, version, flag, refused) in [
            (ComponentName::Etcd, "3.6.16", "experimental-enable-distributed-tracing", true),
            (ComponentName::Etcd, "3.6.16", "enable-distributed-tracing", false),
            (ComponentName::Etcd, "3.6.16", "discovery", true),
            (ComponentName::Etcd, "3.5.24", "experimental-enable-distributed-tracing", false),
            (ComponentName::Etcd, "3.5.24", "enable-v2", true),
            (ComponentName::KubeApiserver, "1.32.13", "cloud-provider", true),
            (ComponentName::KubeApiserver, "1.32.13", "cloud_provider", true),
            (ComponentName::KubeApiserver, "1.31.0", "cloud-provider", false),
            (ComponentName::KubeApiserver, "1.36.3", "tracing-config-file", false),
        ] {
            assert_eq!(of_flag(component, version, flag), refused, "{component} {version} --{flag}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let known = |component, version: &str| is_next_known(component, version.parse().unwrap());
        assert!(known(ComponentName::KubeApiserver, "1.31.0") && known(ComponentName::KubeApiserver, "1.36.3"));
        assert!(!known(ComponentName::KubeApiserver, "1.30.14") && !known(ComponentName::KubeApiserver, "1.37.1"));
        assert!(known(ComponentName::Etcd, "3.5.24") && known(ComponentName::Etcd, "3.6.16") && !known(ComponentName::Etcd, "3.7.3"));
    }

    #[test]
    fn the_table_of_gates_has_no_gap_and_names_no_gate_twice() {
        let minors: Vec<_> = gates::MINORS.iter().map(|minor| minor.version.minor).collect();
        assert_eq!(minors, (gates::OLDEST_KNOWN.minor + 1..=minors[minors.len() - 1]).collect::<Vec<_>>());
        for pick in [|minor: &gates::Minor| minor.gone, |minor: &gates::Minor| minor.locked_on, |minor: &gates::Minor| minor.locked_off] {
            let mut all: Vec<_> = gates::MINORS.iter().flat_map(pick).collect();
            let count = all.len();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }
}
