#!/usr/bin/env bash
# Deletes the minikube cluster that `make minikube` made, with everything in it. The image stays in Docker.
#
# Usage: make minikube-down
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
help_asked "$@"

need minikube docker
need_docker_running

step 'deleting the minikube cluster'
minikube --profile math-service delete

cat <<EOF

Next steps:
  make minikube                        # makes it again
  docker image rm $image       # the image too
EOF
