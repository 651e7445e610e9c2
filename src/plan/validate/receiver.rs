//! `spec.collector` → [`Receiver`].

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Map, Value};
use strum::IntoEnumIterator;

use super::{Installation, Invalid, within};
use crate::api::collector::{
    Compression, ExporterHeader, GatewaySpec, ProxySpec, QueueSpec, QueueStorage, Redaction, SecretRef, TailSampling, TlsVersion,
};
use crate::api::{self, CollectorMode, ExporterProtocol, State};
use crate::plan::collector::{self, redaction::Rule};

/// Who receives spans.
#[derive(Clone, Debug, PartialEq)]
pub enum Receiver {
    /// A collector on each control-plane node.
    Node(Box<Collector>),
    /// Somebody else's endpoint.
    External(Endpoint),
}

/// `host:port` without a scheme, of letters, digits, dots, dashes, colons and brackets only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// What stands in for an endpoint that plays no part.
    pub(super) fn loopback() -> Self {
        Self("127.0.0.1:4317".to_owned())
    }
}

/// The collector of each control-plane node.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Port of the loopback that spans are received on.
    pub port: u16,
    /// Where spans are sent on to.
    pub exporters: Vec<Exporter>,
    /// What is taken out of spans.
    pub redaction: Vec<Rule>,
    /// The image.
    pub image: String,
    /// The container's resources, where the resource names them.
    pub resources: Option<ResourceRequirements>,
    /// The Deployment that stands between the nodes' collectors and the exporters.
    pub gateway: Option<Gateway>,
    /// What waits for each exporter.
    pub queue: Queue,
    /// The proxy on the way to the exporters.
    pub proxy: Option<Proxy>,
    /// What is added to the configuration of the collector that sends to the exporters: known to fit ([`collector::extra`]).
    pub extra: Map<String, Value>,
}

/// The gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// How many pods.
    pub replicas: i32,
    /// Which traces go on; `None`: all.
    pub tail_sampling: Option<TailSampling>,
    /// The container's resources, where the resource names them.
    pub resources: Option<ResourceRequirements>,
}

/// What waits for an exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many spans.
    pub spans: u32,
    /// Where.
    pub storage: QueueStorage,
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `http://host:port`.
    pub url: String,
    /// What is reached without it.
    pub no_proxy: Vec<String>,
}

/// A destination of the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// Unique name: lower-case letters, digits, dashes.
    pub name: String,
    /// The flavour of OTLP.
    pub protocol: ExporterProtocol,
    /// Destination.
    pub endpoint: Endpoint,
    /// How requests are compressed.
    pub compression: Compression,
    /// TLS; `None` is plain text.
    pub tls: Option<ExporterTls>,
    /// Request headers: name, and where the value is.
    pub headers: Vec<ExporterHeader>,
}

/// TLS to a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExporterTls {
    /// Secret with `ca.crt`.
    pub ca_secret: Option<String>,
    /// Secret with `tls.crt` and `tls.key`.
    pub cert_secret: Option<String>,
    /// The name in the destination's certificate, where it is not the endpoint's host.
    pub server_name: Option<String>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn receiver(spec: &api::CollectorSpec, installation: &Installation) -> Result<Receiver, Invalid> {
    match (spec.mode, &spec.endpoint) {
        (CollectorMode::External, _) if spec.extra_config.is_some() => {
            Err(Invalid::new("collector.extraConfig", "is for the operator's own collector: with mode External there is none"))
        }
        (CollectorMode::External, Some(endpoint)) => Ok(Receiver::External(node_endpoint("collector.endpoint", endpoint)?)),
        (CollectorMode::External, None) => Err(Invalid::new("collector.endpoint", "is required with mode External")),
        (CollectorMode::Node | CollectorMode::Gateway, Some(_)) => Err(Invalid::new("collector.endpoint", "belongs to mode External only")),
        (CollectorMode::Node | CollectorMode::Gateway, None) => Ok(Receiver::Node(Box::new(collector(spec, installation)?))),
    }
}

