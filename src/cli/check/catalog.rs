//! Every check: its code, when it is made, what holds when all is well, why it may not, and one command. Pure.
//!
//! `explain`, docs/checks.md and the report say what stands here. A code is never given to another check, and is not used again.

use std::fmt::Write as _;

use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

use super::reasons;

/// Page on which every check has a section, named after its code.
const PAGE: &str = "docs/checks.md";
/// Stands in a command for the namespace that the operator runs in.
const NAMESPACE: &str = "{namespace}";
/// The namespace that the chart is documented for.
const USUAL_NAMESPACE: &str = "clustertracing-system";

/// A check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter)]
pub(in crate::cli) enum Check {
    ApiServer,
    TraceContext,
    ControlPlaneNodes,
    Platform,
    NodesReady,
    StaticPods,
    OneManifestEach,
    Versions,
    Manifests,
    ForeignTracing,
    EgressSelector,
    Ports,
    EtcdOnNodes,
    Downtime,
    NextMinorVersion,
    Rights,
    PodSecurity,
    Definitions,
    Controller,
    Leader,
    Agents,
    AgentReports,
    ProgramVersions,
    Resource,
    Settings,
    Observed,
    Rollout,
    SamplingRate,
    KubeApiserverTraced,
    EtcdTraced,
    NodeStates,
    Changes,
    WayBack,
    Canary,
    Regression,
    Drift,
    Components,
    EtcdMembers,
    Kubelets,
    NodeRoom,
    Collectors,
    CollectorConfig,
    Secrets,
    Certificates,
    Endpoint,
    SpansReceived,
    SpansSent,
    SpansFlowing,
    SpanLoss,
    TraceStore,
}

/// What a check is about: one heading of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumIter, IntoStaticStr)]
pub(in crate::cli) enum Category {
    #[strum(serialize = "cluster")]
    Cluster,
    #[strum(serialize = "control plane")]
    ControlPlane,
    #[strum(serialize = "installation")]
    Installation,
    #[strum(serialize = "configuration")]
    Configuration,
    #[strum(serialize = "nodes")]
    Nodes,
    #[strum(serialize = "spans")]
    Spans,
}

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum When {
    /// With `--pre` and without it.
    Always,
    /// With `--pre`: before the operator is installed.
    Before,
    /// Without it.
    After,
}

/// What is said of a check.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Entry {
    /// `CT` and four digits, the first two of which are the category's.
    pub(in crate::cli) code: &'static str,
    pub(in crate::cli) category: Category,
    pub(in crate::cli) when: When,
    /// What holds when all is well.
    pub(in crate::cli) description: &'static str,
    /// Why it may not, in one sentence.
    pub(in crate::cli) cause: &'static str,
    /// A command that puts it right, or shows more.
    fix: &'static str,
}

