#!/usr/bin/env bash
# Writes in.yaml of each case in this folder with the real kubeadm of that release, as tests/testbed/build.sh builds it.
#   generate.sh [VERSION…]     default: the releases whose folders are here
# kubeadm is told to take a temporary folder for the root of the host: nothing of this machine's /etc/kubernetes is read or written.
# Needs root, for the chroot of kubeadm's --rootfs.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
BUILD=$HERE/../../testbed/build.sh
BIN=${TESTBED_CACHE:-$HOME/.cache/clustertracing-testbed}/bin

generate() {
  local version=$1 minor api root phase
  minor=${version#1.} minor=${minor%%.*}
  if [ "$minor" -ge 31 ]; then api=v1beta4; else api=v1beta3; fi
  "$BUILD" kubernetes "$version" kubeadm
  root=$(mktemp -d)
  # kubeadm mounts those of the distribution's certificate folders that exist: these are Debian's.
  mkdir -p "$root"/etc/{kubernetes,ca-certificates,ssl/certs} "$root"/usr/{,local/}share/ca-certificates
  cat > "$root/kubeadm.yaml" <<CONFIG
apiVersion: kubeadm.k8s.io/$api
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 192.0.2.11}
nodeRegistration: {name: cp-1, criSocket: "unix:///run/containerd/containerd.sock"}
---
apiVersion: kubeadm.k8s.io/$api
kind: ClusterConfiguration
kubernetesVersion: v$version
controlPlaneEndpoint: "192.0.2.10:6443"
CONFIG
  for phase in "control-plane apiserver" "etcd local"; do
    # shellcheck disable=SC2086  # a phase is two words
    "$BIN/kubernetes-$version/kubeadm" init phase $phase --rootfs "$root" --config /kubeadm.yaml >&2
  done
  for component in kube-apiserver etcd; do
    install -D -m 0644 "$root/etc/kubernetes/manifests/$component.yaml" "$HERE/$version/$component/in.yaml"
  done
  rm -r "$root"
}

versions=("$@")
if [ ${#versions[@]} -eq 0 ]; then for folder in "$HERE"/*/; do versions+=("$(basename "$folder")"); done; fi
for version in "${versions[@]}"; do generate "$version"; done
