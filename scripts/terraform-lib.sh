#!/usr/bin/env bash
# What the Terraform scripts share: an environment of terraform/config, and where its state is. Sourced, after lib.sh.
# shellcheck disable=SC2034,SC2154  # variables that lib.sh sets, or that the scripts read
# shellcheck source=lib.sh

environment=${ENV:-}
# The bucket of the states, whose own region this is.
state_region=$(sed -n 's/^ *region *= "\(.*\)"/\1/p' terraform/backend.tf)
export AWS_PAGER='' AWS_REGION=$state_region AWS_DEFAULT_REGION=$state_region

# A file of its own for each environment: what was shown for one is never applied to another.
plan=terraform/$environment.tfplan

tf() { terraform -chdir=terraform "$@"; }

need_environment() {
  [[ -n $environment && -r terraform/config/$environment.tfvars ]] || fail "which environment? ENV=${environment:-…} is none; there are: $(known_environments)"
  # Two environments in turn do not share what `init` remembers.
  export TF_DATA_DIR=.terraform/$environment
}

known_environments() { (cd terraform/config && echo *.tfvars) | sed 's/\.tfvars//g'; }

# As terraform/bootstrap names it.
bucket() { echo "math-service-terraform-$account"; }

bucket_exists() {
  exists '(404)' aws s3api head-bucket --bucket "$(bucket)"
}

need_state() {
  step "opening the state of $environment in $(bucket)"
  bucket_exists || fail "there is no bucket for it: make terraform-bootstrap makes it, once in an account"
  # Whatever bucket another account's credentials led to last time: nothing is moved.
  tf init -input=false -reconfigure -backend-config="bucket=$(bucket)" -backend-config="key=$environment/terraform.tfstate"
}

# Everything at once, because for an empty state `output -raw` succeeds and prints a warning in place of the value.
read_outputs() { outputs=$(tf output -no-color -json); }

# output NAME: empty if there is none yet.
output() { sed -n "/^  \"$1\": {/,/^  }/s/^    \"value\": \"\(.*\)\",*\$/\1/p" <<<"$outputs"; }
