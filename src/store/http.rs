//! The JSON API: `docs/trace-store.md` describes it to those who use it.
//!
//! It has no credentials of its own. People reach it through the API server's service proxy, which asks for their right to do so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::connection::Connections;
use super::query::Query;
use super::{Store, TraceId};

/// Connections. The API server holds some open.
const CONNECTIONS: usize = 32;
/// Longer than any answer takes: who holds a connection without asking gives its place up.
const LIFETIME: Duration = Duration::from_mins(2);
/// Answers that read traces at a time: each may take some ten megabytes.
const READS_AT_A_TIME: usize = 2;
/// Traces in a list, unless asked otherwise.
const TRACES: usize = 100;
/// Traces in a list at most.
const MOST_TRACES: usize = 1000;

/// What is told at `/metrics`, in Prometheus' text format.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Answers until the process ends.
///
/// # Errors
/// None that is known: the listener goes on after its own.
pub async fn serve(listener: TcpListener, store: Arc<Store>, metrics: Metrics) -> io::Result<()> {
    axum::serve(Connections::new(listener, CONNECTIONS, Some(LIFETIME)), router(store, metrics)).await
}

#[derive(Clone)]
struct Api {
    store: Arc<Store>,
    reads: Arc<Semaphore>,
}

fn router(store: Arc<Store>, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics())))
        .route("/api/v1/traces", get(traces))
        .route("/api/v1/traces/{id}", get(trace))
        .route("/api/v1/instances", get(instances))
        .route("/api/v1/collectors", get(collectors))
        .route("/api/v1/stats", get(|State(api): State<Api>| async move { Json(api.store.stats()) }))
        .fallback(|| async { Refusal::NoPath })
        .with_state(Api { store, reads: Arc::new(Semaphore::new(READS_AT_A_TIME)) })
}

/// Why a request is not answered: what was wrong, and what to ask instead.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no such path: ask for /api/v1/traces, /api/v1/traces/ID, /api/v1/instances, /api/v1/collectors or /api/v1/stats")]
    NoPath,
    #[error("{parameter}={value} is not {expected}")]
    Parameter { parameter: &'static str, value: String, expected: &'static str },
    #[error("the parameters of /api/v1/traces are since, min-duration, errors, service, name and limit: {0}")]
    Parameters(String),
    #[error("{0} is not a trace id, which is 32 hexadecimal digits, not all zero: take one from /api/v1/traces")]
    TraceId(String),
    #[error("trace {0} is not held: it never came, or was given up for newer ones. /api/v1/stats tells how long traces can be held")]
    NoTrace(TraceId),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = match self {
            Self::NoPath | Self::NoTrace(_) => StatusCode::NOT_FOUND,
            Self::Parameter { .. } | Self::Parameters(_) | Self::TraceId(_) => StatusCode::BAD_REQUEST,
        };
        (code, Json(json!({ "error": self.to_string() }))).into_response()
    }
}

/// As they are written in the URL.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Parameters {
    since: Option<String>,
    min_duration: Option<String>,
    errors: Option<String>,
    service: Option<String>,
    name: Option<String>,
    limit: Option<String>,
}

impl Parameters {
    fn query(self, now: Timestamp) -> Result<Query, Refusal> {
        let duration = "a duration, such as 500ms or 10m";
        let since = parsed::<SignedDuration>("since", self.since, duration)?;
        let limit = parsed::<usize>("limit", self.limit, "a number from 1 to 1000")?.unwrap_or(TRACES);
        if limit == 0 || limit > MOST_TRACES {
            return Err(Refusal::Parameter { parameter: "limit", value: limit.to_string(), expected: "a number from 1 to 1000" });
        }
        Ok(Query {
            since: since.map(|ago| now.checked_sub(ago).unwrap_or(Timestamp::MIN)),
            min_duration: parsed("min-duration", self.min_duration, duration)?.unwrap_or_default(),
            errors: parsed("errors", self.errors, "true or false")?.unwrap_or_default(),
            service: self.service,
            name: self.name,
            limit,
        })
    }
}

fn parsed<T: std::str::FromStr>(parameter: &'static str, value: Option<String>, expected: &'static str) -> Result<Option<T>, Refusal> {
    let parse = |value: String| value.parse().map_err(|_| Refusal::Parameter { parameter, value, expected });
    value.map(parse).transpose()
}

async fn traces(
    State(api): State<Api>,
    parameters: Result<axum::extract::Query<Parameters>, QueryRejection>,
) -> Result<Json<impl Serialize>, Refusal> {
    let parameters = parameters.map_err(|rejection| Refusal::Parameters(rejection.body_text()))?.0;
    let query = parameters.query(Timestamp::now())?;
    let _turn = api.reads.acquire().await;
    Ok(Json(api.store.traces(&query)))
}

async fn trace(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<impl Serialize>, Refusal> {
    let id: TraceId = id.parse().map_err(|_| Refusal::TraceId(id))?;
    let _turn = api.reads.acquire().await;
    api.store.trace(id).map(Json).ok_or(Refusal::NoTrace(id))
}

async fn instances(State(api): State<Api>) -> Json<impl Serialize> {
    let instance = |(instance, at): (super::Instance, Timestamp)| json!({ "service": instance.service, "id": instance.id, "lastSpan": at });
    Json(json!({ "instances": api.store.instances().into_iter().map(instance).collect::<Vec<_>>() }))
}

async fn collectors(State(api): State<Api>) -> Json<impl Serialize> {
    let collector = |(node, samples): (String, Vec<super::Sample>)| json!({ "node": node, "samples": samples });
    Json(json!({ "collectors": api.store.collectors().into_iter().map(collector).collect::<Vec<_>>() }))
}
