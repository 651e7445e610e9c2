//! Sends the probe: one request to each API server's own address, traced whatever the sampling rate is, under the trace id that it names.
//!
//! The request reads one small object, which an API server fetches from its etcd member: so one probe of a node makes both of its instances
//! send spans. It is sent as a user of its own (`certificate::USER`) that may read that object and nothing else.

mod certificate;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use http::{Request, Uri};
use http_body_util::BodyExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::{Api, Client, Config};

use crate::api::telemetry::TraceId;
use crate::plan::flow::probe::{Answer, ProbeOff, SentProbe, path};
use crate::plan::flow::{Expected, probed_nodes};
use crate::runtime::client_certificate::Certificate;

pub use certificate::issue;

/// Every API server has it in its certificate (kubeadm), whatever its address.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// An API server that does not answer within this is not asked for longer: the next probe is due soon.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Probes of different nodes are up to this far apart, so that they do not come at the same moment.
const SPREAD_MILLISECONDS: u64 = 3000;
/// After a failure to get a certificate. Each try is a write.
const TRY_AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// The probe of all API servers.
pub struct Prober {
    client: Client,
    config: Config,
    certificate: Option<Certificate>,
    connections: BTreeMap<String, Connection>,
    off: Option<(ProbeOff, Timestamp)>,
}

/// A kept connection to one API server.
struct Connection {
    url: String,
    client: Client,
}

impl Prober {
    /// One that gets its certificate through `client`, and trusts what `config` trusts.
    pub fn new(client: Client, config: Config) -> Self {
        Self { client, config, certificate: None, connections: BTreeMap::new(), off: Some((ProbeOff::Preparing, Timestamp::UNIX_EPOCH)) }
    }

    /// Why no probe can be sent.
    pub fn off(&self) -> Option<&ProbeOff> {
        self.off.as_ref().map(|(off, _)| off)
    }

    /// Sends one probe to each node's API server that one is of use to, and waits for the answers.
    pub async fn round(&mut self, expected: &Expected, now: Timestamp) -> Vec<(String, SentProbe)> {
        let nodes = probed_nodes(expected);
        if nodes.is_empty() {
            self.certificate = None;
            self.connections.clear();
            return Vec::new();
        }
        self.renew(now).await;
        if self.certificate.is_none() {
            return Vec::new();
        }
        let urls = match urls(&self.client).await {
            Ok(urls) => urls,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "addresses of the API servers not read");
                return Vec::new();
            }
        };
        let to = nodes.iter().filter_map(|node| {
            let addresses = &expected.nodes.get(*node)?.addresses;
            let url = urls.iter().find(|(address, _)| addresses.contains(address)).map(|(_, url)| url.clone());
            Some(((*node).to_owned(), url?))
        });
        let to: Vec<_> = to.collect();
        for (node, url) in &to {
            self.connect(node, url);
        }
        self.connections.retain(|node, _| to.iter().any(|(known, _)| known == node));
        let sent = join_all(self.connections.iter().zip(0_u64..).map(async |((node, connection), n)| {
            tokio::time::sleep(Duration::from_millis(SPREAD_MILLISECONDS * n / to.len().max(1) as u64)).await;
            Some((node.clone(), send(&connection.client).await?))
        }));
        let sent: Vec<_> = sent.await.into_iter().flatten().collect();
        for (node, _) in sent.iter().filter(|(_, probe)| probe.answer == Answer::None) {
            // A connection that hangs is not asked again.
            self.connections.remove(node);
        }
        sent
    }

    /// Has a certificate made where there is none, or where this one has lived for two thirds of its time.
    async fn renew(&mut self, now: Timestamp) {
        let is_good = self.certificate.as_ref().is_some_and(|certificate| now < certificate::renew(certificate));
        if is_good || self.off.as_ref().is_some_and(|(off, at)| *off != ProbeOff::Preparing && now.duration_since(*at) < TRY_AGAIN) {
            return;
        }
        match issue(&self.client).await {
            Ok(certificate) => {
                tracing::info!(expires = %certificate.expires, "the probe has a certificate");
                self.connections.clear();
                (self.certificate, self.off) = (Some(certificate), None);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the probe has no new certificate");
                self.certificate.take_if(|certificate| certificate.expires <= now);
                self.off = Some((error.told(), now));
            }
        }
    }

    fn connect(&mut self, node: &str, url: &str) {
        let Some(certificate) = &self.certificate else { return };
        if self.connections.get(node).is_some_and(|connection| connection.url == url) {
            return;
        }
        match client(&self.config, url, certificate) {
            Some(client) => drop(self.connections.insert(node.to_owned(), Connection { url: url.to_owned(), client })),
            None => drop(self.connections.remove(node)),
        }
    }
}

/// A client of one API server's own address, as the probe's user.
pub fn client(config: &Config, url: &str, certificate: &Certificate) -> Option<Client> {
    let mut config = config.clone();
    (config.cluster_url, config.auth_info) = (url.parse::<Uri>().ok()?, certificate.auth_info());
    (config.proxy_url, config.default_retry, config.connect_timeout) = (None, false, Some(ANSWERS_WITHIN));
    config.tls_server_name = Some(SERVER_NAME.to_owned());
    Client::try_from(config)
        .inspect_err(|error| tracing::warn!(error = error as &dyn std::error::Error, url, "no client for the probe"))
        .ok()
}

/// Sends a probe and waits for its answer. `None` without randomness for its trace.
pub async fn send(client: &Client) -> Option<SentProbe> {
    let (trace, at) = (random_trace()?, Timestamp::now());
    let answer = tokio::time::timeout(ANSWERS_WITHIN, ask(client, trace)).await;
    Some(SentProbe { at, trace, answer: answer.ok().flatten().map_or(Answer::None, Answer::Status), instances: BTreeSet::new() })
}

fn random_trace() -> Option<TraceId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    TraceId::new(bytes)
}

async fn ask(client: &Client, trace: TraceId) -> Option<u16> {
    // The parent is a span that nobody has; it must not be zero, and the trace's id has random bytes enough.
    let parent = trace.as_bytes().iter().skip(8).fold(0_u64, |parent, byte| (parent << 8) | u64::from(*byte)) | 1;
    let request = Request::get(path()).header("traceparent", format!("00-{trace}-{parent:016x}-01")).body(Body::empty()).ok()?;
    let answer = client.send(request).await;
    let answer = answer.inspect_err(|error| tracing::debug!(error = error as &dyn std::error::Error, "a probe has no answer")).ok()?;
    let status = answer.status().as_u16();
    // To its end, so that the connection can be used again.
    answer.into_body().collect().await.ok()?;
    Some(status)
}

/// Addresses of API servers, and their URLs: what each of them writes of itself into the endpoints of the `kubernetes` Service.
async fn urls(client: &Client) -> Result<Vec<(String, String)>, kube::Error> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let slice = slices.get("kubernetes").await?;
    let port = slice.ports.iter().flatten().find_map(|port| port.port.filter(|_| port.name.as_deref() == Some("https"))).unwrap_or(6443);
    let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    Ok(addresses.map(|address| (address.clone(), url(address, port))).collect())
}

fn url(address: &str, port: i32) -> String {
    if address.contains(':') { format!("https://[{address}]:{port}") } else { format!("https://{address}:{port}") }
}
