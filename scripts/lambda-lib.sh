#!/usr/bin/env bash
# What the Lambda scripts share: which stack, and where; samconfig.toml says what nobody else does. Sourced, after lib.sh.
# shellcheck disable=SC2034,SC2154  # variables that lib.sh sets, or that the scripts read
# shellcheck source=lib.sh

stack=${STACK:-$(sed -n 's/^stack_name = "\(.*\)"/\1/p' samconfig.toml)}
# To sam it is an option: its own file would overrule the variable.
region=${AWS_REGION:-$(sed -n 's/^region = "\(.*\)"/\1/p' samconfig.toml)}
export AWS_REGION=$region AWS_DEFAULT_REGION=$region AWS_PAGER='' SAM_CLI_TELEMETRY=0
# `make tools` installs sam here, for those who have no other.
PATH=$PATH:$PWD/.tools/venv/bin

# ask_stack QUERY: whether the stack exists, with the answer in `answer`.
ask_stack() {
  exists 'does not exist' aws cloudformation describe-stacks --stack-name "$stack" --query "$1" --output text
}

# What an interrupted run began goes on without it; until it ended, CloudFormation takes no other order.
stack_is_at_rest() {
  ask_stack 'Stacks[0].StackStatus' || answer=absent
  state=$answer
  # A change set that was never executed: nothing goes on there.
  [[ $state == REVIEW_IN_PROGRESS || $state != *_IN_PROGRESS ]]
}
