//! The identity that requests are sent with: made, tried, and taken away again.

use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::config::AuthInfo;
use kube::{Api, Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::proxy::{Sender, Senders, StandIn};
use super::rights::{self, LABEL, NAME_PREFIX, Person, Way, Why, way};
use crate::cli::cluster::{self, Cluster, FIELD_MANAGER};
use crate::cli::one_line;
use crate::component::spans::TRUSTED_GROUP;
use crate::runtime::client_certificate::{self, Certificate, Wanted};

/// What the API server accepts at the least.
pub(super) const LIFETIME: Duration = Duration::from_mins(10);
/// No request is begun with a certificate that ends within this.
const RESERVE: Duration = Duration::from_secs(30);
/// kube-controller-manager answers an approved request within a second. Where nobody signs, nobody ever does.
const SIGNED_WITHIN: Duration = Duration::from_secs(5);
/// An API server hears of new rights within milliseconds.
const LET_IN_WITHIN: Duration = Duration::from_secs(3);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How often it is tried to take away what was made, while the API server does not answer.
const TRIES: u32 = 5;
/// A try that has no answer by then has failed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Who sends the requests, and what was made for it.
pub(super) struct Identity {
    /// Who sends them.
    pub(super) senders: Senders,
    /// Why they are sent as chance has it, if they are.
    pub(super) why: Option<Why>,
    /// What was made for it.
    pub(super) made: Made,
}

/// What there may be in the cluster under this name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    /// Of all three, and of the certificate's user.
    pub(super) name: String,
    request: bool,
    role: bool,
    binding: bool,
}

/// What of it could not be taken away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// As kubectl names it.
    pub(super) object: String,
    /// Why.
    pub(super) why: String,
}

/// Makes what can be made. Whatever happens, all that is made is in the answer; this must not be cancelled.
///
/// # Errors
/// When the person's own credentials cannot be used.
pub(super) async fn gain(cluster: &Cluster, name: String) -> Result<Identity, cluster::Error> {
    let impersonated = Person::impersonated(&cluster.config.auth_info);
    let headers = impersonated.as_ref().map(rights::impersonation).transpose();
    let mut config = cluster.config.clone();
    let auth_info = AuthInfo {
        impersonate: None,
        impersonate_uid: None,
        impersonate_groups: None,
        impersonate_user_extra: None,
        ..config.auth_info.clone()
    };
    config.auth_info = auth_info;
    let own = client(config).map_err(|source| cluster::Error::Client { source })?;
    let own = |impersonation, is_trusted| Sender { client: own, impersonation, is_trusted };
    let mut made = Made { name, ..Made::default() };
    let impersonation = match headers {
        Ok(headers) => headers.unwrap_or_default(),
        Err(why) => return Ok(Identity { senders: Senders { stand_in: None, own: own(Vec::new(), false) }, why: Some(why), made }),
    };
    let (stand_in, is_trusted, why) = match which(cluster, impersonated.is_some()).await {
        Ok((Way::Trusted, _)) => (None, true, None),
        Ok((Way::Chance(why), _)) | Err(why) => (None, false, Some(why)),
        Ok((Way::Certificate, person)) => match stand_in(cluster, &person, &mut made).await {
            Ok(stand_in) => (Some(stand_in), false, None),
            Err(why) => (None, false, Some(why)),
        },
    };
    Ok(Identity { senders: Senders { stand_in, own: own(impersonation, is_trusted) }, why, made })
}

/// A name for what is made.
pub(super) fn name() -> Result<String, getrandom::Error> {
    Ok(format!("{NAME_PREFIX}{}", super::proxy::hexadecimal(&super::proxy::random::<8>()?)))
}

/// kubectl repeats what it wants repeated.
fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    Client::try_from(config)
}

async fn which(cluster: &Cluster, impersonates: bool) -> Result<(Way, Person), Why> {
    let version = cluster.client.apiserver_version().await.map_err(|error| refused("get /version", &error))?.git_version;
    if let Way::Chance(why) = way(&version, &Person::default(), impersonates) {
        return Err(why);
    }
    let review = Api::<SelfSubjectReview>::all(cluster.client.clone()).create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let review = review.map_err(|error| refused("create selfsubjectreviews", &error))?;
    let person = Person::reviewed(review.status.and_then(|status| status.user_info).unwrap_or_default());
    Ok((way(&version, &person, impersonates), person))
}

