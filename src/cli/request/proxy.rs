//! The proxy between kubectl and the API server: on the loopback, for this one run of kubectl, and for nobody without its token.
//!
//! It speaks TLS because kubectl sends no credentials without (client-go reads a kubeconfig's user only for `https`). Its key and its token are
//! made for this run; the token is in a file that only this person can read. What it is asked goes to the API server under a trace of its own, and
//! the answer comes back as it flows: a watch or a log is not held up.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use kube::Client;
use kube::client::Body as KubeBody;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::server::TlsStream;

use super::forward::{self, Context};
use crate::cli::one_line;

/// kubectl's handshake takes milliseconds; who does not come to an end is somebody else.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// What kubectl may send in one request: kube-apiserver itself takes 3 MiB (`MaxRequestBodyBytes`).
const LARGEST_BODY: usize = 16 * 1024 * 1024;

/// Who sends requests to the API server.
pub(super) struct Sender {
    /// With these credentials.
    pub(super) client: Client,
    /// As whom: headers of its impersonation, if any.
    pub(super) impersonation: Vec<(HeaderName, HeaderValue)>,
    /// Whether the API server takes its trace context for its own.
    pub(super) is_trusted: bool,
}

/// Who sends requests as this person, with a certificate of their own.
pub(super) struct StandIn {
    /// The certificate's user.
    pub(super) name: String,
    /// With the certificate.
    pub(super) sender: Sender,
    /// From here on the certificate is not used any more.
    pub(super) until: Instant,
}

/// Who there is to send requests.
pub(super) struct Senders {
    /// Traced, where that could be had.
    pub(super) stand_in: Option<StandIn>,
    /// The person.
    pub(super) own: Sender,
}

/// A request that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// `GET`
    pub(super) method: String,
    /// Without its query.
    pub(super) path: String,
    /// The trace that it asked for.
    pub(super) context: Context,
    /// Whether the API server had to follow it.
    pub(super) is_trusted: bool,
    /// When it was sent.
    pub(super) at: Instant,
    /// What came back.
    pub(super) answer: Option<Answer>,
}

/// What came back of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: u16,
    /// The request's id in the API server's audit log, which its spans carry.
    pub(super) audit_id: Option<String>,
    /// Until the answer began.
    pub(super) took: Duration,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No port.
    #[error("listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// No certificate.
    #[error("make a certificate for 127.0.0.1")]
    Certificate(#[source] rcgen::Error),
    /// The certificate cannot be used.
    #[error("serve TLS on 127.0.0.1")]
    Tls(#[source] tokio_rustls::rustls::Error),
    /// No random bytes.
    #[error("make a token for kubectl")]
    Random(#[source] getrandom::Error),
}

/// A proxy that listens. It ends with this value.
pub(super) struct Proxy {
    /// `https://127.0.0.1:port`
    pub(super) url: String,
    /// Its certificate, as PEM.
    pub(super) certificate: String,
    /// What lets in.
    pub(super) token: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    senders: Senders,
    token: String,
    sent: Mutex<Vec<Sent>>,
}

impl Proxy {
    /// Listens on a free port.
    pub(super) async fn start(senders: Senders) -> Result<Self, Error> {
        let token = hexadecimal(&random::<32>().map_err(Error::Random)?);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Error::Listen)?;
        let address = listener.local_addr().map_err(Error::Listen)?;
        let made = rcgen::generate_simple_self_signed([address.ip().to_string()]).map_err(Error::Certificate)?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let tls =
            ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions().map_err(Error::Tls)?;
        let tls = tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into()).map_err(Error::Tls)?;

        let shared = Arc::new(Shared { senders, token: token.clone(), sent: Mutex::default() });
        let (accepted, connections) = mpsc::channel(1);
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), accepted));
        serving.spawn(async move {
            // It has no end of its own.
            drop(axum::serve(Connections { connections, address }, router).await);
        });
        Ok(Self { url: format!("https://{address}"), certificate: made.cert.pem(), token, shared, _serving: serving })
    }

    /// What was sent so far, in its order.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Connections whose handshake is done: one that dawdles holds up no other.
struct Connections {
    connections: mpsc::Receiver<TlsStream<TcpStream>>,
    address: SocketAddr,
}

