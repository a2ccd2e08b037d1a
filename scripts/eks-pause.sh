#!/usr/bin/env bash
# Takes the nodes away and keeps the cluster: nothing answers until `make eks-resume`. The cluster, its NAT gateway and
# the load balancer still cost. The last pods may hold their nodes for up to half an hour.
#
# Usage: make eks-pause
#
# Needs aws with credentials, eksctl and kubectl.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=eks-lib.sh
source scripts/eks-lib.sh
help_asked "$@"

need aws eksctl kubectl
need_aws_credentials
need_cluster
use_cluster

no_autoscaler_runs() {
  local running
  running=$(k get pods --namespace kube-system --selector app=cluster-autoscaler --output name) && [[ -z $running ]]
}

step 'stopping cluster-autoscaler'
# It would answer the pods that lose their node with a new one.
autoscaler=$(k get deployment cluster-autoscaler --namespace kube-system --ignore-not-found --output name)
[[ -z $autoscaler ]] || k scale "$autoscaler" --namespace kube-system --replicas 0
or_diagnose 'its end' wait_for 120 'its end' no_autoscaler_runs

step 'taking the nodes away'
wanted=$(ask_node_group desiredSize)
((wanted == 0)) || eksctl scale nodegroup --cluster "$cluster" --name "$node_group" --nodes 0 --nodes-min 0
# Disruption budgets keep a last pod on its node; EKS takes the node all the same, after a while.
wait_for 2400 'the nodes to go' no_node_is_left || fail 'some nodes are still there, and cost'

cat <<EOF

Next steps:
  make eks-resume    # brings the nodes back
  make eks-down      # deletes everything, which alone ends the costs
EOF
