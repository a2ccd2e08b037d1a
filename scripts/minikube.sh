#!/usr/bin/env bash
# Runs the service on this machine, in a minikube cluster of its own: starts it with metrics-server, builds and loads
# the image, applies, waits, adds two numbers. The same command again updates what runs.
#
# Usage: make minikube [OVERLAY=minikube]     the folder of k8s/overlays to apply, or base
#
# Needs minikube 1.33 or newer, kubectl and a running Docker. `make minikube-down` ends it.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
help_asked "$@"

# A cluster of its own, so that minikube-down deletes nothing else.
context=math-service
overlay=${OVERLAY:-minikube}

need minikube kubectl docker curl git
need_docker_running
render "$overlay"

m() { minikube --profile "$context" "$@"; }

node_is_reachable() {
  [[ $(uname -s) == Linux && $(docker info --format '{{.OperatingSystem}}') != 'Docker Desktop' ]]
}

step 'starting minikube'
if m status >/dev/null 2>&1; then
  say "    it runs already"
else
  m start --driver docker
fi

step 'switching metrics-server on'
m addons enable metrics-server
wait_for_metrics

step 'building the image'
build "$image" "linux/$(k get nodes --output 'jsonpath={.items[0].status.nodeInfo.architecture}')"
# Named after its content: minikube does not replace a tag that a pod uses, and an unchanged image restarts nothing.
tag=$image:$(docker image inspect --format '{{.Id}}' "$image" | sed 's/^sha256://' | cut -c 1-12)

step "loading $tag into minikube"
loaded=$(m image ls)
if grep -q "$tag\$" <<<"$loaded"; then
  say "    it is there already"
else
  docker tag "$image" "$tag"
  m image load "$tag"
fi

step "applying $overlay"
apply "$tag"
wait_for_rollout

step 'adding two numbers'
if node_is_reachable; then
  url=http://$(m ip):$(k get service "$service" --output 'jsonpath={.spec.ports[0].nodePort}')/
  or_diagnose "$url" wait_for 60 "$url" adds "$url"
  say "    10 + 5 is 15 at $url"
  reach="curl $url -H 'content-type: application/json' -d '{\"a\":10,\"b\":5}'
  locust -H $url"
else
  # Docker runs in a virtual machine here: the node's address leads nowhere without a tunnel.
  or_diagnose 'the service' wait_for 60 'the service' \
    k get --raw "/api/v1/namespaces/default/services/$service:http/proxy/healthz"
  reach="minikube --profile $context service $service --url    # prints the URL, and must stay open"
fi

cat <<EOF

Next steps:
  $reach
  kubectl --context $context get hpa --watch
  make minikube          # after a change
  make minikube-down     # ends it
EOF
