//! Which check a reason belongs to, and how much weight it has there. Pure.
//!
//! Error: what the check asks for is not so, or not yet. Warning: it is a person's own wish, or nothing is lost so far.

use strum::IntoEnumIterator;

use super::catalog::Check;
use super::report::Severity;
use crate::api::Reason;

/// The one check of a reason; nothing for what stands in Events alone.
pub(in crate::cli) fn check(reason: Reason) -> Option<(Check, Severity)> {
    use Severity::{Error, Success, Warning};
    Some(match reason {
        Reason::NodeGranted | Reason::NodeChanged | Reason::Restored | Reason::Released => return None,

        Reason::ProbeOff => (Check::TraceContext, Warning),
        Reason::NoControlPlaneNodes => (Check::ControlPlaneNodes, Error),
        Reason::UnsupportedPlatform => (Check::Platform, Error),
        Reason::NodeNotReady => (Check::NodesReady, Error),

        Reason::ManifestNotFound => (Check::StaticPods, Error),
        Reason::DuplicateManifest => (Check::OneManifestEach, Error),
        Reason::UnsupportedVersion => (Check::Versions, Error),
        Reason::UnsupportedManifest => (Check::Manifests, Error),
        Reason::Conflict => (Check::ForeignTracing, Error),
        Reason::EgressSelector => (Check::EgressSelector, Error),
        Reason::PortTaken => (Check::Ports, Error),
        Reason::ExternalEtcd => (Check::EtcdOnNodes, Warning),
        Reason::DowntimeRefused => (Check::Downtime, Error),
        Reason::UpgradeSafe => (Check::NextMinorVersion, Success),
        Reason::UpgradeResetsSettings | Reason::UpgradeWouldFail | Reason::NotMeasured => (Check::NextMinorVersion, Warning),

        Reason::WaitingForAgent | Reason::WaitingForPreflight => (Check::AgentReports, Error),

        Reason::InvalidSettings => (Check::Settings, Error),
        Reason::AsRequested | Reason::Disabled => (Check::Rollout, Success),
        Reason::Preview | Reason::Paused | Reason::Removing => (Check::Rollout, Warning),
        Reason::RollingOut | Reason::WaitingForNode | Reason::Soaking => (Check::Rollout, Error),
        Reason::NotSampled => (Check::SamplingRate, Warning),

        Reason::NodeOverdue => (Check::NodeStates, Error),
        Reason::RetryBackOff
        | Reason::NewProcessExited
        | Reason::NewProcessNotStarted
        | Reason::Interrupted
        | Reason::RestoredByHand
        | Reason::HealthTimeout
        | Reason::KubeletNotReacting
        | Reason::RolledBack
        | Reason::TracingFileDamaged
        | Reason::WatchdogNotStarted
        | Reason::ManifestChanged => (Check::Changes, Error),
        Reason::RollbackFailed | Reason::JournalDamaged => (Check::WayBack, Error),
        Reason::WaitingForCanary | Reason::CanaryRefused => (Check::Canary, Error),
        Reason::Regressed => (Check::Regression, Error),
        Reason::Drifted | Reason::WaitingForQuiet | Reason::UpgradeInProgress => (Check::Drift, Error),
        Reason::ComponentUnhealthy => (Check::Components, Error),
        Reason::EtcdUnhealthy | Reason::EtcdAlarm | Reason::EtcdLearner | Reason::QuorumAtRisk => (Check::EtcdMembers, Error),
        Reason::KubeletNotAnswering | Reason::KubeletNotSynced => (Check::Kubelets, Error),
        Reason::NodeDiskFull | Reason::NodeMemoryLow | Reason::NodeFilesUnwritable => (Check::NodeRoom, Error),

        Reason::CollectorReady | Reason::ExternalEndpoint => (Check::Collectors, Success),
        Reason::WaitingForCollector => (Check::Collectors, Error),
        Reason::WaitingForCollectorCheck | Reason::CollectorConfigRefused => (Check::CollectorConfig, Error),
        Reason::SecretMissing | Reason::SecretInvalid => (Check::Secrets, Error),
        Reason::CertificateExpiring => (Check::Certificates, Warning),
        Reason::CertificateExpired => (Check::Certificates, Error),
        Reason::EndpointUnreachable => (Check::Endpoint, Error),
        Reason::NoSpansReceived | Reason::CollectorSilent => (Check::SpansReceived, Error),
        Reason::CollectorRefusing | Reason::ExporterFailing => (Check::SpansSent, Error),
        Reason::SpansFlowing | Reason::StoreOnly => (Check::SpansFlowing, Success),
        Reason::WaitingForSpans => (Check::SpansFlowing, Error),
        Reason::IdentityUnknown => (Check::SpansFlowing, Warning),
    })
}

/// The reasons that belong to a check.
pub(in crate::cli) fn of(wanted: Check) -> impl Iterator<Item = Reason> {
    Reason::iter().filter(move |reason| check(*reason).is_some_and(|(check, _)| check == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_events_alone_belongs_to_no_check() {
        let without: Vec<_> = Reason::iter().filter(|reason| check(*reason).is_none()).collect();
        assert_eq!(without, [Reason::NodeGranted, Reason::NodeChanged, Reason::Restored, Reason::Released]);
    }

    #[test]
    fn every_other_reason_is_listed_by_exactly_one_check() {
        for reason in Reason::iter().filter(|reason| check(*reason).is_some()) {
            assert_eq!(Check::iter().filter(|check| of(*check).any(|listed| listed == reason)).count(), 1, "{reason}");
        }
    }
}
