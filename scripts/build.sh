#!/usr/bin/env bash
# Builds a binary as it ships. The image, the function's bundle and `make reproducible` all build here, so what is compared
# is what is delivered.
#
# Usage: scripts/build.sh BINARY FEATURES OUTPUT [TARGET]     for this machine's processor, if no target is named
#
# Needs cargo-auditable, which writes the list of what it compiles into the binary, and a C compiler for the target.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=$1 features=$2 output=$3
# Static against musl: it runs whatever libc its host has, or none.
target=${4:-$(uname -m | sed 's/^arm64$/aarch64/')-unknown-linux-musl}
# Rust's own linker builds either processor's on either, and on macOS. It folds functions of the same code into one, and
# packs what is to be relocated at the start: 1 MB less.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
RUSTFLAGS="${RUSTFLAGS:-} -C link-arg=--icf=all -C link-arg=--pack-dyn-relocs=relr"
# What a start and an addition execute stands side by side, so that the rest is not in memory: 3 MB less, and the function
# starts in seven eighths of the time. `make layout` renews it.
RUSTFLAGS+=" -C link-arg=-T$PWD/scripts/layout.ld"
# The same bytes wherever and whenever it is built: no path of this machine, and no time of day, which C asks for.
RUSTFLAGS+=" --remap-path-prefix=$PWD=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
export RUSTFLAGS SOURCE_DATE_EPOCH=0

# The function has a profile of its own, and one address, as Go's programs have: a start would else write to 70 pages of
# constants to move them. Stack, heap and what is mapped are still wherever the kernel likes.
if [[ $features == function ]]; then
  profile=function
  RUSTFLAGS+=" -C relocation-model=static"
else
  # Fewer functions are copied into their callers than the level for speed would have (250): 0.5 MB less, for 0.6 % more
  # instructions a request.
  profile=release
  RUSTFLAGS+=" -C llvm-args=--inline-threshold=120"
fi
cargo auditable build --profile $profile --locked --target "$target" --no-default-features --features "$features" --bin "$binary"
cp "${CARGO_TARGET_DIR:-target}/$target/$profile/$binary" "$output"
