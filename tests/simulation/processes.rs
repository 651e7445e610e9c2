//! Who runs: the product's controller and agents, as they are. Here is only what starts them, and starts them again.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use clustertracing::agent::watchdog::Guard;
use clustertracing::agent::{Agent, cluster::Cluster as Requests, work};
use clustertracing::api::{NodeTracing, State};
use clustertracing::controller::{Context, turn};
use clustertracing::host::{Answer, Entry, Error, File, Folder, Host, Listener, Now, Process, ProcessId, Reach, Room};
use clustertracing::manifest::Probe;
use clustertracing::plan::validate::Installation;
use clustertracing::runtime::lease::Leadership;
use futures::FutureExt;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, News};
use crate::machine::Machine;

/// As the controller's own: a turn that takes longer is given up.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// As the controller's own: several events are answered by one turn.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// As the agent's own: its watch begins anew.
const WATCH: Duration = Duration::from_mins(2);

/// What a process dies of, where the fault strikes in the middle of it.
struct Killed;

pub(crate) fn installation() -> Installation {
    Installation {
        namespace: "clustertracing".into(),
        collector_image: "otelcol:0.155.0".into(),
        canary: State::Disabled,
        probe: State::Enabled,
    }
}

/// Starts controllers, one after the other, and an agent on each machine.
pub(crate) fn start(cluster: &Cluster) {
    let (news, heard) = mpsc::unbounded_channel();
    cluster.world().news = Some(news.clone());
    spawn_local(supervise(cluster.clone(), news, heard));
    let machines: Vec<_> = cluster.world().machines.keys().cloned().collect();
    for name in machines {
        spawn_local(keep_agent(cluster.clone(), name));
    }
    let cluster = cluster.clone();
    spawn_local(async move {
        loop {
            sleep(Duration::from_secs(2)).await;
            cluster.world().collect_garbage();
        }
    });
}

/// There is a leader, or there will be one.
async fn supervise(cluster: Cluster, news: mpsc::UnboundedSender<News>, mut heard: mpsc::UnboundedReceiver<News>) {
    loop {
        let term = {
            let mut world = cluster.world();
            world.term += 1;
            world.term
        };
        cluster.world().say(&format!("the leader of term {term} begins"));
        let (led, news) = (cluster.clone(), news.clone());
        spawn_local(async move {
            let life = Arc::new(Notify::new());
            tokio::select! {
                biased;
                () = life.notified() => {}
                () = lead(&led, term, &life) => {}
            }
            drop(news.send(News::Died(term)));
        });
        let wait = loop {
            match heard.recv().await {
                Some(News::Died(died)) if died == term => break cluster.world().chance.between(1_000..16_000),
                Some(News::Died(_)) => {}
                Some(News::Sleeps) | None => break 2_000,
            }
        };
        sleep(Duration::from_millis(wait)).await;
    }
}

/// A controller's turns, until it learns that another one leads.
async fn lead(cluster: &Cluster, term: u32, life: &Arc<Notify>) {
    let client = cluster.client("controller", life);
    let name = format!("term-{term}");
    let context = Context::new(client, installation(), &name, Leadership::assumed(), name.clone());
    let mut failures = 0;
    while cluster.world().term == term {
        let now = cluster.world().wall();
        let wait = match timeout(TURN_TIMEOUT, turn(&context, now)).await {
            Ok(Ok(action)) => {
                failures = 0;
                requeue(&action)
            }
            Ok(Err(error)) => {
                failures += 1;
                cluster.world().say(&format!("controller: {}", clustertracing::agent::chain(&error)));
                error.retry_after(failures)
            }
            Err(_) => Duration::from_millis(500),
        };
        tokio::select! {
            biased;
            _ = cluster.event("controller") => sleep(DEBOUNCE).await,
            () = sleep(wait) => {}
        }
    }
}

/// When the controller wants to look again, as far as it can be told: the value is not to be had.
fn requeue(action: &Action) -> Duration {
    let known = (1..=60).map(Duration::from_secs).find(|d| *action == Action::requeue(*d));
    known.unwrap_or(if *action == Action::await_change() { Duration::from_hours(1) } else { Duration::from_secs(1) })
}

