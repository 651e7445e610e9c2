//! What the proxy makes of a request, and of its answer: pure.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::api::telemetry::TraceId;

/// What concerns one connection only, and is not passed on (RFC 9110, 7.6.1); the body's length is told anew.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// A trace context (W3C Trace Context, and Baggage): the request gets one of its own.
const TRACE_CONTEXT: &[&str] = &["traceparent", "tracestate", "baggage"];

/// The trace that a request is to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// The trace.
    pub(super) trace: TraceId,
    /// The span that the request would be a part of, which nobody sends: not all zero.
    pub(super) parent: [u8; 8],
}

impl Context {
    /// From random bytes; all zeros are none.
    pub(super) fn new(random: [u8; 24]) -> Option<Self> {
        let (mut trace, mut parent) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&random[..16]);
        parent.copy_from_slice(&random[16..]);
        Some(Self { trace: TraceId::new(trace)?, parent }).filter(|context| context.parent != [0; 8])
    }

    /// Header `traceparent`, sampled.
    fn traceparent(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("00-{}-{:016x}-01", self.trace, u64::from_be_bytes(self.parent))).ok()
    }
}

/// Whether who asks has the token. Takes the same time whatever is wrong with it.
pub(super) fn is_let_in(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    let expected = format!("Bearer {token}");
    given.len() == expected.len() && given.iter().zip(expected.as_bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Whether this is the beginning of a session (exec, attach, port-forward), and no request.
pub(super) fn is_session(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// Whether kubectl was told whom to impersonate: then the person's own rights to do so count.
pub(super) fn impersonates(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("impersonate-"))
}

/// The headers of the request that is passed on.
pub(super) fn request_headers(from: &HeaderMap, impersonation: &[(HeaderName, HeaderValue)], context: &Context) -> HeaderMap {
    let mut headers = end_to_end(from);
    for name in TRACE_CONTEXT {
        headers.remove(*name);
    }
    // The proxy's token, which concerns nobody else.
    headers.remove(header::AUTHORIZATION);
    if let Some(traceparent) = context.traceparent() {
        headers.insert("traceparent", traceparent);
    }
    for (name, value) in impersonation {
        headers.append(name.clone(), value.clone());
    }
    headers
}

/// The headers of the answer that is passed back.
pub(super) fn answer_headers(from: &HeaderMap) -> HeaderMap {
    end_to_end(from)
}

fn end_to_end(from: &HeaderMap) -> HeaderMap {
    let named = from.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> = named.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let is_passed_on = |name: &HeaderName| !HOP_BY_HOP.contains(&name.as_str()) && !named.iter().any(|other| other == name.as_str());
    from.iter().filter(|(name, _)| is_passed_on(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether the answer says that the certificate's user is not, or not any more, let in or allowed to impersonate: the request itself has not
/// been looked at then, and may be sent again. `user`: the certificate's, whom no other refusal names.
pub(super) fn refuses_certificate(status: StatusCode, body: &[u8], user: &str) -> bool {
    let names_user = || body.windows(user.len()).any(|window| window == user.as_bytes());
    status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && names_user())
}

/// Whether a path tells what an API server serves, and nothing of what it holds: kubectl asks for these before it does what it is told.
pub(super) fn is_discovery(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["api" | "version"] | ["openapi" | "swagger.json" | "swaggerapi", ..] => true,
        ["api", _version] => true,
        ["apis", rest @ ..] => rest.len() <= 2,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    /// Sorted: a map of headers has no order but that of one name's values.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn context() -> Context {
        Context::new(std::array::from_fn(|n| u8::try_from(n + 1).unwrap())).unwrap()
    }

    #[test]
    fn a_context_is_never_all_zero() {
        assert_eq!(context().traceparent().unwrap(), "00-0102030405060708090a0b0c0d0e0f10-1112131415161718-01");
        let mut zero_parent = [1; 24];
        zero_parent[16..].fill(0);
        let mut zero_trace = [1; 24];
        zero_trace[..16].fill(0);
        assert_eq!((Context::new(zero_parent), Context::new(zero_trace)), (None, None));
    }

    #[test]
    fn only_the_token_lets_in() {
        for (header, expected) in [
            (Some("Bearer abc"), true),
            (Some("Bearer abd"), false),
            (Some("Bearer ab"), false),
            (Some("Bearer abcd"), false),
            (Some("bearer abc"), false),
            (Some("abc"), false),
            (Some(""), false),
            (None, false),
        ] {
            let headers: Vec<_> = header.iter().map(|value| ("authorization", *value)).collect();
            assert_eq!(is_let_in(&map(&headers), "abc"), expected, "{header:?}");
        }
    }

    #[test]
    fn the_token_the_connection_and_another_trace_are_not_passed_on() {
        let from = map(&[
            ("host", "127.0.0.1:1"),
            ("authorization", "Bearer abc"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip"),
            ("user-agent", "kubectl/v1.36.3"),
            ("connection", "keep-alive, X-Once"),
            ("x-once", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("content-type", "application/json"),
            ("te", "trailers"),
            ("traceparent", "00-11111111111111111111111111111111-2222222222222222-00"),
            ("tracestate", "a=b"),
            ("baggage", "a=b"),
        ]);
        let who = [("impersonate-user", "alice"), ("impersonate-group", "a"), ("impersonate-group", "b")];
        let who: Vec<(HeaderName, HeaderValue)> = who.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        assert_eq!(
            lines(&request_headers(&from, &who, &context())),
            [
                "accept-encoding: gzip",
                "accept: application/json",
                "content-type: application/json",
                "impersonate-group: a",
                "impersonate-group: b",
                "impersonate-user: alice",
                "traceparent: 00-0102030405060708090a0b0c0d0e0f10-1112131415161718-01",
                "user-agent: kubectl/v1.36.3",
            ]
        );
    }

    #[test]
    fn an_answer_is_passed_back_but_for_what_concerns_the_connection() {
        let from = map(&[
            ("audit-id", "7"),
            ("content-encoding", "gzip"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("warning", "299 - x"),
        ]);
        assert_eq!(lines(&answer_headers(&from)), ["audit-id: 7", "content-encoding: gzip", "warning: 299 - x"]);
    }

    #[test]
    fn sessions_and_other_identities_are_seen() {
        assert!(is_session(&map(&[("connection", "Upgrade"), ("upgrade", "websocket")])));
        assert!(is_session(&map(&[("upgrade", "SPDY/3.1")])));
        assert!(!is_session(&map(&[("connection", "keep-alive")])));
        for name in ["impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-a"] {
            assert!(impersonates(&map(&[(name, "a")])), "{name}");
        }
        assert!(!impersonates(&map(&[("user-agent", "impersonate-user")])));
    }

    #[test]
    fn a_refusal_of_the_certificate_is_told_from_one_of_the_person() {
        let cannot =
            br#"{"message":"users \"alice\" is forbidden: User \"clustertracing-request-1\" cannot impersonate resource \"users\""}"#;
        let forbidden = br#"{"message":"pods is forbidden: User \"alice\" cannot list resource \"pods\""}"#;
        for (status, body, expected) in [
            (StatusCode::FORBIDDEN, &cannot[..], true),
            (StatusCode::FORBIDDEN, &forbidden[..], false),
            (StatusCode::UNAUTHORIZED, &b"{}"[..], true),
            (StatusCode::OK, &cannot[..], false),
            (StatusCode::FORBIDDEN, &b""[..], false),
        ] {
            assert_eq!(refuses_certificate(status, body, "clustertracing-request-1"), expected, "{status}");
        }
    }

    #[test]
    fn discovery_is_told_from_what_kubectl_was_asked_to_do() {
        for (path, expected) in [
            ("/api", true),
            ("/apis", true),
            ("/api/v1", true),
            ("/apis/apps", true),
            ("/apis/apps/v1", true),
            ("/openapi/v3/apis/apps/v1", true),
            ("/version", true),
            ("/api/v1/namespaces", false),
            ("/apis/apps/v1/deployments", false),
            ("/apis/clustertracing.dev/v1alpha1/clustertracings/cluster", false),
            ("/livez", false),
            ("/", false),
        ] {
            assert_eq!(is_discovery(path), expected, "{path}");
        }
    }
}
