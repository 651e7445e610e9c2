//! Drift: what of a node's files is not as its agent left it, and who did it, as typed values and in words.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ComponentName;

/// A file that is not as the node's agent left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The component that the file belongs to.
    pub component: ComponentName,
    /// Name of the manifest in the static-pod folder, or of the tracing file in /etc/kubernetes/clustertracing.
    #[schemars(length(max = 253))]
    pub file: String,
    /// What is not as it was.
    pub what: Deviation,
    /// Who did it, as far as the file tells.
    pub cause: DriftCause,
    /// Set when the component was healed less than ten minutes before it drifted again: the ClusterTracing's generation that it was healed for.
    /// It is healed again for a newer one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healed_generation: Option<i64>,
}

/// What is not as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Deviation {
    /// The file has gone.
    Missing,
    /// The file has no bytes.
    Empty,
    /// The file has other bytes, and what was added to it is not complete any more.
    Content,
    /// The file has another mode.
    Mode,
    /// The file has another owner or group.
    Owner,
}

/// Who made a file drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftCause {
    /// The manifest is as kubeadm renders it: kubeadm wrote it anew, or somebody put such a manifest back.
    KubeadmRender,
    /// The component's image is another one: an upgrade.
    Upgrade,
    /// Anything else: a person, or a tool that a person runs.
    Human,
}

impl fmt::Display for Drift {
    /// For example «etcd.yaml has other contents (kubeadm rendered it anew)».
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, what, cause, .. } = self;
        write!(f, "{file} {what} ({cause})")
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "has gone",
            Self::Empty => "is empty",
            Self::Content => "has other contents",
            Self::Mode => "has another mode",
            Self::Owner => "has another owner",
        })
    }
}

impl fmt::Display for DriftCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KubeadmRender => "kubeadm rendered it anew",
            Self::Upgrade => "an upgrade, it has another image",
            Self::Human => "changed by hand or by a tool",
        })
    }
}

impl Drift {
    /// Whether this is the same drift of the same file.
    pub fn is_of(&self, other: &Self) -> bool {
        (self.component, &self.file, self.what, self.cause) == (other.component, &other.file, other.what, other.cause)
    }

    /// Why it is not healed a second time, who does it probably, and what to do.
    pub fn fight(&self) -> String {
        let (who, remedy) = match self.cause {
            DriftCause::KubeadmRender | DriftCause::Upgrade => {
                ("kubeadm, or what runs it,", "see what runs kubeadm on the node, and let it end")
            }
            DriftCause::Human => (
                "a person or a tool that manages the node's files (configuration management, a hardening script)",
                "find it, and let it leave this file alone or carry the tracing settings itself",
            ),
        };
        format!(
            "{self}, within ten minutes of being healed; {who} would change it again, so that it is left as it is; {remedy}; any edit of the \
             spec heals it once more"
        )
    }
}