/// As the kubelet does: an agent that ends is started again, as long as the machine runs.
async fn keep_agent(cluster: Cluster, name: String) {
    loop {
        let life = Arc::new(Notify::new());
        cluster.world().agents.insert(name.clone(), Arc::clone(&life));
        tokio::select! {
            biased;
            () = life.notified() => {}
            ended = AssertUnwindSafe(agent(&cluster, &name, &life)).catch_unwind() => match ended {
                Ok(error) => cluster.world().check(false, || format!("the agent of {name} ended: {}", clustertracing::agent::chain(&error))),
                Err(cause) if cause.is::<Killed>() => {}
                Err(cause) => resume_unwind(cause),
            }
        }
        let wait = cluster.world().chance.between(1_000..4_000);
        sleep(Duration::from_millis(wait)).await;
        cluster.until(3_600, |world| world.machines[&name].up).await;
    }
}

/// The agent as its program runs it; its watch alone is pretended, because it is what loses and delays.
async fn agent(cluster: &Cluster, name: &str, life: &Arc<Notify>) -> Error {
    let node = Node { cluster: cluster.clone(), name: name.to_owned(), who: format!("agent {name}") };
    let requests = Requests::new(cluster.client(&node.who, life), name.to_owned());
    let started = Agent::start(node, name.to_owned()).await;
    let agent = match started {
        // what would go on is the agent that the kubelet starts again
        Ok(agent) => agent.guarded_by(Guard::None),
        Err(error) => return error,
    };
    let (latest, wanted, reported) = (watch::Sender::new(None), watch::Sender::new(None), watch::Sender::new(None));
    tokio::select! {
        biased;
        never = follow(cluster, name, &latest) => match never {},
        never = requests.report(wanted.subscribe(), &latest, &reported) => match never {},
        ended = work(agent, &requests, latest.subscribe(), &wanted, reported.subscribe()) => match ended {
            Ok(never) => match never {},
            Err(error) => error,
        },
    }
}

async fn follow(cluster: &Cluster, name: &str, latest: &watch::Sender<Option<NodeTracing>>) -> Infallible {
    let put = |object: Option<NodeTracing>| {
        latest.send_if_modified(|last| {
            let changed = *last != object;
            *last = object;
            changed
        });
    };
    loop {
        let listed = cluster.world().node_tracing(name);
        put(listed);
        let watch = async {
            loop {
                let object = cluster.event(&format!("agent {name}")).await;
                put(object.and_then(|o| serde_json::from_value(o).ok()));
            }
        };
        drop(timeout::<_>(WATCH, watch).await);
    }
}

/// A machine as its agent sees it.
struct Node {
    cluster: Cluster,
    name: String,
    who: String,
}

impl Node {
    fn machine<T>(&self, look: impl FnOnce(&mut Machine, u64) -> T) -> T {
        let mut world = self.cluster.world();
        let now = world.now();
        look(world.machines.get_mut(&self.name).expect("a machine"), now)
    }

    /// Changes files, unless the process dies at it. `torn`: what is left when it dies before.
    fn effect(&self, what: &str, torn: impl FnOnce(&mut Machine), effect: impl FnOnce(&mut Machine, u64)) {
        let dies = {
            let mut world = self.cluster.world();
            let (number, now) = (world.count(&self.who), world.now());
            world.say(&format!("{}: {what}", self.who));
            let before = world.crashes(&self.who, number, false);
            let machine = world.machines.get_mut(&self.name).expect("a machine");
            let standing = machine.standing();
            if before {
                torn(machine);
            } else {
                effect(machine, now);
            }
            // What goes away outside the manifests was never more than prepared, or is not needed any more: the end says what must stay.
            let stands = machine.standing();
            let came = stands.iter().filter(|file| !standing.contains(file));
            let went = standing.iter().filter(|file| file.starts_with("manifests/") && !stands.contains(file));
            let wrote: Vec<_> =
                came.chain(went).filter(|file| !file.contains("/journal ")).map(|file| format!("{}/{file}", self.name)).collect();
            world.wrote.extend(wrote);
            world.check_files(&self.name);
            before || world.crashes(&self.who, number, true)
        };
        if dies {
            resume_unwind(Box::new(Killed));
        }
    }
}

