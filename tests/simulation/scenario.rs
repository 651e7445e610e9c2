//! What people do in a run, how a run ends, and what of its end must be the same whatever went wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::cluster::{Cluster, World, is_in_flight};
use crate::fault::Fault;
use crate::machine::{Fate, Machine};
use crate::processes;
use crate::seed::Chance;

/// A run that has not come to its end after so many seconds of its clock does not come to it.
const GIVEN_UP: u64 = 3_600;
/// Whoever has come to its end writes nothing for so many seconds.
const QUIET: u64 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::EnumIter)]
pub(crate) enum Scenario {
    On,
    OnOneNode,
    AnotherRate,
    Off,
    Delete,
    DeleteHalfWay,
    ThereAndBack,
    BadOnOneNode,
    NodeDown,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) end: String,
    pub(crate) wrote: BTreeSet<String>,
    /// Writes of each process.
    pub(crate) writes: BTreeMap<String, u64>,
    pub(crate) millis: u64,
    pub(crate) trace: Vec<String>,
}

/// Why a run is not as it should be.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) trace: Vec<String>,
}

impl Scenario {
    fn nodes(self) -> usize {
        if self == Self::OnOneNode { 1 } else { 3 }
    }

    /// Whether the same is written whatever happens. Where a person acts in the middle of a rollout, it depends on the moment what is.
    pub(crate) fn writes_the_same(self) -> bool {
        !matches!(self, Self::ThereAndBack | Self::DeleteHalfWay)
    }

    fn machines(self) -> BTreeMap<String, Machine> {
        let machine = |n: usize| {
            let mut machine = Machine::new([etcd(), kube_apiserver()]);
            if self == Self::BadOnOneNode && n == 2 {
                machine.fate = Fate::Silent;
            }
            (format!("cp-{n}"), machine)
        };
        (1..=self.nodes()).map(machine).collect()
    }

    async fn play(self, cluster: &Cluster) -> Result<(), String> {
        let spec = json!({ "rollout": { "soakSeconds": 0, "healthTimeoutSeconds": 20 } });
        cluster.world().ask(&spec);
        let until = async |what: &str, condition: fn(&mut World) -> bool| {
            let came = cluster.until(GIVEN_UP, |world| world.wrong.is_some() || condition(world)).await;
            if came { Ok(()) } else { Err(format!("never {what}")) }
        };
        let ready: fn(&mut World) -> bool = |world| world.is("Ready");
        let ask = |spec: Value| cluster.world().ask(&spec);
        let granted = |name: &'static str| move |world: &mut World| world.objects.get("nodetracings", name).is_some_and(is_in_flight);
        match self {
            Self::On | Self::OnOneNode | Self::BadOnOneNode => {}
            Self::AnotherRate => {
                until("ready", ready).await?;
                ask(json!({ "samplingRatePerMillion": 250_000 }));
            }
            Self::Off => {
                until("ready", ready).await?;
                ask(json!({ "kubeAPIServer": { "state": "Disabled" }, "etcd": { "state": "Disabled" } }));
            }
            Self::Delete => {
                until("ready", ready).await?;
                ask(Value::Null);
            }
            Self::DeleteHalfWay => {
                cluster.until(GIVEN_UP, granted("cp-2")).await;
                ask(Value::Null);
            }
            Self::ThereAndBack => {
                until("ready", ready).await?;
                ask(json!({ "samplingRatePerMillion": 250_000 }));
                cluster.until(60, granted("cp-1")).await;
                ask(json!({ "samplingRatePerMillion": 10_000 }));
            }
            Self::NodeDown => {
                cluster.until(GIVEN_UP, granted("cp-1")).await;
                cluster.world().power_off("cp-3");
                sleep(Duration::from_secs(40)).await;
                cluster.world().show_node("cp-3", false);
                sleep(Duration::from_secs(30)).await;
                cluster.world().power_on("cp-3");
                sleep(Duration::from_secs(12)).await;
                cluster.world().show_node("cp-3", true);
            }
        }
        Ok(())
    }
}