impl Check {
    /// What is said of it.
    #[rustfmt::skip]
    #[expect(clippy::too_many_lines, reason = "a table, two lines an entry")]
    pub(in crate::cli) fn entry(self) -> Entry {
        use Category::{Cluster, Configuration, ControlPlane, Installation, Nodes, Spans};
        use When::{After, Always, Before};
        let entry = |code, category, when, description, cause, fix| Entry { code, category, when, description, cause, fix };
        match self {
            Self::ApiServer => entry("CT0101", Cluster, Always, "the API server tells its version",
                "Its path /version is closed to you, or answers something else than an API server's version.", "kubectl version"),
            Self::TraceContext => entry("CT0102", Cluster, Always, "Kubernetes 1.33 or later takes the trace context of the operator's probe",
                "Before 1.33 no client can have a request traced, or the probe is not possible here: at a low sampling rate it takes long to tell whether spans flow.", "kubectl version"),
            Self::ControlPlaneNodes => entry("CT0103", Cluster, Always, "nodes of the control plane are in the cluster",
                "A provider runs the control plane where nothing in the cluster can reach it, or its nodes lack the label node-role.kubernetes.io/control-plane.", "kubectl get nodes --show-labels"),
            Self::Platform => entry("CT0104", Cluster, Always, "nobody else renders the control plane's manifests",
                "The platform writes the manifests again, so that an edit would be undone; docs/platforms.md says what its administrator can do instead.", "kubectl get nodes --output wide"),
            Self::NodesReady => entry("CT0105", Cluster, Always, "every control-plane node is Ready",
                "A second node is not taken down beside one that is not Ready.", "kubectl get nodes --selector node-role.kubernetes.io/control-plane"),

            Self::StaticPods => entry("CT0201", ControlPlane, Always, "kube-apiserver is a static pod on every control-plane node",
                "The node runs it some other way, or its manifest is not in the static-pod folder.", "kubectl --namespace kube-system get pods --output wide"),
            Self::OneManifestEach => entry("CT0202", ControlPlane, Always, "each component has one manifest on a node",
                "Two files in the static-pod folder run the same component, often because a backup was saved there.", "kubectl --namespace kube-system get pods --output wide"),
            Self::Versions => entry("CT0203", ControlPlane, Always, "the versions of kube-apiserver and etcd can be traced",
                "The version has no tracing that can be relied on, or its image's tag does not name one (docs/versions.md).", "kubectl --namespace kube-system get pods --output custom-columns=POD:.metadata.name,IMAGE:.spec.containers[*].image"),
            Self::Manifests => entry("CT0204", ControlPlane, Always, "the manifests have a shape that can be edited",
                "The manifest is not as kubeadm writes it, and an edit could not be proved to change nothing else.", "kubectl tracing diff -f clustertracing.yaml --manifests ./manifests"),
            Self::ForeignTracing => entry("CT0205", ControlPlane, Always, "nobody else has configured tracing",
                "Somebody other than ClusterTracing set a tracing flag or switched its gate, and that is never overwritten.", "kubectl --namespace kube-system edit configmap kubeadm-config"),
            Self::EgressSelector => entry("CT0206", ControlPlane, Always, "kube-apiserver reaches a collector on its own loopback",
                "An egress selector may send its spans through a proxy, from where the loopback is another machine's.", "kubectl --namespace kube-system get pods --selector component=kube-apiserver --output yaml"),
            Self::Ports => entry("CT0207", ControlPlane, Always, "the collector's ports are free on every control-plane node",
                "Another process of the node listens there; what runs outside of pods is seen by the node's agent only.", "kubectl get pods --all-namespaces --output wide"),
            Self::EtcdOnNodes => entry("CT0208", ControlPlane, Always, "etcd is a static pod on every control-plane node",
                "etcd runs elsewhere or as a service of the node: kube-apiserver alone is traced.", "kubectl --namespace kube-system get pods --selector component=etcd --output wide"),
            Self::Downtime => entry("CT0209", ControlPlane, Always, "the API stays up while a node changes",
                "With one control-plane node, or one or two members of etcd, each restart interrupts the API.", "kubectl get nodes --selector node-role.kubernetes.io/control-plane"),
            Self::NextMinorVersion => entry("CT0210", ControlPlane, Always, "the next minor version starts with all that is set",
                "A flag or a feature gate is refused by the next minor version, or an upgrade resets settings (docs/upgrades.md).", "kubectl --namespace kube-system edit configmap kubeadm-config"),

            Self::Rights => entry("CT0301", Installation, Before, "you may install the operator",
                "Your user lacks rights that installing the chart needs.", "kubectl auth can-i --list --namespace {namespace}"),
            Self::PodSecurity => entry("CT0302", Installation, Always, "Pod Security lets the agents run",
                "The agents need hostPath, hostPID and hostNetwork, which the levels baseline and restricted refuse.", "kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite"),
            Self::Definitions => entry("CT0303", Installation, After, "the resources are defined, in this program's version",
                "The operator is not installed, or its definitions are older than this program: Helm's crds.enabled may be off.", "helm upgrade clustertracing charts/clustertracing --install --namespace {namespace} --create-namespace"),
            Self::Controller => entry("CT0304", Installation, After, "the controller is available",
                "Its pod is not scheduled, does not start or is not ready.", "kubectl --namespace {namespace} describe pods --selector app.kubernetes.io/component=controller"),
            Self::Leader => entry("CT0305", Installation, After, "a controller leads",
                "No controller has renewed its Lease: none runs, or none reaches the API server.", "kubectl --namespace {namespace} get lease clustertracing-controller --output yaml"),
            Self::Agents => entry("CT0306", Installation, After, "an agent is ready on every control-plane node",
                "An agent's pod is missing, does not start or is not ready.", "kubectl --namespace {namespace} describe pods --selector app.kubernetes.io/component=agent"),
            Self::AgentReports => entry("CT0307", Installation, After, "every agent reports on its node",
                "The agent is silent, or has not yet checked the newest settings against its manifests.", "kubectl --namespace {namespace} logs --selector app.kubernetes.io/component=agent --prefix"),
            Self::ProgramVersions => entry("CT0308", Installation, After, "controller, agents and this program are of one version",
                "An upgrade of the operator is not complete, or this program is of another release.", "helm list --all-namespaces"),

            Self::Resource => entry("CT0401", Configuration, After, "a ClusterTracing says what is traced",
                "None has been applied yet, so that nothing is traced.", "kubectl apply -f clustertracing.yaml"),
            Self::Settings => entry("CT0402", Configuration, After, "the settings can be used",
                "A field holds a value that the controller or a node's agent refuses.", "kubectl edit clustertracing cluster"),
            Self::Observed => entry("CT0403", Configuration, After, "the controller has seen the newest settings",
                "The controller has not answered the last edit: it is not at work, or cannot write the status.", "kubectl --namespace {namespace} logs --selector app.kubernetes.io/component=controller --prefix"),
            Self::Rollout => entry("CT0404", Configuration, After, "the requested settings are in force",
                "A change is under way and goes on by itself, or waits for what the message names.", "kubectl get clustertracing cluster --output wide"),
            Self::SamplingRate => entry("CT0405", Configuration, After, "some requests are sampled",
                "At samplingRatePerMillion 0 only requests are traced whose caller may ask for it.", "kubectl edit clustertracing cluster"),

            Self::KubeApiserverTraced => entry("CT0501", Nodes, After, "every kube-apiserver runs with the requested tracing",
                "A node has not been changed yet, or its change was refused or taken back.", "kubectl get nodetracings"),
            Self::EtcdTraced => entry("CT0502", Nodes, After, "every etcd member runs with the requested tracing",
                "A node has not been changed yet, or its change was refused or taken back.", "kubectl get nodetracings"),
            Self::NodeStates => entry("CT0503", Nodes, After, "every node carries the requested settings, verified",
                "A node was refused, went back to its original manifests, is not well, or does not report how its change ended.", "kubectl get clustertracing cluster --output yaml"),
            Self::Changes => entry("CT0504", Nodes, After, "no change was taken back",
                "The new processes did not come up or the change was interrupted, and the node has its original manifests.", "kubectl get nodetracings --output yaml"),
            Self::WayBack => entry("CT0505", Nodes, After, "no node is stuck between two states",
                "Going back failed, or the record of a change cannot be read: a person has to look at the node (docs/break-glass.md).", "kubectl get nodetracings --output yaml"),
            Self::Canary => entry("CT0506", Nodes, After, "the components start with the new flags, tried in a pod",
                "A component with its own image did not start with the new flags, so that nothing was written on its node.", "kubectl get clustertracing cluster --output wide"),
            Self::Regression => entry("CT0507", Nodes, After, "kube-apiserver needs no more than before on the node changed first",
                "It needs much more memory or time than before the change, and no other node is changed.", "kubectl get nodetracings --output yaml"),
            Self::Drift => entry("CT0508", Nodes, After, "the files of every node are as its agent left them",
                "kubeadm rendered a manifest anew, or a person or a tool changed it.", "kubectl get nodetracings --output yaml"),
            Self::Components => entry("CT0509", Nodes, After, "kube-apiserver and etcd answer their probes on every node",
                "A component is not well on its node, and nothing is changed beside it.", "kubectl --namespace kube-system get pods --output wide"),
            Self::EtcdMembers => entry("CT0510", Nodes, After, "etcd is well, with a member to spare",
                "A member does not answer, has no quorum, raises an alarm or does not vote yet: restarting another could end the quorum.", "kubectl --namespace kube-system get pods --selector component=etcd --output wide"),
            Self::Kubelets => entry("CT0511", Nodes, After, "the kubelet of every control-plane node is well",
                "A kubelet that does not answer would not act on a new manifest.", "kubectl describe nodes --selector node-role.kubernetes.io/control-plane"),
            Self::NodeRoom => entry("CT0512", Nodes, After, "every node has room for a change, and its files can be written",
                "A disk is full, memory is low, or a file system is read-only.", "kubectl describe nodes --selector node-role.kubernetes.io/control-plane"),

            Self::Collectors => entry("CT0601", Spans, After, "a collector takes spans on every node",
                "A collector's pod is missing, does not start or is not ready.", "kubectl --namespace {namespace} describe pods --selector app.kubernetes.io/component=collector"),
            Self::CollectorConfig => entry("CT0602", Spans, After, "the collector takes its configuration",
                "A collector that was tried in a pod refused its new configuration; the one that runs stays.", "kubectl get clustertracing cluster --output wide"),
            Self::Secrets => entry("CT0603", Spans, After, "the Secrets of the exporters are there",
                "A Secret or a key that an exporter names is missing, or holds no certificate.", "kubectl --namespace {namespace} get secrets"),
            Self::Certificates => entry("CT0604", Spans, After, "the certificates of the exporters hold for 14 days and more",
                "Whoever renews the certificate has not done so.", "kubectl --namespace {namespace} get secrets"),
            Self::Endpoint => entry("CT0605", Spans, After, "an endpoint of your own takes connections from every node",
                "Nothing listens there, or a firewall is in between.", "kubectl get nodetracings --output yaml"),
            Self::SpansReceived => entry("CT0606", Spans, After, "spans of every instance reach the collectors",
                "They end between an API server or an etcd member and the collector of its node.", "kubectl --namespace {namespace} logs --selector app.kubernetes.io/component=collector --prefix"),
            Self::SpansSent => entry("CT0607", Spans, After, "the collectors send spans on to the back ends",
                "They end between a collector and a back end, or at the collector's memory limit.", "kubectl --namespace {namespace} logs --selector app.kubernetes.io/component=collector --prefix"),
            Self::SpansFlowing => entry("CT0608", Spans, After, "it is proved that spans of every instance flow",
                "The proof needs time, or is not possible (docs/spans-flowing.md).", "kubectl get clustertracing cluster --output yaml"),
            Self::SpanLoss => entry("CT0609", Spans, After, "less than 1 % of the spans get lost",
                "A collector or a back end takes fewer spans than are sent.", "kubectl --namespace {namespace} logs --selector app.kubernetes.io/component=collector --prefix"),
            Self::TraceStore => entry("CT0610", Spans, After, "the trace store answers you",
                "No controller leads, or you lack Role clustertracing-traces-reader (docs/trace-store.md).", "kubectl --namespace {namespace} get pods,lease,endpointslices"),
        }
    }

