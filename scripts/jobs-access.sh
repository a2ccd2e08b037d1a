#!/usr/bin/env bash
# Lets the service manage Jobs on the cluster of cluster-config.yaml: makes sure that its pods' role may ask EKS for the
# cluster, and gives that role an access entry, in the group that k8s/components/jobs binds. The Lambda function's role gets
# one too, if it was deployed with EksClusterName. No key and no kubeconfig is made; the account is that of your
# credentials. The same command again changes nothing.
#
# Usage: make jobs-access
#        STACK=…: the function's stack, if not samconfig.toml's.
#
# Needs aws with credentials and eksctl. `make jobs-access-down` takes it back.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=eks-lib.sh
source scripts/eks-lib.sh
# shellcheck source=jobs-lib.sh
source scripts/jobs-lib.sh
help_asked "$@"

let_in() {
  if ! has_entry "$1"; then
    aws eks create-access-entry --cluster-name "$cluster" --principal-arn "$1" --type STANDARD --kubernetes-groups "$group" >/dev/null
    say "    $1 is in now"
  elif [[ $answer == "$group" ]]; then
    say "    $1 is in already"
  else
    aws eks update-access-entry --cluster-name "$cluster" --principal-arn "$1" --kubernetes-groups "$group" >/dev/null
    say "    $1 was in, with other groups"
  fi
}

need aws eksctl
need_aws_credentials
need_cluster

step "looking for the pods' role"
ask_pods_role
if [[ -z $role ]]; then
  step "making the pods' role"
  eksctl create podidentityassociation --config-file cluster-config.yaml
  ask_pods_role
  [[ -n $role ]] || fail 'the pods have no role still'
else
  # A cluster that was made by an older file lets it ask for the table only. Nothing happens where nothing differs.
  eksctl update podidentityassociation --config-file cluster-config.yaml
fi

step 'letting the pods in'
let_in "$role"

step 'looking for a function'
ask_function_role
if [[ -n $role ]]; then
  step 'letting the function in'
  let_in "$role"
else
  say "    none is deployed for this cluster in $region, by the stack $stack"
fi

cat <<EOF

Next steps:
  kubectl create secret generic math-service-tokens --from-file=tokens     # README, Who may call what
  make eks OVERLAY=jobs
  make jobs-access-down     # takes it back
EOF
