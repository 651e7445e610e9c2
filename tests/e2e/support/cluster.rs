//! The testbed's cluster, driven through `tests/testbed/cluster.sh`: from its start to its end, also when a test panics.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::dump;
use super::tls::Tls;

/// What a scenario asks of the testbed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Kubernetes' version, without the `v`.
    pub(crate) kubernetes: &'static str,
    /// etcd's version, without the `v`.
    pub(crate) etcd: &'static str,
    /// How many control-plane nodes.
    pub(crate) control_planes: usize,
}

/// A running cluster with the operator installed, and Jaeger beside it, which takes spans from whom it knows only.
///
/// `E2E_KEEP=1` leaves it running at the end; `E2E_REUSE=1` takes the one that is there (for the work on a scenario).
pub(crate) struct Cluster {
    shape: Shape,
    tls: Tls,
}

/// The address of the host, as seen from the nodes: the load balancer, Jaeger and webhooks are there.
pub(crate) const HOST: &str = "10.89.0.1";
/// Where the operator lives.
pub(crate) const NAMESPACE: &str = "clustertracing-system";

impl Cluster {
    /// Brings the cluster up, installs the operator by its chart, and starts Jaeger.
    pub(crate) fn up(shape: Shape) -> Self {
        Self::up_with(shape, |_| Vec::new())
    }

    /// The same, with these values of the chart besides: `name=value`. What they name can be started before the installation.
    pub(crate) fn up_with(shape: Shape, values: impl FnOnce(&Self) -> Vec<String>) -> Self {
        let cluster = Self { shape, tls: Tls::new() };
        if !flag("E2E_REUSE") {
            cluster.script(&["up", &shape.control_planes.to_string()]);
        }
        cluster.restart_jaeger();
        let values = values(&cluster);
        cluster.reinstall(&values.iter().map(String::as_str).collect::<Vec<_>>());
        cluster.hand_out_certificates();
        cluster
    }

    /// Jaeger as it was, with nothing in it.
    pub(crate) fn restart_jaeger(&self) {
        self.jaeger("stop");
        self.jaeger("start");
    }

    /// The collectors' certificate becomes one of another authority, and no other is accepted any more.
    pub(crate) fn rotate_certificates(&mut self) {
        self.tls.replace_the_collectors_authority();
        self.hand_out_certificates();
        self.restart_jaeger();
    }

    fn hand_out_certificates(&self) {
        let file = self.tls.folder().join("secrets.json");
        std::fs::write(&file, self.tls.secrets().to_string()).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file.to_string_lossy()]);
    }

    /// Installs the operator again, with these values of its chart besides: `name=value`.
    pub(crate) fn reinstall(&self, values: &[&str]) {
        let values = values.iter().flat_map(|value| ["--set", value]);
        self.script(&["install"].into_iter().chain(values).collect::<Vec<_>>());
    }

    /// Every process of `node` dies at once; then it starts from what is on its disk.
    pub(crate) fn power_cycle(&self, node: &str) {
        self.script(&["cut", node]);
        self.script(&["boot", node]);
    }

    /// Starts an upgrade to these versions by kubeadm, its output going to ours. Whoever starts it waits for its end.
    pub(crate) fn begin_upgrade(&self, to: Shape) -> Child {
        self.command(&["upgrade", to.kubernetes, to.etcd]).spawn().expect("cluster.sh can be started")
    }

    /// What an upgrade has made of it.
    pub(crate) fn became(&mut self, shape: Shape) {
        self.shape = shape;
    }

    /// What it was made as, or has become since.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Names of the nodes.
    pub(crate) fn nodes(&self) -> Vec<String> {
        (1..=self.shape.control_planes).map(|number| format!("cp{number}")).collect()
    }

    /// What `command` prints in `node`; panics when it fails.
    pub(crate) fn exec(&self, node: &str, command: &[&str]) -> String {
        self.try_exec(node, command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `command` prints in `node`.
    pub(crate) fn try_exec(&self, node: &str, command: &[&str]) -> Result<String, String> {
        self.output(&[&["exec", node], command].concat())
    }

    /// What `script` prints when a shell of `node` runs it; panics when it fails.
    pub(crate) fn shell(&self, node: &str, script: &str) -> String {
        self.exec(node, &["sh", "-euc", script])
    }

    /// What kubectl prints, with the administrator's rights; panics when it fails.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What kubectl prints, with the administrator's rights.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.output(&[&["kubectl"], arguments].concat())
    }

    /// How `kubectl tracing` ends, with the administrator's rights, and what it prints: exit code, standard output, standard error.
    pub(crate) fn kubectl_tracing(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let arguments = [&["plugin", env!("CARGO_BIN_EXE_kubectl-tracing")], arguments].concat();
        let ended = self.command(&arguments).output().expect("cluster.sh can be started");
        let [printed, errors] = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (ended.status.code(), printed, errors)
    }

    /// Jaeger on the host: `start` or `stop`.
    pub(crate) fn jaeger(&self, verb: &str) {
        self.script(&["jaeger", verb]);
    }

    /// Starts a process on the host that ends with the cluster.
    pub(crate) fn daemon(&self, name: &str, command: &[&str]) {
        self.script(&[&["daemon", name], command].concat());
    }

    /// Ends such a process, if it runs.
    pub(crate) fn stop(&self, name: &str) {
        self.script(&["stop", name]);
    }

    /// Runs `cluster.sh`, its output going to ours; panics when it fails.
    fn script(&self, arguments: &[&str]) {
        let status = self.command(arguments).status().expect("cluster.sh can be started");
        assert!(status.success(), "cluster.sh {} failed", arguments.join(" "));
    }

    fn output(&self, arguments: &[&str]) -> Result<String, String> {
        let told = |text: &dyn std::fmt::Display| format!("cluster.sh {}: {text}", arguments.join(" "));
        let output = self.command(arguments).output().map_err(|error| told(&error))?;
        let [printed, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if output.status.success() { Ok(printed) } else { Err(told(&format!("{}: {printed}{errors}", output.status))) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(project().join("tests/testbed/cluster.sh"));
        command.args(arguments).env("KUBERNETES", self.shape.kubernetes).env("ETCD", self.shape.etcd);
        command.env("JAEGER_TLS", self.tls.folder()).stdin(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            dump::write(self);
        }
        if flag("E2E_KEEP") {
            eprintln!("e2e: the cluster is kept; tests/testbed/cluster.sh down removes it");
        } else if let Err(error) = self.output(&["down"]) {
            eprintln!("e2e: {error}");
        }
    }
}

/// The project's folder.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn flag(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value == "1")
}
