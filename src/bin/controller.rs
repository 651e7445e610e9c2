//! The controller's program: arguments, log output, client, run.

use clap::Parser;
use clustertracing::api::State;
use clustertracing::controller::{self, TraceStore};
use clustertracing::plan::validate::Installation;
use clustertracing::runtime::telemetry::{self, Telemetry};

/// Turns tracing of kube-apiserver and etcd on, one control-plane node at a time, and takes it back.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Namespace that the operator runs in.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Image of the collector, where the resource names none.
    #[arg(long, env = "COLLECTOR_IMAGE")]
    collector_image: String,
    /// Enabled: what a node would be given is tried there first, in a pod that is thrown away. Disabled is for clusters whose policies forbid that pod.
    #[arg(long, env = "CANARY", default_value = "Enabled")]
    canary: State,
    /// Enabled: a request of the controller's own proves that spans flow, unless the resource says otherwise. Disabled: none is sent, and no certificate asked for.
    #[arg(long, env = "PROBE", default_value = "Enabled")]
    probe: State,
    /// Name of this process among candidates for leadership.
    #[arg(long, env = "POD_NAME")]
    identity: String,
    #[command(flatten)]
    trace_store: TraceStore,
    #[command(flatten)]
    telemetry: Telemetry,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Args { namespace, collector_image, canary, probe, identity, trace_store, telemetry } = Args::parse();
    let _running = telemetry::init(&telemetry, "clustertracing-controller", Some(&identity));
    let config = kube::Config::infer().await?;
    controller::run(config, Installation { namespace, collector_image, canary, probe }, &identity, &trace_store).await?;
    Ok(())
}
