//! What is kept of a cluster in which a scenario failed: files in `target/e2e-logs`, and the ends of them on stderr.

use std::fs;
use std::path::Path;

use super::cluster::{Cluster, NAMESPACE, project};

/// Lines of each log that are kept.
const KEPT_LINES: &str = "400";
/// Lines of each file that go to stderr.
const SHOWN_LINES: usize = 25;

/// Writes it all. Never panics: it runs while a test already does.
pub(crate) fn write(cluster: &Cluster) {
    let folder = project().join("target/e2e-logs").join(cluster.shape().kubernetes);
    if let Err(error) = fs::create_dir_all(&folder) {
        eprintln!("e2e: create {}: {error}", folder.display());
        return;
    }
    for (name, arguments) in [
        ("clustertracings.yaml", &["get", "clustertracings", "-o", "yaml"][..]),
        ("nodetracings.yaml", &["get", "nodetracings", "-o", "yaml"]),
        ("nodes.txt", &["get", "nodes", "-o", "wide"]),
        ("pods.txt", &["get", "pods", "-A", "-o", "wide"]),
        ("operator.txt", &["describe", "all,configmaps", "-n", NAMESPACE]),
        ("events.txt", &["get", "events", "-A", "--sort-by=.lastTimestamp"]),
    ] {
        keep(&folder, name, &cluster.try_kubectl(&[arguments, &["--request-timeout=10s"]].concat()));
    }
    for node in cluster.nodes() {
        for (name, script) in [
            ("clustertracing.log", format!("tail -qn {KEPT_LINES} /var/log/pods/{NAMESPACE}_*/*/*.log")),
            ("watchdog.log", format!("tail -qn {KEPT_LINES} /var/log/pods/kube-system_clustertracing-watchdog-*/*/*.log")),
            ("kube-apiserver.log", format!("tail -qn {KEPT_LINES} /var/log/pods/kube-system_kube-apiserver-*/*/*.log")),
            ("etcd.log", format!("tail -qn {KEPT_LINES} /var/log/pods/kube-system_etcd-*/*/*.log")),
            ("files.txt", "find /etc/kubernetes/manifests /etc/kubernetes/clustertracing -ls; cat /etc/kubernetes/manifests/kube-apiserver.yaml /etc/kubernetes/manifests/etcd.yaml; find /etc/kubernetes/clustertracing -type f ! -name clustertracing-agent | xargs tail -n +1".to_owned()),
            ("processes.txt", "ps -eo pid,lstart,args".to_owned()),
        ] {
            keep(&folder, &format!("{node}-{name}"), &cluster.try_exec(&node, &["sh", "-c", &script]));
        }
        // The node's own programs log to its state folder, which is an argument of its process 1.
        for program in ["kubelet", "containerd"] {
            let script = format!(r#"tail -n {KEPT_LINES} "$(tr '\0' '\n' < /proc/1/cmdline | grep '^/.*/{node}$')/log/{program}.log""#);
            keep(&folder, &format!("{node}-{program}.log"), &cluster.try_exec(&node, &["sh", "-c", &script]));
        }
    }
    eprintln!("e2e: what was found is in {}", folder.display());
}

/// Writes one file and shows its end. A command that fails leaves its error, and what it printed before.
fn keep(folder: &Path, name: &str, text: &Result<String, String>) {
    let (Ok(text) | Err(text)) = text;
    let path = folder.join(name);
    if let Err(error) = fs::write(&path, text) {
        eprintln!("e2e: write {}: {error}", path.display());
    }
    let lines: Vec<_> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    eprintln!("==== {name}, the end\n{end}");
}
