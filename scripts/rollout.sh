#!/usr/bin/env bash
# Brings an image that is in a registry to the cluster, by a rolling update; asks it for its sum, version and health; and
# brings the former revision back when it does not become ready or answers wrongly. It then ends with an error.
#
# Usage: make rollout IMAGE=registry/my-math-service@sha256:… [EXPECT=1.2.3] [OVERLAY=base] [CONTEXT=…] [URL=https://…]
#        URL: where to ask, if not at the Service's load balancer. CONTEXT: of kubectl, if not the present one.
#        STATE_URL=dynamodb://…: the table, for an overlay that names one; CLUSTER=… AWS_REGION=…: the cluster and where
#        it is, for one that manages Jobs. `make terraform-apply` ends with all three. CERTIFICATE_ARN=…: for one with the
#        component alb, if not the one that its ingress.yaml has.
#
# Only the Deployment goes back. What else the manifests changed (limits of the autoscaler, policies) stays. Rights are
# never changed: an administrator applies those (docs/operations.md, Releases).
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

# this_environments SETTING VARIABLE: where the manifests give the pods that setting, they name what cluster-config.yaml's
# cluster has; here it becomes what the variable names. A value that a Secret holds stays there.
this_environments() {
  local written
  written=$(sed -n "/- name: $1\$/{n;s/^ *value: //p;}" <<<"$manifests")
  [[ -n $written ]] || return 0
  [[ -n ${!2:-} ]] || fail "k8s/overlays/$overlay needs $2=…, this environment's own; in git it is $written"
  [[ ${!2} =~ ^[a-zA-Z0-9:/?=._-]+$ ]] || fail "$2 holds characters that no $1 of $overlay has"
  manifests=$(sed "/- name: $1\$/{n;s|value: .*|value: ${!2}|;}" <<<"$manifests")
}

# The certificate of the component alb: git's, where it has one and nobody says another.
this_environments_certificate() {
  local arn=${CERTIFICATE_ARN:-}
  if [[ -n $arn ]]; then
    [[ $arn =~ ^arn:[a-zA-Z0-9:/-]+$ ]] || fail 'CERTIFICATE_ARN is no ARN'
    manifests=$(sed "/^ *alb.ingress.kubernetes.io\/certificate-arn:/s|: .*|: $arn|" <<<"$manifests")
  elif [[ $manifests == *certificate/REPLACE-ME* ]]; then
    fail "k8s/overlays/$overlay needs CERTIFICATE_ARN=…, this environment's own, or yours in k8s/components/alb/ingress.yaml"
  fi
}

# What a role that edits one namespace, as a workflow's does, may not even look at: rights, and kinds of an operator's.
leave_rights_to_administrators() {
  local theirs='^kind: ((Cluster)?Role(Binding)?|ServiceMonitor)$' left
  left=$(sed -En "s/$theirs/\1/p" <<<"$manifests" | tr '\n' ' ')
  [[ -n $left ]] || return 0
  say "    left to an administrator: $left"
  manifests=$(awk -v theirs="$theirs" '
    function finish() { if (!is_theirs) printf "%s", document; document = ""; is_theirs = 0 }
    /^---$/ { finish() }
    { document = document $0 "\n" }
    $0 ~ theirs { is_theirs = 1 }
    END { finish() }' <<<"$manifests")
}

this_environments STATE_URL STATE_URL
this_environments EKS_CLUSTER_NAME CLUSTER
this_environments EKS_REGION AWS_REGION
this_environments_certificate
leave_rights_to_administrators

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
