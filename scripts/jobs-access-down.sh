#!/usr/bin/env bash
# Shuts the service out of the cluster: deletes the access entries that `make jobs-access` made. Jobs that run go on. The
# pods' role stays, for what else it is for; it may still ask EKS where the cluster is.
#
# Usage: make jobs-access-down
#        STACK=…: the function's stack, if not samconfig.toml's.
#
# Needs aws with credentials.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=eks-lib.sh
source scripts/eks-lib.sh
# shellcheck source=jobs-lib.sh
source scripts/jobs-lib.sh
help_asked "$@"

shut_out() {
  if has_entry "$1"; then
    aws eks delete-access-entry --cluster-name "$cluster" --principal-arn "$1"
    say "    $1 is out now"
  else
    say "    $1 was not in"
  fi
}

need aws
need_aws_credentials
need_cluster

step 'shutting the pods out'
ask_pods_role
[[ -z $role ]] || shut_out "$role"

step 'shutting the function out'
ask_function_role
[[ -z $role ]] || shut_out "$role"

cat <<EOF

Next steps:
  make jobs-access     # lets them in again
EOF
