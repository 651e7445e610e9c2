//! What stands in the way of a change, and how people are told: which node and file, the cause, and what to do next.

use super::Refusal;
use crate::api::{ComponentName, Reason, SINGLETON};
use crate::manifest::Unsupported;

/// Where kubeadm keeps what it would otherwise write again at the next upgrade.
pub(super) const FROM_KUBEADM: &str = "from kubeadm's configuration (kubectl -n kube-system edit configmap kubeadm-config)";

/// What stands in the way, and what to do about it.
#[derive(Debug)]
pub(super) struct Obstacle {
    pub(super) reason: Reason,
    pub(super) cause: String,
    pub(super) remedy: String,
}

/// An obstacle, and where it stands.
#[derive(Debug)]
pub(super) struct Placed {
    component: ComponentName,
    /// Empty where it is no file's fault.
    file: String,
    obstacle: Obstacle,
}

impl Obstacle {
    pub(super) fn at(self, component: ComponentName, file: &str) -> Placed {
        Placed { component, file: file.to_owned(), obstacle: self }
    }

    /// Offers the other way out: to do without this component.
    pub(super) fn or_left_out(mut self, component: ComponentName) -> Self {
        self.remedy = format!("{}, or leave {component} untraced: {}", self.remedy, leave_out(component));
        self
    }
}

/// The command that does without a component.
pub fn leave_out(component: ComponentName) -> String {
    let field = match component {
        ComponentName::KubeApiserver => "kubeAPIServer",
        ComponentName::Etcd => "etcd",
    };
    patch(&format!(r#"{{"{field}":{{"state":"Disabled"}}}}"#))
}

impl From<Unsupported> for Obstacle {
    fn from(error: Unsupported) -> Self {
        Self {
            reason: Reason::UnsupportedManifest,
            cause: error.to_string(),
            remedy: "bring it to the shape that kubeadm writes, and leave the rest as it is".to_owned(),
        }
    }
}

impl Placed {
    pub(super) fn refusal(self, node_name: Option<&str>) -> Refusal {
        let Self { component, file, obstacle: Obstacle { reason, cause, remedy } } = self;
        let node = node_name.map(|name| format!(" on node {name}")).unwrap_or_default();
        let file = if file.is_empty() { file } else { format!(", {file}") };
        Refusal { reason, component, message: format!("{component}{node}{file}: {cause}; {remedy}") }
    }
}

/// The command that changes the resource's spec.
pub(super) fn patch(spec: &str) -> String {
    format!("kubectl patch clustertracing {SINGLETON} --type merge -p '{{\"spec\":{spec}}}'")
}
