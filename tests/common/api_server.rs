//! A real kube-apiserver with its etcd as bare processes in a temporary folder: no kubelet, no controllers, no node.
//! For what only an API server can decide: validation, defaults, warnings.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long etcd and kube-apiserver may take to answer; they need about six seconds on two cores.
const START_BUDGET: Duration = Duration::from_secs(90);
/// How long kube-apiserver may take to end: it does within two seconds when no watch is open and its spans are taken.
const STOP_BUDGET: Duration = Duration::from_secs(30);
const TOKEN: &str = "administrator-of-a-test";

/// The two processes; they end with this value.
pub(crate) struct ApiServer {
    client: Client,
    config: Config,
    kube_apiserver: Process,
    etcd: Process,
    etcd_url: String,
    secure_port: u16,
    folder: tempfile::TempDir,
}

/// What a program is started with besides what every test gives it.
#[derive(Clone, Debug, Default)]
pub(crate) struct More {
    /// Arguments.
    pub(crate) args: Vec<String>,
    /// Environment.
    pub(crate) env: Vec<(String, String)>,
}

impl ApiServer {
    /// Starts `kube-apiserver` and `etcd` of the given versions from the testbed's cache, and waits until they are ready.
    #[allow(dead_code, reason = "not every test starts them without more")]
    pub(crate) async fn start(kubernetes: &str, etcd: &str) -> Self {
        Self::start_with(kubernetes, &More::default(), etcd, &More::default()).await
    }