impl Host for Node {
    fn list(&self, folder: Folder) -> Result<Vec<Entry>, Error> {
        let entry = |name: &str| Entry { name: name.to_owned(), regular: true, folder: false };
        Ok(self.machine(|machine, _| machine.files.keys().filter(|(f, _)| *f == folder).map(|(_, name)| entry(name)).collect()))
    }

    fn read(&self, folder: Folder, name: &str) -> Result<Option<File>, Error> {
        Ok(self.machine(|machine, _| machine.files.get(&(folder, name.to_owned())).map(|(file, _)| file.clone())))
    }

    fn changed(&self, folder: Folder, name: &str) -> Result<Option<Timestamp>, Error> {
        let at = self.machine(|machine, _| machine.files.get(&(folder, name.to_owned())).map(|(_, at)| *at));
        // what was there from the start has been for long
        Ok(at.map(|at| if at == 0 { Timestamp::UNIX_EPOCH } else { crate::cluster::wall(at) }))
    }

    fn create(&self, folder: Folder, name: &str, file: &File) -> Result<(), Error> {
        let key = || (folder, name.to_owned());
        let half = File { bytes: file.bytes[..file.bytes.len() / 2].to_vec(), permissions: file.permissions };
        let torn = |machine: &mut Machine| drop(machine.files.insert(key(), (half, 0)));
        self.effect(&format!("create {folder}/{name}"), torn, |machine, now| {
            machine.edit(now, |files| drop(files.insert(key(), (file.clone(), now))));
        });
        Ok(())
    }

    fn rename(&self, folder: Folder, from: &str, to: &str) -> Result<(), Error> {
        self.effect(
            &format!("rename {folder}/{from} to {to}"),
            |_| {},
            |machine, now| {
                machine.edit(now, |files| {
                    if let Some((file, _)) = files.remove(&(folder, from.to_owned())) {
                        files.insert((folder, to.to_owned()), (file, now));
                    }
                });
            },
        );
        Ok(())
    }

    fn remove(&self, folder: Folder, name: &str) -> Result<(), Error> {
        self.effect(
            &format!("remove {folder}/{name}"),
            |_| {},
            |machine, now| {
                machine.edit(now, |files| drop(files.remove(&(folder, name.to_owned()))));
            },
        );
        Ok(())
    }

    fn remove_empty(&self, _: Folder) -> Result<(), Error> {
        Ok(())
    }

    fn keep_program(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn sync(&self, folder: Folder) -> Result<(), Error> {
        self.effect(&format!("sync {folder}"), |_| {}, |_, _| {});
        Ok(())
    }

    fn processes(&self, program: &str) -> Result<Vec<Process>, Error> {
        Ok(self.machine(|machine, now| machine.processes(program, now)))
    }

    fn pod_lives(&self, pod: &str) -> Result<bool, Error> {
        Ok(self.machine(|machine, now| machine.pod_lives(pod, now)))
    }

    fn kill(&self, _: ProcessId) -> Result<(), Error> {
        Ok(())
    }

    async fn probe(&self, probe: &Probe) -> bool {
        self.machine(|machine, now| machine.answers(probe, now))
    }

    async fn get(&self, endpoint: &Probe) -> Answer {
        match endpoint.path.as_str() {
            "/healthz" => Answer::Told(200, "ok".into()),
            path => self.cluster.world().etcd_tells(&self.name, path),
        }
    }

    fn listener(&self, _: u16) -> Result<Option<Listener>, Error> {
        Ok(None)
    }

    async fn reach(&self, _: &str) -> Reach {
        Reach::Connected
    }

    fn room(&self, _: Folder) -> Result<Room, Error> {
        Ok(Room { bytes: 1 << 30, inodes: None })
    }

    fn memory_available(&self) -> Result<u64, Error> {
        Ok(1 << 30)
    }

    fn memory_of(&self, _: ProcessId) -> Result<Option<u64>, Error> {
        Ok(Some(300 << 20))
    }

    fn now(&self) -> Result<Now, Error> {
        let wall = self.cluster.world().wall();
        Ok(self.machine(|machine, now| Now { since_boot: machine.since_boot(now), boot_id: machine.boots.to_string(), wall }))
    }

    async fn sleep_until(&self, since_boot: u64) {
        let wait = self.machine(|machine, now| machine.moment(since_boot).saturating_sub(now));
        sleep(Duration::from_millis(wait)).await;
    }
}
