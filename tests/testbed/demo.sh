#!/usr/bin/env bash
# The main job, from an empty machine to two traces: a cluster of three control-plane nodes, the operator by its chart, one `kubectl apply`.
# What a person would type is printed as it runs. The cluster stays up at the end; `make down` removes it.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
export TESTBED_CACHE=${TESTBED_CACHE:-$HOME/.cache/clustertracing-testbed}
STATE=${TESTBED_STATE:-$TESTBED_CACHE/state}
CLUSTER=$HERE/cluster.sh
HOST=10.89.0.1
JAEGER=http://$HOST:16686
DEMO=$STATE/demo
export KUBERNETES=${KUBERNETES:-1.36.3}
PROGRAMS=$("$HERE/build.sh" path kubernetes "$KUBERNETES")
KUBECTL=("$PROGRAMS/kubectl" --kubeconfig "$STATE/admin.conf")
cd "$HERE/../.."

heading() { printf '\n== %s  (%d s since the start)\n' "$*" "$SECONDS"; }
kubectl() { "${KUBECTL[@]}" "$@"; }
# typed COMMAND…: shown, then run
typed() {
  printf '$ %s\n' "$*"
  "$@"
}

# What an observability team would have set up before: a back end with a name in the cluster. Here Jaeger runs on the host.
backend() {
  "$CLUSTER" jaeger start
  kubectl apply -f - << T
apiVersion: v1
kind: Namespace
metadata: {name: observability}
---
apiVersion: v1
kind: Service
metadata: {name: jaeger, namespace: observability}
spec: {ports: [{name: otlp-grpc, port: 4317}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: jaeger-host, namespace: observability, labels: {kubernetes.io/service-name: jaeger}}
addressType: IPv4
ports: [{name: otlp-grpc, port: 4317}]
endpoints: [{addresses: [$HOST]}]
T
}

# Waits for the end of the rollout, with a line for each change of what `kubectl get` shows meanwhile.
rollout() {
  local waiting before='' now
  printf '$ kubectl wait --for=condition=Ready clustertracing/cluster --timeout=15m\n'
  "${KUBECTL[@]}" wait --for=condition=Ready clustertracing/cluster --timeout=15m &
  waiting=$!
  while kill -0 $waiting 2> /dev/null; do
    # The API servers are being restarted: an answer that does not come is no news.
    now=$(kubectl get clustertracing cluster --output wide --no-headers --request-timeout=5s 2> /dev/null | without_age || true)
    if [ -n "$now" ] && [ "$now" != "$before" ]; then
      before=$now
      printf '  %4d s  %s\n' "$SECONDS" "$now"
    fi
    if [ "$(condition Stalled)" = True ]; then # it will not become Ready by waiting
      kill $waiting
      break
    fi
    sleep 2
  done
  wait $waiting || { kubectl describe clustertracing cluster; return 1; }
}
without_age() { sed -E 's/ +([0-9]+[smhd])+ +/   /'; }
condition() { kubectl get clustertracing cluster --request-timeout=5s --output "jsonpath={.status.conditions[?(@.type=='$1')].status}" 2> /dev/null || true; }

# Requests under a certificate of the group system:masters: the API server honours a trace that such a caller asks for,
# at any sampling rate (admin.conf's group is another one since Kubernetes 1.29).
credentials() {
  local field
  for field in certificate-authority-data client-certificate-data client-key-data; do
    sed -n "s/.*$field: //p" "$STATE/cp1/etc-kubernetes/super-admin.conf" | base64 -d > "$DEMO/$field"
  done
}

# traced URL [CURL ARGS…]: makes a request with a sampled trace context; its trace's name is in TRACE
traced() {
  local url=$1
  shift
  TRACE=$(openssl rand -hex 16)
  printf '$ curl --header "traceparent: 00-%s-…-01" %s\n' "$TRACE" "$url"
  curl --silent --show-error --fail --output "$DEMO/answer.json" --cacert "$DEMO/certificate-authority-data" \
    --cert "$DEMO/client-certificate-data" --key "$DEMO/client-key-data" \
    --header "traceparent: 00-$TRACE-$(openssl rand -hex 8)-01" "$@" "$url"
}

webhook() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=demo-webhook -addext "subjectAltName=IP:$HOST" \
    -keyout "$DEMO/webhook.key" -out "$DEMO/webhook.crt" 2> /dev/null
  "$CLUSTER" daemon webhook "$HERE/webhook.py" "$HOST" 9443 "$DEMO/webhook.crt" "$DEMO/webhook.key" "http://$HOST:4318"
  # Known before it listens, it would fail every pod.
  local try
  for try in $(seq 50); do ! (: < "/dev/tcp/$HOST/9443") 2> /dev/null || break; sleep 0.1; done
  kubectl apply -f - << T
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: demo-webhook}
webhooks:
  - name: annotate.demo.clustertracing.dev
    clientConfig: {url: "https://$HOST:9443/mutate", caBundle: $(base64 -w0 < "$DEMO/webhook.crt")}
    rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
    sideEffects: None
    admissionReviewVersions: [v1]
T
}

# The webhook is known to an API server a moment after it was made, and each learns of it by itself.
traced_pod() {
  local try
  for try in $(seq 30); do
    traced https://10.89.0.11:6443/api/v1/namespaces/default/pods --header 'Content-Type: application/yaml' --data-binary @- << T
apiVersion: v1
kind: Pod
metadata: {name: traced-$try, namespace: default}
spec: {restartPolicy: Never, containers: [{name: main, image: "testbed/busybox:dev", command: [sleep, "1"]}]}
T
    ! grep -q demo.clustertracing.dev/seen-by "$DEMO/answer.json" || return 0
    sleep 0.5
  done
  echo "the webhook was not called" >&2
  return 1
}

main() {
  echo "The demo takes 6 minutes once everything is built; the first time on a machine it also builds Kubernetes and the operator (25 min)."
  heading "A kubeadm cluster with three control-plane nodes"
  "$CLUSTER" up 3
  mkdir -p "$DEMO"

  heading "The operator, by its Helm chart, and a tracing back end"
  "$CLUSTER" install
  backend

  heading "Turning tracing on: one node at a time, each verified before the next (3 min)"
  typed kubectl apply -f config/samples/clustertracing.yaml
  rollout
  typed kubectl get clustertracing

  credentials
  heading "A trace: listing nodes"
  traced https://10.89.0.12:6443/api/v1/nodes
  "$HERE/trace_tree.py" --expect apiserver --expect etcd "$JAEGER" "$TRACE"

  heading "A trace: creating a pod, through a mutating webhook that continues the trace"
  webhook
  traced_pod
  "$HERE/trace_tree.py" --expect apiserver --expect etcd --expect demo-webhook "$JAEGER" "$TRACE"

  heading "Done"
  cat << T
The cluster stays up. To go on:
  export KUBECONFIG=$STATE/admin.conf PATH=$PROGRAMS:\$PATH
  kubectl get clustertracing cluster --watch
  kubectl patch clustertracing cluster --type merge --patch '{"spec": {"samplingRatePerMillion": 250000}}'   # restarts kube-apiserver only
  kubectl delete clustertracing cluster                                         # every node gets its original manifests back
  $JAEGER/api/traces?service=apiserver                                          # Jaeger's query API
To tear it down:
  make down
T
}

main "$@"; exit
