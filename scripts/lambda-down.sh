#!/usr/bin/env bash
# Deletes what `make lambda` made, with its logs. The bucket that SAM keeps bundles in, shared by all its stacks, stays.
#
# Usage: make lambda-down [STACK=… AWS_REGION=…]     the stack and where it is, if not samconfig.toml's
#
# Needs sam and aws with credentials.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=lambda-lib.sh
source scripts/lambda-lib.sh
help_asked "$@"

need sam aws
need_aws_credentials

step "looking for the stack $stack in $region"
wait_for 900 'what is under way there' stack_is_at_rest || fail "the stack is still $state"
if [[ $state == absent ]]; then
  say '    there is none'
else
  step 'deleting the stack'
  sam delete --stack-name "$stack" --region "$region" --no-prompts
fi

cat <<EOF

Next steps:
  make lambda     # makes it again
EOF
