"""The shell scripts of the project."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from support import ROOT

SHELLCHECK = pathlib.Path(sys.executable).with_name("shellcheck")


def scripts() -> list[str]:
    """Every file under version control, or about to be, whose first line asks for a shell."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()
    found = []
    for file in files:
        path = ROOT / file
        if path.is_file() and path.open("rb").readline(40).startswith((b"#!/usr/bin/env bash", b"#!/bin/sh", b"#!/bin/bash")):
            found.append(file)
    return found


def test_the_scripts_are_found():
    assert {".ci/run", "scripts/fuzz.sh", "scripts/skipped.sh"} <= set(scripts())


@pytest.mark.parametrize("script", scripts())
def test_a_script_has_nothing_that_shellcheck_warns_of(script):
    result = subprocess.run([SHELLCHECK, script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_shellcheck_is_the_real_one():
    result = subprocess.run([SHELLCHECK, "-"], input="#!/bin/sh\necho $1\n", capture_output=True, text=True)
    assert "SC2086" in result.stdout


def stand_in(path: pathlib.Path, script: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def valgrind(tmp_path):
    """bench/valgrind.sh in a tree of its own, on a machine that has nothing else than it needs."""
    tree, machine = tmp_path / "tree", tmp_path / "machine"
    script = tree / "bench/valgrind.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "bench/valgrind.sh", script)
    machine.mkdir()
    for tool in ["bash", "dirname", "find", "sh"]:
        (machine / tool).symlink_to(shutil.which(tool))
    run = lambda: subprocess.run([script, "--tool=none"], env={"PATH": str(machine)}, capture_output=True, text=True)
    return tree, machine, run


def test_valgrind_is_the_machines_own_if_it_has_one(valgrind):
    tree, machine, run = valgrind
    stand_in(machine / "valgrind", 'echo "own $*"')
    stand_in(tree / ".tools/valgrind/usr/bin/valgrind", "echo fetched")
    assert run().stdout == "own --tool=none\n"


def test_a_fetched_valgrind_is_told_where_its_tools_are(valgrind):
    tree, _, run = valgrind
    folder = tree / ".tools/valgrind/usr"
    stand_in(folder / "bin/valgrind", 'echo "$VALGRIND_LIB $*"')
    stand_in(folder / "libexec/valgrind/callgrind-amd64-linux", "")
    assert run().stdout == f"{folder}/libexec/valgrind --tool=none\n"


def test_without_valgrind_and_without_apt_it_ends_with_3(valgrind):
    _, _, run = valgrind
    assert run().returncode == 3
