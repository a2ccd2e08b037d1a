#!/usr/bin/env bash
# Makes what an account needs once: the bucket of Terraform's states, and with GITHUB_REPOSITORY the roles of workflows
# that plan and apply. The same command again changes what changed. Costs cents a month.
#
# Usage: make terraform-bootstrap [GITHUB_REPOSITORY=owner/name]
#
# Needs terraform 1.11 or newer and aws with credentials. Asks before it changes anything.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=terraform-lib.sh
source scripts/terraform-lib.sh
help_asked "$@"

folder=terraform/bootstrap
override=$folder/backend_override.tf
# Where the state is until the bucket is there.
local_state=$folder/terraform.tfstate

bootstrap() { terraform -chdir=$folder "$@"; }

make_the_bucket() {
  # It replaces the backend of backend.tf, which is not there yet.
  printf 'terraform {\n  backend "local" {}\n}\n' >$override
  bootstrap init -reconfigure
  bootstrap apply -target=aws_s3_bucket.state
}

export TF_VAR_github_repository=${GITHUB_REPOSITORY:-}
need terraform aws
need_aws_credentials

step "looking for the bucket $(bucket)"
if ! bucket_exists; then
  step "making the bucket $(bucket)"
  make_the_bucket
fi
rm -f $override
if [[ -s $local_state ]]; then
  step "moving the state into the bucket"
  bootstrap init -migrate-state -force-copy -backend-config="bucket=$(bucket)"
  rm -f $local_state $local_state.backup
fi

step 'applying'
bootstrap init -reconfigure -backend-config="bucket=$(bucket)"
bootstrap apply

cat <<EOF

Next steps:
  make terraform-plan ENV=dev
EOF
