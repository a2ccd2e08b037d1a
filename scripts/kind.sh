#!/usr/bin/env bash
# Proves the manifests on a real cluster, on this machine: makes a kind cluster with metrics-server, builds and loads the
# image, applies, adds two numbers through the Service; updates the Deployment under load, in which no request may fail;
# burns CPU until the autoscaler adds pods. Then the cluster is deleted.
#
# Usage: make kind [KEEP=yes]     leaves the cluster math-service-e2e for you to look at
#
# Needs Linux, kind, kubectl, curl, git, locust (make test installs it) and a running Docker.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
help_asked "$@"

cluster=math-service-e2e
context=kind-$cluster
# The version of cluster-config.yaml, as kind 0.31 publishes it.
node_image=kindest/node:v1.35.0@sha256:452d707d4862f52530247495d180205e029056831160e22870e37e3f6c1ac31f
metrics_server=https://github.com/kubernetes-sigs/metrics-server/releases/download/v0.8.0/components.yaml
# So many requests at least must have met the update, or it proves nothing.
least_requests=200
PATH=$PATH:$PWD/.tools/venv/bin
load=''
report=$(mktemp -d)

# Whatever happened: no load goes on, and no cluster is left that nobody asked for.
ended() {
  local code=$1
  [[ -z $load ]] || kill "$load" 2>/dev/null || true
  rm -rf "$report"
  [[ -z $step || ${KEEP:-} == yes ]] || kind delete cluster --name "$cluster" || true
  finished "$code"
}
trap 'ended $?' EXIT

# Its figures are there from its first second on.
load_has_begun() { load_goes_on && [[ -s $report/$1_stats.csv ]]; }

# begin_load CLASS USERS: in the background, on the service.
begin_load() {
  locust --host "$url" --headless --users "$2" --spawn-rate "$2" --only-summary --csv "$report/$1" "$1" >"$report/$1.log" 2>&1 &
  load=$!
  # However long the cluster is waited for: this is about a program on this machine.
  WAIT_SECONDS=60 wait_for 60 'the load' load_has_begun "$1" || fail 'locust does not begin'
}

# end_load CLASS: and in `requests` and `failures` what came of it.
end_load() {
  kill -TERM "$load"
  wait "$load" || true
  load=''
  read -r requests failures < <(awk -F, '$2 == "Aggregated" { print $3, $4 }' "$report/$1_stats.csv") ||
    { cat "$report/$1.log" >&2; fail "locust says nothing of its load"; }
}

load_goes_on() { kill -0 "$load" 2>/dev/null || { cat "$report"/*.log >&2; fail 'locust ended'; }; }

# Old pods leave only when they have drained; until then they may still lose a request.
no_pod_is_leaving() {
  local pods
  pods=$(k get pods --selector app=math-service --output 'jsonpath={range .items[*]}{.metadata.deletionTimestamp}{"\n"}{end}') &&
    [[ -z ${pods//$'\n'/} ]]
}

more_pods_are_wanted() {
  load_goes_on
  wanted=$(k get hpa math-service-hpa --output 'jsonpath={.status.desiredReplicas}') && ((${wanted:-0} > 1))
}

need kind kubectl docker curl git locust
need_docker_running
# The overlay whose image comes from no registry, and whose pods burn CPU.
render minikube

step "making the cluster $cluster"
kind create cluster --name "$cluster" --image "$node_image" --wait 180s

step 'installing metrics-server'
k apply --filename "$metrics_server"
# The kubelet of kind has a certificate that no authority signed.
k patch deployment metrics-server --namespace kube-system --type json \
  --patch '[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--kubelet-insecure-tls"}]'
wait_for_metrics

step 'building and loading the image'
build "$image:first" "linux/$(k get nodes --output 'jsonpath={.items[0].status.nodeInfo.architecture}')"
# The same content under a second name is an update all the same: pods are replaced.
docker tag "$image:first" "$image:second"
kind load docker-image "$image:first" "$image:second" --name "$cluster"

step 'applying the manifests'
apply "$image:first"
wait_for_rollout

step 'adding two numbers'
node=$(k get nodes --output 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
url=http://$node:$(k get service "$service" --output 'jsonpath={.spec.ports[0].nodePort}')/
URL=$url or_diagnose "$url" scripts/smoke.sh

step 'updating under load'
begin_load AddUser 20
sleep "$poll_seconds"
apply "$image:second"
wait_for_rollout
or_diagnose 'the end of the old pods' wait_for 120 'the end of the old pods' no_pod_is_leaving
load_goes_on
sleep "$poll_seconds"
end_load AddUser
say "    $requests requests, $failures failed"
((failures == 0)) || { cat "$report/AddUser.log" >&2; fail "$failures of $requests requests failed during the update"; }
((requests >= least_requests)) || fail "only $requests requests were made: that proves nothing"

step 'burning CPU until the autoscaler adds pods'
begin_load MixedUser 20
or_diagnose 'the autoscaler' wait_for 420 'the autoscaler' more_pods_are_wanted
end_load MixedUser
say "    it wants $wanted pods"

cat <<EOF

Next steps:
  make kind KEEP=yes                         # the same, and the cluster stays
  kind delete cluster --name $cluster    # deletes it then
EOF
