//! What is known about the spans of each component: by which names they are told, when a request can be sure to be traced, and how much
//! traffic there is at the least.

use super::Version;
use crate::api::ComponentName;

/// The label of the Leases by which API servers tell that they live (KEP-1965; kept by every kube-apiserver since 1.26, in kube-system), and its
/// value on those of kube-apiserver. A Lease's name is the `service.instance.id` of its API server's spans.
pub const IDENTITY_LABEL: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");

/// On an identity Lease and on a Node: the host's name.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// Since this version kube-apiserver takes the trace context of a caller in group [`TRUSTED_GROUP`] for its own (kubernetes pull request
/// 127053). Before it, every request begins a trace of its own, and no client can have one traced.
const ADOPTS_TRACE_CONTEXT: Version = Version::new(1, 33, 0);

/// The group whose trace context is adopted, and that has no right but to read health and metrics.
pub const TRUSTED_GROUP: &str = "system:monitoring";
/// The other one.
const MASTERS: &str = "system:masters";

/// `service.name` of a component's spans. kube-apiserver's is fixed; etcd's is its flag's default, which the table of flags leaves alone.
pub fn service_name(component: ComponentName) -> &'static str {
    match component {
        ComponentName::KubeApiserver => "apiserver",
        ComponentName::Etcd => "etcd",
    }
}

/// Whether a kube-apiserver of this version traces a request because its caller, in [`TRUSTED_GROUP`], asks for it. `None` for a version
/// that is no release's.
pub fn adopts_trace_context(version: &str) -> Option<bool> {
    version.parse::<Version>().ok().map(|version| version >= ADOPTS_TRACE_CONTEXT)
}

/// Whether a caller who authenticates as a member of these groups is trusted with a trace context (kube-apiserver's `endpoints/filters/traces.go`).
pub fn is_trusted(groups: &[String]) -> bool {
    groups.iter().any(|group| group == TRUSTED_GROUP || group == MASTERS)
}

/// Requests per second that a component gets at the least in a cluster of kubeadm's where nobody does anything, each with its own chance
/// to be sampled.
///
/// - kube-apiserver: the kubelet's readiness probe comes every second (kubeadm's manifest), and those of the scheduler and the
///   controller manager beside it, which read or renew their Leases every 2 s, are not counted.
/// - etcd: under those it hears of, each API server renews its own identity Lease every 10 s.
pub fn least_requests_per_second(component: ComponentName) -> f64 {
    match component {
        ComponentName::KubeApiserver => 1.0,
        ComponentName::Etcd => 0.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_trace_context_is_adopted_from_1_33_on() {
        for (version, adopts) in
            [("1.32.9", Some(false)), ("v1.33.0", Some(true)), ("v1.36.3", Some(true)), ("1.37.1-rc.0", Some(true)), ("latest", None)]
        {
            assert_eq!(adopts_trace_context(version), adopts, "{version}");
        }
    }
}
