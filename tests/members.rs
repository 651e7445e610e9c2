//! What etcd members tell of themselves, against real ones of each version that kubeadm ships: names, forms and meanings of what
//! `component::member` reads.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clustertracing::api::node_tracing::{EtcdMember, MemberHealth, MemberRole};
use clustertracing::component::member::{Endpoints, Metrics, READ_AGAIN_AFTER, health, member};
use clustertracing::host::probe::Prober;
use clustertracing::manifest::Probe;
use kube::{Client, Config};
use serde_json::{Value, json};

/// Elections, the five seconds for which etcd wants all members connected before their list may change, on two busy cores.
const PATIENCE: Duration = Duration::from_mins(1);

/// Members of one cluster as bare processes; they end with this value.
struct Etcd {
    program: PathBuf,
    folder: tempfile::TempDir,
    members: Vec<Member>,
    prober: Prober,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    endpoints: Endpoints,
    process: Option<Child>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|n| self.stop(n));
    }
}

fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

impl Etcd {
    /// Room for four members; three are started.
    fn start(version: &str) -> Self {
        let cache = std::env::var("TESTBED_CACHE")
            .unwrap_or_else(|_| format!("{}/.cache/clustertracing-testbed", std::env::var("HOME").expect("HOME is set")));
        let sockets: Vec<_> = (0..12).map(|_| free_port()).collect();
        let port = |n: usize| sockets[n].local_addr().unwrap().port();
        let members = (0..4).map(|n| {
            let probe = Probe { scheme: "HTTP".into(), host: "127.0.0.1".into(), port: port(n), path: "/livez".into() };
            let endpoints = Endpoints::beside(&[probe]).unwrap();
            Member { client_port: port(4 + n), peer_port: port(8 + n), endpoints, process: None }
        });
        let members = members.collect();
        let program = PathBuf::from(cache).join(format!("bin/etcd-{version}"));
        let mut etcd = Self { program, folder: tempfile::tempdir().unwrap(), members, prober: Prober::default() };
        drop(sockets);
        (0..3).for_each(|n| etcd.run(n, 3, "new"));
        etcd
    }

    fn run(&mut self, n: usize, count: usize, state: &str) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<_> = (0..count).map(|m| format!("m{m}={}", url(self.members[m].peer_port))).collect();
        let member = &self.members[n];
        let log = std::fs::File::create(self.folder.path().join(format!("m{n}.log"))).unwrap();
        let child = Command::new(&self.program)
            .args([
                format!("--name=m{n}"),
                format!("--data-dir={}", self.folder.path().join(format!("m{n}")).display()),
                "--unsafe-no-fsync".to_owned(),
                format!("--listen-client-urls={}", url(member.client_port)),
                format!("--advertise-client-urls={}", url(member.client_port)),
                format!("--listen-peer-urls={}", url(member.peer_port)),
                format!("--initial-advertise-peer-urls={}", url(member.peer_port)),
                format!("--initial-cluster={}", cluster.join(",")),
                format!("--initial-cluster-state={state}"),
                format!("--listen-metrics-urls={}", url(member.endpoints.health.port)),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}; the testbed builds it", self.program.display()));
        self.members[n].process = Some(child);
    }

