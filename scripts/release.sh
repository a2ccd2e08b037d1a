#!/usr/bin/env bash
# Writes a new version into every file that names it, and dates the changelog. Commits nothing: it prints what to do next.
#
# Usage: make release VERSION=1.2.3     above the present one
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "error: $*" >&2
  exit 1
}

new=${1:-}
# The package's own, the first of the file; what else is called version there belongs to dependencies.
old=$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)
[[ $new =~ ^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]] || fail "'$new' is no version: make release VERSION=1.2.3"
[[ $new != "$old" && $(printf '%s\n' "$old" "$new" | sort --version-sort | tail -n 1) == "$new" ]] || fail "$new is not above $old"
changed=$(git status --porcelain)
[[ -z $changed ]] || fail "commit first, so that the release holds nothing else. Changed:"$'\n'"$changed"
! git rev-parse --quiet --verify "refs/tags/v$new" >/dev/null || fail "there is a tag v$new already"
unreleased=$(awk '/^## / { on = ($2 == "Unreleased"); next } on && /^- /' CHANGELOG.md)
[[ -n $unreleased ]] || fail 'CHANGELOG.md says nothing under "## Unreleased"'

# edit FILE AWK-PROGRAM
edit() {
  local file=$1 edited
  edited=$(awk -v old="$old" -v new="$new" "$2" "$file" && echo end)
  printf '%s' "${edited%end}" >"$file"
}

# shellcheck disable=SC2016  # awk's own variables
{
  edit Cargo.toml '!done && $0 == "version = \"" old "\"" { $0 = "version = \"" new "\""; done = 1 } { print }'
  for lock in $(git ls-files '*Cargo.lock'); do
    edit "$lock" '/^name = / { ours = ($3 == "\"math-service\"") } ours && /^version = / { $0 = "version = \"" new "\"" } { print }'
  done
  # The document that is served, whose first version is the service's.
  edit src/http/openapi.json '!done && $0 == "\"version\": \"" old "\"" { $0 = "\"version\": \"" new "\""; done = 1 } { print }'
  # The commands that people copy.
  edit README.md '{ n = index($0, "VERSION=" old " "); if (n) $0 = substr($0, 1, n + 7) new substr($0, n + 8 + length(old)); print }'
  edit CHANGELOG.md "/^## Unreleased\$/ { print; print \"\"; print \"## \" new \" - $(date -u +%F)\"; next } { print }"
}

cat <<EOF
$old becomes $new in:
$(git diff --name-only | sed 's/^/  /')

Next steps:
  git diff
  make test
  git commit --all --message 'Release $new'
  git tag --annotate --message 'math-service $new' v$new
  git push origin HEAD v$new     # the tag starts .github/workflows/release.yml
EOF
