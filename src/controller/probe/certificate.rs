//! The probe's client certificate: asked for by a `CertificateSigningRequest`, approved by this controller, signed by the cluster.
//!
//! The key is made here and never leaves the memory of this process. The request has one fixed name, so that the rights to read, approve and
//! delete it can be given for that name alone; it is deleted as soon as it has an answer.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use crate::api::FIELD_MANAGER_CONTROLLER;
use crate::component::spans::TRUSTED_GROUP;
use crate::plan::flow::probe::ProbeOff;

/// The request's name, for which RBAC gives the rights.
pub(super) const REQUEST: &str = "clustertracing-probe";
/// Who the probe is, for RBAC and for audit logs.
pub(super) const USER: &str = "clustertracing:probe";
/// The signer of client certificates for the API server (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>).
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// A leaked certificate cannot be revoked: it lives for an hour. The API server accepts no less than 10 minutes.
const LIFETIME_SECONDS: i32 = 3600;
/// The signer answers an approved request within a second.
const SIGNED_WITHIN: Duration = Duration::from_secs(15);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A certificate and its key, as PEM.
pub struct Certificate {
    /// The certificate.
    pub(super) chain: String,
    /// Its key.
    pub(super) key: String,
    /// When two thirds of its life are over.
    pub(super) renew: Timestamp,
    /// When it ends.
    pub(super) expires: Timestamp,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key or no request could be made.
    #[error("make the probe's key and request")]
    Key(#[source] rcgen::Error),
    /// The API server did not do what was asked.
    #[error("{what} {REQUEST}")]
    Api {
        /// Verb and resource.
        what: &'static str,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// Somebody denied it.
    #[error("certificatesigningrequest {REQUEST} was denied")]
    Denied,
    /// The signer refused it.
    #[error("certificatesigningrequest {REQUEST} was refused by its signer: {0}")]
    Failed(String),
    /// Nobody signed it.
    #[error("certificatesigningrequest {REQUEST} was not signed within {SIGNED_WITHIN:?}")]
    NotSigned,
    /// What came back is no certificate.
    #[error("read the certificate that was issued for {REQUEST}")]
    Unreadable,
}

impl Error {
    /// What people are told.
    pub fn told(&self) -> ProbeOff {
        match self {
            Self::Api { what, source: kube::Error::Api(status) } if status.code == 403 => ProbeOff::Forbidden { what: (*what).to_owned() },
            Self::Api { what, .. } => ProbeOff::Error { what: format!("to {what} {REQUEST}") },
            Self::Denied => ProbeOff::Denied,
            Self::Failed(_) => ProbeOff::Failed,
            Self::NotSigned => ProbeOff::NotSigned,
            Self::Key(_) => ProbeOff::Error { what: "to make a key".to_owned() },
            Self::Unreadable => ProbeOff::Error { what: "to read the certificate that was issued".to_owned() },
        }
    }
}

/// Has a certificate made.
///
/// # Errors
/// See `Error`. Whatever happens, the request is deleted.
pub async fn issue(client: &Client) -> Result<Certificate, Error> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let (key, request) = key_and_request().map_err(Error::Key)?;
    // One that an earlier controller left.
    delete(&requests).await?;
    let issued = signed(&requests, request).await;
    let deleted = delete(&requests).await;
    let certificate = issued?;
    deleted?;
    Certificate::new(certificate, key.serialize_pem())
}

fn key_and_request() -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, TRUSTED_GROUP);
    params.distinguished_name.push(DnType::CommonName, USER);
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key, request))
}

async fn signed(requests: &Api<CertificateSigningRequest>, request: String) -> Result<String, Error> {
    let api = |what| move |source| Error::Api { what, source };
    let spec = CertificateSigningRequestSpec {
        request: ByteString(request.into_bytes()),
        signer_name: SIGNER.to_owned(),
        usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
        expiration_seconds: Some(LIFETIME_SECONDS),
        ..CertificateSigningRequestSpec::default()
    };
    let mut object = CertificateSigningRequest { spec, ..CertificateSigningRequest::default() };
    object.metadata.name = Some(REQUEST.to_owned());
    let params = PostParams { field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
    let made = requests.create(&params, &object).await.map_err(api("create certificatesigningrequests"))?;
    let approved = json!({
        // Of the object as it was made: nobody exchanges it before it is approved.
        "metadata": { "resourceVersion": made.resource_version(), "uid": made.uid() },
        "status": { "conditions": [{
            "type": "Approved", "status": "True", "reason": "ClusterTracingProbe",
            "message": "the probe of ClusterTracing, which proves that spans flow",
        }] },
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER_CONTROLLER.to_owned()), ..PatchParams::default() };
    let approved = requests.patch_approval(REQUEST, &params, &Patch::Merge(approved)).await;
    approved.map_err(api("approve certificatesigningrequests"))?;
    let signed = tokio::time::timeout(SIGNED_WITHIN, async {
        loop {
            let found = requests.get(REQUEST).await.map_err(api("get certificatesigningrequests"))?;
            if let Some(answer) = answer(&found) {
                return answer;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    });
    signed.await.map_err(|_| Error::NotSigned)?
}

/// What became of the request, if anything did.
fn answer(request: &CertificateSigningRequest) -> Option<Result<String, Error>> {
    let status = request.status.as_ref()?;
    let is = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True");
    if is("Denied").is_some() {
        return Some(Err(Error::Denied));
    }
    if let Some(failed) = is("Failed") {
        return Some(Err(Error::Failed(failed.message.clone().unwrap_or_default())));
    }
    let certificate = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())?;
    Some(String::from_utf8(certificate.0.clone()).map_err(|_| Error::Unreadable))
}

async fn delete(requests: &Api<CertificateSigningRequest>) -> Result<(), Error> {
    match requests.delete(REQUEST, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::Api { what: "delete certificatesigningrequests", source }),
    }
}

impl Certificate {
    /// Renewed at two thirds of the life that the signer gave it, which may be shorter than what was asked for.
    fn new(certificate: String, key: String) -> Result<Self, Error> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|_| Error::Unreadable)?;
        let validity = pem.parse_x509().map_err(|_| Error::Unreadable)?.validity().clone();
        let at = |seconds| Timestamp::from_second(seconds).map_err(|_| Error::Unreadable);
        let (begins, expires) = (at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?);
        let life = SignedDuration::from_secs(expires.duration_since(begins).as_secs() / 3 * 2);
        let renew = begins.checked_add(life).map_err(|_| Error::Unreadable)?;
        Ok(Self { chain: certificate, key, renew, expires })
    }
}
