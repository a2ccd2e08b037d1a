#!/usr/bin/env bash
# Builds what ships twice, each time from nothing, in folders and cargo homes of different names, and compares the bytes.
# The compilers must be the same: what differs between them differs in the binary.
#
# Usage: scripts/reproducible.sh [container|bundle]     the server (the default), or the Lambda bundle as `sam build` makes it
#
# Needs cargo-auditable on the PATH; make reproducible puts it there.
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
      # As in the Dockerfile, whose folders have the same names wherever it is built.
      export SOURCE_DATE_EPOCH=0 RUSTFLAGS="--remap-path-prefix=$folder=/src --remap-path-prefix=$CARGO_HOME=/cargo"
      cargo auditable build --quiet --release --locked --bin math-service --no-default-features --features container >&2
      cp target/release/math-service "$folder.out/bootstrap"
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
