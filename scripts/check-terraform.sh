#!/usr/bin/env bash
# Checks terraform/ by terraform itself: format, validity, and its own tests, on mocked AWS. Where TERRAFORM_CHECK names a
# command, that is given the folders instead: it knows the providers' schemas on machines that cannot download them.
#
# Usage: make test-terraform
set -euo pipefail
cd "$(dirname "$0")/.."

folders=(terraform terraform/bootstrap)

if [[ -n ${TERRAFORM_CHECK:-} ]]; then
  exec "$TERRAFORM_CHECK" "${folders[@]}"
fi
if ! command -v terraform >/dev/null; then
  exec scripts/skipped.sh 'terraform is not installed'
fi

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
# Beside what `make terraform-plan` remembers, not over it.
export TF_DATA_DIR=.terraform/test TF_IN_AUTOMATION=1

terraform fmt -check -diff -recursive terraform
for folder in "${folders[@]}"; do
  if ! terraform -chdir="$folder" init -backend=false -input=false -no-color >/dev/null 2>"$errors"; then
    if grep -q 'could not connect to registry' <(tr -s '[:space:]│' ' ' <"$errors"); then
      exec scripts/skipped.sh "terraform's registry of providers cannot be reached"
    fi
    cat "$errors" >&2
    exit 1
  fi
  terraform -chdir="$folder" validate
  terraform -chdir="$folder" test
done
