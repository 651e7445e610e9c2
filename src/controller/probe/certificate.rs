//! The probe's client certificate. Its request has one fixed name, so that the rights to read, approve and delete it can be given for that name
//! alone.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;

use crate::api::FIELD_MANAGER_CONTROLLER;
use crate::component::spans::TRUSTED_GROUP;
use crate::plan::flow::probe::ProbeOff;
use crate::runtime::client_certificate::{self, Certificate, Wanted};

/// The request's name, for which RBAC gives the rights.
pub(super) const REQUEST: &str = "clustertracing-probe";
/// Who the probe is, for RBAC and for audit logs.
pub(super) const USER: &str = "clustertracing:probe";
/// A leaked certificate cannot be revoked: it lives for an hour.
const LIFETIME: Duration = Duration::from_hours(1);
/// The signer answers an approved request within a second.
const SIGNED_WITHIN: Duration = Duration::from_secs(15);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(client_certificate::Error);

impl Error {
    /// What people are told.
    pub fn told(&self) -> ProbeOff {
        use client_certificate::Error as Cause;
        match &self.0 {
            Cause::Api { what, source: kube::Error::Api(status), .. } if status.code == 403 => {
                ProbeOff::Forbidden { what: (*what).to_owned() }
            }
            Cause::Api { what, .. } => ProbeOff::Error { what: format!("to {what} {REQUEST}") },
            Cause::Denied { .. } => ProbeOff::Denied,
            Cause::Failed { .. } => ProbeOff::Failed,
            Cause::NotSigned { .. } => ProbeOff::NotSigned,
            Cause::Key(_) => ProbeOff::Error { what: "to make a key".to_owned() },
            Cause::Unreadable { .. } => ProbeOff::Error { what: "to read the certificate that was issued".to_owned() },
        }
    }
}

/// Has a certificate made.
///
/// # Errors
/// See `Error`. Whatever happens, the request is deleted.
pub async fn issue(client: &Client) -> Result<Certificate, Error> {
    let wanted = Wanted {
        name: REQUEST,
        user: USER,
        group: TRUSTED_GROUP,
        lifetime: LIFETIME,
        signed_within: SIGNED_WITHIN,
        labels: BTreeMap::new(),
        field_manager: FIELD_MANAGER_CONTROLLER,
        reason: "ClusterTracingProbe",
        message: "the probe of ClusterTracing, which proves that spans flow",
    };
    // One that an earlier controller left.
    client_certificate::delete(client, REQUEST).await.map_err(Error)?;
    client_certificate::issue(client, &wanted).await.map_err(Error)
}

/// When two thirds of the life that the signer gave it are over, which may be shorter than what was asked for.
pub(super) fn renew(certificate: &Certificate) -> Timestamp {
    let life = SignedDuration::from_secs(certificate.expires.duration_since(certificate.begins).as_secs() / 3 * 2);
    certificate.begins.checked_add(life).unwrap_or(certificate.begins)
}
