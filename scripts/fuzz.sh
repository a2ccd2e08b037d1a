#!/usr/bin/env bash
# Runs each fuzz target for a bounded number of inputs, seeded from the tests' data.
#
# Usage: scripts/fuzz.sh [RUNS]     default 200000 inputs a target
#
# libFuzzer comes inside the crate libfuzzer-sys and the instrumentation is LLVM's own, so stable
# Rust and a C++ compiler are all it needs: no nightly toolchain, no cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${1:-200000}
# What cargo-fuzz passes, less the sanitizer: it needs nightly, and this code has no unsafe block.
instrument=(--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1)

# With a --target, cargo leaves build scripts and procedural macros uninstrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="${instrument[*]}" cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml --target "$host"

seeds=fuzz/corpus
mkdir -p "$seeds/json_body" "$seeds/lambda_event" "$seeds/hpa_inputs" fuzz/artifacts
cp tests/data/hpa/web.yaml tests/data/hpa/web-metrics.json tests/data/hpa/short-run.json tests/data/hpa/cases.jsonl "$seeds/hpa_inputs/"
cp tests/data/events/*.json "$seeds/lambda_event/"
python3 - "$seeds/json_body" <<'PY'
import json, pathlib, sys
for number, case in enumerate(json.load(open("tests/data/corpus.json"))):
    if case.get("body"):
        pathlib.Path(sys.argv[1], f"corpus-{number}").write_text(case["body"])
PY

for target in json_body lambda_event hpa_inputs; do
  log=fuzz/artifacts/$target.log
  if ! "fuzz/target/$host/release/$target" -runs="$runs" -max_len=8192 -timeout=10 -rss_limit_mb=1024 \
    -artifact_prefix="fuzz/artifacts/$target-" "$seeds/$target" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "fuzz: $target failed; the input is in fuzz/artifacts/" >&2
    exit 1
  fi
  echo "fuzz: $target: $(sed -n 's/^#\([0-9]*\).DONE.*cov: \([0-9]*\).*/\1 inputs, \2 edges covered, no finding/p' "$log")"
done
