//! A change that the node's own etcd refuses: tried in a pod first, it is never made; where nobody tries it, it is taken back.

use std::time::{Duration, Instant};

use clustertracing::api::Reason;

use crate::support::availability::Watch;
use crate::support::clients::{Access, get};
use crate::support::cluster::Cluster;
use crate::support::files::{self, Digests};
use crate::support::operator::{Operator, at_rate};
use crate::support::process;
use crate::support::step::{note, step};
use crate::support::wait::until;

/// From a changed manifest to a server that answers: the kubelet lets the old one take its 30 s.
const RESTART: Duration = Duration::from_mins(3);
/// From the first exit of a process that cannot run to the old state serving again.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// From the start of a node to the old state serving again: the kubelet's and containerd's start, and the watchdog's patience with them.
const BACK_AFTER_A_BOOT: Duration = Duration::from_mins(3);
/// Why: an exit is seen, or the time in which a process must appear is over before a node is up again whose kernel went on (as here).
const AFTER_A_BOOT: [Reason; 2] = [Reason::NewProcessExited, Reason::NewProcessNotStarted];
/// A tag by which etcd gets flags that etcd 3.7 does not know any more.
const TAG: &str = "3.5.24-0";
/// What etcd 3.7 says of the first of them.
const REFUSAL: &str = "flag provided but not defined: -experimental-enable-distributed-tracing";

/// What etcd's containers have said, as long as the kubelet keeps it.
const LOGS: &str = "/var/log/pods/kube-system_etcd-*/etcd/*.log";

/// Runs on a cluster of one node with etcd 3.7, that is not traced; leaves it so, with its manifests as they were.
pub(crate) async fn run(cluster: &Cluster, access: &Access, operator: &Operator, name: impl Fn(&str) -> String) {
    let truth = files::manifests(cluster);
    let node = cluster.nodes().remove(0);
    let scenario = Scenario { cluster, access, operator, before: lie(cluster, access, &node).await, node };
    step(&name("what etcd refuses in a pod is not written"), async || scenario.canary_refuses().await).await;
    cluster.reinstall(&["canary=Disabled"]);
    step(&name("what slips the canary is taken back within 15 s"), async || scenario.slips_the_canary().await).await;
    step(&name("a power cut in the middle of it ends with the old state, by itself"), async || scenario.power_cut().await).await;
    cluster.reinstall(&[]);
    operator.delete().await;
    confess(cluster, access, &scenario.node).await;
    assert_eq!(files::manifests(cluster), truth);
}

struct Scenario<'a> {
    cluster: &'a Cluster,
    access: &'a Access,
    operator: &'a Operator,
    node: String,
    before: Digests,
}

impl Scenario<'_> {
    async fn canary_refuses(&self) {
        let starts = process::starts(self.cluster, "etcd");
        self.operator.apply(&at_rate(10_000)).await;
        let message = self.operator.until_stalled(&[Reason::CanaryRefused]).await;
        note(&message);
        assert!(message.contains(REFUSAL), "etcd's own words are missing in {message:?}");
        assert_eq!(files::manifests(self.cluster), self.before, "nothing is written");
        assert_eq!(process::starts(self.cluster, "etcd"), starts);
    }

    async fn slips_the_canary(&self) {
        self.forget_exits();
        let watch = Watch::start(self.cluster, self.access);
        self.operator.apply(&at_rate(20_000)).await;
        let exited = self.until_etcd_refuses().await;
        let message = self.operator.until_stalled(&[Reason::NewProcessExited]).await;
        note(&message);
        let back = watch.stop().await.last_return(&self.node).expect("the API server was away");
        note(&format!("from etcd's first exit to the old state serving: {:.1} s", (back - exited).as_secs_f64()));
        assert!(back - exited <= BACK_WITHIN, "the old state was back after {:?}", back - exited);
        self.until_restored().await;
    }

    async fn power_cut(&self) {
        self.forget_exits();
        self.operator.apply(&at_rate(30_000)).await;
        self.until_etcd_refuses().await;
        self.cluster.power_cycle(&self.node);
        let booted = Instant::now();
        until("the API server serves again", BACK_AFTER_A_BOOT, async || {
            self.access.at(&self.node).client().request_text(get("/readyz")).await.map_err(|error| error.to_string())
        })
        .await;
        note(&format!("from the node's start to the old state serving: {:.1} s", booted.elapsed().as_secs_f64()));
        self.operator.until_stalled(&AFTER_A_BOOT).await;
        self.until_restored().await;
    }

    /// Waits until an etcd says that it does not know its flag: the first exit.
    async fn until_etcd_refuses(&self) -> Instant {
        until("etcd refuses its flags", RESTART, async || {
            self.cluster.try_exec(&self.node, &["sh", "-c", &format!("grep -qs -e '{REFUSAL}' {LOGS}")])
        })
        .await;
        Instant::now()
    }

    /// The watchdog and what was set aside go once the outcome is reported.
    async fn until_restored(&self) {
        until("the manifests are what they were: bytes, mode, owner", Duration::from_mins(1), async || {
            let found = files::manifests(self.cluster);
            if found == self.before { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    /// No earlier exit is taken for the next.
    fn forget_exits(&self) {
        self.cluster.shell(&self.node, &format!("rm -f {LOGS}"));
    }
}

/// Gives the node's etcd an image tag that is not its version's; what the manifests are then.
async fn lie(cluster: &Cluster, access: &Access, node: &str) -> Digests {
    let etcd = cluster.shape().etcd;
    let names = [format!("registry.k8s.io/etcd:{etcd}-0"), format!("registry.k8s.io/etcd:{TAG}")];
    cluster.exec(node, &["ctr", "-n", "k8s.io", "images", "tag", "--force", &names[0], &names[1]]);
    edit(cluster, access, node, &format!("s|etcd:{etcd}-0|etcd:{TAG}|")).await;
    files::manifests(cluster)
}

/// Takes that back.
async fn confess(cluster: &Cluster, access: &Access, node: &str) {
    edit(cluster, access, node, &format!("s|etcd:{TAG}|etcd:{}-0|", cluster.shape().etcd)).await;
}

async fn edit(cluster: &Cluster, access: &Access, node: &str, edit: &str) {
    let old = process::the_one(cluster, node, "etcd");
    files::edit_manifest(cluster, node, "etcd.yaml", edit);
    process::until_replaced(cluster, access, node, "etcd", &old, RESTART).await;
}
