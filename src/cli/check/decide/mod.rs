//! What of the facts is as it should be: pure. Each check is decided by what was read, by what the operator says of it (a reason, wherever it
//! stands), or by both.

mod configuration;
mod control_plane;
mod installation;
mod said;
mod spans;

use strum::IntoEnumIterator;

use super::catalog::{Category, Check};
use super::facts::{Facts, Read, Unread};
use super::report::{CheckCategory, CheckReport, CheckResult, Severity};
pub(super) use installation::fields;
use said::Said;

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    /// Object and what is so of it.
    found: String,
}

/// Why a check finds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Skip {
    /// There is nothing to look at: the check is left out.
    Nothing,
    /// What it looks at could not be read.
    Unread(Unread),
}

/// Why something is not known, in one sentence.
const UNREAD: &str = "What this looks at cannot be read with your rights, or at all.";

type Findings = Result<Vec<Finding>, Skip>;

impl<T> Read<T> {
    fn known(&self) -> Result<&T, Skip> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Unread(unread) => Err(Skip::Unread(unread.clone())),
            Self::Unasked => Err(Skip::Nothing),
        }
    }
}

fn finding(severity: Severity, found: impl Into<String>) -> Finding {
    Finding { severity, found: found.into() }
}

fn well(found: impl Into<String>) -> Finding {
    finding(Severity::Success, found)
}

fn warning(found: impl Into<String>) -> Finding {
    finding(Severity::Warning, found)
}

fn error(found: impl Into<String>) -> Finding {
    finding(Severity::Error, found)
}

/// Every check that is made now. `before`: with `--pre`.
pub(super) fn report(facts: &Facts, before: bool) -> CheckReport {
    let said = if before { control_plane::said(facts) } else { said::said(facts) };
    let of = |category: Category| {
        let checks = Check::iter().filter(|check| check.entry().category == category && check.entry().when.is_now(before));
        let checks: Vec<_> = checks.filter_map(|check| result(check, decide(check, facts, before, &said), facts)).collect();
        (!checks.is_empty()).then(|| CheckCategory { name: category.as_str().to_owned(), checks })
    };
    CheckReport::new(Category::iter().filter_map(of).collect())
}

fn result(check: Check, findings: Findings, facts: &Facts) -> Option<CheckResult> {
    let entry = check.entry();
    let (findings, cause, fix) = match findings {
        Ok(findings) => (findings, entry.cause.to_owned(), entry.fix(&facts.namespace)),
        Err(Skip::Nothing) => return None,
        Err(Skip::Unread(Unread { unread, .. })) => {
            // with the ClusterTracing, what it says is not known either, and the checks of that are left out
            let severity = if check == Check::Resource { Severity::Error } else { Severity::Warning };
            let fix = format!("kubectl auth can-i --list --namespace {}", facts.namespace);
            (vec![finding(severity, format!("not known: {unread}"))], UNREAD.to_owned(), fix)
        }
    };
    let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Success);
    let is_well = severity == Severity::Success;
    // beside something that is wrong, what is well is no news
    let told = findings.into_iter().filter(|finding| is_well || finding.severity > Severity::Success);
    Some(CheckResult {
        code: entry.code.to_owned(),
        description: entry.description.to_owned(),
        result: severity,
        found: told.map(|finding| finding.found).collect(),
        cause: (!is_well).then_some(cause),
        fix: (!is_well).then_some(fix),
        docs: check.docs(),
    })
}

/// What is found of one check.
fn decide(check: Check, facts: &Facts, before: bool, said: &Result<Vec<Said>, Skip>) -> Findings {
    let of_said = || said.as_ref().map_err(Clone::clone).map(|all| said::findings(all, check));
    match seen(check, facts, before) {
        None => of_said(),
        // what was seen stands for itself where nobody says anything
        Some(seen) => Ok([seen?, of_said().unwrap_or_default()].concat()),
    }
}

/// What was read of one check's subject; nothing where only the operator can tell.
fn seen(check: Check, facts: &Facts, before: bool) -> Option<Findings> {
    Some(match check {
        Check::ApiServer => facts.server.known().map(|version| vec![well(version)]),
        Check::TraceContext => control_plane::trace_context(facts),
        Check::ControlPlaneNodes => control_plane::nodes(facts),
        Check::Platform => control_plane::platform(facts),
        Check::NodesReady => control_plane::nodes_ready(facts),
        Check::StaticPods if before => control_plane::static_pods(facts),
        Check::Versions if before => control_plane::versions(facts),
        Check::Manifests if before => control_plane::manifests(facts),
        Check::Ports if before => control_plane::ports(facts),
        Check::EtcdOnNodes if before => control_plane::etcd_on_nodes(facts),
        Check::Downtime if before => control_plane::downtime(facts),
        Check::NextMinorVersion if before => control_plane::next_minor_version(facts),
        Check::NextMinorVersion => configuration::upgrade_safe(facts),
        Check::Rights => installation::rights(facts),
        Check::PodSecurity => installation::pod_security(facts),
        Check::Definitions => installation::definitions(facts),
        Check::Controller => installation::controller(facts),
        Check::Leader => installation::leader(facts),
        Check::Agents => installation::agents(facts),
        Check::AgentReports => installation::agent_reports(facts),
        Check::ProgramVersions => installation::program_versions(facts),
        Check::Resource => configuration::resource(facts),
        Check::Observed => configuration::observed(facts),
        Check::Rollout => configuration::rollout(facts),
        Check::SamplingRate => configuration::sampling_rate(facts),
        Check::KubeApiserverTraced => configuration::kube_apiserver_traced(facts),
        Check::EtcdTraced => configuration::etcd_traced(facts),
        Check::NodeStates => configuration::node_states(facts),
        Check::Drift => configuration::drift(facts),
        Check::Collectors => spans::collectors(facts),
        Check::SpansFlowing => spans::flowing(facts),
        Check::SpanLoss => spans::loss(facts),
        Check::TraceStore => spans::store(facts),
        Check::OneManifestEach
        | Check::ForeignTracing
        | Check::EgressSelector
        | Check::Settings
        | Check::StaticPods
        | Check::Versions
        | Check::Manifests
        | Check::Ports
        | Check::EtcdOnNodes
        | Check::Downtime
        | Check::Changes
        | Check::WayBack
        | Check::Canary
        | Check::Regression
        | Check::Components
        | Check::EtcdMembers
        | Check::Kubelets
        | Check::NodeRoom
        | Check::CollectorConfig
        | Check::Secrets
        | Check::Certificates
        | Check::Endpoint
        | Check::SpansReceived
        | Check::SpansSent => return None,
    })
}
