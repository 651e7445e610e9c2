//! What a person calls a span of kube-apiserver or etcd.
//!
//! Span names are written for machines (`POST /api/v1/namespaces/{:namespace}/pods`, `Call mutating webhook`), and what tells one from the next
//! stands in attributes. The names are those of kube-apiserver 1.27 to 1.37 (`k8s.io/apiserver`: `endpoints/filters/traces.go`,
//! `endpoints/handlers`, `admission/plugin/webhook`, `storage/cacher`, `storage/etcd3`) and etcd 3.5 to 3.7. Any other span keeps its own.

use super::model::{Kind, Span};

/// `service.name` of etcd's spans.
pub const ETCD: &str = "etcd";

/// Both conventions of OpenTelemetry, the newer first (HTTP: stable since semantic conventions 1.23).
const METHOD: &[&str] = &["http.request.method", "http.method"];
const TARGET: &[&str] = &["http.target", "url.path"];
const URL: &[&str] = &["url.full", "http.url"];

/// What a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What<'a> {
    /// A request to an API server.
    Request {
        method: &'a str,
        path: &'a str,
    },
    /// The step of an API server that does what the request asks for: `Create`.
    Handler(&'a str),
    /// A call of an admission webhook: `mutating` or `validating`, and its name.
    Webhook(&'a str, &'a str),
    /// A call of etcd's, at its caller: `Txn`.
    EtcdCall(&'a str),
    /// The same at etcd: `KV/Txn`.
    EtcdServed(&'a str),
    /// What etcd does within a call (3.7 on).
    WithinEtcd,
    /// A request to somebody else's server.
    HttpCall(&'a str),
    /// A step that every request passes through, by what people call it.
    Step(&'a str),
    Other,
}

/// Steps of kube-apiserver's handler chain that have spans, from the outside in (`server/config.go`, `DefaultBuildHandlerChain`). Each one's span
/// lasts until what comes after it has ended (`endpoints/filterlatency`), so that the own time of the last one is also that of a handler
/// without spans.
const STEPS: &[(&str, &str)] = &[
    ("authentication", "authentication"),
    ("audit", "audit"),
    ("impersonation", "impersonation"),
    ("constrainedimpersonation", "impersonation"),
    ("priorityandfairness", "priority and fairness"),
    ("authorization", "authorization, handler"),
];

/// Verbs of kube-apiserver's handlers.
const HANDLERS: &[&str] = &["Get", "List", "WatchList", "Create", "Update", "Patch", "Delete"];

fn what(span: &Span) -> What<'_> {
    let name = span.name.as_str();
    if let Some((_, step)) = STEPS.iter().find(|(step, _)| *step == name) {
        return What::Step(step);
    }
    if let Some(call) = name.strip_prefix("etcdserverpb.") {
        return if span.kind == Kind::Server {
            What::EtcdServed(call)
        } else {
            What::EtcdCall(call.split_once('/').map_or(call, |(_, method)| method))
        };
    }
    if let ("Call mutating webhook" | "Call validating webhook", Some(webhook)) = (name, span.attribute(&["webhook"])) {
        return What::Webhook(if name.contains("mutating") { "mutating" } else { "validating" }, webhook);
    }
    if HANDLERS.contains(&name) && span.attribute(&["resource"]).is_some() {
        return What::Handler(name);
    }
    match span.kind {
        Kind::Client => name.strip_prefix("HTTP ").map_or(What::Other, What::HttpCall),
        Kind::Server => request(span).unwrap_or(What::Other),
        Kind::Internal if span.component == ETCD => What::WithinEtcd,
        Kind::Internal => What::Other,
    }
}

/// A request's method and path: from the name since 1.31, from attributes where the name has no path, and before.
fn request(span: &Span) -> Option<What<'_>> {
    if let Some((method, path)) = span.name.split_once(' ').filter(|(_, path)| path.starts_with('/')) {
        return Some(What::Request { method, path });
    }
    let path = without_query(span.attribute(TARGET)?);
    Some(What::Request { method: span.attribute(METHOD)?, path })
}

fn without_query(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// What a person calls a span: `POST pods`, `Create pods`, `Mutating webhook policy.shop.io`, `etcd Txn`.
pub fn short(span: &Span) -> String {
    match what(span) {
        What::Request { method, path } => match resource(path) {
            Some(resource) => format!("{method} {resource}"),
            None => format!("{method} {path}"),
        },
        What::Handler(verb) => {
            let subresource = span.attribute(&["subresource"]).map_or(String::new(), |name| format!("/{name}"));
            format!("{verb} {}{subresource}", span.attribute(&["resource"]).unwrap_or_default())
        }
        What::Webhook("mutating", webhook) => format!("Mutating webhook {webhook}"),
        What::Webhook(_, webhook) => format!("Validating webhook {webhook}"),
        What::EtcdCall(method) => format!("etcd {method}"),
        What::EtcdServed(call) => call.to_owned(),
        What::HttpCall(method) => match server(span) {
            Some(server) => format!("HTTP {method} {server}"),
            None => span.name.clone(),
        },
        What::Step(name) => name.to_owned(),
        What::WithinEtcd => span.name.clone(),
        What::Other => other(span),
    }
}

/// Storage and its cache, with what is stored there; others keep their names.
fn other(span: &Span) -> String {
    let name = if span.name.starts_with("List(recursive=") { "List etcd3" } else { &span.name };
    let stored = if name.starts_with("cacher.") {
        span.attribute(&["type"])
    } else if name.ends_with(" etcd3") {
        span.attribute(&["resource"])
    } else {
        None
    };
    stored.map_or_else(|| name.to_owned(), |resource| format!("{name} {resource}"))
}

/// `HOST:PORT` that a request goes to.
fn server(span: &Span) -> Option<String> {
    if let Some(address) = span.attribute(&["server.address"]) {
        let port = span.attribute(&["server.port"]).map_or(String::new(), |port| format!(":{port}"));
        return Some(format!("{address}{port}"));
    }
    let (_, rest) = span.attribute(URL)?.split_once("://")?;
    Some(rest.split(['/', '?']).next()?.to_owned())
}

/// `pods/log` of an API server's path, with names or with their placeholders in it; none of other paths (`/readyz`).
fn resource(path: &str) -> Option<String> {
    let mut segments = path.trim_matches('/').split('/');
    match segments.next()? {
        "api" => segments.next()?,
        "apis" => segments.nth(1)?,
        _ => return None,
    };
    let rest: Vec<_> = segments.collect();
    let of_resource = match rest.as_slice() {
        // Of a namespace itself, which has two subresources; any other third word is a resource in it.
        ["namespaces", _, "status" | "finalize"] => &rest[..],
        ["namespaces", _, within @ ..] if !within.is_empty() => within,
        _ => &rest[..],
    };
    let resource = of_resource.first()?;
    Some(of_resource.get(2).map_or_else(|| (*resource).to_owned(), |subresource| format!("{resource}/{subresource}")))
}

/// The step that a span's time is told under in a sentence: its own, or `None` for that of the span it is part of.
pub fn step(span: &Span) -> Option<String> {
    match what(span) {
        What::Webhook(_, webhook) => Some(format!("webhook {webhook}")),
        What::EtcdServed(call) => Some(format!("etcd {}", call.split_once('/').map_or(call, |(_, method)| method))),
        // The call to a webhook, and what etcd does within a call.
        What::HttpCall(_) | What::WithinEtcd => None,
        _ => Some(short(span)),
    }
}

/// The admission webhook that a span is a call of.
pub fn webhook(span: &Span) -> Option<&str> {
    if let What::Webhook(_, webhook) = what(span) { Some(webhook) } else { None }
}

/// Whether a span is a request to an API server, as that saw it.
pub fn is_request(span: &Span) -> bool {
    matches!(what(span), What::Request { .. })
}

/// Whether a span is what an instance was asked for from outside: a request to an API server, a call at etcd.
pub fn is_asked(span: &Span) -> bool {
    matches!(what(span), What::Request { .. } | What::EtcdServed(_))
}

/// The method of a call to etcd, at its caller: `Txn`.
pub fn etcd_call(span: &Span) -> Option<&str> {
    if let What::EtcdCall(method) = what(span) { Some(method) } else { None }
}

/// The same at etcd.
pub fn etcd_served(span: &Span) -> Option<&str> {
    if let What::EtcdServed(call) = what(span) { Some(call.split_once('/').map_or(call, |(_, method)| method)) } else { None }
}

/// The parts that a request's time is split into.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema, strum::EnumIter, strum::IntoStaticStr,
)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "UPPERCASE")]
pub enum Part {
    /// Finding out who asks, and on whose behalf.
    Authentication,
    /// Waiting for a turn (API Priority and Fairness).
    Queueing,
    /// Finding out whether they may.
    Authorization,
    /// Admission webhooks, and all that these make others do.
    Admission,
    /// Calls to etcd.
    Etcd,
    /// Writing the answer.
    Encoding,
    /// All else that an API server does.
    Handler,
}

