#!/usr/bin/env bash
# A picture of a page, by headless Chromium (make chromium installs Debian's).
#
# Usage: scripts/screenshot.sh URL-OR-FILE OUTPUT.png [WIDTHxHEIGHT]     1280x900 unless told otherwise
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $# -ge 2 ]] || { sed -n '2,4s/^# \?//p' "$0" >&2; exit 2; }
page=$1 output=$(realpath --no-symlinks "$2") size=${3:-1280x900}
[[ ! -e $page ]] || page=file://$(realpath "$page")
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
  { echo "error: there is no chromium; make chromium installs Debian's" >&2; exit 1; }

profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
mkdir -p "$(dirname "$output")"
rm -f "$output"
timeout 60 "$chromium" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$profile" \
  --window-size="${size/x/,}" --screenshot="$output" "$page" >"$profile/log" 2>&1 || { cat "$profile/log" >&2; exit 1; }
[[ -s $output ]] || { cat "$profile/log" >&2; exit 1; }
echo "$output"
