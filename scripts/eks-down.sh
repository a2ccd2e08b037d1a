#!/usr/bin/env bash
# Deletes what `make eks` made: the load balancer first, which is not eksctl's and would be left behind, then the
# cluster (about 15 minutes). The registry's images stay unless asked.
#
# Usage: make eks-down [DELETE_IMAGES=yes]
#
# Needs aws with credentials, eksctl and kubectl.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=eks-lib.sh
source scripts/eks-lib.sh
help_asked "$@"

need aws eksctl kubectl
need_aws_credentials

step "looking for the cluster $cluster in $region"
stack_state cluster
if [[ $state == absent ]]; then
  say '    there is none'
else
  # The stack outlives the cluster: after an interruption there may be no cluster to talk to.
  if exists ResourceNotFoundException aws eks describe-cluster --name "$cluster" \
    --query 'cluster.[status, resourcesVpcConfig.vpcId]' --output text; then
    read -r status network <<<"$answer"
    if [[ $status == ACTIVE ]]; then
      use_cluster
      step 'deleting the Service, and with it the load balancer'
      k delete ingress math-service-ingress --ignore-not-found --wait=false
      k delete service "$service" --ignore-not-found --wait=false
    fi
    balancers=''
    wait_for 600 'the load balancer to go' no_balancer_is_left_in "$network" ||
      fail "the cluster stays, because a load balancer in its network would stay too: ${balancers:-AWS does not tell which}"
  fi
  step 'deleting the cluster (about 15 minutes)'
  # Without the flag eksctl would wait for pods that their disruption budgets do not let go.
  eksctl delete cluster --config-file cluster-config.yaml --disable-nodegroup-eviction --wait
fi

kept="aws ecr delete-repository --region $region --repository-name $image --force    # the images, which still cost a little"
if [[ ${DELETE_IMAGES:-no} == yes ]]; then
  step "deleting the registry's images"
  if exists RepositoryNotFoundException aws ecr describe-repositories --repository-names "$image"; then
    aws ecr delete-repository --repository-name "$image" --force >/dev/null
  fi
  kept='# nothing is left that costs'
fi

cat <<EOF

Next steps:
  $kept
  make eks     # makes it all again
EOF
