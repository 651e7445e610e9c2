//! What kube-apiserver and etcd are started with so that they send spans: by the same tables as on a node.

use clustertracing::api::node_tracing::{ComponentSettings, NodeSettings, ReceiverKind};
use clustertracing::api::{ComponentName, State};
use clustertracing::component::STATE_DIR;
use clustertracing::component::canary::trial;

use super::api_server::More;

const NODE: &str = "cp-1";

/// What a component of that version gets on a node: by the same tables, with its files in `folder` instead of the node's.
pub(crate) fn more(component: ComponentName, version: &str, endpoint: &str, rate: i32, folder: &tempfile::TempDir) -> More {
    let settings = |rate| ComponentSettings { state: State::Enabled, sampling_rate_per_million: rate };
    let settings = NodeSettings {
        endpoint: endpoint.to_owned(),
        receiver: ReceiverKind::NodeCollector,
        kube_api_server: settings(rate),
        etcd: settings(0),
        watch_termination_grace_seconds: 0,
        health_timeout_seconds: 120,
    };
    let trial = trial(component, &format!("{component}:v{version}"), &settings, NODE).unwrap().unwrap();
    let here = |text: &str| text.replace(STATE_DIR, &folder.path().display().to_string());
    for (path, text) in &trial.files {
        std::fs::write(here(path), text).unwrap();
    }
    // The first word is the program, the last one has it tell its version.
    let args = trial.parse[1..trial.parse.len() - 1].iter().map(|word| here(word)).collect();
    // Milliseconds until a batch is sent: 5000 by default.
    let quickly = ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "200".to_owned());
    More { args, env: trial.env.into_iter().chain([quickly]).collect() }
}
