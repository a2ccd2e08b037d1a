#!/usr/bin/env bash
# What the setup scripts share: what they check before they change anything, how they report, wait and stop. Sourced.
# shellcheck disable=SC2034  # the scripts that source this read its variables
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The machine of the tests is faster than a cloud.
poll_seconds=${POLL_SECONDS:-5}
image=my-math-service
deployment=deployment/math-service-deployment
service=math-service-service
# The kubectl context that every call names: whichever cluster the user last looked at stays untouched.
context=''
step=''
# What a command printed that was asked by `exists`.
answer=''
errors=$(mktemp)

trap 'finished $?' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { echo "$*"; }

step() {
  step=$*
  say "==> $step"
}

fail() {
  echo "error: $*" >&2
  exit 1
}

# The last word of a run that did not succeed, be it by a failure or by Ctrl-C.
finished() {
  rm -f "$errors"
  case $1:$step in
    0:* | 2:) ;;
    *:) echo "Nothing was changed." >&2 ;;
    130:* | 143:*) echo "Interrupted while $step. What is done stays done: the same command continues." >&2 ;;
    *) echo "Failed while $step. What is done stays done: mend what is said above, and the same command continues." >&2 ;;
  esac
}

# help_asked "$@": prints the script's opening comment on --help; there are no other arguments.
help_asked() {
  [[ $# == 0 ]] && return
  if [[ $# == 1 && $1 =~ ^(-h|--help)$ ]]; then
    sed -n '2,/^# shellcheck/{/^# shellcheck/!s/^# \{0,1\}//p;}' "scripts/$(basename "$0")"
    exit 0
  fi
  echo "error: unknown argument: $* (try --help)" >&2
  exit 2
}

how_to_get() {
  case $1 in
    aws) echo 'https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html' ;;
    cargo | rustup) echo 'https://rustup.rs' ;;
    docker) echo 'https://docs.docker.com/get-started/get-docker/' ;;
    eksctl) echo 'https://docs.aws.amazon.com/eks/latest/eksctl/installation.html' ;;
    kubectl) echo 'https://kubernetes.io/docs/tasks/tools/' ;;
    minikube) echo 'https://minikube.sigs.k8s.io/docs/start/' ;;
    sam) echo 'https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/install-sam-cli.html, or run: make tools' ;;
    terraform) echo 'https://developer.hashicorp.com/terraform/install' ;;
    *) echo "install the package $1 of your system" ;;
  esac
}

# need TOOL...: all that is missing is said at once.
need() {
  local tool missing=''
  for tool; do
    command -v "$tool" >/dev/null || missing+=$'\n'"  $tool: $(how_to_get "$tool")"
  done
  [[ -z $missing ]] || fail "not installed:$missing"
}

need_docker_running() {
  docker info >/dev/null 2>"$errors" || fail "Docker does not answer; start it first. It says: $(tail -n 1 "$errors")"
}

need_aws_credentials() {
  account=$(aws sts get-caller-identity --query Account --output text 2>"$errors") ||
    fail "AWS refuses these credentials; log in again (aws configure, or aws sso login). It says: $(tail -n 1 "$errors")"
}

# exists NOT_FOUND COMMAND...: whether AWS has it, and in `answer` what it said. Only the error NOT_FOUND means no:
# anything else (no network, no right) must not look like an absence, which would create things twice.
exists() {
  local not_found=$1
  shift
  answer=$("$@" 2>"$errors") && return 0
  grep -q -- "$not_found" "$errors" && return 1
  fail "$(cat "$errors")"
}

# wait_for DEFAULT_SECONDS WHAT COMMAND...: asks until the command succeeds, and once more when the time is over, so that a
# slow answer is never the only one; WAIT_SECONDS overrides every limit.
wait_for() {
  local limit=${WAIT_SECONDS:-$1} what=$2 over
  shift 2
  local deadline=$((SECONDS + limit)) told=$SECONDS
  while true; do
    over=$((SECONDS >= deadline))
    "$@" && return
    ((!over)) || return 1
    if ((SECONDS - told >= 30)); then
      told=$SECONDS
      say "    still waiting for $what ($((deadline - SECONDS)) s left)"
    fi
    sleep "$poll_seconds"
  done
}

k() { kubectl --context "$context" --request-timeout 30s "$@"; }

# watch_k COMMAND... --timeout: for commands with a limit of their own, which --request-timeout would cut short.
watch_k() { kubectl --context "$context" "$@" --timeout "${WAIT_SECONDS:-300}s"; }

# What one would look at next, when something does not become ready.
diagnose() {
  {
    echo "--- kubectl get nodes"
    k get nodes || true
    echo "--- kubectl get pods"
    k get pods --all-namespaces --output wide || true
    echo "--- kubectl describe pods"
    k describe pods --selector app=math-service || true
    echo "--- kubectl get events"
    k get events --sort-by .lastTimestamp | tail -n 30 || true
  } >&2
}

# no_balancer_is_left_in NETWORK, with those that are in `balancers`: every balancer in the cluster's own network, whoever
# asked for it. Each would keep the network from being deleted.
no_balancer_is_left_in() {
  local classic others
  # A question that fails is no answer.
  classic=$(aws elb describe-load-balancers --query "LoadBalancerDescriptions[?VPCId=='$1'].LoadBalancerName" --output text) &&
    others=$(aws elbv2 describe-load-balancers --query "LoadBalancers[?VpcId=='$1'].LoadBalancerName" --output text) || return 1
  balancers=$classic${others:+ $others}
  [[ -z $balancers ]]
}

# or_diagnose WHAT COMMAND...
or_diagnose() {
  local what=$1
  shift
  "$@" || { diagnose; fail "$what is not ready in time"; }
}

# render OVERLAY: the manifests, with the image left as it is in git.
render() {
  local folder=k8s/overlays/$1
  [[ $1 != base ]] || folder=k8s/base
  [[ -d $folder ]] || fail "no overlay $1; there are: base $(cd k8s/overlays && echo *)"
  manifests=$(kubectl kustomize "$folder")
  # Otherwise the image would silently stay whatever it is.
  grep -q " $image:latest\$" <<<"$manifests" || fail "$folder does not run $image:latest"
}

# apply IMAGE: the image is rewritten on the way, so that no account number gets into git.
apply() {
  k apply --filename - <<<"${manifests//$image:latest/$1}"
}

# build TAG PLATFORM
build() {
  local version revision
  version=$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)
  revision=$(git rev-parse HEAD)
  DOCKER_BUILDKIT=1 docker build --platform "$2" --tag "$1" --build-arg VERSION="$version" --build-arg REVISION="$revision" .
}

# Asked again and again: `kubectl wait` gives up at once on what is not there yet.
metrics_are_served() { k wait --for condition=Available apiservice/v1beta1.metrics.k8s.io --timeout 5s >/dev/null 2>&1; }

# The metrics come from metrics-server, and a HorizontalPodAutoscaler without them does nothing.
wait_for_metrics() { or_diagnose metrics-server wait_for 300 metrics-server metrics_are_served; }

wait_for_rollout() {
  or_diagnose "the rollout" watch_k rollout status "$deployment"
}

# adds URL: whether it adds. The longest wait is the demo overlay's, of 5 s.
adds() {
  [[ $(curl --silent --max-time 20 "$1" --header 'content-type: application/json' --data '{"a":10,"b":5}') == '{"result":15.0}' ]]
}