    /// The same, with more.
    pub(crate) async fn start_with(kubernetes: &str, to_kube_apiserver: &More, etcd: &str, to_etcd: &More) -> Self {
        let programs = testbed_programs();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let [client_port, peer_port, secure_port] = free_ports();
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");

        let etcd = Process::spawn(
            folder.path(),
            "etcd",
            Command::new(programs.join(format!("etcd-{etcd}")))
                .args([
                    "--unsafe-no-fsync",
                    &format!("--data-dir={}", path("etcd")),
                    &format!("--listen-client-urls={etcd_url}"),
                    &format!("--advertise-client-urls={etcd_url}"),
                    &format!("--listen-peer-urls={peer_url}"),
                    &format!("--initial-advertise-peer-urls={peer_url}"),
                    &format!("--initial-cluster=default={peer_url}"),
                ])
                .args(&to_etcd.args)
                .envs(to_etcd.env.iter().cloned()),
        );

        fs::write(path("tokens.csv"), format!("{TOKEN},administrator,administrator,system:masters\n")).expect("write the token file");
        run(Command::new("openssl").args(["genrsa", "-out", &path("sa.key"), "2048"]));
        run(Command::new("openssl").args(["rsa", "-in", &path("sa.key"), "-pubout", "-out", &path("sa.pub")]));
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca"])
            .args(["-days", "2", "-keyout", &path("ca.key"), "-out", &path("ca.crt")]));
        let kube_apiserver = start_kube_apiserver(folder.path(), kubernetes, &etcd_url, secure_port, to_kube_apiserver);
        let config = config(&format!("https://127.0.0.1:{secure_port}")).await;
        let client = Client::try_from(config.clone()).expect("a client");
        let mut server = Self { client, config, kube_apiserver, etcd, etcd_url, secure_port, folder };
        server.wait_until_ready().await;
        server
    }

    /// Asks kube-apiserver to end, and waits until it has: whatever it had to send is sent then.
    #[allow(dead_code, reason = "not every test ends a program")]
    pub(crate) async fn stop_kube_apiserver(&mut self) {
        run(Command::new("kill").args(["-TERM", &self.kube_apiserver.child.id().to_string()]));
        let deadline = Instant::now() + STOP_BUDGET;
        while self.kube_apiserver.child.try_wait().expect("ask for a child's state").is_none() {
            assert!(Instant::now() < deadline, "kube-apiserver still runs after {STOP_BUDGET:?}\n{}", self.kube_apiserver.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts kube-apiserver again, with more, on the same etcd.
    #[allow(dead_code, reason = "not every test starts a program again")]
    pub(crate) async fn start_kube_apiserver(&mut self, kubernetes: &str, more: &More) {
        self.kube_apiserver = start_kube_apiserver(self.folder.path(), kubernetes, &self.etcd_url, self.secure_port, more);
        self.wait_until_ready().await;
    }

    /// A client in group system:masters.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// How that client connects.
    #[allow(dead_code, reason = "not every test makes clients of its own")]
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }

    /// The same for a program: the path of a kubeconfig.
    #[allow(dead_code, reason = "not every test starts a program of ours")]
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        fs::write(&path, kubeconfig(&format!("https://127.0.0.1:{}", self.secure_port))).expect("write the kubeconfig");
        path
    }

    /// Signs a request, as the signer of client certificates does.
    #[allow(dead_code, reason = "not every test has a signer")]
    pub(crate) fn sign(&self, request: &[u8]) -> Vec<u8> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        fs::write(path("request.csr"), request).expect("write the request");
        fs::write(path("extensions"), "extendedKeyUsage=clientAuth\n").expect("write the extensions");
        run(Command::new("openssl").args(["x509", "-req", "-days", "1", "-in", &path("request.csr"), "-CA", &path("ca.crt")]).args([
            "-CAkey",
            &path("ca.key"),
            "-CAcreateserial",
            "-extfile",
            &path("extensions"),
            "-out",
            &path("signed.crt"),
        ]));
        fs::read(path("signed.crt")).expect("read the certificate")
    }

    /// Starts the signer itself: kube-controller-manager, with nothing else to do. It ends with what is returned.
    #[allow(dead_code, reason = "not every test has a signer")]
    pub(crate) fn start_signer(&self, kubernetes: &str) -> Process {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let kubeconfig = self.kubeconfig().display().to_string();
        Process::spawn(
            self.folder.path(),
            "kube-controller-manager",
            Command::new(testbed_programs().join(format!("kubernetes-{kubernetes}/kube-controller-manager"))).args([
                "--controllers=certificatesigningrequest-signing-controller",
                "--leader-elect=false",
                "--secure-port=0",
                &format!("--kubeconfig={kubeconfig}"),
                &format!("--cluster-signing-cert-file={}", path("ca.crt")),
                &format!("--cluster-signing-key-file={}", path("ca.key")),
            ]),
        )
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_BUDGET;
        loop {
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a constant request");
            let answer = self.client.request_text(request).await;
            if answer.as_deref().is_ok_and(|text| text == "ok") {
                return;
            }
            for process in [&mut self.etcd, &mut self.kube_apiserver] {
                process.assert_running();
            }
            assert!(
                Instant::now() < deadline,
                "kube-apiserver is not ready after {START_BUDGET:?}: {answer:?}\n{}",
                self.kube_apiserver.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn start_kube_apiserver(folder: &Path, kubernetes: &str, etcd_url: &str, secure_port: u16, more: &More) -> Process {
    let path = |name: &str| folder.join(name).display().to_string();
    Process::spawn(
        folder,
        "kube-apiserver",
        Command::new(testbed_programs().join(format!("kubernetes-{kubernetes}/kube-apiserver")))
            .args([
                &format!("--etcd-servers={etcd_url}"),
                &format!("--cert-dir={}", path("certificates")),
                &format!("--secure-port={secure_port}"),
                "--bind-address=127.0.0.1",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={}", path("sa.pub")),
                &format!("--service-account-signing-key-file={}", path("sa.key")),
                &format!("--token-auth-file={}", path("tokens.csv")),
                &format!("--client-ca-file={}", path("ca.crt")),
                "--authorization-mode=RBAC",
            ])
            .args(&more.args)
            .envs(more.env.iter().cloned()),
    )
}

/// A process that ends with this value, and whose output is in a file.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(folder: &Path, name: &'static str, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).expect("create a log file");
        let errors = output.try_clone().expect("duplicate a file descriptor");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child =
            child.unwrap_or_else(|error| panic!("start {name} ({}): {error}; the testbed builds it", command.get_program().display()));
        Self { name, child, log }
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("ask for a child's state");
        assert!(ended.is_none(), "{} ended with {ended:?}\n{}", self.name, self.log_tail());
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and nothing to say.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// Where the testbed builds its programs.
pub(crate) fn testbed_programs() -> PathBuf {
    let cache = std::env::var("TESTBED_CACHE")
        .unwrap_or_else(|_| format!("{}/.cache/clustertracing-testbed", std::env::var("HOME").expect("HOME is set")));
    Path::new(&cache).join("bin")
}

/// Ports that are free now, all different.
fn free_ports() -> [u16; 3] {
    [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("bind to a free port")).map(|l| l.local_addr().expect("a bound port").port())
}

/// The administrator's kubeconfig.
fn kubeconfig(url: &str) -> String {
    // The API server makes its own certificate at its first start, so there is no authority to trust beforehand.
    format!(
        "{{clusters: [{{name: t, cluster: {{server: '{url}', insecure-skip-tls-verify: true}}}}], users: [{{name: t, user: {{token: {TOKEN}}}}}], \
         contexts: [{{name: t, context: {{cluster: t, user: t}}}}], current-context: t}}"
    )
}

async fn config(url: &str) -> Config {
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig(url)).expect("a constant kubeconfig");
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a constant kubeconfig")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}
