//! Mutual TLS between the collectors and Jaeger: an authority for each side, and what each of them is given.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cluster::{HOST, NAMESPACE};

/// The Secret with the authority that signed Jaeger's certificate.
pub(crate) const CA_SECRET: &str = "jaeger-ca";
/// The Secret with the collectors' certificate.
pub(crate) const CLIENT_SECRET: &str = "jaeger-client";

/// What Jaeger reads, and the authorities.
pub(crate) struct Tls {
    folder: TempDir,
    server: Authority,
    client: Authority,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

impl Tls {
    /// Two authorities; Jaeger's files are in a folder of their own.
    pub(crate) fn new() -> Self {
        let tls = Self {
            folder: TempDir::new().expect("a folder can be made"),
            server: authority("Jaeger's authority"),
            client: authority("the collectors' authority"),
        };
        let (certificate, key) = leaf(&tls.server, HOST, ExtendedKeyUsagePurpose::ServerAuth);
        for (file, text) in [("server.crt", certificate), ("server.key", key), ("client-ca.crt", tls.client.pem())] {
            write(tls.folder(), file, &text);
        }
        tls
    }

    /// Where `cluster.sh jaeger start` finds Jaeger's files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// From Jaeger's next start on, only certificates of another authority are accepted.
    pub(crate) fn replace_the_collectors_authority(&mut self) {
        self.client = authority("the collectors' next authority");
        write(self.folder(), "client-ca.crt", &self.client.pem());
    }

    /// The collectors' Secrets, the certificate a fresh one.
    pub(crate) fn secrets(&self) -> Value {
        let (certificate, key) = leaf(&self.client, "collector", ExtendedKeyUsagePurpose::ClientAuth);
        let secret = |name: &str, kind: &str, data: Value| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": NAMESPACE }, "type": kind, "stringData": data });
        json!({ "apiVersion": "v1", "kind": "List", "items": [
            secret(CA_SECRET, "Opaque", json!({ "ca.crt": self.server.pem() })),
            secret(CLIENT_SECRET, "kubernetes.io/tls", json!({ "tls.crt": certificate, "tls.key": key })),
        ] })
    }
}

fn authority(name: &str) -> Authority {
    let mut params = params(name, Vec::new());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    CertifiedIssuer::self_signed(params, key()).expect("an authority can sign itself")
}

fn leaf(issuer: &Authority, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
    let mut params = params(name, vec![name.to_owned()]);
    params.extended_key_usages = vec![usage];
    let key = key();
    let certificate = params.signed_by(&key, issuer).expect("the authority can sign");
    (certificate.pem(), key.serialize_pem())
}

fn params(name: &str, names: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(names).expect("constant names");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn write(folder: &Path, file: &str, text: &str) {
    std::fs::write(folder.join(file), text).unwrap_or_else(|error| panic!("write {file}: {error}"));
}
