"""scripts/reproducible.sh with a stand-in for cargo; `make reproducible` runs it with the real one, which takes minutes."""

import os
import subprocess

import pytest
from support import ROOT


@pytest.fixture
def reproducible(tmp_path):
    """What the script says of a build that writes this (in shell) into the binary."""

    def run(content: str, *arguments: str) -> subprocess.CompletedProcess:
        cargo = tmp_path / "cargo"
        cargo.write_text(f'#!/usr/bin/env bash\nmkdir -p target/release\necho "{content}" >target/release/math-service\n')
        cargo.chmod(0o755)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CARGO_HOME": str(tmp_path / "home")}
        return subprocess.run([ROOT / "scripts/reproducible.sh", *arguments], env=env, capture_output=True, text=True)

    return run


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
    told = "$SOURCE_DATE_EPOCH == 0 && $RUSTFLAGS == *=$PWD=/src* && $RUSTFLAGS == *=$CARGO_HOME=/cargo && -z ${CARGO_TARGET_DIR:-}"
    assert reproducible(f"$([[ {told} ]] || echo $RANDOM$RANDOM)").returncode == 0
    assert reproducible(f"$([[ {told} && -n ${{NO_SUCH_THING:-}} ]] || echo $RANDOM$RANDOM)").returncode == 1, "the condition is looked at"


def test_a_build_that_fails_is_no_comparison(reproducible):
    result = reproducible('"; exit 3; echo "')
    assert result.returncode == 3 and "the same" not in result.stdout


def test_another_thing_to_build_is_refused(reproducible):
    assert reproducible("same", "image").returncode == 2
