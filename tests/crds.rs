//! The resources' schemas: what a real API server refuses, accepts, fills in and warns of, and the same CEL rules without one.

#![expect(clippy::panic, reason = "a test that cannot go on panics")]

#[path = "common/api_server.rs"]
mod api_server;

use std::path::Path;

use api_server::ApiServer;
use clustertracing::api::ClusterTracing;
use http::{Request, StatusCode};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::Body;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CLUSTERTRACINGS: &str = "/apis/clustertracing.dev/v1alpha1/clustertracings";

/// An object, as a difference to a good one.
#[derive(Deserialize)]
struct Case {
    #[serde(rename = "case")]
    name: String,
    merge: Value,
    /// What refuses it; absent for objects that are accepted.
    by: Option<RefusedBy>,
    /// A part of the refusal's message.
    #[serde(default)]
    says: String,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RefusedBy {
    Rule,
    Schema,
}

impl Case {
    fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": "clustertracing.dev/v1alpha1",
            "kind": "ClusterTracing",
            "metadata": {"name": "cluster"},
            "spec": {},
        });
        merge(&mut object, &self.merge);
        object
    }
}

fn cases(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crds").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    let cases: Vec<Case> = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("parse {}: {error}", path.display()));
    assert!(!cases.is_empty(), "{} has no case", path.display());
    cases
}

/// JSON merge patch (RFC 7396), but for removals, which no case needs.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(json!({})), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

/// The definitions as they are shipped.
fn crds() -> Vec<CustomResourceDefinition> {
    let crds: Vec<_> = yaml_files("crds").into_iter().map(|(_, crd)| serde_json::from_value(crd).expect("a definition")).collect();
    assert_eq!(crds.len(), 2, "there are two resources");
    crds
}

#[test]
fn cel_rules_refuse_what_the_api_server_refuses() {
    for case in cases("refused.yaml").iter().filter(|case| case.by == Some(RefusedBy::Rule)) {
        let object: ClusterTracing = serde_json::from_value(case.object()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let refusal = object.validate_cel().err().unwrap_or_else(|| panic!("{}: it is accepted", case.name));
        assert!(refusal.to_string().contains(&case.says), "{}: the refusal is: {refusal}", case.name);
    }
}

#[test]
fn cel_rules_accept_what_the_api_server_accepts() {
    for case in cases("accepted.yaml") {
        let object: ClusterTracing = serde_json::from_value(case.object()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        if let Err(refusal) = object.validate_cel() {
            panic!("{}: {refusal}", case.name);
        }
    }
}

#[test]
fn schemas_use_only_what_every_api_server_and_client_understands() {
    for crd in crds() {
        let name = crd.spec.names.kind.clone();
        let crd = serde_json::to_value(crd).expect("a CRD serializes");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk(schema, &name, &mut |path, schema| {
            if let Some(format) = schema.get("format").and_then(Value::as_str) {
                assert!(["int32", "int64", "date-time"].contains(&format), "{path}: format {format}");
            }
            assert_ne!(schema.get("type"), Some(&json!("number")), "{path}: a floating-point number");
            assert!(schema.get("nullable").is_none(), "{path}: nullable, which breaks merge patches");
        });
    }
}

#[test]
fn values_of_enums_are_not_taken_for_booleans_by_kubectl() {
    for crd in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")).expect("the folder of definitions") {
        let text = std::fs::read_to_string(crd.expect("a folder's entry").path()).expect("read a definition");
        let of_yaml_1_1 = |word: &str| ["y", "n", "yes", "no", "on", "off"].contains(&word.to_lowercase().as_str());
        let wrong = text.lines().find(|line| line.trim().strip_prefix("- ").is_some_and(of_yaml_1_1));
        assert_eq!(wrong, None, "kubectl reads YAML 1.1, where this is a boolean");
    }
}

#[test]
fn every_field_of_the_resources_is_documented() {
    for crd in crds() {
        let name = crd.spec.names.kind.clone();
        let crd = serde_json::to_value(crd).expect("a CRD serializes");
        walk(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &name, &mut |path, schema| {
            // an item of a list is described by the list, and metadata by Kubernetes
            if !path.ends_with("[]") && !path.ends_with(".metadata") {
                let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
                assert!(!text.is_empty(), "{path} has no description");
            }
        });
    }
}

/// Calls `visit` with each schema under `schema`, and where it is: `ClusterTracing.spec.collector.exporters[].name`.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "[]")] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}{suffix}"), visit);
        }
    }
}

