#!/usr/bin/env bash
# Renders the chart with its default values into config/rbac and config/manager: one source of objects, two ways to install them.
# The definitions in config/crd are crdgen's. Called by `make generate`.
set -euo pipefail
cd "$(dirname "$0")/.."
helm=${HELM:?the helm program to use}
render() { # render TEMPLATE FILE
  { echo "# Generated from charts/clustertracing/templates/$1.yaml by \`make generate\`: do not edit."
    # What names Helm as the owner has no place in objects that kustomize makes.
    "$helm" template clustertracing charts/clustertracing --namespace clustertracing-system --show-only "templates/$1.yaml" |
      sed -e '/^# Source: /d' -e '/app.kubernetes.io\/managed-by: Helm$/d' -e '/helm.sh\/chart: /d'
  } > "$2"
}
for part in agent controller trace-store; do render "$part" "config/manager/$part.yaml"; done
for part in agent collector controller; do render "$part-rbac" "config/rbac/$part.yaml"; done
