#!/usr/bin/env bash
# For an environment with `database = true`: makes the service's own user in the database, and the Secret and the
# certificates that k8s/overlays/postgres reads. The same command again gives it a new password: then restart the pods.
#
# The administrator's password, which RDS changes every week, is read from Secrets Manager and used once. No password is
# in a file, an argument or a pod's description.
#
# Usage: make terraform-database ENV=dev     or prod
#
# Needs terraform 1.11 or newer, aws with credentials, kubectl, jq, openssl and curl.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=terraform-lib.sh
source scripts/terraform-lib.sh
help_asked "$@"

user=math_service
pod=math-service-database-setup
authorities=math-service-postgres-authorities
secret=math-service-state
# Where the overlay mounts the authorities.
mount=/etc/postgres

# A pod in the cluster, because the database answers nobody else. Its disk and its user are as restricted as the service's.
describe_the_pod() {
  cat <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: $pod
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  # Whatever happens here, it ends by itself.
  activeDeadlineSeconds: 600
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: psql
      image: public.ecr.aws/docker/library/postgres:17-alpine
      command: [sleep, "600"]
      resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: authorities, mountPath: $mount, readOnly: true}]
  volumes:
    - name: authorities
      configMap: {name: $authorities}
YAML
}

# For psql: the user, if there is none yet, and its password, of which psql sends a hash.
describe_the_user() {
  cat <<SQL
SELECT 'CREATE ROLE $user LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$user') \gexec
GRANT CREATE, USAGE ON SCHEMA public TO $user;
\password $user
$1
$1
SQL
}

describe_the_secret() {
  cat <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: $secret
stringData:
  url: postgres://$user:$1@$host/$database?sslrootcert=$mount/global-bundle.pem
YAML
}

need_environment
need terraform aws kubectl jq openssl curl
need_aws_credentials
need_state

read_outputs
context=$(output cluster_name)
host=$(output database_host)
database=$(output database_name)
region=$(output region)
[[ -n $host ]] || fail "$environment has no database: set database = true in terraform/config/$environment.tfvars, then make terraform-plan and terraform-apply"
export AWS_REGION=$region AWS_DEFAULT_REGION=$region
aws eks update-kubeconfig --name "$context" --alias "$context" >/dev/null

step "fetching the certificates of RDS's authority"
certificates=$(curl --silent --show-error --fail --max-time 30 https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem)
# Too large for the note of what was applied that `kubectl apply` leaves otherwise.
k create configmap "$authorities" --from-file=global-bundle.pem=/dev/stdin --dry-run=client --output yaml <<<"$certificates" |
  k apply --server-side --force-conflicts --filename -

step 'starting a pod to reach the database from'
administrator=$(aws secretsmanager get-secret-value --secret-id "$(output database_secret)" --query SecretString --output text)
k delete pod "$pod" --ignore-not-found
describe_the_pod | k apply --filename -
or_diagnose "the pod $pod" watch_k wait --for condition=Ready "pod/$pod"

step "making the user $user"
# Hexadecimal, so that it means itself in a URL and in psql.
password=$(openssl rand -hex 32)
# shellcheck disable=SC2016  # the pod's shell expands it
psql='IFS= read -r PGPASSWORD; export PGPASSWORD; exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$0"'
server="host=$host user=$(jq --raw-output .username <<<"$administrator") dbname=$database sslmode=verify-full sslrootcert=$mount/global-bundle.pem connect_timeout=10"
{
  jq --raw-output .password <<<"$administrator"
  describe_the_user "$password"
} | k exec --stdin "$pod" -- sh -c "$psql" "$server"
k delete pod "$pod" --wait=false

step "keeping its URL in the Secret $secret"
describe_the_secret "$password" | k apply --server-side --force-conflicts --filename -

cat <<EOF

Next steps:
  kubectl --context $context kustomize k8s/overlays/postgres | sed "s|$image:latest|\$IMAGE|" | kubectl --context $context apply --filename -
  kubectl --context $context rollout restart $deployment     # where it runs already: pods read the Secret when they start
EOF
