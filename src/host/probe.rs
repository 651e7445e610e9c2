//! HTTP probes of a component on its own node, as the kubelet makes them: certificates are not verified, nothing is authenticated.
//!
//! kube's client does it: it is there already, has a rustls connector that can skip verification, and adds no dependency.
//! What it would add by itself (retries, credentials, kept connections) is switched off.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::time::Duration;

use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::{Client, Config};

use super::Answer;
use crate::manifest::Probe;

/// A longer body is not read: etcd's metrics, the longest that is asked for, have 200 KB.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A component that does not answer within this time does not answer: kubeadm's probes allow 15 s, but a healthy one needs milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Makes probes; keeps one client for each scheme, host and port.
#[derive(Default)]
pub struct Prober {
    clients: RefCell<HashMap<String, Client>>,
}

impl Prober {
    /// Whether the probe is answered with a status that the kubelet takes for success, or with 401 or 403:
    /// a server that refuses anonymous requests is alive.
    pub async fn is_green(&self, probe: &Probe) -> bool {
        match tokio::time::timeout(TIMEOUT, self.status(probe)).await {
            Ok(Some(status)) => is_alive(status),
            Ok(None) | Err(_) => false,
        }
    }

    /// Status and body of an endpoint.
    pub async fn get(&self, endpoint: &Probe) -> Answer {
        let answer = async {
            let Some(response) = self.send(endpoint).await else { return Answer::Silent };
            let response = match response {
                Ok(response) => response,
                Err(error) if is_refused(&error) => return Answer::Refused,
                Err(_) => return Answer::Silent,
            };
            let status = response.status().as_u16();
            match Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await {
                Ok(body) => Answer::Told(status, String::from_utf8_lossy(&body.to_bytes()).into_owned()),
                Err(_) => Answer::Silent,
            }
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(Answer::Silent)
    }

    async fn status(&self, probe: &Probe) -> Option<StatusCode> {
        self.send(probe).await?.ok().map(|response| response.status())
    }

    /// `None` when no request can be made of the probe.
    async fn send(&self, probe: &Probe) -> Option<kube::Result<Response<Body>>> {
        let authority = authority(probe);
        let request = Request::get(format!("{authority}{}", probe.path))
            // a kept connection would tell of the process that has just ended
            .header(header::CONNECTION, "close")
            .header(header::USER_AGENT, concat!("clustertracing-agent/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty())
            .ok()?;
        let client = self.client(authority)?;
        Some(client.send(request).await.inspect_err(|error| tracing::debug!(%error, ?probe, "probe failed")))
    }

    fn client(&self, authority: String) -> Option<Client> {
        if let Some(client) = self.clients.borrow().get(&authority) {
            return Some(client.clone());
        }
        let mut config = Config::new(authority.parse::<Uri>().ok()?);
        config.accept_invalid_certs = true;
        // nothing is verified, so nothing is trusted: without this, a client cannot be made in an image that has no authorities
        config.root_cert = Some(Vec::new());
        config.default_retry = false;
        config.connect_timeout = Some(TIMEOUT);
        let client = Client::try_from(config).inspect_err(|error| tracing::warn!(%error, authority, "cannot make a client")).ok()?;
        self.clients.borrow_mut().insert(authority, client.clone());
        Some(client)
    }
}

/// Whether nobody listened.
fn is_refused(error: &kube::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn authority(probe: &Probe) -> String {
    let host = if probe.host.contains(':') && !probe.host.starts_with('[') { format!("[{}]", probe.host) } else { probe.host.clone() };
    format!("{}://{host}:{}", probe.scheme.to_lowercase(), probe.port)
}

fn is_alive(status: StatusCode) -> bool {
    (200..400).contains(&status.as_u16()) || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn mk_probe(port: u16, path: &str) -> Probe {
        Probe { scheme: "http".into(), host: "127.0.0.1".into(), port, path: path.into() }
    }

    /// Answers each connection once, with the status that the path names.
    fn serve() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4096];
                let n = stream.read(&mut buffer).unwrap();
                let request = String::from_utf8_lossy(&buffer[..n]).into_owned();
                assert!(request.to_lowercase().contains("connection: close"), "{request}");
                let status = request.split(['/', ' ']).nth(2).unwrap();
                write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn green_is_what_the_kubelet_takes_and_a_refusal_to_the_unknown() {
        let (port, prober) = (serve(), Prober::default());
        for (status, green) in [(200, true), (302, true), (401, true), (403, true), (404, false), (429, false), (500, false), (503, false)]
        {
            assert_eq!(prober.is_green(&mk_probe(port, &format!("/{status}"))).await, green, "{status}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_not_green() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(!Prober::default().is_green(&mk_probe(free, "/200")).await);
    }

    #[tokio::test]
    async fn an_answer_is_told_from_a_refusal_and_from_silence() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let prober = Prober::default();
        assert_eq!(prober.get(&mk_probe(serve(), "/503")).await, Answer::Told(503, String::new()));
        assert_eq!(prober.get(&mk_probe(free, "/200")).await, Answer::Refused);
        let closing = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = closing.local_addr().unwrap().port();
        std::thread::spawn(move || drop(closing.accept()));
        assert_eq!(prober.get(&mk_probe(port, "/200")).await, Answer::Silent);
    }

    #[test]
    fn addresses_of_both_families_and_schemes_of_any_case_make_a_uri() {
        let probe = Probe { scheme: "HTTPS".into(), host: "::1".into(), port: 6443, path: "/livez".into() };
        assert_eq!(authority(&probe), "https://[::1]:6443");
    }
}