fn collector(spec: &api::CollectorSpec, installation: &Installation) -> Result<Collector, Invalid> {
    let port = within("collector.port", spec.port, &(1024..=65535))?;
    if spec.exporters.len() > 8 {
        return Err(Invalid::new("collector.exporters", "has more than 8 entries"));
    }
    let mut exporters: Vec<Exporter> = Vec::new();
    for (i, e) in spec.exporters.iter().enumerate() {
        let exporter = exporter(&format!("collector.exporters[{i}]"), e)?;
        if exporters.iter().any(|other| other.name == exporter.name) {
            return Err(Invalid::new(format!("collector.exporters[{i}].name"), format!("{:?} is used twice", exporter.name)));
        }
        exporters.push(exporter);
    }
    let image = spec.image.as_ref().unwrap_or(&installation.collector_image);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if image.is_empty() || image.len() > 512 || !image.chars().all(plain) {
        return Err(Invalid::new("collector.image", "is not an image reference"));
    }
    let collector = Collector {
        // In range: checked above.
        port: u16::try_from(port).unwrap_or(4317),
        exporters,
        redaction: redaction(spec)?,
        image: image.clone(),
        resources: spec.resources.clone(),
        gateway: gateway(spec)?,
        queue: queue(&spec.queue)?,
        proxy: spec.proxy.as_ref().map(proxy).transpose()?,
        extra: spec.extra_config.clone().unwrap_or_default(),
    };
    match collector::extra::check(&collector) {
        Ok(()) => Ok(collector),
        Err(conflict) => Err(Invalid::new(format!("collector.extraConfig{}", conflict.path), conflict.problem)),
    }
}

fn gateway(spec: &api::CollectorSpec) -> Result<Option<Gateway>, Invalid> {
    let GatewaySpec { replicas, tail_sampling, resources } = match (spec.mode, &spec.gateway) {
        (CollectorMode::Gateway, Some(gateway)) => gateway.clone(),
        (CollectorMode::Gateway, None) => GatewaySpec::default(),
        (_, Some(_)) => return Err(Invalid::new("collector.gateway", "belongs to mode Gateway only")),
        (_, None) => return Ok(None),
    };
    let replicas = replicas.unwrap_or(if tail_sampling.is_some() { 1 } else { 2 });
    within("collector.gateway.replicas", replicas, &(1..=16))?;
    let added = spec.extra_config.as_ref().is_some_and(|extra| collector::extra::exporters(extra).next().is_some());
    if spec.exporters.is_empty() && !added {
        return Err(Invalid::new("collector.exporters", "has no entry, and mode Gateway is there to send on to one"));
    }
    if let Some(t) = &tail_sampling {
        if replicas != 1 {
            return Err(Invalid::new("collector.gateway.replicas", "must be 1: tailSampling needs all spans of a trace in one place"));
        }
        within("collector.gateway.tailSampling.decisionSeconds", t.decision_seconds, &(1..=300))?;
        within("collector.gateway.tailSampling.slowerThanMilliseconds", t.slower_than_milliseconds, &(1..=3_600_000))?;
        within("collector.gateway.tailSampling.keptPerMillion", t.kept_per_million, &super::RATE)?;
    }
    Ok(Some(Gateway { replicas, tail_sampling, resources }))
}

fn queue(spec: &QueueSpec) -> Result<Queue, Invalid> {
    let spans = within("collector.queue.spans", spec.spans, &(2048..=1_000_000))?;
    Ok(Queue { spans: u32::try_from(spans).unwrap_or(8192), storage: spec.storage })
}

