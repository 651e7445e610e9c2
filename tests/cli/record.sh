#!/usr/bin/env bash
# Records what a running test cluster answers (tests/testbed/cluster.sh up, install; a ClusterTracing that is Ready; a slow request on pods a
# moment ago), for the session that opens the README.
# Then: UPDATE_GOLDEN=1 cargo test --test cli, and put the session into the README (a test says what it misses).
set -euo pipefail
cd "$(dirname "$0")/../.."
cluster=tests/testbed/cluster.sh
out=tests/cli/clusters/session
store=/api/v1/namespaces/clustertracing-system/services/clustertracing-store:http/proxy
raw() { $cluster kubectl get --raw "$1"; }
mkdir -p $out
raw /apis/clustertracing.dev/v1alpha1/clustertracings/cluster | python3 -c '
import json, sys
resource = json.load(sys.stdin)
resource["metadata"] = {key: value for key, value in resource["metadata"].items() if key in ("name", "generation", "uid", "resourceVersion", "creationTimestamp")}
json.dump(resource, sys.stdout, indent=1)' > $out/clustertracing.json
raw "$store/api/v1/traces?since=600000ms&min-duration=500ms&name=pods&limit=20" > $out/traces.json
id=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["traces"][0]["traceId"])' $out/traces.json)
raw "$store/api/v1/traces/$id" > $out/trace.json
raw "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?labelSelector=apiserver.kubernetes.io/identity%3Dkube-apiserver" | python3 -c '
import json, sys
leases = json.load(sys.stdin)
for lease in leases["items"]:
    lease["metadata"] = {key: lease["metadata"][key] for key in ("name", "namespace", "labels")}
json.dump(leases, sys.stdout, indent=1)' > $out/leases.json
echo "recorded into $out; the trace is $id"
