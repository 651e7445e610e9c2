//! The programs of the test cluster, started as the canary pod starts them, in a folder of their own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clustertracing::component::STATE_DIR;
use clustertracing::component::canary::{SCRATCH, Trial, words};
use clustertracing::plan::canary::observed::RUNS_FOR;

/// What is bad ends within a second; a busy machine may take longer. kube-apiserver gives its etcd 20 s.
const LATEST_END: Duration = Duration::from_secs(15);
/// The kubelet keeps that much of a container's log as its last words.
const LAST_BYTES: usize = 2048;

/// A program of a version.
pub(crate) struct Program {
    version: String,
    path: PathBuf,
    /// Flags that only keep it apart from its neighbours: in a pod it has the loopback for itself.
    ports: fn() -> Vec<String>,
}

/// What became of a process.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It is still there after [`RUNS_FOR`] seconds, and was ended.
    Stays,
    /// It ended by itself.
    Exited { code: i32, words: String },
}

/// kube-apiserver of the required versions, and of every other one that is there.
pub(crate) fn kube_apiserver(required: &[&str]) -> Vec<Program> {
    let ports = || vec![format!("--secure-port={}", free_port())];
    programs("kubernetes-", Path::new("kube-apiserver"), required, ports)
}

/// etcd, likewise.
pub(crate) fn etcd(required: &[&str]) -> Vec<Program> {
    let ports = || {
        let (client, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        vec![
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ]
    };
    programs("etcd-", Path::new(""), required, ports)
}

fn programs(prefix: &str, inside: &Path, required: &[&str], ports: fn() -> Vec<String>) -> Vec<Program> {
    let cache =
        std::env::var("TESTBED_CACHE").unwrap_or_else(|_| format!("{}/.cache/clustertracing-testbed", std::env::var("HOME").unwrap()));
    let bin = Path::new(&cache).join("bin");
    let names = fs::read_dir(&bin).map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    let mut versions: Vec<_> = names.into_iter().flatten().filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned())).collect();
    versions.extend(required.iter().map(|&version| version.to_owned()));
    versions.sort();
    versions.dedup();
    let program = |version: String| {
        // `join` of nothing would end the path with a slash.
        let path = bin.join(format!("{prefix}{version}"));
        let path = if inside.as_os_str().is_empty() { path } else { path.join(inside) };
        Program { version, path, ports }
    };
    let programs = versions.into_iter().map(program);
    programs.filter(|program| program.path.exists() || required.contains(&program.version.as_str())).collect()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Program {
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn is_before(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.version.split('.').map(|number| number.parse::<u32>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap()) < (major, minor)
    }

    /// The first stage.
    pub(crate) fn parses(&self, trial: &Trial) -> Ended {
        self.run(trial, &trial.parse, &[], LATEST_END)
    }

    /// The second stage. One that should stay is given as long as the pod gives it, one that should end longer.
    pub(crate) fn starts(&self, trial: &Trial, should_stay: bool) -> Ended {
        let time = if should_stay { Duration::from_secs(RUNS_FOR.unsigned_abs().into()) } else { LATEST_END };
        self.run(trial, &trial.start, &(self.ports)(), time)
    }

    fn run(&self, trial: &Trial, argv: &[String], ports: &[String], time: Duration) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        let (state, scratch) = (folder.path().join("state"), folder.path().join("scratch"));
        for dir in [&state, &scratch] {
            fs::create_dir(dir).unwrap();
        }
        // The scratch folder first: the folders of a test may lie in one of that name.
        let here = |text: &str| {
            let text = text.replace(&format!("={SCRATCH}/"), &format!("={}/", scratch.display()));
            text.replace(STATE_DIR, state.to_str().unwrap())
        };
        for (path, text) in &trial.files {
            fs::write(here(path), text).unwrap();
        }
        let log = folder.path().join("log");
        let output = File::create(&log).unwrap();
        let mut command = Command::new(&self.path);
        command.args(argv[1..].iter().map(|word| here(word))).args(ports).env_clear();
        command.envs(trial.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {}: {error}; make programs builds it", self.path.display()));
        let deadline = Instant::now() + time;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() >= deadline => break None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let Some(status) = status else {
            child.kill().unwrap();
            child.wait().unwrap();
            return Ended::Stays;
        };
        let log = fs::read_to_string(&log).unwrap();
        let start = (log.len().saturating_sub(LAST_BYTES)..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap();
        Ended::Exited { code: status.code().unwrap_or(-1), words: words(&log[start..]) }
    }
}
