#!/usr/bin/env bash
# Runs the service on AWS Lambda behind an HTTP API: builds, deploys, adds two numbers. The same command again updates
# it. THE API IS PUBLIC; it costs nothing while nobody calls it.
#
# Usage: make lambda [ARCHITECTURE=arm64]     or x86_64
#        STACK=…, AWS_REGION=…: the stack and where it is, if not samconfig.toml's.
#        PARAMETERS='A=b C=d': more of template.yaml's parameters.
#        ROLE_ARN=…: the role that CloudFormation takes, where yours may only pass it one.
#        BUILD=no: deploys what `sam build` or `make bundle` made before. EXPECT=1.2.3: the version that is to answer.
#
# With EKS_CLUSTER_NAME=… it manages Jobs there, once `make jobs-access` let it in, in JOBS_NAMESPACES=… and of
# JOBS_IMAGES=…; with EKS_CLUSTERS=name@region,… in those too. Callers then sign in with tokens of OIDC_ISSUER=… for
# OIDC_AUDIENCE=…. What was given once stays until it is given anew.
#
# Needs sam, aws with credentials, Rust from rustup, make and curl. `make lambda-down` ends it.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lambda-lib.sh
source scripts/lambda-lib.sh
help_asked "$@"

# A word each, as sam takes them.
read -ra parameters <<<"Architecture=${ARCHITECTURE:-arm64} ${PARAMETERS:-}"
[[ -z ${EKS_CLUSTER_NAME:-} ]] || parameters+=("EksClusterName=$EKS_CLUSTER_NAME")
[[ -z ${EKS_CLUSTERS:-} ]] || parameters+=("EksClusters=$EKS_CLUSTERS")
[[ -z ${JOBS_NAMESPACES:-} ]] || parameters+=("JobsNamespaces=$JOBS_NAMESPACES")
[[ -z ${JOBS_IMAGES:-} ]] || parameters+=("JobsImages=$JOBS_IMAGES")
[[ -z ${OIDC_ISSUER:-} ]] || parameters+=("OidcIssuer=$OIDC_ISSUER" "OidcAudience=${OIDC_AUDIENCE:-}")

deploy=()
[[ -z ${ROLE_ARN:-} ]] || deploy+=(--role-arn "$ROLE_ARN")

need sam aws cargo rustup make curl
need_aws_credentials

step "looking for the stack $stack in $region"
wait_for 900 'what is under way there' stack_is_at_rest || fail "the stack is still $state"
case $state in
  ROLLBACK_COMPLETE | *_FAILED) fail "the stack is $state, and can only be deleted: make lambda-down, then make lambda again" ;;
  *) say "    $state" ;;
esac

if [[ ${BUILD:-yes} != no ]]; then
  step 'building'
  sam build --parameter-overrides "${parameters[@]}"
fi

step 'deploying'
sam deploy --stack-name "$stack" --region "$region" ${deploy[@]+"${deploy[@]}"} --parameter-overrides "${parameters[@]}" --no-confirm-changeset --no-fail-on-empty-changeset --no-progressbar

step 'adding two numbers'
ask_stack "Stacks[0].Outputs[?OutputKey=='Url'].OutputValue" || fail "the stack $stack is gone"
url=$answer
wait_for 120 "$url" adds "$url" || fail "$url does not answer; sam logs --stack-name $stack tells why"
say "    10 + 5 is 15 at $url"
if [[ -n ${EXPECT:-} ]]; then
  step "asking for version $EXPECT"
  URL=$url scripts/smoke.sh
fi
# For the next step of a workflow.
[[ -z ${GITHUB_OUTPUT:-} ]] || echo "url=$url" >>"$GITHUB_OUTPUT"

cat <<EOF

Next steps:
  curl $url -H 'content-type: application/json' -d '{"a":10,"b":5}'
  sam logs --stack-name $stack --region $region --tail
  make parity URL=$url
  make lambda          # after a change
  make lambda-down     # ends it
EOF
