#!/usr/bin/env bash
# Brings back the nodes that `make eks-pause` took away, as many as cluster-config.yaml says, and waits for the service.
#
# Usage: make eks-resume
#
# Needs aws with credentials, eksctl and kubectl.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=eks-lib.sh
source scripts/eks-lib.sh
help_asked "$@"

need aws eksctl kubectl curl
need_aws_credentials
need_cluster
use_cluster

step 'bringing the nodes back'
bring_nodes_back

step 'starting cluster-autoscaler'
k apply --filename k8s/cluster-autoscaler.yaml
or_diagnose cluster-autoscaler watch_k rollout status deployment/cluster-autoscaler --namespace kube-system
wait_for_metrics
wait_for_rollout

reach='make eks    # there is no load balancer'
ask_hostname
if [[ -n $hostname ]]; then
  url=http://$hostname/
  step "adding two numbers at $url"
  or_diagnose "$url" wait_for 300 "$url" adds "$url"
  say '    10 + 5 is 15'
  reach="curl $url -H 'content-type: application/json' -d '{\"a\":10,\"b\":5}'"
fi

cat <<EOF

Next steps:
  $reach
  make eks-pause     # takes the nodes away again
  make eks-down      # deletes everything
EOF