/// One run on its own clock. Without `clean` it ends when nothing has happened for long; with it, when the end of that run is reached, and stays.
pub(crate) fn run(scenario: Scenario, seed: u64, faults: Vec<Fault>, clean: Option<&Run>) -> Result<Run, Failure> {
    LocalSet::new().block_on(&runtime(), async {
        let cluster = Cluster::new(scenario.machines(), faults, Chance::new(seed));
        processes::start(&cluster);
        let ended = match scenario.play(&cluster).await {
            Ok(()) => settle(&cluster, clean).await,
            Err(message) => Err(message),
        };
        let world = cluster.world();
        let trace = world.trace.clone();
        if let Some(message) = ended.err().or_else(|| world.wrong.clone()) {
            return Err(Failure { message, trace });
        }
        Ok(Run { end: end(&world), wrote: world.wrote.clone(), writes: world.writes.clone(), millis: world.now(), trace })
    })
}

/// One thread, and a clock that jumps.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

async fn settle(cluster: &Cluster, clean: Option<&Run>) -> Result<(), String> {
    let quiet = if clean.is_some() { QUIET } else { 6 * QUIET };
    let reached = |world: &mut World| clean.is_none_or(|clean| end(world) == clean.end);
    let rests = |world: &mut World| world.now() >= world.last_write + quiet * 1_000 && reached(world);
    if cluster.until(GIVEN_UP, |world| world.wrong.is_some() || rests(world)).await {
        return Ok(());
    }
    let is = end(&cluster.world());
    Err(format!("another end:\n{}", difference(&clean.map(|clean| clean.end.clone()).unwrap_or_default(), &is)))
}

/// What of a cluster must be the same in the end: everything but times, numbers that count, and who did it.
fn end(world: &World) -> String {
    let mut lines = Vec::new();
    if let Some(resource) = world.resource() {
        let status = &resource["status"];
        lines.push(format!("spec {}", resource["spec"]));
        let conditions = status["conditions"].as_array().into_iter().flatten();
        lines.extend(conditions.map(|c| format!("condition {} {} {}", c["type"], c["status"], c["reason"])));
        lines.extend(status["nodes"].as_array().into_iter().flatten().map(|node| format!("node {} {}", node["name"], node["state"])));
    }
    for (name, object) in world.objects.all("nodetracings") {
        let (spec, status) = (&object["spec"], &object["status"]);
        lines.push(format!(
            "nodetracing {name}: {} {} {} {} {}",
            spec["target"]["revision"],
            status["currentRevision"],
            status["preflight"]["verdict"],
            status["lastOutcome"]["result"],
            status["lastOutcome"]["reason"],
        ));
    }
    for plural in ["daemonsets", "configmaps"] {
        lines.extend(world.objects.all(plural).map(|(name, _)| format!("{plural} {name}")));
    }
    for (name, machine) in &world.machines {
        lines.extend(machine.standing().into_iter().map(|file| format!("{name}/{file}")));
    }
    lines.join("\n")
}

pub(crate) fn difference(expected: &str, found: &str) -> String {
    similar::TextDiff::from_lines(expected, found).unified_diff().context_radius(0).to_string()
}

/// As small as the product takes them: it reads them all the time.
fn kube_apiserver() -> String {
    pod("kube-apiserver", "kube-apiserver:v1.36.3", "--secure-port=6443", 6443, "HTTPS")
}

fn etcd() -> String {
    pod("etcd", "etcd:3.6.8-0", "--name=cp", 2381, "HTTP")
}

fn pod(name: &str, image: &str, flag: &str, port: u16, scheme: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: kube-system\nspec:\n  containers:\n  - command:\n    - {name}\n    \
         - {flag}\n    image: registry.k8s.io/{image}\n    name: {name}\n    livenessProbe:\n      httpGet: {{host: 127.0.0.1, path: /livez, \
         port: {port}, scheme: {scheme}}}\n    volumeMounts:\n    - mountPath: /pki\n      name: pki\n  hostNetwork: true\n  volumes:\n  \
         - hostPath:\n      path: /pki\n    name: pki\n"
    )
}
