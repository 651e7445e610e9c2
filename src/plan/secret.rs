//! The Secrets that the collector's exporters name: whether they are there, and until when their certificates hold.
//!
//! Of a Secret nothing is kept but its version, the names of its keys, the end of its certificate and a digest of its authorities. A certificate
//! that is rotated rolls nothing out: the collector reads it again. What it reads only when it starts ([`read_at_start`]) replaces the collectors.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use x509_parser::pem::Pem;

use super::observed::Observed;
use super::validate::{Collector, Exporter, Validated};
use crate::api::Reason;
use crate::api::node_tracing::hex12;

/// A certificate that ends sooner is told of. cert-manager renews at two thirds of a certificate's life: 30 days before the end of its default.
const WARN_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Keys of a Secret of type kubernetes.io/tls, and of one that holds authorities.
const CA: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A Secret, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedSecret {
    /// `metadata.resourceVersion`: another one may hold other values.
    pub version: String,
    /// Digest of the authorities in it, which are no secret.
    pub authorities: Option<String>,
    /// What its keys hold.
    pub keys: BTreeMap<String, Content>,
}

/// What a key of a Secret holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Something that is not looked at.
    Opaque,
    /// Certificates in PEM.
    Certificate {
        /// When the first one ends.
        ends: Timestamp,
    },
    /// No certificate in PEM, where there should be one.
    NotACertificate,
}

/// A key of a Secret, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Name of the exporter.
    pub exporter: String,
    /// Name of the Secret.
    pub secret: String,
    /// Key.
    pub key: String,
}

/// What is wrong with a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretTrouble {
    /// Where.
    pub needed: Needed,
    /// What.
    pub problem: Problem,
}

/// What is wrong with a key of a Secret: the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// There is no such Secret.
    NoSecret,
    /// It has no such key.
    NoKey,
    /// It holds no certificate.
    NotACertificate,
    /// Its certificate has ended.
    Expired(Timestamp),
    /// Its certificate ends soon.
    Expiring(Timestamp),
}

/// What can be told of a Secret's keys.
pub fn observed(secret: &Secret) -> ObservedSecret {
    let content = |key: &str, bytes: &[u8]| match key {
        CA | CERTIFICATE => end_of_first(bytes).map_or(Content::NotACertificate, |ends| Content::Certificate { ends }),
        _ => Content::Opaque,
    };
    let data = secret.data.iter().flatten();
    ObservedSecret {
        version: secret.metadata.resource_version.clone().unwrap_or_default(),
        authorities: data.clone().find(|(key, _)| *key == CA).map(|(_, bytes)| hex12(&bytes.0)),
        keys: data.map(|(key, bytes)| (key.clone(), content(key, &bytes.0))).collect(),
    }
}

/// What a collector reads of its Secrets only when it starts, as a text that changes with it: authorities, by their digest, and headers,
/// by the version of their Secret, of which no digest may be shown. Of what could not be read it says nothing.
pub fn read_at_start(collector: &Collector, secrets: &BTreeMap<String, Option<ObservedSecret>>) -> Option<String> {
    let found = |name: &str| secrets.get(name).and_then(Option::as_ref);
    let line = |needed: Needed| {
        let secret = found(&needed.secret)?;
        match needed.key.as_str() {
            CA => Some(format!("{} {}", needed.secret, secret.authorities.as_ref()?)),
            CERTIFICATE | KEY => None,
            _ => Some(format!("{} {}", needed.secret, secret.version)),
        }
    };
    let lines: BTreeSet<String> = collector.exporters.iter().flat_map(needed).filter_map(line).collect();
    (!lines.is_empty()).then(|| lines.into_iter().collect::<Vec<_>>().join("\n"))
}

fn end_of_first(bytes: &[u8]) -> Option<Timestamp> {
    let pem = Pem::iter_from_buffer(bytes).map_while(Result::ok).find(|pem| pem.label == "CERTIFICATE")?;
    Timestamp::from_second(pem.parse_x509().ok()?.validity().not_after.timestamp()).ok()
}

/// Names of the Secrets that a collector needs.
pub fn names(collector: &Collector) -> BTreeSet<String> {
    collector.exporters.iter().flat_map(needed).map(|needed| needed.secret).collect()
}

fn needed(exporter: &Exporter) -> Vec<Needed> {
    let of = |secret: &str, key: &str| Needed { exporter: exporter.name.clone(), secret: secret.to_owned(), key: key.to_owned() };
    let tls = exporter.tls.as_ref();
    let ca = tls.and_then(|tls| tls.ca_secret.as_deref()).map(|secret| of(secret, CA));
    let pair = tls.and_then(|tls| tls.cert_secret.as_deref()).map(|secret| [of(secret, CERTIFICATE), of(secret, KEY)]);
    let headers = exporter.headers.iter().map(|header| of(&header.secret_key_ref.name, &header.secret_key_ref.key));
    ca.into_iter().chain(pair.into_iter().flatten()).chain(headers).collect()
}

