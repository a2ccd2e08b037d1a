#!/usr/bin/env bash
# Asks a deployed service whether it is the one that was to be deployed, adds two numbers there, and fails unless it is
# healthy: it reaches the store and the clusters that it was told of. Changes nothing.
#
# Usage: make smoke URL=https://… [EXPECT=1.2.3]     the version that is to answer; any, if none is given
#
# Needs curl.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
help_asked "$@"

url=${URL:?give URL=https://…}
# However many slashes it ends in.
while [[ $url == */ ]]; do url=${url%/}; done
url+=/
expected=${EXPECT:-}

ask() { curl --silent --fail --max-time 20 --header 'accept: application/json' "$1"; }

# Nothing else in the answer is called version.
version_of() { ask "$1" | sed -n 's/.*"version":"\([^"]*\)".*/\1/p'; }

# While pods are being replaced either version may answer; what counts is that the new one is there in the end.
is_expected() {
  version=$(version_of "$url") || return 1
  [[ -n $version && ( -z $expected || $version == "$expected" ) ]]
}

# Without --fail: the 503 of a service that misses something names what.
is_healthy() {
  health=$(curl --silent --max-time 20 --header 'accept: application/json' "${url}health") || return 1
  [[ $health == '{"status":"healthy",'* ]]
}

need curl
version='' health=''
say "==> asking $url"
wait_for 120 "version ${expected:-of the service}" is_expected ||
  fail "$url answers as version '${version:-none}'${expected:+, not $expected}"
wait_for 60 'the sum' adds "$url" || fail "$url does not add 10 and 5"
[[ $(ask "${url}livez") == '{"status":"ok"}' ]] || fail "${url}livez is not ok"
wait_for 60 'its health' is_healthy || fail "${url}health says: ${health:-nothing}"
say "    $version is healthy, and adds 10 and 5 to 15 at $url"
