//! The operator's trace store, read through the API server's service proxy (docs/trace-store.md).

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::ListParams;
use kube::client::Body;
use serde::{Deserialize, Serialize};

use super::{Cluster, Error};
use crate::cli::trace::model::{self, Trace};
use crate::component::spans::{HOSTNAME_LABEL, IDENTITY_LABEL};

/// Traces that are read at a time: the store itself reads two.
const AT_A_TIME: usize = 4;

/// Which traces are asked for: the parameters of `/api/v1/traces`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Query {
    /// That began no longer ago than this, such as `10m`.
    pub(in crate::cli) since: Option<String>,
    /// That took so long or longer, such as `500ms`.
    pub(in crate::cli) min_duration: Option<String>,
    /// Of which a span failed.
    pub(in crate::cli) errors: bool,
    /// That have a span of this `service.name`.
    pub(in crate::cli) service: Option<String>,
    /// Whose root's name contains this.
    pub(in crate::cli) name: Option<String>,
    /// No more than this many, the latest ones: 1 to 1000.
    pub(in crate::cli) limit: u16,
}

/// A trace in the store's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Summary {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// Name of the span that the others belong to.
    pub root_name: String,
    /// When the first span began (RFC 3339).
    #[schemars(with = "String")]
    pub start: Timestamp,
    /// Nanoseconds from there to the end of the last one.
    pub duration_nanos: u64,
    /// How many spans there are.
    pub spans: usize,
    /// How many of them failed.
    pub errors: usize,
    /// Their `service.name`s.
    pub services: BTreeSet<String>,
    /// Whether all of them belong to one root: no parent is missing but the root's own.
    pub complete: bool,
}

/// What the store answers to a list.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Summaries {
    /// The latest first.
    pub(in crate::cli) traces: Vec<Summary>,
    /// Whether there may be more than the limit.
    pub(in crate::cli) more: bool,
}

impl Query {
    fn encoded(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let texts = [("since", &self.since), ("min-duration", &self.min_duration), ("service", &self.service), ("name", &self.name)];
        form.extend_pairs(texts.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))));
        if self.errors {
            form.append_pair("errors", "true");
        }
        form.append_pair("limit", &self.limit.to_string()).finish()
    }
}

impl Cluster {
    /// A GET of the trace store: its answer's body.
    pub(in crate::cli) async fn ask_store(&self, path: &str) -> Result<String, Error> {
        let failed = |error| Error::of("read the trace store", error);
        let url = format!("/api/v1/namespaces/{}/services/clustertracing-store:http/proxy{path}", self.namespace);
        let request = http::Request::get(url).body(Body::empty()).map_err(|error| failed(kube::Error::HttpError(error)))?;
        let answer = self.client.send(request).await.map_err(failed)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(failed)?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() { Ok(body) } else { Err(Error::of_store(&self.namespace, status, &body)) }
    }

    /// `service.name` of everybody whose spans the store has.
    pub(in crate::cli) async fn services(&self) -> Result<BTreeSet<String>, Error> {
        #[derive(Deserialize)]
        struct Instances {
            instances: Vec<Instance>,
        }
        #[derive(Deserialize)]
        struct Instance {
            service: String,
        }
        let path = "/api/v1/instances".to_owned();
        let body = self.ask_store(&path).await?;
        let read: Instances = serde_json::from_str(&body).map_err(|source| Error::StoreAnswer { path, source })?;
        Ok(read.instances.into_iter().map(|instance| instance.service).collect())
    }

    /// The traces that meet `query`, the latest first.
    pub(in crate::cli) async fn summaries(&self, query: &Query) -> Result<Summaries, Error> {
        let path = format!("/api/v1/traces?{}", query.encoded());
        let body = self.ask_store(&path).await?;
        serde_json::from_str(&body).map_err(|source| Error::StoreAnswer { path, source })
    }

    /// One trace as the store answers it, in OTLP/JSON.
    pub(in crate::cli) async fn trace_as_otlp(&self, id: &str) -> Result<String, Error> {
        self.ask_store(&format!("/api/v1/traces/{id}")).await
    }

    /// These traces, in their order; without those that the store has given up in the meantime.
    pub(in crate::cli) async fn traces(&self, ids: impl IntoIterator<Item = String>) -> Result<Vec<Trace>, Error> {
        let read = async |id: String| {
            let path = format!("/api/v1/traces/{id}");
            let body = match self.ask_store(&path).await {
                Ok(body) => body,
                Err(Error::StoreQuestion { .. }) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            model::read(body.as_bytes()).map_err(|source| Error::StoreTrace { path, source })
        };
        let read: Vec<Vec<Trace>> = stream::iter(ids).map(read).buffered(AT_A_TIME).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// What people call each API server's `service.instance.id`: its host, by its identity Lease. Empty where these may not be read: then
    /// ids are shown as they are.
    pub(in crate::cli) async fn hosts(&self) -> BTreeMap<String, String> {
        let leases = Api::<Lease>::namespaced(self.client.clone(), "kube-system");
        let Ok(list) = leases.list(&ListParams::default().labels(&format!("{}={}", IDENTITY_LABEL.0, IDENTITY_LABEL.1))).await else {
            return BTreeMap::new();
        };
        let host = |lease: Lease| Some((lease.metadata.name?, lease.metadata.labels?.remove(HOSTNAME_LABEL)?));
        list.items.into_iter().filter_map(host).collect()
    }
}