/// The worst that is wrong with a Secret of the wanted collector. What could not be read is not known, and says nothing.
pub fn trouble(v: &Validated, o: &Observed, now: Timestamp) -> Option<SecretTrouble> {
    let all = v.wanted_collector()?.exporters.iter().flat_map(needed);
    let problem = |needed: &Needed| match o.secrets.get(&needed.secret)? {
        None => Some(Problem::NoSecret),
        Some(secret) => match secret.keys.get(&needed.key) {
            None => Some(Problem::NoKey),
            Some(Content::NotACertificate) => Some(Problem::NotACertificate),
            // an old authority in a bundle harms nobody
            Some(Content::Certificate { ends }) if needed.key == CERTIFICATE => problem_of_end(*ends, now),
            Some(Content::Certificate { .. } | Content::Opaque) => None,
        },
    };
    let found = all.filter_map(|needed| Some(SecretTrouble { problem: problem(&needed)?, needed }));
    found.min_by_key(|trouble| trouble.problem)
}

fn problem_of_end(ends: Timestamp, now: Timestamp) -> Option<Problem> {
    if ends <= now { Some(Problem::Expired(ends)) } else { (ends.duration_since(now) < WARN_BEFORE).then_some(Problem::Expiring(ends)) }
}

impl SecretTrouble {
    /// Whether a collector cannot start, or cannot send, without a person's doing something first.
    pub fn stops(&self) -> bool {
        matches!(self.problem, Problem::NoSecret | Problem::NoKey | Problem::NotACertificate)
    }

    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self.problem {
            Problem::NoSecret | Problem::NoKey => Reason::SecretMissing,
            Problem::NotACertificate => Reason::SecretInvalid,
            Problem::Expired(_) => Reason::CertificateExpired,
            Problem::Expiring(_) => Reason::CertificateExpiring,
        }
    }

    /// For people.
    pub fn message(&self, namespace: &str) -> String {
        let Needed { exporter, secret, key } = &self.needed;
        match self.problem {
            Problem::NoSecret => {
                let make = match key.as_str() {
                    CERTIFICATE | KEY => format!("create secret tls {secret} --cert=FILE --key=FILE"),
                    _ => format!("create secret generic {secret} --from-file={key}=FILE"),
                };
                format!(
                    "there is no Secret {namespace}/{secret}, whose key {key} exporter {exporter} needs; make it: kubectl -n {namespace} {make}"
                )
            }
            Problem::NoKey => format!(
                "Secret {namespace}/{secret} has no key {key}, which exporter {exporter} needs; add it: kubectl -n {namespace} edit secret {secret}"
            ),
            Problem::NotACertificate => format!(
                "key {key} of Secret {namespace}/{secret}, which exporter {exporter} needs, holds no certificate in PEM; see: \
                 kubectl -n {namespace} get secret {secret} -o yaml"
            ),
            Problem::Expired(ends) => format!(
                "the certificate in key {key} of Secret {namespace}/{secret}, which exporter {exporter} shows, ended on {}; renew it there: the \
                 collectors read the new one by themselves",
                date(ends)
            ),
            Problem::Expiring(ends) => format!(
                "the certificate in key {key} of Secret {namespace}/{secret}, which exporter {exporter} shows, ends on {}; renew it there: the \
                 collectors read the new one by themselves",
                date(ends)
            ),
        }
    }
}

