//! `kubectl tracing request` against a real API server and its etcd, traced as a node's are, with the trace store behind the API server's service
//! proxy as in a cluster, and with the controller manager's signer.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

#[path = "common/api_server.rs"]
mod api_server;
#[path = "common/traced.rs"]
mod traced;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_server::{ApiServer, testbed_programs};
use clustertracing::api::ComponentName::{Etcd, KubeApiserver};
use clustertracing::store::query::Query;
use clustertracing::store::{Store, grpc, http};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::jiff::SignedDuration;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::{Api, Client, Resource, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

const ETCD: &str = "3.6.16";
const NAMESPACE: &str = "clustertracing-system";
const NAMED: &str = "/api/v1/namespaces/default";
/// Whatever is waited for here comes within this.
const BUDGET: Duration = Duration::from_secs(30);

/// An API server that sends its spans to a store that is read through it.
struct Traced {
    server: ApiServer,
    store: Arc<Store>,
    kubectl: PathBuf,
    folder: tempfile::TempDir,
}

impl Traced {
    async fn start(kubernetes: &str, rate: i32) -> Self {
        let store = Arc::new(Store::new(8 * 1024 * 1024));
        let spans = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = spans.local_addr().unwrap().to_string();
        tokio::spawn(grpc::serve(spans, store.clone()));
        let questions = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = questions.local_addr().unwrap().port();
        tokio::spawn(http::serve(questions, store.clone(), Arc::new(String::new)));

        let folder = tempfile::tempdir().unwrap();
        let more = |of, version| traced::more(of, version, &endpoint, rate, &folder);
        let (to_server, to_etcd) = (more(KubeApiserver, kubernetes), more(Etcd, ETCD));
        let server = ApiServer::start_with(kubernetes, &to_server, ETCD, &to_etcd).await;
        let mut config = server.config();
        // An answer of 503 is one: nobody is led to yet.
        config.default_retry = false;
        service(&Client::try_from(config).unwrap(), SocketAddr::new(address(), port)).await;
        // Whatever the version of the API server: kubectl is one.
        let kubectl = testbed_programs().join("kubernetes-1.36.3");
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { server, store, kubectl, folder }
    }

    /// The kubeconfig of a person with a client certificate, and with these rights.
    async fn person(&self, name: &str, group: &str, rules: Value) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = self.server.sign(params.serialize_request(&key).unwrap().pem().unwrap().as_bytes());
        let rbac = |kind| ("rbac.authorization.k8s.io/v1", kind);
        make(&self.server.client(), rbac("ClusterRole"), None, json!({ "metadata": { "name": name }, "rules": rules })).await;
        let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name });
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
        let binding = json!({ "metadata": { "name": name }, "roleRef": role, "subjects": [subject] });
        make(&self.server.client(), rbac("ClusterRoleBinding"), None, binding).await;
        let config = json!({
            "current-context": "of-a-test",
            "clusters": [{ "name": "t", "cluster": {
                "server": self.server.config().cluster_url.to_string().trim_end_matches('/'), "insecure-skip-tls-verify": true,
            } }],
            "users": [{ "name": "t", "user": {
                "client-certificate-data": ByteString(certificate), "client-key-data": ByteString(key.serialize_pem().into_bytes()),
            } }],
            "contexts": [{ "name": "of-a-test", "context": { "cluster": "t", "user": "t", "namespace": "kube-system" } }],
        });
        let path = self.folder.path().join(name);
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    fn command(&self, program: impl AsRef<Path>, kubeconfig: &Path, line: &str) -> Command {
        let mut command = Command::new(program.as_ref());
        command.args(line.split_whitespace()).env_clear().env("PATH", &self.kubectl).env("KUBECONFIG", kubeconfig);
        command.env("HOME", self.folder.path()).env("TMPDIR", self.folder.path().join("tmp"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What kubectl alone says.
    async fn alone(&self, kubeconfig: &Path, line: &str) -> Ran {
        run(self.command(self.kubectl.join("kubectl"), kubeconfig, line)).await
    }

    /// What it says when it is traced. Nothing is left afterwards.
    async fn request(&self, kubeconfig: &Path, line: &str) -> Ran {
        let ran = run(self.command(env!("CARGO_BIN_EXE_kubectl-tracing"), kubeconfig, &format!("request {line}"))).await;
        self.assert_nothing_is_left().await;
        ran
    }

    async fn assert_nothing_is_left(&self) {
        let client = self.server.client();
        let left = [
            named::<CertificateSigningRequest>(&client).await,
            named::<ClusterRole>(&client).await,
            named::<ClusterRoleBinding>(&client).await,
        ];
        assert!(left.iter().all(Vec::is_empty), "{left:?}");
        let files: Vec<_> = std::fs::read_dir(self.folder.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.is_empty(), "{files:?}");
    }

    /// Names of the first spans of all traces that came.
    fn traces(&self) -> Vec<String> {
        let all = Query { since: None, min_duration: SignedDuration::ZERO, errors: false, service: None, name: None, limit: 1000 };
        self.store.traces(&all).traces.into_iter().map(|trace| trace.root_name).collect()
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

async fn run(mut command: Command) -> Ran {
    Ran::new(spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

/// This machine's address, which a pod's may be; no packet is sent.
fn address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

async fn make(client: &Client, (version, kind): (&str, &str), namespace: Option<&str>, object: Value) {
    let types = TypeMeta { api_version: version.to_owned(), kind: kind.to_owned() };
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
    let mut object: DynamicObject = serde_json::from_value(object).unwrap();
    object.types = Some(types);
    let objects: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    objects.create(&PostParams::default(), &object).await.unwrap();
}

/// The store's Service, and where it leads.
async fn service(client: &Client, to: SocketAddr) {
    make(client, ("v1", "Namespace"), None, json!({ "metadata": { "name": NAMESPACE } })).await;
    let ports = json!([{ "name": "http", "port": 8080 }]);
    let name = json!({ "name": "clustertracing-store" });
    make(client, ("v1", "Service"), Some(NAMESPACE), json!({ "metadata": name, "spec": { "ports": ports } })).await;
    // The API server leads to pods only, and to their own addresses.
    make(client, ("v1", "ServiceAccount"), Some(NAMESPACE), json!({ "metadata": { "name": "default" } })).await;
    let container = json!({ "name": "controller", "image": "clustertracing:dev" });
    let spec = json!({ "containers": [container], "nodeName": "cp1", "automountServiceAccountToken": false });
    make(client, ("v1", "Pod"), Some(NAMESPACE), json!({ "metadata": { "name": "controller-0" }, "spec": spec })).await;
    let ip = to.ip().to_string();
    let status = json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } });
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    pods.patch_status("controller-0", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let target = json!({ "kind": "Pod", "namespace": NAMESPACE, "name": "controller-0" });
    let subsets = json!([{ "addresses": [{ "ip": ip, "targetRef": target }], "ports": [{ "name": "http", "port": to.port() }] }]);
    make(client, ("v1", "Endpoints"), Some(NAMESPACE), json!({ "metadata": name, "subsets": subsets })).await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services/clustertracing-store:http/proxy/healthz");
    until(async || client.request_text(::http::Request::get(&path).body(Vec::new()).unwrap()).await.is_ok()).await;
}

/// Names of the objects that carry the label of a request.
async fn named<K>(client: &Client) -> Vec<String>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let list = Api::<K>::all(client.clone()).list(&ListParams::default().labels("clustertracing.dev/request")).await.unwrap();
    list.items.iter().map(ResourceExt::name_any).collect()
}

/// The rights that `--explain` names, for a person who may read nothing else than namespaces.
fn rights_of(name: &str, group: &str) -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    let csr = "certificatesigningrequests";
    json!([
        rule("certificates.k8s.io", &[csr], &["create", "get", "delete"]),
        rule("certificates.k8s.io", &[&format!("{csr}/approval")], &["patch"]),
        { "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"],
          "resourceNames": ["kubernetes.io/kube-apiserver-client"] },
        rule("rbac.authorization.k8s.io", &["clusterroles", "clusterrolebindings"], &["create", "delete", "list"]),
        { "apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": [name] },
        { "apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": [group, "system:authenticated"] },
        rule("authentication.k8s.io", &["userextras/authentication.kubernetes.io/credential-id"], &["impersonate"]),
        rule("", &["services/proxy"], &["get"]),
        rule("", &["namespaces"], &["get", "list", "watch"]),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs built kube-apiserver, kube-controller-manager, kubectl and etcd: make test"]
async fn a_request_is_traced_at_rate_zero_with_the_persons_rights_and_nothing_is_left() {
    let traced = Traced::start("1.36.3", 0).await;
    let carol = traced.person("carol", "makers", rights_of("carol", "makers")).await;

    interrupted_while_nobody_signs(&traced, &carol).await;
    let _signer = traced.server.start_signer("1.36.3");

    // Exactly one trace, with what etcd did for it.
    let alone = traced.alone(&carol, &format!("get --raw {NAMED}")).await;
    assert!(alone.status.success(), "{alone:?}");
    let begun = Instant::now();
    let ran = traced.request(&carol, &format!("--width 120 -- get --raw {NAMED}")).await;
    println!("{:?}\n{}", begun.elapsed(), ran.stderr);
    assert_eq!((ran.status.code(), &ran.stdout), (Some(0), &alone.stdout), "{ran:?}");
    assert_eq!(traced.traces(), ["GET /api/v1/namespaces/{:namespace}/namespaces/{:name}"], "{ran:?}");
    for part in ["GET namespaces", "Get namespaces", "KV/Range", "critical path"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert!(!ran.stderr.contains("own credentials"), "{ran:?}");

    // Who asks, and what is allowed, is as it was: also what is not.
    for line in ["auth whoami -o jsonpath={.status}", "get secrets", "get namespaces -o name", "get namespace missing"] {
        let alone = traced.alone(&carol, line).await;
        let ran = traced.request(&carol, line).await;
        assert_eq!((ran.status, &ran.stdout), (alone.status, &alone.stdout), "{line}: {ran:?}");
        assert!(alone.stderr.lines().all(|said| ran.stderr.contains(said)), "{line}: {alone:?} {ran:?}");
    }
    let refused = traced.request(&carol, "get secrets").await;
    assert!(
        refused.stderr.contains(r#"User "carol" cannot list resource "secrets""#) && refused.stderr.contains("GET secrets"),
        "{refused:?}"
    );

    // kubectl is in the person's own context, and reads what this program was given to read.
    let ran = traced.request(&carol, "config current-context").await;
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), "of-a-test\n"), "nothing was traced: {ran:?}");
    let ran = from_standard_input(&traced, &carol).await;
    let refusal = r#"User "carol" cannot create resource "configmaps" in API group "" in the namespace "kube-system""#;
    assert!(ran.stderr.contains(refusal) && ran.stderr.contains("POST configmaps"), "{ran:?}");

    // Of kubectl's requests the last one is drawn, and the others are told.
    let before = traced.traces().len();
    let ran = traced.request(&carol, "get namespaces").await;
    let discovery = traced.traces().len() - before - 1;
    assert!(ran.stderr.contains(&format!("not drawn: {discovery} requests of discovery")), "{ran:?}");

    interrupted(&traced, &carol).await;
    by_chance(&traced).await;
}

async fn from_standard_input(traced: &Traced, kubeconfig: &Path) -> Ran {
    let mut command = traced.command(env!("CARGO_BIN_EXE_kubectl-tracing"), kubeconfig, "request -- create --validate=false -f -");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    Ran::new(spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap())
}

/// Nobody signs, so that there is something half made when it is interrupted.
async fn interrupted_while_nobody_signs(traced: &Traced, kubeconfig: &Path) {
    let line = format!("request get --raw {NAMED}");
    let child = traced.command(env!("CARGO_BIN_EXE_kubectl-tracing"), kubeconfig, &line).spawn().unwrap();
    let client = traced.server.client();
    until(async || !named::<CertificateSigningRequest>(&client).await.is_empty() && !named::<ClusterRole>(&client).await.is_empty()).await;
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::new(spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap());
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(130), ""), "kubectl is not run: {ran:?}");
    traced.assert_nothing_is_left().await;
}

/// kubectl runs, and would for ever.
async fn interrupted(traced: &Traced, kubeconfig: &Path) {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let child = traced.command(env!("CARGO_BIN_EXE_kubectl-tracing"), kubeconfig, "request get namespaces --watch").spawn().unwrap();
        let tmp = traced.folder.path().join("tmp");
        // It has discovered what there is to watch.
        until(async || std::fs::read_dir(&tmp).unwrap().any(|folder| folder.unwrap().path().join("cache").exists())).await;
        let bindings = named::<ClusterRoleBinding>(&traced.server.client()).await;
        assert!(bindings.iter().all(|name| name.starts_with("clustertracing-request-")) && bindings.len() == 1, "{bindings:?}");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ran = Ran::new(spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap());
        assert_eq!(ran.status.code(), Some(code), "{ran:?}");
        traced.assert_nothing_is_left().await;
    }
}

