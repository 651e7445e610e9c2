#!/usr/bin/env bash
# Writes in.yaml of the cases in this folder that are named after a release, as that release's kubeadm stores it in its ConfigMap.
#   generate.sh
# `plain` is what a person gets who says nothing; in `own` somebody has flags, variables, volumes and names of their own.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
BUILD=$HERE/../testbed/build.sh
BIN=${TESTBED_CACHE:-$HOME/.cache/clustertracing-testbed}/bin

own() { # API VERSION
  if [ "$1" = v1beta3 ]; then
    cat <<'OWN'
apiServer:
  certSANs: [api.example.org]
  extraArgs: {audit-log-path: /var/log/audit.log, v: "2"}
  extraVolumes: [{name: audit, hostPath: /var/log/kubernetes, mountPath: /var/log, pathType: DirectoryOrCreate}]
etcd:
  local: {dataDir: /var/lib/etcd, extraArgs: {auto-compaction-retention: "1"}, serverCertSANs: [etcd.example.org]}
OWN
  else
    cat <<'OWN'
apiServer:
  certSANs: [api.example.org]
  extraArgs: [{name: audit-log-path, value: /var/log/audit.log}, {name: v, value: "2"}]
  extraEnvs: [{name: OTEL_BSP_MAX_QUEUE_SIZE, value: "128"}]
  extraVolumes: [{name: audit, hostPath: /var/log/kubernetes, mountPath: /var/log, pathType: DirectoryOrCreate}]
etcd:
  local:
    dataDir: /var/lib/etcd
    extraArgs: [{name: auto-compaction-retention, value: "1"}]
    extraEnvs: [{name: GOMEMLIMIT, value: 2GiB}]
    serverCertSANs: [etcd.example.org]
OWN
  fi
}

generate() { # VERSION CASE
  local version=$1 minor api work
  minor=${version#1.} minor=${minor%%.*}
  if [ "$minor" -ge 31 ]; then api=v1beta4; else api=v1beta3; fi
  "$BUILD" kubernetes "$version" kubeadm
  work=$(mktemp -d)
  {
    printf 'apiVersion: kubeadm.k8s.io/%s\nkind: InitConfiguration\nlocalAPIEndpoint: {advertiseAddress: 192.0.2.11}\n' "$api"
    printf 'nodeRegistration: {name: cp-1, criSocket: "unix:///run/containerd/containerd.sock"}\n---\n'
    printf 'apiVersion: kubeadm.k8s.io/%s\nkind: ClusterConfiguration\nkubernetesVersion: v%s\ncontrolPlaneEndpoint: "192.0.2.10:6443"\n' "$api" "$version"
    if [ "$2" = own ]; then own "$api"; fi
  } > "$work/kubeadm.yaml"
  # kubeadm writes a configuration in one way, whether to a file or to the ConfigMap.
  "$BIN/kubernetes-$version/kubeadm" config migrate --old-config "$work/kubeadm.yaml" --new-config "$work/out.yaml" 2> /dev/null
  mkdir -p "$HERE/$version-$2"
  python3 - "$work/out.yaml" > "$HERE/$version-$2/in.yaml" <<'PYTHON'
import sys
for document in open(sys.argv[1]).read().split("---\n"):
    if "kind: ClusterConfiguration" in document:
        sys.stdout.write(document)
PYTHON
  rm -r "$work"
}

for version in 1.28.15 1.31.0 1.36.3 1.37.1; do for case in plain own; do generate "$version" "$case"; done; done
