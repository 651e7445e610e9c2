//! What can go wrong between the controller and the API server, and when to try again.

use std::time::Duration;

/// Why a turn ended early. Everything that it wrote before stays, and the next turn plans from there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("read {object}")]
    Read {
        /// What was read.
        object: &'static str,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// Writing failed.
    #[error("write {object}")]
    Write {
        /// What was written.
        object: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The node was written to by somebody else since it was read: no grant was given.
    #[error("grant node {node}")]
    Grant {
        /// The node.
        node: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The API server did not take a pod in which flags or a collector are tried: a policy of the cluster, or a quota, may forbid it.
    #[error(
        "make the pod on node {node} in which a change is tried first (where policies forbid it, the controller's --canary=Disabled does without)"
    )]
    Canary {
        /// The node.
        node: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// What was rendered is not an object.
    #[error("render {object}")]
    Render {
        /// What was rendered.
        object: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The API server took too long to answer.
    #[error("no answer from the API server within {0:?}")]
    Timeout(Duration),
}

/// What kind of failure it is: decides when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Somebody else wrote in between; a fresh look settles it.
    Conflict,
    /// The API server is away or overloaded: on a single node, every change of ours makes it so for a while.
    Unavailable,
    /// The API server understood and said no; only a person or an installation changes that.
    Rejected,
}

impl Error {
    /// What kind of failure it is.
    pub fn category(&self) -> Category {
        let source = match self {
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Grant { source, .. } | Self::Canary { source, .. } => source,
            Self::Render { .. } => return Category::Rejected,
            Self::Timeout(_) => return Category::Unavailable,
        };
        match source {
            kube::Error::Api(status) if status.code == 409 => Category::Conflict,
            kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => Category::Rejected,
            _ => Category::Unavailable,
        }
    }

    /// How long to wait before the `attempt`th try (from 1).
    pub fn retry_after(&self, attempt: u32) -> Duration {
        let doubled = |first: Duration, most: Duration| first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(most);
        match self.category() {
            Category::Conflict => Duration::from_millis(200),
            // Short at the top too: whoever waits for the API server to be back waits for this as well.
            Category::Unavailable => doubled(Duration::from_millis(500), Duration::from_secs(5)),
            Category::Rejected => doubled(Duration::from_secs(2), Duration::from_mins(5)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16) -> Error {
        let status = kube::core::Status { code, ..kube::core::Status::default() };
        Error::Read { object: "nodes", source: kube::Error::Api(Box::new(status)) }
    }

    #[test]
    fn retries_are_as_slow_as_the_failure_is_lasting() {
        let secs = Duration::from_secs;
        let cases = [
            (api(409), 9, Category::Conflict, Duration::from_millis(200)),
            (api(500), 1, Category::Unavailable, Duration::from_millis(500)),
            (api(503), 99, Category::Unavailable, secs(5)),
            (api(429), 2, Category::Unavailable, secs(1)),
            (Error::Timeout(secs(30)), 3, Category::Unavailable, secs(2)),
            (api(403), 1, Category::Rejected, secs(2)),
            (api(404), 3, Category::Rejected, secs(8)),
            (api(422), u32::MAX, Category::Rejected, secs(300)),
        ];
        for (error, attempt, category, wait) in cases {
            assert_eq!((error.category(), error.retry_after(attempt)), (category, wait), "{error:?}");
        }
    }
}
