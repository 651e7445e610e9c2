//! The probe against a real API server: a certificate under the rights that the installation gives, and a request under that certificate.
//! There is no controller manager here: the test signs in its place. Whether spans follow, by version and rate, is in `rates`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

#[path = "../common/api_server.rs"]
mod api_server;
mod rates;
#[path = "../common/traced.rs"]
mod traced;

use std::path::Path;
use std::time::Duration;

use api_server::ApiServer;
use clustertracing::api::ClusterTracing;
use clustertracing::controller::probe::{client, issue, send};
use clustertracing::plan::flow::probe::{Answer, ProbeOff};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::json;

/// Every object that the installation brings for the controller's rights.
const RBAC: &str = include_str!("../../config/rbac/controller.yaml");
const CONTROLLER: &str = "system:serviceaccount:clustertracing-system:clustertracing-controller";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The definitions, a `ClusterTracing`, and the controller's rights.
async fn install(client: &Client) {
    for entry in std::fs::read_dir(project().join("crds")).unwrap() {
        let crd: CustomResourceDefinition = serde_yaml::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        let (name, crds) = (crd.name_any(), Api::all(client.clone()));
        crds.create(&PostParams::default(), &crd).await.unwrap();
        await_condition(crds, &name, conditions::is_crd_established()).await.unwrap();
    }
    let resource = serde_json::from_value(json!({
        "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing", "metadata": { "name": "cluster" }, "spec": {},
    }));
    Api::<ClusterTracing>::all(client.clone()).create(&PostParams::default(), &resource.unwrap()).await.unwrap();
    for document in serde_yaml::Deserializer::from_str(RBAC) {
        let object = DynamicObject::deserialize(document).unwrap();
        let types = object.types.clone().unwrap();
        if types.kind == "ServiceAccount" || object.namespace().is_some_and(|namespace| namespace == "clustertracing-system") {
            continue;
        }
        let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
        let objects: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &kind),
            None => Api::all_with(client.clone(), &kind),
        };
        objects.create(&PostParams::default(), &object).await.unwrap();
    }
}

/// A client with the controller's rights.
fn controller(server: &ApiServer) -> Client {
    let mut config = server.config();
    config.auth_info.impersonate = Some(CONTROLLER.to_owned());
    Client::try_from(config).unwrap()
}

/// What the signer does with the one request that comes: `Denied` before anybody approves it, or a certificate once it is approved.
async fn sign(server: &ApiServer, denied: bool) -> CertificateSigningRequest {
    let requests: Api<CertificateSigningRequest> = Api::all(server.client());
    let is = |request: &CertificateSigningRequest, kind: &str| {
        request.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == kind && c.status == "True")
    };
    let found = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let request = requests.list(&ListParams::default()).await.unwrap().items.pop();
            if let Some(request) = request.filter(|request| is(request, "Approved")) {
                return request;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let found = found.await.unwrap_or_else(|_| panic!("nothing is approved"));
    let status = if denied {
        json!({ "status": { "conditions": [
            { "type": "Approved", "status": "True", "reason": "ClusterTracingProbe" },
            { "type": "Failed", "status": "True", "reason": "SignerSaysNo", "message": "no" },
        ] } })
    } else {
        json!({ "status": { "certificate": ByteString(server.sign(&found.spec.request.0)) } })
    };
    requests.patch_status(&found.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    found
}

#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn a_certificate_is_made_under_the_controllers_rights_and_the_probe_is_answered() {
    let server = ApiServer::start("1.36.3", "3.6.16").await;

    // Without the rights, it is told which one is missing, and nothing is left.
    let forbidden = issue(&controller(&server)).await.err().unwrap();
    assert_eq!(forbidden.told(), ProbeOff::Forbidden { what: "delete certificatesigningrequests".to_owned() });

    install(&server.client()).await;
    let as_controller = controller(&server);
    let (issued, request) = tokio::join!(issue(&as_controller), sign(&server, false));
    let certificate = issued.unwrap();
    assert_eq!(request.spec.username.as_deref(), Some(CONTROLLER));
    assert_eq!(request.spec.usages, Some(vec!["digital signature".to_owned(), "client auth".to_owned()]));
    assert_eq!((request.spec.expiration_seconds, request.spec.signer_name.as_str()), (Some(3600), "kubernetes.io/kube-apiserver-client"));
    let requests: Api<CertificateSigningRequest> = Api::all(server.client());
    assert!(requests.list(&ListParams::default()).await.unwrap().items.is_empty(), "the request is deleted");

    // Whom the API server takes the probe for.
    let url = server.config().cluster_url.to_string();
    let probe = client(&server.config(), &url, &certificate).unwrap();
    let review: SelfSubjectReview = serde_json::from_value(json!({ "metadata": {} })).unwrap();
    let review = Api::<SelfSubjectReview>::all(probe.clone()).create(&PostParams::default(), &review).await.unwrap();
    let user = review.status.unwrap().user_info.unwrap();
    assert_eq!(user.username.as_deref(), Some("clustertracing:probe"));
    assert_eq!(user.groups.unwrap(), ["system:monitoring", "system:authenticated"]);

    // It is answered, each time under another trace, and may do nothing else.
    let (first, second) = (send(&probe).await.unwrap(), send(&probe).await.unwrap());
    assert_eq!((first.answer, second.answer), (Answer::Status(200), Answer::Status(200)));
    assert_ne!(first.trace, second.trace);
    let all = Api::<ClusterTracing>::all(probe).list(&ListParams::default()).await;
    assert!(matches!(&all, Err(kube::Error::Api(status)) if status.code == 403), "{all:?}");

    // A signer that says no.
    let (issued, _) = tokio::join!(issue(&as_controller), sign(&server, true));
    assert_eq!(issued.err().unwrap().told(), ProbeOff::Failed);
    assert!(requests.list(&ListParams::default()).await.unwrap().items.is_empty(), "the request is deleted");

    // The right to approve holds for the one name.
    let other = json!({
        "metadata": { "name": "another" },
        "spec": { "request": ByteString(request.spec.request.0), "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"] },
    });
    let of_controller: Api<CertificateSigningRequest> = Api::all(as_controller);
    of_controller.create(&PostParams::default(), &serde_json::from_value(other).unwrap()).await.unwrap();
    let approved = json!({ "status": { "conditions": [{ "type": "Approved", "status": "True", "reason": "a", "message": "b" }] } });
    let approved = of_controller.patch_approval("another", &PatchParams::default(), &Patch::Merge(approved)).await;
    assert!(matches!(&approved, Err(kube::Error::Api(status)) if status.code == 403), "{approved:?}");
}
