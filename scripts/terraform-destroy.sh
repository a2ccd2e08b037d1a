#!/usr/bin/env bash
# Deletes an environment that `make terraform-apply` made: the load balancer first, which is not Terraform's and would be
# left behind, then the rest (about 20 minutes). The bucket of the states stays.
#
# Usage: make terraform-destroy ENV=dev [DELETE_IMAGES=yes]
#
# Needs terraform 1.11 or newer, aws with credentials and kubectl.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=terraform-lib.sh
source scripts/terraform-lib.sh
help_asked "$@"

has_images() {
  exists RepositoryNotFoundException aws ecr list-images --repository-name "$image" \
    --query 'imageIds[0].imageDigest' --output text && [[ $answer != None ]]
}

need_environment
need terraform aws kubectl
! grep -qE '^deletion_protection *= *true' "terraform/config/$environment.tfvars" ||
  fail "$environment is protected: set deletion_protection = false in terraform/config/$environment.tfvars, then make terraform-plan and terraform-apply, then this again"
need_aws_credentials
need_state

read_outputs
resources=$(tf state list)
context=$(output cluster_name)
network=$(output vpc_id)
region=$(output region)
# What was never applied has none.
export AWS_REGION=${region:-$state_region}
export AWS_DEFAULT_REGION=$AWS_REGION

if [[ $resources == *aws_ecr_repository.service* ]] && has_images; then
  [[ ${DELETE_IMAGES:-no} == yes ]] ||
    fail "the registry's images would go too, which other environments may use: DELETE_IMAGES=yes says that they may"
  step "deleting the registry's images"
  aws ecr delete-repository --repository-name "$image" --force >/dev/null
fi

# After an interruption there may be no cluster to talk to.
if [[ -n $context ]] && exists ResourceNotFoundException aws eks describe-cluster --name "$context" \
  --query cluster.status --output text && [[ $answer == ACTIVE ]]; then
  step 'deleting the Service, and with it the load balancer'
  aws eks update-kubeconfig --name "$context" --alias "$context" >/dev/null
  k delete ingress math-service-ingress --ignore-not-found --wait=false
  k delete service "$service" --ignore-not-found --wait=false
fi
balancers=''
[[ -z $network ]] || wait_for 600 'the load balancer to go' no_balancer_is_left_in "$network" ||
  fail "the environment stays, because a load balancer in its network would stay too: ${balancers:-AWS does not tell which}"

step "destroying $environment (about 20 minutes)"
tf destroy -input=false -auto-approve -var-file="config/$environment.tfvars"
rm -f "$plan"

cat <<EOF

Next steps:
  # nothing of $environment is left that costs; the key and, if there was one, the database's last snapshot go in a month
  make terraform-plan ENV=$environment     # makes it all again, after make terraform-apply
EOF
