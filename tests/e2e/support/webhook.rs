//! A mutating webhook outside of the cluster, which traces itself: the testbed's `webhook.py` as a process on the host.

use std::process::Command;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::clients::address;
use super::cluster::{Cluster, HOST, project};

const PORT: &str = "9443";
/// Name of the registration.
const NAME: &str = "e2e";
/// Name of the process among those that end with the cluster.
const PROCESS: &str = "webhook";
/// Pods with this label go through the webhook, and no others.
pub(crate) const LABEL: (&str, &str) = ("e2e", "webhook");
/// What it asks the API server for, within each request.
const ASKED_BACK: &str = "/api/v1/namespaces/default";
/// What its spans are recorded under.
pub(crate) const SERVICE: &str = "demo-webhook";

/// A running webhook; its certificate is in the folder.
pub(crate) struct Webhook {
    folder: tempfile::TempDir,
}

impl Webhook {
    /// Starts it, with a certificate of its own. It asks cp1's API server back, as the super-administrator, within each request.
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let webhook = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let (certificate, key) = (webhook.path("tls.crt"), webhook.path("tls.key"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=webhook"])
            .args(["-addext", &format!("subjectAltName=IP:{HOST}"), "-keyout", &key, "-out", &certificate])
            .output()
            .expect("openssl can be started");
        assert!(made.status.success(), "openssl failed: {}", String::from_utf8_lossy(&made.stderr));
        let kubeconfig: Value =
            serde_yaml::from_str(&cluster.exec("cp1", &["cat", "/etc/kubernetes/super-admin.conf"])).expect("it is YAML");
        let pem = |pointer: &str| {
            let data = kubeconfig.pointer(pointer).cloned().expect("kubeadm embeds its certificates");
            serde_json::from_value::<ByteString>(data).expect("it is base64").0
        };
        let [certificate_of, key_of] = ["certificate", "key"].map(|part| pem(&format!("/users/0/user/client-{part}-data")));
        let (identity, authority) = (webhook.path("identity.pem"), webhook.path("ca.crt"));
        std::fs::write(&identity, [certificate_of, key_of].concat()).expect("the folder can be written");
        std::fs::write(&authority, pem("/clusters/0/cluster/certificate-authority-data")).expect("the folder can be written");
        let back = format!("https://{}:6443{ASKED_BACK}", address("cp1"));
        let program = project().join("tests/testbed/webhook.py").display().to_string();
        cluster.stop(PROCESS);
        let otlp = format!("http://{HOST}:4318");
        cluster.daemon(PROCESS, &["python3", &program, HOST, PORT, &certificate, &key, &otlp, &back, &identity, &authority]);
        webhook
    }

    /// Tells the API servers about it.
    pub(crate) async fn register(&self, client: Client) {
        let certificate = std::fs::read(self.path("tls.crt")).expect("openssl has written the certificate");
        let webhook: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": NAME},
            "webhooks": [{
                "name": "mutate.e2e.clustertracing.dev",
                "clientConfig": {"url": format!("https://{HOST}:{PORT}/mutate"), "caBundle": ByteString(certificate)},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "objectSelector": {"matchLabels": {LABEL.0: LABEL.1}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
            }],
        }))
        .expect("a constant object");
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client);
        webhooks.patch(NAME, &PatchParams::apply(NAME), &Patch::Apply(&webhook)).await.expect("the webhook is registered");
    }

    /// Takes it back, and ends it.
    pub(crate) async fn remove(self, cluster: &Cluster, client: Client) {
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client);
        webhooks.delete(NAME, &DeleteParams::default()).await.expect("the webhook's registration is deleted");
        cluster.stop(PROCESS);
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}
