#!/usr/bin/env bash
# Checks the dependencies against deny.toml. Known flaws come from RustSec's database on GitHub; where that cannot be
# reached, their check is skipped, aloud; on GitHub, where it always can be, that is a failure.
#
# Usage: scripts/deny.sh     make deny installs what it needs
set -euo pipefail
cd "$(dirname "$0")/.."

database=https://github.com/RustSec/advisory-db

deny() { "${CARGO_DENY:?}" --locked "$@"; }

# A crate that is allowed twice, and is there once, is an entry to remove.
deny check --deny unmatched-skip --deny unnecessary-skip bans licenses sources
if GIT_TERMINAL_PROMPT=0 timeout 30 git ls-remote --quiet --exit-code "$database" HEAD >/dev/null 2>&1; then
  deny check advisories
else
  [[ ${GITHUB_ACTIONS:-} == true ]] || unset CI
  scripts/skipped.sh "known flaws are not looked up: $database cannot be reached"
fi
