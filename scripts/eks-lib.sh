#!/usr/bin/env bash
# What the EKS scripts share: the cluster of cluster-config.yaml, and how far it has come. Sourced, after lib.sh.
# shellcheck disable=SC2034,SC2154  # variables that lib.sh sets, or that the scripts read
# shellcheck source=lib.sh

# setting SECTION KEY: the first such value in a section of cluster-config.yaml.
setting() {
  awk -v section="$1:" -v key="$2:" '
    /^[a-zA-Z]/ { inside = ($1 == section) }
    inside { for (i = 1; i < NF; i++) if ($i == key) { gsub(/"/, "", $(i + 1)); print $(i + 1); exit } }
  ' cluster-config.yaml
}

cluster=$(setting metadata name)
region=$(setting metadata region)
node_group=$(setting managedNodeGroups name)
min_nodes=$(setting managedNodeGroups minSize)
nodes=$(setting managedNodeGroups desiredCapacity)
max_nodes=$(setting managedNodeGroups maxSize)
context=$cluster
# cluster-config.yaml decides where, whatever the terminal says. Version 1 of the AWS CLI reads the second only.
export AWS_REGION=$region AWS_DEFAULT_REGION=$region
# Nothing stops to be read page by page.
export AWS_PAGER=''

# stack_state NAME: the state of a CloudFormation stack of eksctl's, or `absent`. The stack exists before what it makes
# does, and outlives it: it tells what an interrupted run left behind.
stack_state() {
  state=absent
  if exists 'does not exist' aws cloudformation describe-stacks --stack-name "eksctl-$cluster-$1" \
    --query 'Stacks[0].StackStatus' --output text; then
    state=$answer
  fi
}

need_cluster() {
  stack_state cluster
  [[ $state != absent ]] || fail "there is no cluster $cluster in $region; make eks creates it"
}

# A context of our own name, made anew because the credentials behind it may have changed.
use_cluster() {
  aws eks update-kubeconfig --name "$cluster" --alias "$context" >/dev/null
}

# Whether there are COUNT nodes, all of them ready.
nodes_are_ready() {
  local count
  count=$(k get nodes --output 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' |
    awk '$1 != "True" { bad = 1 } { n++ } END { print bad ? 0 : n + 0 }')
  ((count >= $1))
}

# A question that fails is no answer: each of these is false when kubectl or AWS cannot be asked.
no_node_is_left() { local left && left=$(k get nodes --output name) && [[ -z $left ]]; }

ask_node_group() {
  aws eks describe-nodegroup --cluster-name "$cluster" --nodegroup-name "$node_group" \
    --query "nodegroup.scalingConfig.$1" --output text
}

# bring_nodes_back: as many as cluster-config.yaml says, if there are to be none.
bring_nodes_back() {
  local wanted
  wanted=$(ask_node_group desiredSize)
  # Every other number is the autoscaler's business. The maximum stays what it is.
  if ((wanted == 0)); then
    eksctl scale nodegroup --cluster "$cluster" --name "$node_group" --nodes "$nodes" --nodes-min "$min_nodes"
  fi
  or_diagnose 'a node' wait_for 600 'the nodes' nodes_are_ready "$min_nodes"
}

ask_hostname() {
  hostname=$(k get service "$service" --ignore-not-found --output 'jsonpath={.status.loadBalancer.ingress[0].hostname}')
}

has_hostname() { ask_hostname && [[ -n $hostname ]]; }
