//! The whole cluster on one clock: a model API server, machines, and who runs on them. The clock is tokio's, paused: it jumps to the next
//! moment at which something happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clustertracing::api::{NodeSettings, NodeTracing};
use clustertracing::component::{ManifestFile, change};
use clustertracing::host::Answer;
use clustertracing::plan::collector;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use crate::fault::Fault;
use crate::machine::{FILES, Machine};
use crate::objects::{Objects, Request};
use crate::seed::Chance;

/// How long a collector's pod takes to be Ready.
const COLLECTOR_STARTS: u64 = 1_500;
/// How long a machine may take from its start to be whole again.
const MACHINE_STARTS: u64 = 10_000;

#[derive(Clone)]
pub(crate) struct Cluster(Arc<Mutex<World>>);

/// What the leaders' supervisor hears.
pub(crate) enum News {
    /// The leader of this term has died.
    Died(u32),
    /// A leader sleeps: another one takes over.
    Sleeps,
}

pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) objects: Objects,
    pub(crate) machines: BTreeMap<String, Machine>,
    /// Term of the newest leader.
    pub(crate) term: u32,
    pub(crate) news: Option<mpsc::UnboundedSender<News>>,
    /// Ends the agent of each node.
    pub(crate) agents: BTreeMap<String, Arc<Notify>>,
    /// How many writes each process has made.
    pub(crate) writes: BTreeMap<String, u64>,
    /// What was written, in words that say what it means: a set, because a crash may let something be written again.
    pub(crate) wrote: BTreeSet<String>,
    /// When the last write was, of whatever kind.
    pub(crate) last_write: u64,
    /// What happened, for people.
    pub(crate) trace: Vec<String>,
    /// The first invariant that did not hold.
    pub(crate) wrong: Option<String>,
    faults: Vec<Fault>,
    began: Instant,
    watches: BTreeMap<String, Watch>,
    /// What each manifest may hold: its original, and what the settings of any target make of that.
    allowed: BTreeMap<(String, &'static str), BTreeSet<Vec<u8>>>,
    originals: BTreeMap<String, Vec<ManifestFile>>,
    revisions: BTreeSet<String>,
    failed: BTreeSet<i64>,
    powered: BTreeMap<String, u64>,
    /// When the collector's DaemonSet was written last.
    collector: u64,
}

/// What is on its way to a process's watch.
#[derive(Default)]
struct Watch {
    queue: VecDeque<(u64, Option<Value>)>,
    signal: Arc<Notify>,
}

impl Cluster {
    /// Control-plane nodes with these manifests, and nothing else.
    pub(crate) fn new(machines: BTreeMap<String, Machine>, faults: Vec<Fault>, chance: Chance) -> Self {
        let originals = machines.iter().map(|(name, machine)| (name.clone(), manifests(machine)));
        let originals: BTreeMap<String, Vec<ManifestFile>> = originals.collect();
        let file_of = |name: &str, file: &str| originals[name].iter().find(|f| f.name == file).map(|f| f.text.clone().into_bytes());
        let all = machines.keys().flat_map(|name| FILES.map(|file| (name.clone(), file)));
        let allowed = all.filter_map(|(name, file)| Some(((name.clone(), file), [file_of(&name, file)?].into()))).collect();
        let mut world = World {
            chance,
            objects: Objects::default(),
            machines,
            term: 0,
            news: None,
            agents: BTreeMap::new(),
            writes: BTreeMap::new(),
            wrote: BTreeSet::new(),
            last_write: 0,
            trace: Vec::new(),
            wrong: None,
            faults,
            // the machines have run for a while
            began: Instant::now().checked_sub(Duration::from_mins(1)).unwrap_or_else(Instant::now),
            watches: BTreeMap::new(),
            allowed,
            originals,
            revisions: BTreeSet::new(),
            failed: BTreeSet::new(),
            powered: BTreeMap::new(),
            collector: 0,
        };
        for name in world.machines.keys().cloned().collect::<Vec<_>>() {
            world.show_node(&name, true);
        }
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("nobody panics with the lock")
    }

