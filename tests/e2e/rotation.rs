//! A certificate of the collectors is replaced: nothing restarts, and spans arrive under the new one.

use crate::checks;
use crate::support::clients::Access;
use crate::support::cluster::{Cluster, NAMESPACE};
use crate::support::jaeger::Jaeger;
use crate::support::process;

/// From now on Jaeger refuses the old certificate; spans of every instance arrive, and no process is another one than before.
pub(crate) async fn needs_no_restart(cluster: &mut Cluster, access: &Access, jaeger: &Jaeger) {
    let before = processes(cluster);
    cluster.rotate_certificates();
    checks::assert_spans_of_every_instance_arrive(cluster, access, jaeger).await;
    assert_eq!(processes(cluster), before, "a new certificate restarts nothing");
}

/// What runs: the control plane's processes and the collectors'.
fn processes(cluster: &Cluster) -> Vec<String> {
    let starts = ["kube-apiserver", "etcd"].into_iter().flat_map(|program| {
        process::starts(cluster, program).into_iter().map(move |(node, start)| format!("{program} of {node}: {start:?}"))
    });
    let columns = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount}{\"\\n\"}{end}";
    let collectors = cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=collector", "-o", columns]);
    starts.chain(collectors.lines().map(str::to_owned)).collect()
}
