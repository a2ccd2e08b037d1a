"""The shell scripts of the project."""

import pathlib
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
