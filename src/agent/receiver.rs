//! Whether somebody takes the spans that a change would send, or could: asked on the node, before anything of it changes.

use crate::api::node_tracing::{Blocker, NodeSettings, ReceiverKind};
use crate::api::{COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT, COLLECTOR_UID, Reason};
use crate::component::Change;
use crate::host::{self, Holder, Host, Listener, Reach};

use super::facts::Trouble;

/// How often an endpoint is tried before it counts as not reachable: one lost packet is no reason to stop.
const TRIES: usize = 3;
/// Milliseconds from one try to the next.
const TRY_AGAIN_AFTER: u64 = 500;

/// What was found where spans are to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Receiver {
    /// Nothing speaks against it, or nothing is to be sent there.
    #[default]
    Fine,
    /// Somebody else listens on a port that the node's collector needs.
    PortTaken {
        /// The port.
        port: u16,
        /// Who.
        listener: Listener,
    },
    /// Somebody else's endpoint takes no connection from this node.
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// Why.
        cause: Reach,
    },
}

/// Whether `changes` make a component of the node send spans that does not send them there yet.
pub fn begins(changes: &[Change], settings: &NodeSettings) -> bool {
    let on = |change: &Change| settings.of(change.component).state == crate::api::State::Enabled;
    changes.iter().any(|change| !change.is_made() && on(change))
}

/// Looks where `settings` send spans.
pub async fn look<H: Host>(host: &H, settings: &NodeSettings) -> Result<Receiver, host::Error> {
    match settings.receiver {
        ReceiverKind::NodeCollector => ports(host, settings),
        ReceiverKind::External => endpoint(host, &settings.endpoint).await,
    }
}

/// Whether all ports of the node's collector are free, or its own: it runs as a user that nobody else has.
fn ports<H: Host>(host: &H, settings: &NodeSettings) -> Result<Receiver, host::Error> {
    let receives = settings.endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    for port in receives.into_iter().chain([COLLECTOR_HEALTH_PORT, COLLECTOR_METRICS_PORT]) {
        if let Some(listener) = host.listener(port)?.filter(|listener| listener.uid != COLLECTOR_UID) {
            return Ok(Receiver::PortTaken { port, listener });
        }
    }
    Ok(Receiver::Fine)
}

async fn endpoint<H: Host>(host: &H, endpoint: &str) -> Result<Receiver, host::Error> {
    let mut cause = host.reach(endpoint).await;
    for _ in 1..TRIES {
        if cause == Reach::Connected {
            break;
        }
        host.sleep_until(host.now()?.since_boot + TRY_AGAIN_AFTER).await;
        cause = host.reach(endpoint).await;
    }
    Ok(match cause {
        Reach::Connected => Receiver::Fine,
        cause => Receiver::Unreachable { endpoint: endpoint.to_owned(), cause },
    })
}

impl Receiver {
    /// A port stays taken until a person frees it, or names another.
    pub fn refusal(&self) -> Option<Trouble> {
        let Self::PortTaken { port, listener: Listener { uid, holder } } = self else { return None };
        let who = match holder {
            Some(Holder { program, pid }) => format!("{program} (pid {pid}, uid {uid})"),
            None => format!("a process of uid {uid}"),
        };
        let message = format!(
            "port {port} of 127.0.0.1, on which the collector would listen, is held by {who}; see on the node: ss -ltnp 'sport = :{port}'; \
             end it there, or give the collector another port where that is the one of collector.port"
        );
        Some(Trouble { reason: Reason::PortTaken, message })
    }

    /// An endpoint may be there in a moment.
    pub fn blocker(&self) -> Option<Blocker> {
        let Self::Unreachable { endpoint, cause } = self else { return None };
        let message = format!(
            "{endpoint} (collector.endpoint) takes no connection from this node: {cause}; a change begins once it does; see on the node: \
             curl -v telnet://{endpoint}"
        );
        Some(Blocker { reason: Reason::EndpointUnreachable, message })
    }
}