/// A day says when to act, and changes nothing by itself.
fn date(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).date().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ClusterTracing;
    use crate::plan::validate::{Installation, validate};

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// A resource whose one exporter shows a certificate, trusts an authority, and sends a header.
    fn mk_validated() -> Validated {
        let exporter = json!({
            "name": "tempo", "endpoint": "tempo:4317",
            "tls": { "caSecretRef": { "name": "ca" }, "certSecretRef": { "name": "client" } },
            "headers": [{ "name": "x-key", "secretKeyRef": { "name": "vendor", "key": "token" } }],
        });
        let spec = serde_json::from_value(json!({ "collector": { "exporters": [exporter] } })).unwrap();
        let installation = Installation {
            namespace: "clustertracing".into(),
            collector_image: "otelcol:0.155.0".into(),
            canary: crate::api::State::Enabled,
            probe: crate::api::State::Enabled,
        };
        validate(&ClusterTracing::new("cluster", spec), &installation).unwrap()
    }

    fn mk_secret(keys: &[(&str, Content)]) -> ObservedSecret {
        let keys = keys.iter().map(|(key, content)| ((*key).to_owned(), *content)).collect();
        ObservedSecret { keys, ..ObservedSecret::default() }
    }

    /// All that the exporter needs, with a certificate that ends then.
    fn mk_observed(ends: &str) -> Observed {
        let certificate = Content::Certificate { ends: at(ends) };
        let old = Content::Certificate { ends: at("2020-01-01T00:00:00Z") };
        let secrets = [
            ("ca", mk_secret(&[("ca.crt", old)])),
            ("client", mk_secret(&[("tls.crt", certificate), ("tls.key", Content::Opaque)])),
            ("vendor", mk_secret(&[("token", Content::Opaque)])),
        ];
        Observed { secrets: secrets.into_iter().map(|(name, secret)| (name.to_owned(), Some(secret))).collect(), ..Observed::default() }
    }

    #[test]
    fn each_fault_of_a_secret_has_its_reason_and_the_worst_is_told() {
        type Case = (&'static str, fn(&mut Observed), Option<(Reason, &'static str)>);
        let now = at("2026-11-21T12:00:00Z");
        let far = "2027-11-21T12:00:00Z";
        let cases: &[Case] = &[
            (far, |_| {}, None),
            ("2026-12-05T12:00:00Z", |_| {}, None),
            ("2026-12-05T11:59:59Z", |_| {}, Some((Reason::CertificateExpiring, "tls.crt"))),
            ("2026-11-21T12:00:00Z", |_| {}, Some((Reason::CertificateExpired, "tls.crt"))),
            (far, |o| drop(o.secrets.insert("client".into(), None)), Some((Reason::SecretMissing, "tls.crt"))),
            (far, |o| drop(o.secrets.insert("vendor".into(), Some(mk_secret(&[])))), Some((Reason::SecretMissing, "token"))),
            (
                far,
                |o| drop(o.secrets.insert("ca".into(), Some(mk_secret(&[("ca.crt", Content::NotACertificate)])))),
                Some((Reason::SecretInvalid, "ca.crt")),
            ),
            ("2026-11-01T12:00:00Z", |o| drop(o.secrets.insert("vendor".into(), None)), Some((Reason::SecretMissing, "token"))),
            // no right to read it
            (far, |o| drop(o.secrets.remove("vendor")), None),
        ];
        for (ends, spoil, expected) in cases {
            let mut o = mk_observed(ends);
            spoil(&mut o);
            let found = trouble(&mk_validated(), &o, now);
            assert_eq!(found.as_ref().map(|t| (t.reason(), t.needed.key.as_str())), *expected, "{ends} {found:?}");
        }
    }

    #[test]
    fn authorities_and_headers_are_read_at_the_start_and_a_certificate_is_not() {
        let v = mk_validated();
        let read = |spoil: fn(&mut ObservedSecret, &str)| {
            let mut o = mk_observed("2027-11-21T12:00:00Z");
            for (name, secret) in &mut o.secrets {
                spoil(secret.as_mut().unwrap(), name);
            }
            read_at_start(v.wanted_collector().unwrap(), &o.secrets)
        };
        let before = read(|_, _| {});
        assert!(before.is_some());
        assert_eq!(
            before,
            read(|secret, name| if name == "client" {
                secret.version.push('2');
            })
        );
        assert_eq!(
            before,
            read(|secret, name| if name == "ca" {
                secret.version.push('2');
            })
        );
        assert_ne!(
            before,
            read(|secret, name| if name == "ca" {
                secret.authorities = Some("other".into());
            })
        );
        assert_ne!(
            before,
            read(|secret, name| if name == "vendor" {
                secret.version.push('2');
            })
        );
        assert_eq!(read_at_start(v.wanted_collector().unwrap(), &BTreeMap::new()), None);
    }

    #[test]
    fn a_message_names_secret_key_exporter_command_and_a_day() {
        let message = |problem, secret: &str, key: &str| {
            let needed = Needed { exporter: "tempo".into(), secret: secret.into(), key: key.into() };
            SecretTrouble { needed, problem }.message("clustertracing")
        };
        let cases = [
            (message(Problem::NoSecret, "client", "tls.key"), "kubectl -n clustertracing create secret tls client --cert=FILE --key=FILE"),
            (
                message(Problem::NoSecret, "vendor", "token"),
                "kubectl -n clustertracing create secret generic vendor --from-file=token=FILE",
            ),
            (message(Problem::NoKey, "vendor", "token"), "Secret clustertracing/vendor has no key token, which exporter tempo needs"),
            (message(Problem::Expiring(at("2026-12-01T23:59:59Z")), "client", "tls.crt"), "exporter tempo shows, ends on 2026-12-01;"),
            (message(Problem::Expired(at("2026-10-01T00:00:00Z")), "client", "tls.crt"), "exporter tempo shows, ended on 2026-10-01;"),
        ];
        for (message, part) in cases {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn the_end_of_a_real_certificate_is_read_and_nothing_else_is_kept() {
        let mut params = rcgen::CertificateParams::new(vec!["collector".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 12, 1);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let secret = |text: &str| -> Secret {
            let data = [("tls.crt", text), ("tls.key", "a key"), ("ca.crt", "no certificate")];
            let data = data.map(|(key, text)| (key.to_owned(), k8s_openapi::ByteString(text.as_bytes().to_vec())));
            Secret { data: Some(data.into()), ..Secret::default() }
        };
        let found = observed(&secret(&format!("# of the vendor\n{certificate}")));
        assert_eq!(found.keys["tls.crt"], Content::Certificate { ends: at("2026-12-01T00:00:00Z") });
        assert_eq!((found.keys["tls.key"], found.keys["ca.crt"]), (Content::Opaque, Content::NotACertificate));
        assert_eq!(observed(&secret("-----BEGIN CERTIFICATE-----\n")).keys.get("tls.crt"), Some(&Content::NotACertificate));
    }
}