/// Who may make nothing is told which right is missing, and what else can be done.
async fn by_chance(traced: &Traced) {
    let reads = json!([
        { "apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get"] },
        { "apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"] },
    ]);
    let bob = traced.person("bob", "readers", reads).await;
    // by its name: the watches that were interrupted a moment ago have traces of their own, which come late
    let of_the_kind = || traced.traces().iter().filter(|root| root.ends_with("/namespaces/{:name}")).count();
    let before = of_the_kind();
    let ran = traced.request(&bob, &format!("get --raw {NAMED}")).await;
    assert_eq!(ran.status.code(), Some(4), "{ran:?}");
    for part in ["you may not create clusterroles", "kubectl tracing sample 100% --for 2m", "try again"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(of_the_kind(), before, "nothing is traced at rate 0");

    // Who may not read traces is told so before kubectl runs.
    let nobody = traced.person("nobody", "none", json!([])).await;
    let ran = traced.request(&nobody, &format!("get --raw {NAMED}")).await;
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(3), ""), "{ran:?}");
    assert!(ran.stderr.contains("clustertracing-traces-reader"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs built kube-apiserver, kubectl and etcd: make test"]
async fn before_1_33_a_sampled_request_is_found_by_its_audit_id() {
    let traced = Traced::start("1.31.0", 1_000_000).await;
    let carol = traced.person("carol", "makers", rights_of("carol", "makers")).await;
    let ran = traced.request(&carol, &format!("get --raw {NAMED}")).await;
    println!("{}", ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    for part in ["kube-apiserver v1.31.0 begins a trace of its own for everybody", "Get namespaces", "KV/Range"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + BUDGET;
    while !holds().await {
        assert!(Instant::now() < deadline, "it did not come within {BUDGET:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
