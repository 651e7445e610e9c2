//! Who could reach the API while something else happened: each node's own server, and clients of the load balancer.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::clients::{Access, get};
use super::cluster::Cluster;
use super::step::note;

/// Four looks a second: a restart of kube-apiserver takes at least twenty of them.
const INTERVAL: Duration = Duration::from_millis(250);
/// A server that does not answer within a second is away, for its callers.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// A restart takes longer: 6 s at the least. What is shorter is a machine that is busy, which shows on several servers at once.
const RESTART: Duration = Duration::from_secs(4);
/// How long client-go waits before it tries a lost request again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Polls in the background, until it is asked for its findings.
pub(crate) struct Watch {
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<Server>>,
    clients: Vec<JoinHandle<Requests>>,
}

/// What was seen meanwhile.
pub(crate) struct Findings {
    servers: Vec<Server>,
    clients: Vec<Requests>,
}

/// One node's own API server.
struct Server {
    node: String,
    looks: usize,
    /// When it did not answer /readyz with 200 for as long as a restart takes: from the first such look to the next good one.
    away: Vec<(Instant, Instant)>,
    /// How often it did not answer for a shorter time.
    slow: usize,
}

impl Server {
    fn missed(&mut self, from: Instant, to: Instant) {
        if to - from < RESTART {
            self.slow += 1;
        } else {
            self.away.push((from, to));
        }
    }
}

/// Requests of one client of the load balancer.
struct Requests {
    client: &'static str,
    made: usize,
    retried: usize,
    /// What the second try said, where it failed too.
    failed: Vec<String>,
}

impl Watch {
    /// Begins to poll.
    pub(crate) fn start(cluster: &Cluster, access: &Access) -> Self {
        let (stop, stopped) = watch::channel(false);
        let servers = cluster.nodes().into_iter().map(|node| tokio::spawn(watch_server(node.clone(), access.at(&node), stopped.clone())));
        let clients = [("new connections", true), ("a kept connection", false)]
            .map(|(name, reconnect)| tokio::spawn(watch_client(name, access.clone(), reconnect, stopped.clone())));
        Self { stop, servers: servers.collect(), clients: clients.into() }
    }

    /// Ends the polling.
    pub(crate) async fn stop(self) -> Findings {
        self.stop.send_replace(true);
        let mut findings = Findings { servers: Vec::new(), clients: Vec::new() };
        for server in self.servers {
            findings.servers.push(server.await.expect("a poller does not panic"));
        }
        for client in self.clients {
            findings.clients.push(client.await.expect("a poller does not panic"));
        }
        findings.tell();
        findings
    }
}

impl Findings {
    /// Every server was away, and no two at the same time.
    pub(crate) fn assert_one_node_at_a_time(&self) {
        for server in &self.servers {
            assert!(!server.away.is_empty(), "{} was never seen away in {} looks: nothing was shown", server.node, server.looks);
        }
        for (index, one) in self.servers.iter().enumerate() {
            for other in &self.servers[index + 1..] {
                for (a, b) in one.away.iter().flat_map(|a| other.away.iter().map(move |b| (a, b))) {
                    let apart = a.1 <= b.0 || b.1 <= a.0;
                    assert!(apart, "{} and {} were away at the same time: {:?}", one.node, other.node, self.timeline());
                }
            }
        }
    }

    /// No client of the load balancer needed a third try.
    pub(crate) fn assert_no_request_failed_twice(&self) {
        for requests in &self.clients {
            assert!(requests.made > 20, "only {} requests were made: nothing was shown", requests.made);
            assert!(requests.failed.is_empty(), "with {}: {:#?}", requests.client, requests.failed);
        }
    }

    /// When the API server of `node` was back for the last time.
    pub(crate) fn last_return(&self, node: &str) -> Option<Instant> {
        let server = self.servers.iter().find(|server| server.node == node)?;
        server.away.last().map(|(_, to)| *to)
    }

    fn tell(&self) {
        for (node, from, to) in self.timeline() {
            note(&format!("{node}'s API server was away from second {from:.1} to {to:.1}: {:.1} s", to - from));
        }
        for Server { node, slow, .. } in self.servers.iter().filter(|server| server.slow > 0) {
            note(&format!("{node}'s API server did not answer {slow} times for a moment"));
        }
        for Requests { client, made, retried, failed } in &self.clients {
            note(&format!("{made} requests with {client}: {retried} tried again, {} failed twice", failed.len()));
        }
    }

    /// Node, from, to: in seconds since the first absence.
    fn timeline(&self) -> Vec<(&str, f64, f64)> {
        let mut away: Vec<_> = self.servers.iter().flat_map(|s| s.away.iter().map(|(from, to)| (s.node.as_str(), *from, *to))).collect();
        away.sort_by_key(|(_, from, _)| *from);
        let Some(&(_, origin, _)) = away.first() else { return Vec::new() };
        away.into_iter().map(|(node, from, to)| (node, (from - origin).as_secs_f64(), (to - origin).as_secs_f64())).collect()
    }
}

async fn watch_server(node: String, access: Access, stopped: watch::Receiver<bool>) -> Server {
    let mut server = Server { node, looks: 0, away: Vec::new(), slow: 0 };
    let mut since = None;
    // who has not answered yet, on a machine that is busy, has not gone away
    let mut was_there = false;
    while !*stopped.borrow() {
        // A new connection for each look: a server that is stopping still answers on old ones, and takes no new ones.
        let start = Instant::now();
        let answer = tokio::time::timeout(LOOK_TIMEOUT, access.client().request_text(get("/readyz"))).await;
        server.looks += 1;
        let is_there = matches!(answer, Ok(Ok(_)));
        was_there |= is_there;
        match (is_there || !was_there, since) {
            (false, None) => since = Some(start),
            (true, Some(from)) => {
                server.missed(from, Instant::now());
                since = None;
            }
            _ => {}
        }
        pause(start).await;
    }
    if let Some(from) = since {
        server.missed(from, Instant::now());
    }
    server
}

async fn watch_client(name: &'static str, access: Access, reconnect: bool, stopped: watch::Receiver<bool>) -> Requests {
    let mut requests = Requests { client: name, made: 0, retried: 0, failed: Vec::new() };
    let mut client = access.client();
    while !*stopped.borrow() {
        let start = Instant::now();
        if reconnect {
            client = access.client();
        }
        requests.made += 1;
        if let Err(first) = client.request_text(get("/api/v1/namespaces/default")).await {
            requests.retried += 1;
            tokio::time::sleep(RETRY_AFTER).await;
            if let Err(second) = client.request_text(get("/api/v1/namespaces/default")).await {
                requests.failed.push(format!("first {first:?}, then {second:?}"));
            }
        }
        pause(start).await;
    }
    requests
}

/// Until the next look is due.
async fn pause(last: Instant) {
    tokio::time::sleep_until((last + INTERVAL).into()).await;
}