    /// A client of the model API server. `life` ends with the process whose client it is.
    pub(crate) fn client(&self, who: &str, life: &Arc<Notify>) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<http::Request<Body>, Response<Body>>();
        let (cluster, who, life) = (self.clone(), who.to_owned(), Arc::clone(life));
        tokio::spawn(async move {
            while let Some((request, answer)) = handle.next_request().await {
                let (cluster, who, life) = (cluster.clone(), who.clone(), Arc::clone(&life));
                tokio::spawn(async move {
                    match cluster.serve(&who, &life, request).await {
                        Some((code, body)) => {
                            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
                            answer.send_response(response.expect("a response"));
                        }
                        None => answer.send_error("connection refused"),
                    }
                });
            }
        });
        Client::new(service, "default")
    }

    /// `None` when the API is away.
    async fn serve(&self, who: &str, life: &Notify, request: http::Request<Body>) -> Option<(StatusCode, Value)> {
        let (parts, body) = request.into_parts();
        let request = Request::new(&parts, &body.collect_bytes().await.expect("a body"));
        let there = self.world().chance.between(1..25);
        sleep(Duration::from_millis(there)).await;
        let counts = request.writes() && request.key.plural != "events";
        let number = if counts { self.world().count(who) } else { 0 };
        if self.world().crashes(who, number, false) {
            life.notify_one();
            std::future::pending::<()>().await;
        }
        let asleep = self.world().sleeps(who, number);
        if let Some(millis) = asleep {
            sleep(Duration::from_millis(millis)).await;
        }
        let answer = self.world().answer(who, &request);
        if self.world().crashes(who, number, true) {
            life.notify_one();
            std::future::pending::<()>().await;
        }
        let back = self.world().chance.between(1..25);
        sleep(Duration::from_millis(back)).await;
        answer
    }

    /// Returns when an event reaches the process's watch, with the newest object that came; one that was lost never does.
    pub(crate) async fn event(&self, who: &str) -> Option<Value> {
        loop {
            let (due, signal) = {
                let mut world = self.world();
                let now = world.now();
                let watch = world.watches.entry(who.to_owned()).or_default();
                let mut newest = None;
                while watch.queue.front().is_some_and(|(at, _)| *at <= now) {
                    newest = watch.queue.pop_front();
                }
                if let Some((_, object)) = newest {
                    return object;
                }
                (watch.queue.front().map(|(at, _)| at - now), Arc::clone(&watch.signal))
            };
            match due {
                Some(millis) => sleep(Duration::from_millis(millis)).await,
                None => signal.notified().await,
            }
        }
    }

    /// Waits for something, and says whether it came.
    pub(crate) async fn until(&self, seconds: u64, condition: impl Fn(&mut World) -> bool) -> bool {
        for _ in 0..seconds * 4 {
            let done = condition(&mut self.world());
            if done {
                return true;
            }
            sleep(Duration::from_millis(250)).await;
        }
        false
    }
}

fn manifests(machine: &Machine) -> Vec<ManifestFile> {
    let one = |file: &str| {
        let text = String::from_utf8(machine.manifest(file)?.to_vec()).expect("a manifest is text");
        Some(ManifestFile { name: file.to_owned(), text })
    };
    FILES.iter().filter_map(|file| one(file)).collect()
}

