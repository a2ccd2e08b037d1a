#!/usr/bin/env bash
# Runs the service on EKS: makes the cluster of cluster-config.yaml if there is none (about 15 minutes), cluster-autoscaler
# and the registry; builds and pushes the image, tagged with the commit; applies; waits for the load balancer and adds two
# numbers. The same command again updates what runs. IT COSTS ABOUT 10 $ A DAY until `make eks-down`.
#
# Usage: make eks [OVERLAY=base]     base, or a folder of k8s/overlays
#
# Needs aws with credentials, eksctl, kubectl, git and a running Docker.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=eks-lib.sh
source scripts/eks-lib.sh
help_asked "$@"

overlay=${OVERLAY:-base}

need_committed_sources() {
  local changed
  # What the image is built from is what .dockerignore lets in.
  # shellcheck disable=SC2046  # a list of words
  changed=$(git status --porcelain -- Dockerfile $(sed -n 's/^!//p' .dockerignore))
  [[ -z $changed ]] || fail "commit first: the image is tagged with the commit. Changed:"$'\n'"$changed"
}

# How many nodes hold the autoscaler's most pods. A t3.large has 1930m of CPU for pods; 230m of it go to those that every
# node runs and to the cluster's own.
nodes_for_every_replica() {
  awk '
    /^ *maxReplicas:/ { pods = $2 }
    /^ *requests:/ { requests = 1 }
    requests && /^ *cpu:/ { gsub(/"/, "", $2); cpu = $2 ~ /m$/ ? $2 + 0 : $2 * 1000; requests = 0 }
    END { each = int(1700 / cpu); if (each < 1) each = 1; print int((pods + each - 1) / each) }
  ' <<<"$manifests"
}

# settle STACK COMMAND...: runs the command if the stack is not there yet. One that an interrupted run began goes on
# without it, and is waited for.
settle() {
  local stack=$1
  shift
  stack_state "$stack"
  case $state in
    absent) "$@" ;;
    *CREATE_IN_PROGRESS)
      say '    it is being created'
      aws cloudformation wait stack-create-complete --stack-name "eksctl-$cluster-$stack"
      ;;
    CREATE_COMPLETE | UPDATE_COMPLETE) say '    it is there' ;;
    *) fail "the stack eksctl-$cluster-$stack is $state: make eks-down, and when all is deleted make eks again" ;;
  esac
}

configured_addons() {
  awk '/^addons:/ { on = 1; next } /^[a-zA-Z]/ { on = 0 } on && $2 == "name:" { print $3 }' cluster-config.yaml
}

# What `eksctl create cluster` does after the cluster's own stack; it may have been interrupted before.
create_missing_addons() {
  local there missing
  there=$(aws eks list-addons --cluster-name "$cluster" --query addons --output text)
  missing=$(configured_addons | grep -vxF "$(tr -s '[:space:]' '\n' <<<"$there")" || true)
  # eksctl leaves those alone that are there.
  [[ -z $missing ]] || eksctl create addon --config-file cluster-config.yaml
}

give_the_autoscaler_its_rights() {
  local there
  there=$(aws eks list-pod-identity-associations --cluster-name "$cluster" --namespace kube-system \
    --service-account cluster-autoscaler --query 'associations[].associationId' --output text)
  [[ -n $there ]] || eksctl create podidentityassociation --config-file cluster-config.yaml ||
    fail 'no rights for cluster-autoscaler. If a stack of that name exists, a run was interrupted between it and the
association: delete that stack in CloudFormation first'
}

need aws eksctl kubectl docker curl git
need_docker_running
need_aws_credentials
render "$overlay"
# It is for an image that no registry has.
! grep -q 'imagePullPolicy: Never' <<<"$manifests" || fail "the overlay $overlay is not for EKS"
need_committed_sources

registry=$account.dkr.ecr.$region.amazonaws.com
tag=$(git rev-parse --short HEAD)

step "looking for the cluster $cluster in $region (creating it takes about 15 minutes)"
settle cluster eksctl create cluster --config-file cluster-config.yaml
step 'looking for the add-ons'
# Before the nodes: those are ready only with the network's.
create_missing_addons
step 'looking for the nodes'
settle "nodegroup-$node_group" eksctl create nodegroup --config-file cluster-config.yaml
aws eks wait nodegroup-active --cluster-name "$cluster" --nodegroup-name "$node_group"
use_cluster
bring_nodes_back

needed=$(nodes_for_every_replica)
most=$(ask_node_group maxSize)
if ((needed > most)); then
  step "allowing $needed nodes, so that every replica of $overlay fits"
  aws eks update-nodegroup-config --cluster-name "$cluster" --nodegroup-name "$node_group" --scaling-config "maxSize=$needed" >/dev/null
  aws eks wait nodegroup-active --cluster-name "$cluster" --nodegroup-name "$node_group"
fi

step 'installing cluster-autoscaler'
give_the_autoscaler_its_rights
k apply --filename k8s/cluster-autoscaler.yaml
or_diagnose cluster-autoscaler watch_k rollout status deployment/cluster-autoscaler --namespace kube-system
wait_for_metrics

step "looking for the registry's repository"
if ! exists RepositoryNotFoundException aws ecr describe-repositories --repository-names "$image"; then
  step 'creating the repository'
  aws ecr create-repository --repository-name "$image" --image-tag-mutability IMMUTABLE \
    --image-scanning-configuration scanOnPush=true >/dev/null
fi

step "looking for the image $image:$tag"
if exists ImageNotFoundException aws ecr describe-images --repository-name "$image" --image-ids "imageTag=$tag"; then
  say '    it was pushed already'
else
  step 'building the image'
  # The nodes are amd64, whatever this machine is.
  build "$registry/$image:$tag" linux/amd64
  step 'pushing the image'
  aws ecr get-login-password | docker login --username AWS --password-stdin "$registry"
  docker push "$registry/$image:$tag"
fi

step "applying $overlay"
apply "$registry/$image:$tag"
wait_for_rollout

if grep -q 'type: LoadBalancer' <<<"$manifests"; then
  step 'waiting for the load balancer'
  wait_for 300 'its name' has_hostname ||
    { k describe service "$service" >&2 || true; diagnose; fail 'the load balancer has no name in time'; }
  url=http://$hostname/
  step "adding two numbers at $url (new balancers take two to three minutes)"
  or_diagnose "$url" wait_for 600 "$url" adds "$url"
  say '    10 + 5 is 15'
  reach="curl $url -H 'content-type: application/json' -d '{\"a\":10,\"b\":5}'
  locust -H $url"
else
  reach="kubectl --context $context get ingress    # point your certificate's name at its address"
fi

cat <<EOF

Next steps:
  $reach
  kubectl --context $context get hpa --watch
  make eks           # after a commit, or with another OVERLAY
  make eks-pause     # no nodes: the cluster and the balancer still cost
  make eks-down      # deletes everything; until then it costs about 10 \$ a day
EOF
