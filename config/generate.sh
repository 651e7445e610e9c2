#!/usr/bin/env bash
# Renders the chart with its default values into config/rbac and config/manager: one source of objects, two ways to install them.
# The definitions in config/crd are crdgen's. Called by `make generate`.
set -euo pipefail
cd "$(dirname "$0")/.."
helm=${HELM:?the helm program to use}
for part in agent controller; do
  for folder in rbac manager; do
    case $folder in rbac) template=$part-rbac ;; manager) template=$part ;; esac
    # What names Helm as the owner has no place in objects that kustomize makes.
    { echo "# Generated from charts/clustertracing/templates/$template.yaml by \`make generate\`: do not edit."
      "$helm" template clustertracing charts/clustertracing --namespace clustertracing-system --show-only "templates/$template.yaml" |
        sed -e '/^# Source: /d' -e '/app.kubernetes.io\/managed-by: Helm$/d' -e '/helm.sh\/chart: /d'
    } > "config/$folder/$part.yaml"
  done
done