impl axum::serve::Listener for Connections {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.connections.recv().await {
            Some(connection) => (connection, self.address),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, accepted: mpsc::Sender<TlsStream<TcpStream>>) {
    let mut handshakes = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // For want of file descriptors, for one.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, accepted) = (tls.clone(), accepted.clone());
        handshakes.spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
                // Without the server behind it nobody waits for an answer either.
                drop(accepted.send(stream).await);
            }
        });
        while handshakes.try_join_next().is_some() {}
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !forward::is_let_in(&parts.headers, &shared.token) {
        return refusal(StatusCode::UNAUTHORIZED, "Unauthorized", "this proxy is for another program");
    }
    if forward::is_session(&parts.headers) {
        let message = "kubectl tracing request traces requests, not sessions: run exec, attach, port-forward and cp with kubectl alone";
        return refusal(StatusCode::BAD_REQUEST, "BadRequest", message);
    }
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", "the request is larger than 16 MiB");
    };
    match shared.forward(&parts, body).await {
        Ok(response) => response,
        Err(error) => refusal(StatusCode::BAD_GATEWAY, "ServiceUnavailable", &format!("the API server does not answer: {error}")),
    }
}

impl Shared {
    /// Sends a request: with the certificate where there is one, else as the person.
    async fn forward(&self, parts: &Parts, body: Bytes) -> Result<Response, String> {
        let stand_in =
            self.senders.stand_in.as_ref().filter(|stand_in| Instant::now() < stand_in.until && !forward::impersonates(&parts.headers));
        let Some(stand_in) = stand_in else { return self.send(&self.senders.own, parts, body).await };
        let response = self.send(&stand_in.sender, parts, body.clone()).await?;
        if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(response);
        }
        let (head, refused) = response.into_parts();
        let refused = to_bytes(refused, LARGEST_BODY).await.map_err(|error| one_line(&error))?;
        if forward::refuses_certificate(head.status, &refused, &stand_in.name) {
            // An API server that has not heard of the rights yet, or something before it that knows no certificates.
            return self.send(&self.senders.own, parts, body).await;
        }
        Ok(Response::from_parts(head, Body::from(refused)))
    }

    async fn send(&self, sender: &Sender, parts: &Parts, body: Bytes) -> Result<Response, String> {
        let context = random().ok().and_then(Context::new).ok_or("no random bytes for a trace")?;
        // What kubectl says of itself goes before what its kubeconfig says.
        let impersonation = if forward::impersonates(&parts.headers) { &[] } else { sender.impersonation.as_slice() };
        let mut request = http::Request::new(KubeBody::from(body));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.headers_mut() = forward::request_headers(&parts.headers, impersonation, &context);

        let at = Instant::now();
        let sent = Sent {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            context,
            is_trusted: sender.is_trusted,
            at,
            answer: None,
        };
        let index = self.record(|all| {
            all.push(sent);
            all.len() - 1
        });
        let (mut head, body) = sender.client.send(request).await.map_err(|error| one_line(&error))?.into_parts();
        let audit_id = head.headers.get("audit-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let answer = Answer { status: head.status.as_u16(), audit_id, took: at.elapsed() };
        self.record(|all| all.get_mut(index).map(|sent| sent.answer = Some(answer)));
        head.headers = forward::answer_headers(&head.headers);
        Ok(Response::from_parts(head, Body::new(body)))
    }

    fn record<T>(&self, change: impl FnOnce(&mut Vec<Sent>) -> T) -> T {
        change(&mut self.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As an API server refuses, so that kubectl prints the words.
fn refusal(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code.as_u16(), "reason": reason, "message": message,
    });
    (code, [(header::CONTENT_TYPE, "application/json")], status.to_string()).into_response()
}

/// Random bytes of the operating system's.
pub(super) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Two lower-case digits a byte.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};
    use kube::Config;
    use kube::config::AuthInfo;

    type Upstream = tower_test::mock::Handle<Request<KubeBody>, Response<KubeBody>>;

    const STAND_IN: &str = "clustertracing-request-1";

    fn sender(user: &'static str, is_trusted: bool) -> (Sender, Upstream) {
        let (service, upstream) = tower_test::mock::pair();
        let impersonation = vec![(HeaderName::from_static("impersonate-user"), HeaderValue::from_static(user))];
        (Sender { client: Client::new(service, "default"), impersonation, is_trusted }, upstream)
    }

    /// A proxy with a certificate and the person's own credentials, and what is behind either.
    async fn mk_proxy() -> (Proxy, Upstream, Upstream) {
        let ((with_certificate, certificate), (own, persons)) = (sender("alice", true), sender("kubeconfigs", false));
        let until = Instant::now() + Duration::from_mins(1);
        let stand_in = Some(StandIn { name: STAND_IN.to_owned(), sender: with_certificate, until });
        (Proxy::start(Senders { stand_in, own }).await.unwrap(), certificate, persons)
    }

    /// kubectl, with this token.
    fn kubectl(proxy: &Proxy, token: &str) -> Client {
        let mut config = Config::new(proxy.url.parse().unwrap());
        let (_, pem) = x509_parser::pem::parse_x509_pem(proxy.certificate.as_bytes()).unwrap();
        config.root_cert = Some(vec![pem.contents]);
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        Client::try_from(config).unwrap()
    }

    async fn ask(kubectl: &Client, header: Option<(&str, &str)>) -> (u16, String) {
        let request = header.into_iter().fold(Request::post("/api/v1/pods?limit=5"), |request, (name, value)| request.header(name, value));
        let answer = kubectl.send(request.body(KubeBody::from(b"{}".to_vec())).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        (status, String::from_utf8(answer.into_body().collect_bytes().await.unwrap().to_vec()).unwrap())
    }

    /// Answers one request; its user and its body.
    async fn answers(upstream: &mut Upstream, status: u16, body: &str) -> (String, String) {
        let (request, send) = upstream.next_request().await.unwrap();
        assert!(request.headers().contains_key("traceparent") && !request.headers().contains_key("authorization"), "{request:?}");
        assert_eq!(request.uri(), "/api/v1/pods?limit=5");
        let user = request.headers()["impersonate-user"].to_str().unwrap().to_owned();
        let received = String::from_utf8(request.into_body().collect_bytes().await.unwrap().to_vec()).unwrap();
        send.send_response(Response::builder().status(status).header("audit-id", "7").body(body.as_bytes().to_vec().into()).unwrap());
        (user, received)
    }

    #[tokio::test]
    async fn a_request_is_sent_with_the_certificate_in_the_persons_name() {
        let (proxy, mut certificate, _persons) = mk_proxy().await;
        let client = kubectl(&proxy, &proxy.token);
        let (answered, sent) = tokio::join!(ask(&client, None), answers(&mut certificate, 201, "made"));
        assert_eq!((answered, sent), ((201, "made".to_owned()), ("alice".to_owned(), "{}".to_owned())));
        let sent = proxy.sent();
        let [Sent { method, path, is_trusted: true, answer: Some(answer), .. }] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!((method.as_str(), path.as_str(), answer.status, answer.audit_id.as_deref()), ("POST", "/api/v1/pods", 201, Some("7")));
    }

    #[tokio::test]
    async fn where_the_certificate_is_refused_the_request_is_sent_again_as_the_person() {
        let (proxy, mut certificate, mut persons) = mk_proxy().await;
        let client = kubectl(&proxy, &proxy.token);
        for (status, words) in [(401, "Unauthorized"), (403, r#"User "clustertracing-request-1" cannot impersonate resource "users""#)] {
            let upstreams = async {
                answers(&mut certificate, status, words).await;
                answers(&mut persons, 200, "done").await
            };
            let (answered, sent) = tokio::join!(ask(&client, None), upstreams);
            assert_eq!((answered, sent), ((200, "done".to_owned()), ("kubeconfigs".to_owned(), "{}".to_owned())));
        }
        // What the person may not do stays refused, and is not tried again.
        let refused = r#"User "alice" cannot create resource "pods""#;
        let (answered, _) = tokio::join!(ask(&client, None), answers(&mut certificate, 403, refused));
        assert_eq!(answered, (403, refused.to_owned()));
        let contexts: std::collections::BTreeSet<_> = proxy.sent().iter().map(|sent| sent.context.trace.to_string()).collect();
        assert_eq!(contexts.len(), 5, "each has a trace of its own");
    }

    #[tokio::test]
    async fn whom_kubectl_impersonates_is_impersonated_by_the_person_only() {
        let (proxy, _certificate, mut persons) = mk_proxy().await;
        let client = kubectl(&proxy, &proxy.token);
        let (answered, (user, _)) = tokio::join!(ask(&client, Some(("impersonate-user", "bob"))), answers(&mut persons, 200, ""));
        assert_eq!((answered.0, user.as_str()), (200, "bob"));
    }

    #[tokio::test]
    async fn strangers_and_sessions_are_refused() {
        let (proxy, _certificate, _persons) = mk_proxy().await;
        assert_eq!(ask(&kubectl(&proxy, "guessed"), None).await.0, 401);
        let (status, words) = ask(&kubectl(&proxy, &proxy.token), Some(("upgrade", "websocket"))).await;
        assert_eq!(status, 400);
        assert!(words.contains("traces requests, not sessions"), "{words}");
        assert!(proxy.sent().is_empty());
    }
}
