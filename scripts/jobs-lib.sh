#!/usr/bin/env bash
# What the two jobs-access scripts share: whom they let into the cluster, and how. Sourced, after eks-lib.sh.
# shellcheck disable=SC2034,SC2154  # variables that lib.sh and eks-lib.sh set, or that the scripts read
# shellcheck source=eks-lib.sh

# k8s/components/jobs says what this group may do.
group=math-service-jobs
stack=${STACK:-$(sed -n 's/^stack_name = "\(.*\)"/\1/p' samconfig.toml)}

# ask_pods_role: the role of the service's pods in `role`, empty if they have none.
ask_pods_role() {
  local association
  role=''
  association=$(aws eks list-pod-identity-associations --cluster-name "$cluster" --namespace default \
    --service-account math-service --query 'associations[].associationId' --output text)
  [[ -z $association ]] || role=$(aws eks describe-pod-identity-association --cluster-name "$cluster" \
    --association-id "$association" --query association.roleArn --output text)
}

# ask_function_role: the role of the function, empty unless one was deployed for this cluster, among others perhaps.
ask_function_role() {
  role=''
  if exists 'does not exist' aws cloudformation describe-stacks --stack-name "$stack" \
    --query "Stacks[0].Outputs[?OutputKey=='JobsRole' && contains(OutputValue, ',$cluster@$region,')].OutputValue" --output text; then
    role=${answer##* }
  fi
}

# has_entry ROLE: whether the cluster knows it; in `answer` its groups.
has_entry() {
  exists ResourceNotFoundException aws eks describe-access-entry --cluster-name "$cluster" --principal-arn "$1" \
    --query accessEntry.kubernetesGroups --output text
}