fn proxy(spec: &ProxySpec) -> Result<Proxy, Invalid> {
    let host_and_port = ["http://", "https://"].iter().find_map(|scheme| spec.url.strip_prefix(scheme));
    let Some(host_and_port) = host_and_port else {
        return Err(Invalid::new("collector.proxy.url", "must be http://host:port, for example http://proxy.example.com:3128"));
    };
    endpoint("collector.proxy.url", host_and_port)?;
    if spec.no_proxy.len() > 64 {
        return Err(Invalid::new("collector.proxy.noProxy", "has more than 64 entries"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:/-".contains(c);
    for (i, name) in spec.no_proxy.iter().enumerate() {
        if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
            return Err(Invalid::new(format!("collector.proxy.noProxy[{i}]"), "is not a host name, a domain, an IP address or a CIDR"));
        }
    }
    Ok(Proxy { url: spec.url.clone(), no_proxy: spec.no_proxy.clone() })
}

fn redaction(spec: &api::CollectorSpec) -> Result<Vec<Rule>, Invalid> {
    match (spec.redaction, spec.redaction_rules) {
        (Redaction::None, None) => Ok(Vec::new()),
        (Redaction::None, Some(_)) => {
            Err(Invalid::new("collector.redactionRules", "are those of redaction Default: with None there are none"))
        }
        (Redaction::Default, rules) => {
            let rules = rules.unwrap_or_default();
            let state = |rule: &Rule| match rule {
                Rule::EtcdKeys => rules.etcd_keys,
                Rule::RequestPaths => rules.request_paths,
                Rule::ObjectNames => rules.object_names,
                Rule::ErrorMessages => rules.error_messages,
            };
            Ok(Rule::iter().filter(|rule| state(rule) == State::Enabled).collect())
        }
    }
}

fn exporter(field: &str, spec: &api::Exporter) -> Result<Exporter, Invalid> {
    let dns_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if spec.name.is_empty() || spec.name.len() > 40 || !spec.name.chars().all(dns_label) {
        return Err(Invalid::new(format!("{field}.name"), "must be 1 to 40 lower-case letters, digits and dashes"));
    }
    if [collector::STORE, collector::GATEWAY].contains(&spec.name.as_str()) {
        return Err(Invalid::new(format!("{field}.name"), "is the name of the operator's own trace store or gateway"));
    }
    let tls = match spec.tls.state {
        State::Disabled => None,
        State::Enabled => Some(ExporterTls {
            ca_secret: secret(&format!("{field}.tls.caSecretRef.name"), spec.tls.ca_secret_ref.as_ref())?,
            cert_secret: secret(&format!("{field}.tls.certSecretRef.name"), spec.tls.cert_secret_ref.as_ref())?,
            server_name: server_name(&format!("{field}.tls.serverName"), spec.tls.server_name.as_ref())?,
            min_version: spec.tls.min_version,
        }),
    };
    if spec.headers.len() > 16 {
        return Err(Invalid::new(format!("{field}.headers"), "has more than 16 entries"));
    }
    for (i, header) in spec.headers.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if header.name.is_empty() || header.name.len() > 64 || !header.name.chars().all(plain) {
            return Err(Invalid::new(format!("{field}.headers[{i}].name"), "must be 1 to 64 letters, digits and dashes"));
        }
        secret_name(&format!("{field}.headers[{i}].secretKeyRef.name"), &header.secret_key_ref.name)?;
        let key = &header.secret_key_ref.key;
        if key.is_empty() || key.len() > 253 || !key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(Invalid::new(format!("{field}.headers[{i}].secretKeyRef.key"), "is not a Secret's key"));
        }
        if spec.headers[..i].iter().any(|other| other.name.eq_ignore_ascii_case(&header.name)) {
            return Err(Invalid::new(format!("{field}.headers[{i}].name"), format!("{:?} is used twice", header.name)));
        }
    }
    Ok(Exporter {
        name: spec.name.clone(),
        protocol: spec.protocol,
        endpoint: endpoint(&format!("{field}.endpoint"), &spec.endpoint)?,
        compression: spec.compression,
        tls,
        headers: spec.headers.clone(),
    })
}

fn server_name(field: &str, name: Option<&String>) -> Result<Option<String>, Invalid> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    match name {
        Some(name) if name.is_empty() || name.len() > 253 || !name.chars().all(plain) => Err(Invalid::new(field, "is not a DNS name")),
        name => Ok(name.cloned()),
    }
}

fn secret(field: &str, secret: Option<&SecretRef>) -> Result<Option<String>, Invalid> {
    secret.map(|s| secret_name(field, &s.name)).transpose()
}

fn secret_name(field: &str, name: &str) -> Result<String, Invalid> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
        return Err(Invalid::new(field, "is not a Secret's name"));
    }
    Ok(name.to_owned())
}

/// `host:port` of characters that mean nothing to YAML, a shell, or the collector's `${…}` expansion.
fn endpoint(field: &str, text: &str) -> Result<Endpoint, Invalid> {
    let invalid = |problem: &str| Err(Invalid::new(field, format!("{problem}, for example 10.96.0.20:4317")));
    let Some((host, port)) = text.rsplit_once(':') else { return invalid("must be host:port") };
    if text.len() > 261 || !port.starts_with(|c: char| ('1'..='9').contains(&c)) || port.parse::<u16>().is_err() {
        return invalid("must be host:port with a port between 1 and 65535");
    }
    let good_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<core::net::Ipv6Addr>().is_ok(),
        None => {
            host.starts_with(|c: char| c.is_ascii_alphanumeric())
                && host.ends_with(|c: char| c.is_ascii_alphanumeric())
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        }
    };
    if !good_host {
        return invalid("must be host:port without a scheme");
    }
    if host.starts_with("169.254.") {
        return Err(Invalid::new(field, "link-local addresses are not accepted: they reach cloud metadata services"));
    }
    Ok(Endpoint(text.to_owned()))
}

/// An endpoint that static pods reach: they use the node's resolver, which knows no cluster names.
fn node_endpoint(field: &str, text: &str) -> Result<Endpoint, Invalid> {
    let endpoint = endpoint(field, text)?;
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_end_matches('.').to_ascii_lowercase() + ".";
    if host.contains(".svc.") || host.ends_with(".cluster.local.") {
        return Err(Invalid::new(
            field,
            "kube-apiserver and etcd are static pods, whose resolver knows no cluster names: give the Service's clusterIP instead",
        ));
    }
    Ok(endpoint)
}