    /// Where a code is explained.
    pub(in crate::cli) fn docs(self) -> String {
        format!("{PAGE}#{}", self.entry().code.to_lowercase())
    }
}

impl Entry {
    /// The command, for an operator in this namespace.
    pub(in crate::cli) fn fix(&self, namespace: &str) -> String {
        self.fix.replace(NAMESPACE, namespace)
    }

    /// The command, where no namespace is known.
    pub(in crate::cli) fn usual_fix(&self) -> String {
        self.fix(USUAL_NAMESPACE)
    }
}

impl When {
    /// Whether it is made now. `before`: with `--pre`.
    pub(in crate::cli) fn is_now(self, before: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Before => before,
            Self::After => !before,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Always => "`check` and `check --pre`",
            Self::Before => "`check --pre`",
            Self::After => "`check`",
        }
    }
}

impl Category {
    /// Its heading.
    pub(in crate::cli) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Every check, as Markdown: docs/checks.md.
pub(in crate::cli) fn reference() -> String {
    let mut text = "# Checks\n\n<!-- Generated from src/cli/check/catalog.rs by `make generate`: do not edit. -->\n\n\
        What `kubectl tracing check` looks at, by code. A code keeps its meaning, and is not given to another check. The reasons are those of conditions, \
        Events and refusals ([reasons.md](reasons.md)): each belongs to one check. `kubectl tracing explain CODE` says the same offline.\n"
        .to_owned();
    for category in Category::iter() {
        // writing to a String does not fail
        _ = write!(text, "\n## {}\n", capitalized(category.as_str()));
        for check in Check::iter().filter(|check| check.entry().category == category) {
            let entry = check.entry();
            let reasons: Vec<_> = reasons::of(check).map(|reason| format!("`{reason}`")).collect();
            let reasons = if reasons.is_empty() { String::new() } else { format!("- Reasons: {}\n", reasons.join(", ")) };
            _ = write!(
                text,
                "\n### {}\n\n- All is well: {}\n- Made by: {}\n- If not: {}\n- Next: `{}`\n{reasons}",
                entry.code,
                entry.description,
                entry.when.in_words(),
                entry.cause,
                entry.usual_fix()
            );
        }
    }
    text
}

/// With an upper-case first letter.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_in_order_and_numbered_by_category() {
        let codes: Vec<_> = Check::iter().map(|check| check.entry().code).collect();
        assert!(codes.is_sorted() && codes.iter().collect::<BTreeSet<_>>().len() == codes.len(), "{codes:?}");
        for (number, category) in Category::iter().enumerate() {
            let prefix = format!("CT{:02}", number + 1);
            let of_category = Check::iter().map(Check::entry).filter(|entry| entry.category == category);
            assert!(of_category.clone().count() > 0);
            assert!(of_category.clone().all(|entry| entry.code.starts_with(&prefix) && entry.code.len() == 6), "{category:?}");
        }
    }

    #[test]
    fn every_check_says_why_in_one_sentence_and_names_one_command() {
        for entry in Check::iter().map(Check::entry) {
            assert!(entry.cause.ends_with('.') && entry.cause.matches(". ").count() == 0, "{entry:?}");
            let fix = entry.usual_fix();
            assert!(fix.starts_with("kubectl ") || fix.starts_with("helm "), "{entry:?}");
            assert!(!fix.contains(['{', ';', '|', '\n']), "{entry:?}");
            assert!(!entry.description.ends_with('.') && entry.description.len() <= 80, "{entry:?}");
        }
    }

    #[test]
    fn every_check_has_a_section_that_its_anchor_leads_to() {
        let page = reference();
        for check in Check::iter() {
            assert_eq!(page.matches(&format!("\n### {}\n", check.entry().code)).count(), 1);
            assert_eq!(check.docs(), format!("docs/checks.md#{}", check.entry().code.to_lowercase()));
        }
    }
}
