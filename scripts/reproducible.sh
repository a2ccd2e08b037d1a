#!/usr/bin/env bash
# Builds what ships twice, each time from nothing, in folders and cargo homes of different names, and compares the bytes:
# with build.sh, as Dockerfile and build.mk do. The compilers must be the same: what differs between them differs in the
# binary.
#
# Usage: scripts/reproducible.sh [container|bundle]     the server (the default), or the Lambda bundle as `sam build` makes it
#
# Needs cargo-auditable on the PATH, where make reproducible puts it; for the server the image's C compiler (musl-tools), for
# the bundle zig.
set -euo pipefail
# A failed step inside $(…) ends the run too.
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

what=${1:-container}
root=$PWD
registry=${CARGO_HOME:-$HOME/.cargo}/registry
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Fetched packages may be shared: their content is what Cargo.lock says.
mkdir -p "$registry"

# sources FOLDER: what git knows of, as it is now.
sources() {
  mkdir -p "$1"
  git ls-files --cached --others --exclude-standard -z | xargs -0 tar --create --ignore-failed-read 2>/dev/null | tar --extract --directory "$1"
}

# build NAME: prints where the binary is.
build() (
  folder=$work/$1-folder
  sources "$folder"
  mkdir -p "$folder.home" "$folder.out"
  ln -s "$registry" "$folder.home/registry"
  cd "$folder"
  unset CARGO_TARGET_DIR
  export CARGO_HOME=$folder.home
  case $what in
    container)
      ! command -v rustup >/dev/null || rustup target add "$(uname -m)-unknown-linux-musl" >&2
      scripts/build.sh math-service container "$folder.out/bootstrap" >&2
      ;;
    bundle)
      [[ ! -d $root/.tools ]] || ln -s "$root/.tools" .tools
      make --silent --file "deploy/lambda/$(uname -m | sed 's/aarch64/arm64/')/Makefile" build-MathServiceFunction ARTIFACTS_DIR="$folder.out" >&2
      ;;
    *)
      echo "error: container or bundle, not '$what'" >&2
      exit 2
      ;;
  esac
  echo "$folder.out/bootstrap"
)

for name in one another; do
  began=$SECONDS
  binary=$(build "$name")
  hash=$(sha256sum "$binary" | cut -d ' ' -f 1)
  echo "$what, build $name: $hash after $((SECONDS - began)) s"
  [[ ${first:=$hash} == "$hash" ]] || { echo 'error: the two differ' >&2; exit 1; }
  rm -rf "${binary%.out/bootstrap}"
done
echo "$what: both builds are byte for byte the same"