impl World {
    /// Milliseconds.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a short run")
    }

    pub(crate) fn wall(&self) -> Timestamp {
        wall(self.now())
    }

    pub(crate) fn say(&mut self, what: &str) {
        let line = format!("{:>8.3} {what}", std::time::Duration::from_millis(self.now()).as_secs_f64());
        self.trace.push(line);
    }

    pub(crate) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            let what = what();
            self.say(&format!("WRONG: {what}"));
            self.wrong = Some(what);
        }
    }

    /// The number of the process's next write.
    pub(crate) fn count(&mut self, who: &str) -> u64 {
        let count = self.writes.entry(who.to_owned()).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn crashes(&mut self, who: &str, number: u64, after: bool) -> bool {
        let is_it =
            |fault: &Fault| matches!(fault, Fault::Crash { who: w, write, after: a } if w == who && *write == number && *a == after);
        let crashes = number > 0 && self.faults.iter().any(is_it);
        if crashes {
            self.say(&format!("{who} dies {} its write {number}", if after { "after" } else { "before" }));
        }
        crashes
    }

    fn sleeps(&mut self, who: &str, number: u64) -> Option<u64> {
        let millis = self.faults.iter().find_map(|fault| match fault {
            Fault::Sleep { write, millis } if who == "controller" && *write == number => Some(*millis),
            _ => None,
        })?;
        self.say(&format!("the leader of term {} sleeps for {millis} ms, with its write {number} on the way", self.term));
        self.news.as_ref().and_then(|news| news.send(News::Sleeps).ok())?;
        Some(millis)
    }

    fn is_away(&self) -> bool {
        let now = self.now();
        self.faults.iter().any(|fault| matches!(fault, Fault::Away { from, until } if (*from..*until).contains(&now)))
    }

    fn well(&self, file: &str) -> usize {
        let now = self.now();
        self.machines.values().filter(|machine| machine.is_well(file, now)).count()
    }

    /// What a node's etcd member answers on its port for the kubelet's probes. The last member by name leads, while it is well.
    pub(crate) fn etcd_tells(&mut self, name: &str, path: &str) -> Answer {
        let now = self.now();
        self.machines.values_mut().for_each(|machine| machine.catch_up(now));
        let is_well = |machine: &Machine| machine.is_well("etcd.yaml", now);
        let well: Vec<_> = self.machines.iter().filter(|(_, machine)| is_well(machine)).map(|(name, _)| name.as_str()).collect();
        let has_quorum = well.len() * 2 > self.machines.len();
        match path {
            _ if !well.contains(&name) => Answer::Refused,
            "/health" if has_quorum => Answer::Told(200, r#"{"health":"true","reason":""}"#.into()),
            "/health" => Answer::Told(503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#.into()),
            "/metrics" => {
                let leads = has_quorum && well.last() == Some(&name);
                let known = self.machines.keys().map(|peer| format!("etcd_network_known_peers{{Local=\"{name}\",Remote=\"{peer}\"}} 1\n"));
                let others = well.iter().filter(|peer| **peer != name);
                let active = others.map(|peer| format!("etcd_network_active_peers{{Local=\"{name}\",Remote=\"{peer}\"}} 1\n"));
                let peers: Vec<_> = known.chain(active).collect();
                let (has_leader, is_leader) = (u8::from(has_quorum), u8::from(leads));
                Answer::Told(200, format!("etcd_server_has_leader {has_leader}\netcd_server_is_leader {is_leader}\n{}", peers.concat()))
            }
            _ => Answer::Told(404, String::new()),
        }
    }

    /// An API server with etcd's quorum behind it answers.
    fn has_api(&mut self) -> bool {
        let now = self.now();
        self.machines.values_mut().for_each(|machine| machine.catch_up(now));
        let has_api = self.well("kube-apiserver.yaml") > 0 && self.well("etcd.yaml") * 2 > self.machines.len();
        let all_up = self.machines.values().all(|m| m.up) && self.powered.values().all(|at| at + MACHINE_STARTS < now);
        self.check(has_api || !all_up || self.machines.len() < 3, || "no API server serves, though every machine is up".to_owned());
        let disturbed: Vec<_> = self.machines.iter().filter(|(name, m)| m.up && !self.is_whole(name, m)).map(|(n, _)| n.clone()).collect();
        self.check(disturbed.len() <= 1, || format!("{disturbed:?} are away at once"));
        has_api && !self.is_away()
    }

    fn is_whole(&self, name: &str, machine: &Machine) -> bool {
        let now = self.now();
        let starting = self.powered.get(name).is_some_and(|at| at + MACHINE_STARTS >= now);
        starting || FILES.iter().all(|file| machine.is_well(file, now))
    }

    /// Answers a request, and checks what it did.
    fn answer(&mut self, who: &str, request: &Request) -> Option<(StatusCode, Value)> {
        if !self.has_api() {
            return None;
        }
        let now = self.wall().to_string();
        let answer = if request.key.plural == "pods" && !request.writes() { self.pods() } else { self.objects.answer(request, &now) };
        if request.writes() && request.key.plural != "events" {
            let refused = if answer.0.is_success() { String::new() } else { format!(": {}", answer.0) };
            self.say(&format!("{who}: {} {} {}{refused}", request.method, request.key.plural, request.key.name));
        }
        self.took_effect();
        Some(answer)
    }

    /// Tells watches of what has changed, writes down what it means, and checks it.
    fn took_effect(&mut self) {
        for (key, old, new) in self.objects.changes() {
            if key.plural != "events" && old != new {
                self.changed(&key.plural, &key.name, old.as_ref(), new.as_ref());
            }
        }
    }

    fn changed(&mut self, plural: &str, name: &str, old: Option<&Value>, new: Option<&Value>) {
        self.last_write = self.now();
        let (was, is) = (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null));
        match plural {
            "nodetracings" => self.node_tracing_changed(name, was, is),
            "clustertracings" if was["metadata"]["finalizers"] != is["metadata"]["finalizers"] => {
                self.wrote.insert(format!("finalizers {}", is["metadata"]["finalizers"]));
            }
            "daemonsets" => {
                self.collector = self.now();
                let revision = &is["spec"]["template"]["metadata"]["annotations"][collector::ANNOTATION_REVISION];
                self.wrote.insert(format!("collector {revision}"));
                self.tell("controller", None, COLLECTOR_STARTS + 100);
            }
            "configmaps" => drop(self.wrote.insert(format!("configmap {name} {}", new.is_some()))),
            _ => {}
        }
        let status_alone =
            plural == "clustertracings" && was["spec"] == is["spec"] && was["metadata"]["generation"] == is["metadata"]["generation"];
        if !status_alone {
            self.tell("controller", None, 0);
        }
    }

    fn node_tracing_changed(&mut self, name: &str, was: &Value, is: &Value) {
        self.tell(&format!("agent {name}"), Some(is.clone()), 0);
        let (target, grant) = (&is["spec"]["target"], &is["spec"]["grant"]);
        if is.is_null() {
            self.wrote.insert(format!("no nodetracing {name}"));
        }
        if target.is_object() && *target != was["spec"]["target"] {
            self.wrote.insert(format!("target {name} {}", target["revision"]));
            self.allow(target);
        }
        if grant.is_object() && *grant != was["spec"]["grant"] {
            self.wrote.insert(format!("grant {name} {} of generation {}", grant["revision"], grant["generation"]));
            let generation = grant["generation"].as_i64().unwrap_or_default();
            if is_another_try(&is["status"]["lastOutcome"], grant, self.wall()) {
                self.failed.remove(&generation);
            }
            self.check(!self.failed.contains(&generation), || format!("{name} is granted after a failure of generation {generation}"));
            let granted: Vec<_> = self.objects.all("nodetracings").filter(|(_, o)| is_in_flight(o)).map(|(n, _)| n.to_owned()).collect();
            self.check(granted.len() <= 1, || format!("{granted:?} are granted at once"));
        }
        let outcome = &is["status"]["lastOutcome"];
        if *outcome != was["status"]["lastOutcome"] && outcome["result"].as_str().is_some_and(|result| result != "Succeeded") {
            self.failed.insert(outcome["generation"].as_i64().unwrap_or_default());
        }
    }

    /// From now on a manifest may hold what these settings make of its original.
    fn allow(&mut self, target: &Value) {
        if !self.revisions.insert(target["revision"].to_string()) {
            return;
        }
        let settings: NodeSettings = serde_json::from_value(target["settings"].clone()).expect("a target has settings");
        for (name, files) in &self.originals {
            for change in change(files, &settings, name).into_iter().flatten() {
                let file = FILES.into_iter().find(|file| *file == change.file).expect("one of the two");
                self.allowed.entry((name.clone(), file)).or_default().insert(change.after.into_bytes());
            }
        }
    }

    /// Checks what the kubelet could read of a machine, after a change of its files.
    pub(crate) fn check_files(&mut self, name: &str) {
        self.last_write = self.now();
        let machine = &self.machines[name];
        let has_journal = machine.files.keys().any(|(_, file)| file == clustertracing::agent::journal::NAME);
        let mut wrong = None;
        for file in FILES {
            let allowed = self.allowed.get(&(name.to_owned(), file));
            match machine.manifest(file) {
                Some(bytes) if allowed.is_none_or(|allowed| !allowed.contains(bytes)) => {
                    wrong = Some(format!("{name}/{file} is neither the original nor what a target makes of it"));
                }
                None if allowed.is_some() && !has_journal => wrong = Some(format!("{name}/{file} is away, and no journal says why")),
                _ => {}
            }
        }
        self.check(wrong.is_none(), || wrong.unwrap_or_default());
        self.has_api();
    }

    fn tell(&mut self, who: &str, object: Option<Value>, later: u64) {
        let now = self.now();
        let mut at = now + later + self.chance.between(1..200);
        for fault in &self.faults {
            match fault {
                Fault::Lose { who: w, one_in } if w == who && self.chance.one_in(*one_in) => return,
                Fault::Freeze { who: w, from, until } if w == who && (*from..*until).contains(&now) => at = at.max(*until),
                Fault::Join { who: w, every } if w == who => at = at.next_multiple_of(*every),
                _ => {}
            }
        }
        let watch = self.watches.entry(who.to_owned()).or_default();
        at = at.max(watch.queue.back().map_or(0, |(at, _)| *at));
        watch.queue.push_back((at, object));
        watch.signal.notify_one();
    }

    /// The collector's pods, as the DaemonSet's controller and the kubelets would have them.
    fn pods(&self) -> (StatusCode, Value) {
        let daemon_set = self.objects.all("daemonsets").next().filter(|_| self.now() >= self.collector + COLLECTOR_STARTS);
        let pods = daemon_set.into_iter().flat_map(|(_, daemon_set)| {
            let template = &daemon_set["spec"]["template"];
            self.machines.iter().filter(|(_, machine)| machine.up).map(|(name, _)| {
                let annotations = &template["metadata"]["annotations"];
                json!({
                    "metadata": { "name": format!("collector-{name}"), "annotations": annotations },
                    "spec": { "nodeName": name, "containers": [] },
                    "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
                })
            })
        });
        let pods: Vec<_> = pods.collect();
        (StatusCode::OK, json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods }))
    }

    /// What people and kubelets do: nothing that is simulated decides it.
    pub(crate) fn put(&mut self, plural: &str, object: Value) {
        let now = self.wall().to_string();
        self.objects.put(plural, object, &now);
        self.took_effect();
    }

    pub(crate) fn show_node(&mut self, name: &str, ready: bool) {
        let status = if ready { "True" } else { "Unknown" };
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": { "node-role.kubernetes.io/control-plane": "", "kubernetes.io/hostname": name } },
            "status": { "conditions": [{ "type": "Ready", "status": status, "lastHeartbeatTime": self.wall().to_string() }] },
        });
        self.put("nodes", node);
    }

    /// A person's change of the resource: `spec` is merged into it; `null` deletes it.
    pub(crate) fn ask(&mut self, spec: &Value) {
        let mut merged = self.resource().map_or_else(|| json!({}), |resource| resource["spec"].clone());
        crate::objects::merge(&mut merged, spec);
        self.replace(if spec.is_null() { spec } else { &merged });
    }

    /// A person replaces the spec; `null` deletes the resource.
    pub(crate) fn replace(&mut self, spec: &Value) {
        self.say(&format!("a person asks for {spec}"));
        if spec.is_null() {
            let now = self.wall().to_string();
            self.objects.remove("clustertracings", "cluster", &now);
            self.took_effect();
            return;
        }
        let new = json!({ "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing", "metadata": { "name": "cluster" } });
        let mut object = self.resource().cloned().unwrap_or(new);
        object["spec"] = spec.clone();
        self.put("clustertracings", object);
    }

    pub(crate) fn power_off(&mut self, name: &str) {
        self.say(&format!("{name} loses its power"));
        let now = self.now();
        self.machines.get_mut(name).expect("a machine").power_off(now);
        if let Some(life) = self.agents.get(name) {
            life.notify_one();
        }
    }

    pub(crate) fn power_on(&mut self, name: &str) {
        self.say(&format!("{name} starts"));
        let now = self.now();
        self.powered.insert(name.to_owned(), now);
        self.machines.get_mut(name).expect("a machine").power_on(now);
    }

    pub(crate) fn collect_garbage(&mut self) {
        self.objects.collect_garbage();
        self.took_effect();
    }

    pub(crate) fn resource(&self) -> Option<&Value> {
        self.objects.get("clustertracings", "cluster")
    }

    pub(crate) fn node_tracing(&self, name: &str) -> Option<NodeTracing> {
        self.objects.get("nodetracings", name).map(|o| serde_json::from_value(o.clone()).expect("a NodeTracing"))
    }

    /// The condition of the resource, answered for its newest generation.
    pub(crate) fn condition(&self, kind: &str) -> Option<String> {
        let resource = self.resource()?;
        let answered = resource["status"]["observedGeneration"] == resource["metadata"]["generation"];
        let found = resource["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?;
        answered.then(|| format!("{} {}", found["status"].as_str().unwrap_or_default(), found["reason"].as_str().unwrap_or_default()))
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|c| c.starts_with("True"))
    }
}

pub(crate) fn is_in_flight(node_tracing: &Value) -> bool {
    let grant = &node_tracing["spec"]["grant"]["id"];
    grant.is_number() && *grant != node_tracing["status"]["lastOutcome"]["grant"]
}

/// The wall clock at a moment of the simulation.
pub(crate) fn wall(millis: u64) -> Timestamp {
    Timestamp::constant(1_795_262_400, 0) + SignedDuration::from_millis(i64::try_from(millis).expect("a short run"))
}

/// Whether a grant lets a change be tried again that was interrupted twice: 10 minutes later, and under the next number.
fn is_another_try(outcome: &Value, grant: &Value, now: Timestamp) -> bool {
    let ended = outcome["finishedTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let waited = ended.is_some_and(|ended| now.duration_since(ended) >= SignedDuration::from_mins(10));
    outcome["reason"] == "Interrupted" && waited && grant["attempt"].as_i64().is_some_and(|attempt| attempt > 1)
}
