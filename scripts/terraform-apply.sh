#!/usr/bin/env bash
# Does what `make terraform-plan` showed, and nothing else: a cluster takes about 20 minutes. IT COSTS ABOUT 11 $ A DAY
# (dev; prod 15 $) until `make terraform-destroy`.
#
# Usage: make terraform-apply ENV=dev     or prod
#
# Needs terraform 1.11 or newer and aws with credentials.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=terraform-lib.sh
source scripts/terraform-lib.sh
help_asked "$@"

need_environment
need terraform aws
[[ -r $plan ]] || fail "there is no plan of $environment: make terraform-plan ENV=$environment shows what would be done"
changed=$(find terraform -name '*.tf' -newer "$plan" -o -path "terraform/config/$environment.tfvars" -newer "$plan")
[[ -z $changed ]] || fail "the plan is older than these: make terraform-plan ENV=$environment again"$'\n'"$changed"
need_aws_credentials
need_state

step "applying the plan of $environment"
tf apply -input=false "$environment.tfplan"
# What was done cannot be done again.
rm -f "$plan"
read_outputs

cat <<EOF

Next steps:
  $(output kubectl_command)
  export AWS_REGION=$(output region)
  export CLUSTER=$(output cluster_name)
  export REPOSITORY=$(output registry_url)
  export STATE_URL='$(output state_url)'
                                             # and README, "EKS with Terraform", goes on from here
  make terraform-destroy ENV=$environment    # deletes everything; until then it costs
EOF