    fn stop(&mut self, n: usize) {
        if let Some(mut process) = self.members[n].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// What the agent would report of a member.
    async fn report(&self, n: usize) -> EtcdMember {
        let endpoints = &self.members[n].endpoints;
        let health = health(self.prober.get(&endpoints.health).await.told());
        let metrics = async || self.prober.get(&endpoints.metrics).await.told().and_then(|(_, text)| Metrics::parse(text));
        let first = metrics().await;
        if !first.as_ref().is_some_and(Metrics::should_be_read_again) {
            return member(health, None, first.as_ref());
        }
        tokio::time::sleep(Duration::from_millis(READ_AGAIN_AFTER)).await;
        member(health, first.as_ref(), metrics().await.as_ref())
    }

    /// Waits until a member reports what is expected.
    async fn expect(&self, n: usize, what: &str, expected: impl Fn(&EtcdMember) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.report(n).await;
            if expected(&report) {
                return;
            }
            assert!(Instant::now() < deadline, "member {n}: not {what}: {report:?}");
            // etcd's own pace is what is waited for
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for n in 0..3 {
                if self.report(n).await.role == Some(MemberRole::Leader) {
                    return n;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
        }
    }

    /// Calls the gRPC gateway, until it does as it is told: a change of members is refused for the first seconds.
    async fn call(&self, n: usize, path: &str, body: &Value) -> Value {
        let config = Config::new(format!("http://127.0.0.1:{}", self.members[n].client_port).parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = http::Request::post(path).body(serde_json::to_vec(body).unwrap()).unwrap();
            match client.request::<Value>(request).await {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < deadline, "{path}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn tells(version: &str) {
    let mut etcd = Etcd::start(version);
    for n in 0..3 {
        let whole = |m: &EtcdMember| m.health == MemberHealth::Healthy && (m.members, m.connected) == (Some(3), Some(3));
        etcd.expect(n, "one of three that are well", whole).await;
    }
    let leader = etcd.leader().await;
    let followers: Vec<_> = (0..3).filter(|n| *n != leader).collect();
    assert_eq!(etcd.report(followers[0]).await.role, Some(MemberRole::Follower));

    // A learner counts from the moment that it is added, started or not, and no more when it is removed.
    let peer = format!("http://127.0.0.1:{}", etcd.members[3].peer_port);
    let added = etcd.call(leader, "/v3/cluster/member/add", &json!({ "peerURLs": [peer], "isLearner": true })).await;
    etcd.expect(leader, "one of four", |m| m.health == MemberHealth::Healthy && (m.members, m.connected) == (Some(4), Some(3))).await;
    etcd.run(3, 4, "existing");
    etcd.expect(3, "a learner", |m| m.role == Some(MemberRole::Learner)).await;
    etcd.expect(leader, "connected to the learner", |m| m.connected == Some(4)).await;
    etcd.call(leader, "/v3/cluster/member/remove", &json!({ "ID": added["member"]["ID"] })).await;
    etcd.stop(3);
    etcd.expect(leader, "one of three again", |m| (m.members, m.connected) == (Some(3), Some(3))).await;

    // An alarm.
    let alarm = |action: &str| json!({ "action": action, "memberID": added["header"]["member_id"], "alarm": "NOSPACE" });
    etcd.call(leader, "/v3/maintenance/alarm", &alarm("ACTIVATE")).await;
    etcd.expect(followers[0], "in alarm", |m| m.health == MemberHealth::Alarm).await;
    etcd.call(leader, "/v3/maintenance/alarm", &alarm("DEACTIVATE")).await;
    etcd.expect(followers[0], "well again", |m| m.health == MemberHealth::Healthy).await;

    // A member that is down still counts; without a majority nobody leads.
    etcd.stop(followers[1]);
    etcd.expect(leader, "apart from one", |m| m.health == MemberHealth::Healthy && (m.members, m.connected) == (Some(3), Some(2))).await;
    assert_eq!(etcd.report(followers[1]).await, member(MemberHealth::Unhealthy, None, None));
    etcd.stop(followers[0]);
    etcd.expect(leader, "without a leader", |m| m.health == MemberHealth::NoLeader && m.role.is_none()).await;
}

#[tokio::test]
#[ignore = "needs built etcd: make crds"]
async fn etcd_3_5_6_tells_how_it_is() {
    tells("3.5.6").await;
}

#[tokio::test]
#[ignore = "needs built etcd: make crds"]
async fn etcd_3_5_24_tells_how_it_is() {
    tells("3.5.24").await;
}

#[tokio::test]
#[ignore = "needs built etcd: make crds"]
async fn etcd_3_6_16_tells_how_it_is() {
    tells("3.6.16").await;
}

#[tokio::test]
#[ignore = "needs built etcd: make crds"]
async fn etcd_3_7_3_tells_how_it_is() {
    tells("3.7.3").await;
}
