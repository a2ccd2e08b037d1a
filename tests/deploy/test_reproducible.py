"""scripts/build.sh and scripts/reproducible.sh with a stand-in for cargo; `make reproducible` runs them with the real one,
which takes minutes."""

import os
import pathlib
import subprocess

import pytest
from support import ROOT


MACHINE = os.uname().machine
TARGET = f"{MACHINE}-unknown-linux-musl"
# Writes where the binary of its --profile, --target and --bin would be.
CARGO = """#!/usr/bin/env bash
while (($#)); do
  case $1 in --profile) profile=$2 ;; --target) target=$2 ;; --bin) bin=$2 ;; esac
  arguments+=("$1")
  shift
done
mkdir -p "${CARGO_TARGET_DIR:-target}/$target/$profile"
echo "CONTENT" >"${CARGO_TARGET_DIR:-target}/$target/$profile/$bin"
"""


# All that decides about the bytes.
RECIPE = "${arguments[*]}|$RUSTFLAGS|$SOURCE_DATE_EPOCH|$CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER|$CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER"


@pytest.fixture
def machine(tmp_path):
    """Runs a command where a stand-in for cargo writes this (in shell) into the binary that it is to build."""

    def run(content: str, *command: str | pathlib.Path, **more: str) -> subprocess.CompletedProcess:
        for name, text in (("cargo", CARGO.replace("CONTENT", content)), ("rustup", "#!/bin/sh\n")):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        dropped = ("RUSTFLAGS", "CARGO_TARGET_DIR", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        env = {name: value for name, value in os.environ.items() if name not in dropped}
        env |= {"PATH": f"{tmp_path}:{env['PATH']}", "CARGO_HOME": str(tmp_path / "home"), **more}
        return subprocess.run(command, env=env, capture_output=True, text=True)

    return run


@pytest.fixture
def reproducible(machine):
    """What the script says of a build that writes this (in shell) into the binary."""
    return lambda content, *arguments: machine(content, ROOT / "scripts/reproducible.sh", *arguments)


def test_what_ships_is_static_and_linked_small_and_says_nothing_of_where_and_when(machine, tmp_path):

    def built(*target: str) -> list[str]:
        output = tmp_path / "built"
        more = {"CARGO_TARGET_DIR": str(tmp_path / "target"), "RUSTFLAGS": "--cfg yours"}
        result = machine(RECIPE, ROOT / "scripts/build.sh", "math-service", "container", output, *target, **more)
        assert result.returncode == 0, result.stderr
        return output.read_text().strip().split("|")

    arguments, flags, epoch, *linkers = built()
    assert arguments == f"auditable build --profile release --locked --target {TARGET} --no-default-features --features container --bin math-service"
    remapped = f"--remap-path-prefix={ROOT}=/src --remap-path-prefix={tmp_path}/home=/cargo"
    linked = f"-C link-arg=--icf=all -C link-arg=--pack-dyn-relocs=relr -C link-arg=-T{ROOT}/scripts/layout.ld"
    assert flags == f"--cfg yours {linked} {remapped} -C llvm-args=--inline-threshold=120"
    assert epoch == "0" and linkers == ["rust-lld", "rust-lld"]
    assert "--target aarch64-unknown-linux-musl " in built("aarch64-unknown-linux-musl")[0]


@pytest.mark.parametrize("architecture, processor", [("arm64", "aarch64"), ("x86_64", "x86_64")])
def test_the_bundle_is_linked_as_the_image_is(machine, tmp_path, architecture, processor):
    (tmp_path / "cargo-auditable").touch()
    makefile, compiler = ROOT / f"deploy/lambda/{architecture}/Makefile", {f"CC_{processor}_unknown_linux_musl": "true"}
    command = ["make", "--makefile", makefile, "build-MathServiceFunction", f"ARTIFACTS_DIR={tmp_path}", f"CARGO_AUDITABLE={tmp_path}/cargo-auditable"]
    result = machine(RECIPE, *command, CARGO_TARGET_DIR=str(tmp_path / "target"), **compiler)
    assert result.returncode == 0, result.stderr
    bundle = (tmp_path / "bootstrap").read_text()
    target = f"{processor}-unknown-linux-musl"
    result = machine(RECIPE, ROOT / "scripts/build.sh", "lambda", "function", tmp_path / "image", target, CARGO_TARGET_DIR=str(tmp_path / "target"))
    assert result.returncode == 0 and bundle == (tmp_path / "image").read_text()
    assert f"--profile function --locked --target {target} --no-default-features --features function --bin lambda|" in bundle
    assert " -C relocation-model=static|" in bundle, "nothing is relocated at its start"
    assert "inline-threshold" not in bundle, "its level, for size, has a lower one"


def test_what_is_compared_is_built_as_the_image_is(reproducible):
    """test_dockerfile.py and test_lambda_template.py see that image and bundle come from the same script."""
    told = "$(echo \"${arguments[*]}\" >&2)"
    said = reproducible(told, "container").stderr
    assert said.count(f"--profile release --locked --target {TARGET} --no-default-features --features container --bin math-service\n") == 2, said


def test_two_builds_of_the_same_bytes_pass_and_show_their_hash(reproducible):
    result = reproducible("$(cat Cargo.toml)")
    assert result.returncode == 0, result.stderr
    one, another = (line.split(": ")[1].split()[0] for line in result.stdout.splitlines()[:2])
    assert one == another and len(one) == 64
    assert result.stdout.endswith("both builds are byte for byte the same\n")


@pytest.mark.parametrize("told", ["$PWD", "$CARGO_HOME", "$RANDOM$RANDOM$RANDOM"])
def test_a_binary_that_tells_where_or_when_it_was_built_fails(reproducible, told):
    result = reproducible(told)
    assert result.returncode == 1 and "the two differ" in result.stderr


def test_the_compilers_are_told_to_forget_the_folders_and_the_time(reproducible):
    told = "$SOURCE_DATE_EPOCH == 0 && $RUSTFLAGS == *=$PWD=/src* && $RUSTFLAGS == *=$CARGO_HOME=/cargo* && -z ${CARGO_TARGET_DIR:-}"
    assert reproducible(f"$([[ {told} ]] || echo $RANDOM$RANDOM)").returncode == 0
    assert reproducible(f"$([[ {told} && -n ${{NO_SUCH_THING:-}} ]] || echo $RANDOM$RANDOM)").returncode == 1, "the condition is looked at"


def test_a_build_that_fails_is_no_comparison(reproducible):
    result = reproducible('"; exit 3; echo "')
    assert result.returncode == 3 and "the same" not in result.stdout


def test_another_thing_to_build_is_refused(reproducible):
    assert reproducible("same", "image").returncode == 2
