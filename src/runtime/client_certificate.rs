//! A client certificate for the API server: asked for by a `CertificateSigningRequest`, approved by who asks, signed by the cluster.
//!
//! The key is made here and never leaves the memory of this process. The request is deleted as soon as it has an answer. Whoever may do this
//! is trusted with the cluster already (docs/security.md); who may not is told which right is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::AuthInfo;
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

/// The signer of client certificates for the API server (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>).
pub const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// How often it is asked whether the signer has answered. It does within a second.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Which certificate, and how it is asked for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The request's name.
    pub name: &'a str,
    /// Common name: who the certificate's owner is, for RBAC and for audit logs.
    pub user: &'a str,
    /// Organization: the owner's group.
    pub group: &'a str,
    /// How long it is good for. The API server accepts no less than 10 minutes; a signer may give less than what is asked for.
    pub lifetime: Duration,
    /// How long the signer may take.
    pub signed_within: Duration,
    /// Labels of the request.
    pub labels: BTreeMap<String, String>,
    /// Who writes it.
    pub field_manager: &'a str,
    /// Why it is approved, as a condition has it: a word.
    pub reason: &'a str,
    /// The same for people.
    pub message: &'a str,
}

/// A certificate and its key, as PEM.
pub struct Certificate {
    /// The certificate.
    pub chain: String,
    /// Its key.
    pub key: String,
    /// When it begins to be good.
    pub begins: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key or no request could be made.
    #[error("make the key and the request of a client certificate")]
    Key(#[source] rcgen::Error),
    /// The API server did not do what was asked.
    #[error("{what} {name}")]
    Api {
        /// Verb and resource.
        what: &'static str,
        /// The request's name.
        name: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// Somebody denied it.
    #[error("certificatesigningrequest {name} was denied")]
    Denied {
        /// The request's name.
        name: String,
    },
    /// The signer refused it.
    #[error("certificatesigningrequest {name} was refused by its signer: {message}")]
    Failed {
        /// The request's name.
        name: String,
        /// The signer's words.
        message: String,
    },
    /// Nobody signed it.
    #[error("certificatesigningrequest {name} was not signed within {within:?}")]
    NotSigned {
        /// The request's name.
        name: String,
        /// How long was waited.
        within: Duration,
    },
    /// What came back is no certificate.
    #[error("read the certificate that was issued for {name}")]
    Unreadable {
        /// The request's name.
        name: String,
    },
}

/// Has a certificate made.
///
/// # Errors
/// See `Error`. Whatever happens, the request is deleted; a caller that is cancelled deletes it by [`delete`].
pub async fn issue(client: &Client, wanted: &Wanted<'_>) -> Result<Certificate, Error> {
    let (key, request) = key_and_request(wanted).map_err(Error::Key)?;
    let issued = signed(client, wanted, request).await;
    let deleted = delete(client, wanted.name).await;
    let certificate = issued?;
    deleted?;
    Certificate::new(wanted.name, certificate, key.serialize_pem())
}

/// Deletes a request; one that is not there is no error.
///
/// # Errors
/// When the API server does not do it.
pub async fn delete(client: &Client, name: &str) -> Result<(), Error> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    match requests.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::Api { what: "delete certificatesigningrequests", name: name.to_owned(), source }),
    }
}

fn key_and_request(wanted: &Wanted<'_>) -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, wanted.group);
    params.distinguished_name.push(DnType::CommonName, wanted.user);
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key, request))
}

async fn signed(client: &Client, wanted: &Wanted<'_>, request: String) -> Result<String, Error> {
    let name = wanted.name.to_owned();
    let api = |what| {
        let name = name.clone();
        move |source| Error::Api { what, name, source }
    };
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let spec = CertificateSigningRequestSpec {
        request: ByteString(request.into_bytes()),
        signer_name: SIGNER.to_owned(),
        usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
        expiration_seconds: Some(i32::try_from(wanted.lifetime.as_secs()).unwrap_or(i32::MAX)),
        ..CertificateSigningRequestSpec::default()
    };
    let mut object = CertificateSigningRequest { spec, ..CertificateSigningRequest::default() };
    object.metadata.name = Some(name.clone());
    object.metadata.labels = Some(wanted.labels.clone()).filter(|labels| !labels.is_empty());
    let params = PostParams { field_manager: Some(wanted.field_manager.to_owned()), ..PostParams::default() };
    let made = requests.create(&params, &object).await.map_err(api("create certificatesigningrequests"))?;
    let approved = json!({
        // Of the object as it was made: nobody exchanges it before it is approved.
        "metadata": { "resourceVersion": made.resource_version(), "uid": made.uid() },
        "status": { "conditions": [{ "type": "Approved", "status": "True", "reason": wanted.reason, "message": wanted.message }] },
    });
    let params = PatchParams { field_manager: Some(wanted.field_manager.to_owned()), ..PatchParams::default() };
    let approved = requests.patch_approval(&name, &params, &Patch::Merge(approved)).await;
    approved.map_err(api("approve certificatesigningrequests"))?;
    let signed = tokio::time::timeout(wanted.signed_within, async {
        loop {
            let found = requests.get(&name).await.map_err(api("get certificatesigningrequests"))?;
            if let Some(answer) = answer(&name, &found) {
                return answer;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    });
    signed.await.map_err(|_| Error::NotSigned { name: name.clone(), within: wanted.signed_within })?
}

/// What became of the request, if anything did.
fn answer(name: &str, request: &CertificateSigningRequest) -> Option<Result<String, Error>> {
    let status = request.status.as_ref()?;
    let name = name.to_owned();
    let is = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True");
    if is("Denied").is_some() {
        return Some(Err(Error::Denied { name }));
    }
    if let Some(failed) = is("Failed") {
        return Some(Err(Error::Failed { name, message: failed.message.clone().unwrap_or_default() }));
    }
    let certificate = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())?;
    Some(String::from_utf8(certificate.0.clone()).map_err(|_| Error::Unreadable { name }))
}

impl Certificate {
    fn new(name: &str, chain: String, key: String) -> Result<Self, Error> {
        let unreadable = || Error::Unreadable { name: name.to_owned() };
        let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).map_err(|_| unreadable())?;
        let validity = pem.parse_x509().map_err(|_| unreadable())?.validity().clone();
        let at = |seconds| Timestamp::from_second(seconds).map_err(|_| unreadable());
        let (begins, expires) = (at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?);
        Ok(Self { chain, key, begins, expires })
    }

    /// The user of a kubeconfig who has this certificate.
    pub fn auth_info(&self) -> AuthInfo {
        // As a kubeconfig has it: base64.
        let data = |pem: &str| serde_json::to_value(ByteString(pem.as_bytes().to_vec())).ok()?.as_str().map(str::to_owned);
        AuthInfo { client_certificate_data: data(&self.chain), client_key_data: data(&self.key).map(Into::into), ..AuthInfo::default() }
    }
}
