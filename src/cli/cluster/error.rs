//! Why the cluster gave no answer, and what to do next: pure.

use http::StatusCode;
use kube::config::KubeconfigError;
use kube::core::Status;

use crate::api::{GROUP, SINGLETON};
use crate::cli::Exit;
use crate::cli::trace::model;

/// Why the cluster gave no answer that a command can use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kubeconfig, or none that says which cluster.
    #[error("read the kubeconfig (name one with --kubeconfig, and its context with --context)")]
    Kubeconfig {
        /// The cause.
        source: KubeconfigError,
    },
    /// The kubeconfig's certificates or keys are not what they should be.
    #[error("use the kubeconfig (kubectl config view shows it)")]
    Client {
        /// The cause.
        source: kube::Error,
    },
    /// Nobody answers at the API server's address, or not as an API server.
    #[error("{action}: the API server does not answer (kubectl cluster-info shows its address)")]
    Unreachable {
        /// What was asked.
        action: String,
        /// The cause.
        source: kube::Error,
    },
    /// The person may not do that.
    #[error("{action}: {message}; whoever runs the cluster can grant it (kubectl auth can-i --list shows what you may)")]
    Forbidden {
        /// What was asked.
        action: String,
        /// The API server's words, which name the user, the verb and the resource.
        message: String,
    },
    /// The API server has no such resource.
    #[error(
        "{action}: this cluster has no clustertracings.{GROUP}: the operator is not installed, or one of another version is (helm list -A)"
    )]
    NotInstalled {
        /// What was asked.
        action: String,
    },
    /// The resource is not there.
    #[error("there is no ClusterTracing {SINGLETON:?}: nothing is traced until one is applied (kubectl apply -f clustertracing.yaml)")]
    NoResource,
    /// Nobody answers for the trace store.
    #[error("read the trace store: nobody answers for it ({message}): kubectl --namespace {namespace} get pods,lease,endpointslices")]
    StoreAway {
        /// The operator's namespace.
        namespace: String,
        /// Who says so, in its own words.
        message: String,
    },
    /// There is no trace store where it was looked for.
    #[error(
        "read the trace store: there is no service {namespace}/clustertracing-store: name the operator's namespace with --operator-namespace"
    )]
    NoStore {
        /// The namespace.
        namespace: String,
    },
    /// The trace store does not let the person in.
    #[error("read the trace store: {message}; RoleBinding to Role clustertracing-traces-reader of namespace {namespace} allows it")]
    StoreForbidden {
        /// The operator's namespace.
        namespace: String,
        /// The API server's words.
        message: String,
    },
    /// The trace store answers something else than this program knows.
    #[error("read the trace store: its answer to {path} is of another version than this program ({}): install the operator's", env!("CARGO_PKG_VERSION"))]
    StoreAnswer {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The same of a trace.
    #[error("read the trace store: its answer to {path} is no trace")]
    StoreTrace {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        source: model::Error,
    },
    /// The trace store says what is wrong with the question.
    #[error("read the trace store: {message}")]
    StoreQuestion {
        /// Its words.
        message: String,
    },
    /// There is no web page beside the exporters' back ends.
    #[error(
        "no Service with port 16686 or 3000 in the namespaces of the exporters' back ends: name one with --service NAMESPACE/NAME:PORT"
    )]
    NoPage,
    /// The API server has dropped a field that its definition does not have.
    #[error("{action}: the cluster's ClusterTracing knows no {field}: the operator is older than this program ({}); upgrade it, or use its own", env!("CARGO_PKG_VERSION"))]
    OldOperator {
        /// What was asked.
        action: String,
        /// The field.
        field: &'static str,
    },
    /// Anything else that the API server refuses, in its own words.
    #[error("{action}: {message}")]
    Refused {
        /// What was asked.
        action: String,
        /// The API server's words.
        message: String,
    },
}

impl Error {
    /// How the program ends.
    pub(in crate::cli) fn exit(&self) -> Exit {
        match self {
            Self::Kubeconfig { .. } | Self::StoreQuestion { .. } | Self::Refused { .. } => Exit::BadInput,
            Self::NotInstalled { .. } | Self::NoResource | Self::NoPage | Self::OldOperator { .. } => Exit::Findings,
            _ => Exit::Unreachable,
        }
    }

    /// Whether the same question may be answered in a moment: an API server restarts, the operator's lead changes.
    pub(in crate::cli) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::StoreAway { .. })
    }

    /// Says of a failed request what it means. `action`: what was asked, as in "get nodes".
    pub(in crate::cli) fn of(action: impl Into<String>, error: kube::Error) -> Self {
        let action = action.into();
        match error {
            kube::Error::Api(status) => {
                let message = status.message.trim().to_owned();
                match status.code {
                    401 => Self::unauthorized(action),
                    403 => Self::Forbidden { action, message },
                    _ => Self::Refused { action, message },
                }
            }
            error => Self::Unreachable { action, source: error },
        }
    }

    /// The same of a request to one of the operator's own resources: where the API server knows none, it says 404 without an object's name.
    pub(super) fn of_ours(action: impl Into<String>, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == StatusCode::NOT_FOUND.as_u16() => {
                let names_an_object = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
                if names_an_object { Self::NoResource } else { Self::NotInstalled { action: action.into() } }
            }
            error => Self::of(action, error),
        }
    }

    /// Says what an answer means that came from the trace store, or from the API server's service proxy before it. The store's own refusals are
    /// JSON with an `error`.
    pub(super) fn of_store(namespace: &str, status: StatusCode, body: &str) -> Self {
        let namespace = namespace.to_owned();
        if let Ok(Told { error: message }) = serde_json::from_str(body) {
            return Self::StoreQuestion { message };
        }
        let said = serde_json::from_str::<Status>(body).unwrap_or_default();
        let message = if said.message.is_empty() { body.trim().to_owned() } else { said.message };
        match status {
            StatusCode::UNAUTHORIZED => Self::unauthorized("read the trace store"),
            StatusCode::FORBIDDEN => Self::StoreForbidden { namespace, message },
            StatusCode::NOT_FOUND => Self::NoStore { namespace },
            _ => Self::StoreAway { namespace, message },
        }
    }

    fn unauthorized(action: impl Into<String>) -> Self {
        Self::Forbidden { action: action.into(), message: "your credentials are not valid, or not any more".to_owned() }
    }
}

/// How the trace store refuses.
#[derive(serde::Deserialize)]
struct Told {
    error: String,
}