/// One that may impersonate `person`, and is let in.
async fn stand_in(cluster: &Cluster, person: &Person, made: &mut Made) -> Result<StandIn, Why> {
    let impersonation = rights::impersonation(person)?;
    let name = made.name.clone();
    let wanted = Wanted {
        name: &name,
        user: &name,
        group: TRUSTED_GROUP,
        lifetime: LIFETIME,
        signed_within: SIGNED_WITHIN,
        labels: rights::labels(&name),
        field_manager: FIELD_MANAGER,
        reason: "ClusterTracingRequest",
        message: "kubectl tracing request, for one run of kubectl",
    };
    // The right first, by which most people are refused: nothing is made for them then.
    create(cluster, rights::role(&name, person), "create clusterroles", &mut made.role).await?;
    let binding = create(cluster, rights::binding(&name), "create clusterrolebindings", &mut made.binding);
    let begun = Instant::now();
    made.request = true;
    // Both to their ends: what is made by a request under way would not be known of.
    let (bound, issued) = join(binding, client_certificate::issue(&cluster.client, &wanted)).await;
    made.request = issued.is_err();
    bound?;
    let certificate = issued.map_err(|error| match &error {
        client_certificate::Error::Api { what, source, .. } => refused(what, source),
        error => Why::Failed(one_line(error)),
    })?;
    let sender = Sender { client: with(cluster, &certificate)?, impersonation, is_trusted: true };
    let stand_in = StandIn { name, sender, until: begun + LIFETIME.saturating_sub(RESERVE) };
    let deadline = Instant::now() + LET_IN_WITHIN;
    loop {
        let found = known(&stand_in.sender).await;
        match found {
            Ok(found) if found == person.user => return Ok(stand_in),
            Ok(found) => return Err(Why::Failed(format!("the certificate's user is taken for {found:?}"))),
            Err(kube::Error::Api(status)) if status.code == 403 && Instant::now() < deadline => tokio::time::sleep(ASK_EVERY).await,
            Err(error) => return Err(Why::Failed(format!("the certificate is not let in: {}", one_line(&error)))),
        }
    }
}

fn with(cluster: &Cluster, certificate: &Certificate) -> Result<Client, Why> {
    let mut config = cluster.config.clone();
    config.auth_info = certificate.auth_info();
    client(config).map_err(|error| Why::Failed(one_line(&error)))
}

/// Whom the API server takes a sender's requests to be made for.
async fn known(sender: &Sender) -> Result<String, kube::Error> {
    let body = br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#.to_vec();
    let mut request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews").header("content-type", "application/json");
    for (name, value) in &sender.impersonation {
        request = request.header(name, value);
    }
    let review: SelfSubjectReview = sender.client.request(request.body(body).map_err(kube::Error::HttpError)?).await?;
    Ok(review.status.and_then(|status| status.user_info).and_then(|user| user.username).unwrap_or_default())
}

/// `may_be`: whether there may be such an object afterwards.
async fn create<K>(cluster: &Cluster, object: K, what: &str, may_be: &mut bool) -> Result<(), Why>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    *may_be = true;
    let created = Api::<K>::all(cluster.client.clone()).create(&params, &object).await;
    // What was refused is not there.
    *may_be = !matches!(&created, Err(kube::Error::Api(status)) if (400..500).contains(&status.code));
    created.map(drop).map_err(|error| refused(what, &error))
}

fn refused(what: &str, error: &kube::Error) -> Why {
    match error {
        kube::Error::Api(status) if status.code == 403 => Why::Forbidden(what.to_owned()),
        error => Why::Failed(format!("{what}: {}", one_line(error))),
    }
}

impl Made {
    /// Takes away what there may be. What is left is told.
    pub(super) async fn take_away(&self, client: &Client) -> Vec<Left> {
        let bindings = take_away::<ClusterRoleBinding>(client, &self.name, self.binding);
        let roles = take_away::<ClusterRole>(client, &self.name, self.role);
        let requests = take_away::<CertificateSigningRequest>(client, &self.name, self.request);
        let ((binding, role), request) = join(join(bindings, roles), requests).await;
        [binding, role, request].into_iter().flatten().collect()
    }
}

async fn take_away<K>(client: &Client, name: &str, there: bool) -> Option<Left>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    if !there {
        return None;
    }
    let objects = Api::<K>::all(client.clone());
    let mut tries = 1;
    loop {
        let why = match timeout(ANSWERED_WITHIN, objects.delete(name, &DeleteParams::default())).await {
            Ok(Ok(_)) => return None,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return None,
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => return Some(left::<K>(name, status.message.clone())),
            Ok(Err(error)) => one_line(&error),
            Err(_) => "the API server does not answer".to_owned(),
        };
        if tries == TRIES {
            return Some(left::<K>(name, why));
        }
        tries += 1;
        tokio::time::sleep(TRY_EVERY).await;
    }
}

fn left<K: Resource<DynamicType = ()>>(name: &str, why: String) -> Left {
    Left { object: format!("{}/{name}", K::plural(&())), why }
}

/// Takes away what earlier runs left behind, as far as the person may.
pub(super) async fn tidy(client: &Client, now: Timestamp) {
    let bindings = tidy_kind::<ClusterRoleBinding>(client, now);
    let roles = tidy_kind::<ClusterRole>(client, now);
    join(join(bindings, roles), tidy_kind::<CertificateSigningRequest>(client, now)).await;
}

async fn tidy_kind<K>(client: &Client, now: Timestamp)
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let objects = Api::<K>::all(client.clone());
    // Who may not look may not take away either, and need not hear of it.
    let Ok(list) = objects.list(&ListParams::default().labels(LABEL)).await else { return };
    let old = list.items.iter().map(Resource::meta).filter(|metadata| rights::is_left_behind(metadata, now));
    join_all(old.map(async |metadata| {
        let same = Preconditions { uid: metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        // The next run tries again.
        drop(objects.delete(metadata.name.as_deref().unwrap_or_default(), &params).await);
    }))
    .await;
}
