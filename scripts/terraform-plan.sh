#!/usr/bin/env bash
# Shows what `make terraform-apply` would change in an environment of terraform/config, and keeps it for that. Changes
# nothing.
#
# Usage: make terraform-plan ENV=dev     or prod
#
# Needs terraform 1.11 or newer and aws with credentials.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=terraform-lib.sh
source scripts/terraform-lib.sh
help_asked "$@"

need_environment
need terraform aws
need_aws_credentials
need_state

step "planning $environment"
# An old one must not outlive a failure.
rm -f "$plan"
tf plan -input=false -var-file="config/$environment.tfvars" -out="$environment.tfplan"

cat <<EOF

Next steps:
  make terraform-apply ENV=$environment    # does exactly this, and IT COSTS MONEY: README, "EKS with Terraform"
EOF
