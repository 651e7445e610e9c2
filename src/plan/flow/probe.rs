//! The active probe as plain values: what was sent, what came back, what can go wrong.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use super::timing::SPANS_TAKE;
use crate::api::telemetry::{Instance, TraceId};
use crate::api::{ComponentName, SINGLETON};

/// What the probe asks for: an object that API servers read from etcd and not from their cache, because no resource version is given.
pub fn path() -> String {
    format!("/apis/{}/{}/clustertracings/{SINGLETON}", crate::api::GROUP, crate::api::VERSION)
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentProbe {
    /// When it was sent.
    pub at: Timestamp,
    /// The trace that it asked for.
    pub trace: TraceId,
    /// What came back.
    pub answer: Answer,
    /// Whose spans the trace has.
    pub instances: BTreeSet<Instance>,
}

/// What came back of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP status.
    Status(u16),
    /// Nothing, in time.
    None,
}

impl SentProbe {
    /// Whether this component had to make a span for it: kube-apiserver traces whatever passes its authentication, and etcd is asked when
    /// the request is allowed.
    pub fn asked(&self, component: ComponentName) -> bool {
        match (self.answer, component) {
            (Answer::None | Answer::Status(401), _) => false,
            (Answer::Status(_), ComponentName::KubeApiserver) => true,
            (Answer::Status(status), ComponentName::Etcd) => status == 200 || status == 404,
        }
    }

    /// Whether its spans should have come by now.
    pub fn had_its_time(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) >= SPANS_TAKE
    }
}

/// Why no probe can be sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeOff {
    /// Its certificate is being made.
    Preparing,
    /// The controller may not do what it takes.
    Forbidden {
        /// To what it has no right.
        what: String,
    },
    /// Somebody denied the certificate.
    Denied,
    /// The signer refused the certificate.
    Failed,
    /// No signer made the certificate in time.
    NotSigned,
    /// Something else; the controller's log says more.
    Error {
        /// What was tried.
        what: String,
    },
}

impl std::fmt::Display for ProbeOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Preparing => f.write_str("its certificate is being made"),
            Self::Forbidden { what } => write!(f, "the controller has no right to {what}"),
            Self::Denied => f.write_str("its certificate signing request was denied"),
            Self::Failed => f.write_str("the signer refused its certificate signing request"),
            Self::NotSigned => f.write_str(
                "no signer answers its certificate signing request: does kube-controller-manager run with --cluster-signing-cert-file?",
            ),
            Self::Error { what } => write!(f, "{what} failed, as the controller's log says"),
        }
    }
}