/// The part that a span's own time belongs to.
pub fn part(span: &Span) -> Part {
    match what(span) {
        What::Step("authentication" | "impersonation") => Part::Authentication,
        What::Step("priority and fairness") => Part::Queueing,
        What::Step("authorization, handler") => Part::Authorization,
        What::Webhook(..) => Part::Admission,
        What::EtcdCall(_) | What::EtcdServed(_) | What::WithinEtcd => Part::Etcd,
        _ if span.name == "SerializeObject" => Part::Encoding,
        _ => Part::Handler,
    }
}

/// Whether every request to an API server passes through this step: authorization and the like.
pub fn is_step_of_every_request(span: &Span) -> bool {
    matches!(what(span), What::Step(_))
}

/// A request's first line, as far as the spans tell: method and path, with the namespace put back in that the template left out, if it
/// stands in one of its steps.
pub fn request_line<'a>(span: &'a Span, steps: impl Iterator<Item = &'a Span>) -> Option<String> {
    let What::Request { method, path } = what(span) else { return None };
    // The path that was asked for, where redaction left it.
    let path = span.attribute(TARGET).map_or(path, without_query);
    let namespace = steps.filter(|span| matches!(what(span), What::Handler(_))).find_map(|span| span.attribute(&["namespace"]));
    let path = namespace.map_or_else(|| path.to_owned(), |namespace| path.replace("{:namespace}", namespace));
    Some(format!("{method} {path}"))
}

/// The program that sent a request: `kubectl/v1.36.3`.
pub fn client(span: &Span) -> Option<&str> {
    let agent = span.attribute(&["user_agent.original", "http.user_agent", "user-agent"])?;
    agent.split(' ').next()
}

/// Whether an event says nothing but that a message went by: each gRPC call has two (`otelgrpc`).
pub fn is_message(event: &str) -> bool {
    event == "message"
}

#[cfg(test)]
mod tests;
