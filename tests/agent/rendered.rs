//! What the kubectl plugin renders from a copy of a node's folder is what the agent writes on that node.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::world::{FILES, World};
use super::{live, on, result};
use clustertracing::api::node_tracing::OutcomeResult;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_plugin_renders_the_bytes_that_the_agent_writes() {
    let (world, out) = (World::new(), tempfile::tempdir().unwrap());
    let node = world.dir.path();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/samples/clustertracing-minimal.yaml");
    let mut render = Command::new(env!("CARGO_BIN_EXE_kubectl-tracing"));
    render.args(["render", "--node", "cp1"]).arg("-f").arg(sample).arg("--manifests").arg(node.join("manifests"));
    assert!(render.arg("--output-dir").arg(out.path().join("out")).output().unwrap().status.success());

    let mut object = on(1);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
    for file in FILES {
        let rendered = out.path().join("out").join(file);
        assert!(fs::read(&rendered).unwrap() == world.manifest(file), "{file}");
        assert_eq!(mode(&rendered), mode(&node.join("manifests").join(file)), "{file}");
    }
    let tracing_file = world.ours().into_iter().find(|name| name.starts_with("tracing-")).unwrap();
    let rendered = out.path().join("out/etc/kubernetes/clustertracing").join(&tracing_file);
    assert!(fs::read(rendered).unwrap() == fs::read(node.join("state").join(&tracing_file)).unwrap(), "{tracing_file}");
}
