//! Serves the trace store while this controller leads: opens both ports, and has the Service point here.
//!
//! The Service has no selector, because only one of the controllers has the store. The leader writes where it is, and a new leader writes over it.
//! Nothing here ends the controller: without a store, tracing is still turned on and off safely.

mod endpoints;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Patch;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::apply::server_side;
use crate::store::{GRPC_PORT, HTTP_PORT, Store, grpc, http};
use endpoints::{SERVICE, holds, objects};

/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is read whether the Service still points here.
const CHECK: Duration = Duration::from_mins(1);

/// How the trace store is served.
#[derive(Clone, Debug, clap::Args)]
pub struct TraceStore {
    /// Memory that traces may take in the trace store, in MiB. The process needs 128 MiB beside it.
    #[arg(long = "trace-store-mib", env = "TRACE_STORE_MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=4096))]
    mib: u16,
    /// Port on which the trace store receives OTLP over gRPC.
    #[arg(long = "trace-store-grpc-port", env = "TRACE_STORE_GRPC_PORT", default_value_t = GRPC_PORT)]
    grpc_port: u16,
    /// Port on which the trace store answers questions, as JSON over HTTP.
    #[arg(long = "trace-store-http-port", env = "TRACE_STORE_HTTP_PORT", default_value_t = HTTP_PORT)]
    http_port: u16,
    /// Address of this pod, by which the Service clustertracing-store finds the trace store. Outside of a pod it stays as it is.
    #[arg(long = "pod-ip", env = "POD_IP")]
    pod_ip: Option<IpAddr>,
    /// UID of this pod.
    #[arg(long = "pod-uid", env = "POD_UID", requires = "pod_ip")]
    pod_uid: Option<String>,
}

/// Where the store is.
#[derive(Clone, Debug)]
struct Place {
    namespace: String,
    pod: String,
    uid: String,
    ip: IpAddr,
    grpc_port: u16,
    http_port: u16,
}

impl TraceStore {
    /// For tests: the smallest one, on ports that are free, outside of a pod.
    pub fn anywhere() -> Self {
        Self { mib: 8, grpc_port: 0, http_port: 0, pod_ip: None, pod_uid: None }
    }

    /// The store, empty.
    pub fn store(&self) -> Store {
        Store::new(usize::from(self.mib) * 1024 * 1024)
    }

    fn place(&self, namespace: &str, pod: &str) -> Option<Place> {
        let (ip, uid) = (self.pod_ip?, self.pod_uid.clone()?);
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Some(Place { namespace, pod, uid, ip, grpc_port: self.grpc_port, http_port: self.http_port })
    }

    /// Every address of the pod's family.
    fn any_address(&self) -> IpAddr {
        match self.pod_ip {
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// Serves `store`, for as long as this is polled. `pod` is this pod's name.
pub(super) async fn serve(
    client: Client,
    namespace: &str,
    pod: &str,
    settings: &TraceStore,
    store: Arc<Store>,
    metrics: http::Metrics,
) -> Infallible {
    let address = settings.any_address();
    let otlp = keep("the OTLP receiver", SocketAddr::new(address, settings.grpc_port), |listener| grpc::serve(listener, store.clone()));
    let api = keep("the trace store's API", SocketAddr::new(address, settings.http_port), |listener| {
        http::serve(listener, store.clone(), metrics.clone())
    });
    let place = settings.place(namespace, pod);
    tokio::select! {
        never = otlp => never,
        never = api => never,
        never = point(client, place) => never,
    }
}

/// Opens the port and serves on it, again and again if it fails.
async fn keep<F, E>(what: &str, address: SocketAddr, serve: impl Fn(TcpListener) -> F) -> Infallible
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    loop {
        let failure: Box<dyn std::error::Error + Send + Sync> = match TcpListener::bind(address).await {
            Ok(listener) => match serve(listener).await {
                Ok(()) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                Err(error) => error.into(),
            },
            Err(error) => error.into(),
        };
        tracing::warn!(error = &*failure as &dyn std::error::Error, %address, "{what} does not run");
        sleep(RETRY).await;
    }
}

/// Has the Service point at `place`. Writes only where something else stands.
async fn point(client: Client, place: Option<Place>) -> Infallible {
    let Some(place) = place else { return std::future::pending().await };
    let (slice, addresses) = objects(&place);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &place.namespace);
    let endpoints: Api<Endpoints> = Api::namespaced(client, &place.namespace);
    loop {
        let written = async { tokio::try_join!(apply(&slices, &slice), apply(&endpoints, &addresses)) };
        let pause = match written.await {
            Ok(_) => CHECK,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "service {SERVICE} does not point here");
                RETRY
            }
        };
        sleep(pause).await;
    }
}

async fn apply<K>(api: &Api<K>, wanted: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let found = api.get_opt(SERVICE).await?;
    if found.is_some_and(|found| holds(&found, wanted)) {
        return Ok(());
    }
    api.patch(SERVICE, &server_side(), &Patch::Apply(wanted)).await.map(|_| ())
}
