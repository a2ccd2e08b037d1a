#!/usr/bin/env bash
# Brings an image that is in a registry to the cluster, by a rolling update; asks it for its sum and version; and brings
# the former revision back when it does not become ready or answers wrongly. It then ends with an error.
#
# Usage: make rollout IMAGE=registry/my-math-service@sha256:… [EXPECT=1.2.3] [OVERLAY=base] [CONTEXT=…] [URL=https://…]
#        URL: where to ask, if not at the Service's load balancer. CONTEXT: of kubectl, if not the present one.
#
# Only the Deployment goes back. What else the manifests changed (limits of the autoscaler, policies) stays.
#
# Needs kubectl and curl.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
help_asked "$@"

new_image=${IMAGE:?give IMAGE=registry/my-math-service@sha256:…}
overlay=${OVERLAY:-base}

need kubectl curl
context=${CONTEXT:-$(kubectl config current-context)}
render "$overlay"

revision() { k get "$deployment" --ignore-not-found --output 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}'; }

has_hostname() {
  hostname=$(k get service "$service" --ignore-not-found --output 'jsonpath={.status.loadBalancer.ingress[0].hostname}') &&
    [[ -n $hostname ]]
}

# Where the service answers: at the URL that was given, or at its load balancer.
find_url() {
  if [[ -z ${URL:-} ]]; then
    wait_for 300 "the load balancer's name" has_hostname || return 1
    URL=http://$hostname/
  fi
}

rolled_out_and_right() {
  watch_k rollout status "$deployment" && find_url && URL=$URL scripts/smoke.sh
}

# Back to what ran before, which may be what runs now: then there is nothing to undo.
roll_back() {
  diagnose
  local present
  present=$(revision)
  if [[ -z $before ]]; then
    fail "$new_image does not work, and nothing ran here before: the pods stay for you to look at"
  elif [[ $present == "$before" ]]; then
    fail "revision $before does not work, and the same one ran before: there is nothing to go back to"
  fi
  step "going back to revision $before"
  k rollout undo "$deployment" --to-revision "$before"
  watch_k rollout status "$deployment" || fail "neither $new_image nor revision $before becomes ready"
  fail "$new_image does not work; revision $before runs again"
}

before=$(revision)
step "applying $overlay with $new_image"
apply "$new_image"
step "waiting for $new_image"
rolled_out_and_right || roll_back

cat <<EOF

Next steps:
  curl $URL -H 'content-type: application/json' -d '{"a":10,"b":5}'
  kubectl --context $context rollout undo $deployment    # back to the former revision
EOF