#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn the_newest_api_server_enforces_the_schemas() {
    api_server_enforces_the_schemas("1.37.1", "3.7.3").await;
}

#[tokio::test]
#[ignore = "needs built kube-apiserver and etcd: make test"]
async fn the_oldest_api_server_of_the_testbed_enforces_the_schemas() {
    api_server_enforces_the_schemas("1.34.4", "3.6.16").await;
}

async fn api_server_enforces_the_schemas(kubernetes: &str, etcd: &str) {
    let server = ApiServer::start(kubernetes, etcd).await;
    let client = server.client();
    for crd in crds() {
        let answer = Answer::of_post(&client, CRDS, &crd).await;
        assert_eq!((answer.status, answer.warnings.as_slice()), (StatusCode::CREATED, [].as_slice()), "{}", answer.message());
    }
    for crd in crds() {
        let name = crd.metadata.name.expect("a CRD has a name");
        await_condition(Api::all(client.clone()), &name, conditions::is_crd_established()).await.expect("watch a CRD");
    }

    for case in cases("refused.yaml") {
        let answer = Answer::of_dry_run(&client, &case.object()).await;
        assert!(answer.status.is_client_error(), "{}: the answer is {}", case.name, answer.status);
        assert!(answer.message().contains(&case.says), "{}: the refusal is: {}", case.name, answer.message());
    }
    for case in cases("accepted.yaml") {
        let answer = Answer::of_dry_run(&client, &case.object()).await;
        assert_eq!(
            (answer.status, answer.warnings.as_slice()),
            (StatusCode::CREATED, [].as_slice()),
            "{}: {}",
            case.name,
            answer.message()
        );
    }
    for (path, object) in samples() {
        let answer = Answer::of_dry_run(&client, &object).await;
        assert_eq!((answer.status, answer.warnings.as_slice()), (StatusCode::CREATED, [].as_slice()), "{path}: {}", answer.message());
    }
    defaults_are_visible_in_the_stored_object(&client).await;
}

async fn defaults_are_visible_in_the_stored_object(client: &Client) {
    let stored =
        Answer::of_dry_run(client, &Case { name: String::new(), merge: json!({}), by: None, says: String::new() }.object()).await.body;
    let expected = json!({
        "samplingRatePerMillion": 10_000,
        "kubeAPIServer": {"state": "Enabled"},
        "etcd": {"state": "Enabled", "samplingRatePerMillion": 0},
        "collector": {"mode": "Node", "port": 4317, "queue": {"spans": 8192, "storage": "Memory"}, "redaction": "Default"},
        "probe": {"state": "Enabled"},
        "rollout": {
            "mode": "Automatic", "paused": false, "soakSeconds": 30, "healthTimeoutSeconds": 120,
            "watchTerminationGraceSeconds": 0, "singleNodeDowntime": "Allowed",
        },
    });
    assert_eq!(stored["spec"], expected);
}

/// The samples that are `ClusterTracing`s.
fn samples() -> Vec<(String, Value)> {
    let samples: Vec<_> = yaml_files("config/samples").into_iter().filter(|(_, object)| object["kind"] == "ClusterTracing").collect();
    assert!(!samples.is_empty(), "there is no sample");
    samples
}

/// Path and contents of each YAML file in a folder of the project.
fn yaml_files(folder: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
    let paths = files.map(|file| file.expect("a folder's entry").path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    yaml.map(|path| {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        let value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("parse {}: {error}", path.display()));
        (path.display().to_string(), value)
    })
    .collect()
}

/// What the API server said.
struct Answer {
    status: StatusCode,
    warnings: Vec<String>,
    body: Value,
}

impl Answer {
    async fn of_dry_run(client: &Client, object: &Value) -> Self {
        Self::of_post(client, &format!("{CLUSTERTRACINGS}?dryRun=All&fieldValidation=Strict"), object).await
    }

    async fn of_post(client: &Client, path: &str, object: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(object).expect("an object serializes");
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(body)).expect("a valid request");
        let response = client.send(request).await.expect("the API server answers");
        let status = response.status();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let warnings = response.headers().get_all("warning").iter().map(text).collect();
        let body = response.into_body().collect_bytes().await.expect("the answer's body");
        Self { status, warnings, body: serde_json::from_slice(&body).expect("the answer is JSON") }
    }

    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}
