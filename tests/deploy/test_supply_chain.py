"""What is accepted of dependencies: deny.toml, held against changes of it that must be noticed."""

import os
import re
import shutil
import subprocess

import pytest
from support import ROOT, cannot_run, needs

TOOL = re.search(r"cargo-deny-[\d.]+/bin/cargo-deny", (ROOT / "scripts/tools.mk").read_text())[0]
# What `cargo metadata` reads of the project.
PACKAGE = ["Cargo.toml", "Cargo.lock", "build.rs", "src", "tests/api", "tests/gateway"]


@pytest.fixture
def project(tmp_path):
    """The package with deny.toml in a folder of its own, on a machine that reaches no GitHub."""
    if not (ROOT / ".tools" / TOOL).exists():
        cannot_run("cargo-deny is not built; run `make deny`")
    needs("cargo", "read the dependencies")
    tree, machine = tmp_path / "tree", tmp_path / "machine"
    for name in PACKAGE:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(ROOT / name)
    (tree / "scripts").mkdir()
    for name in ("deny.sh", "skipped.sh"):
        shutil.copy(ROOT / "scripts" / name, tree / "scripts" / name)
    shutil.copy(ROOT / "deny.toml", tree)
    machine.mkdir()
    (machine / "git").write_text("#!/bin/sh\nexit 128\n")
    (machine / "git").chmod(0o755)

    def check(**env: str) -> subprocess.CompletedProcess:
        path = f"{machine}:{os.environ['PATH']}"
        env = {**os.environ, "CI": "", "GITHUB_ACTIONS": "", "PATH": path, "CARGO_DENY": str(ROOT / ".tools" / TOOL), **env}
        return subprocess.run([tree / "scripts/deny.sh"], env=env, capture_output=True, text=True)

    return tree, check


def test_known_flaws_that_cannot_be_looked_up_are_skipped_aloud_and_never_on_github(project):
    _, check = project
    result = check()
    assert result.returncode == 0, result.stderr
    assert re.search(r"^skipped: .*advisory-db cannot be reached$", result.stdout, re.MULTILINE)
    assert check(CI="true", GITHUB_ACTIONS="true").returncode != 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('crate = "boring"', 'crate = "ring"'), "banned"),
        (('crate = "rustls:<0.23"', 'crate = "rustls:<0.24"'), "banned"),
        (('"ISC", ', ""), "rejected"),
        (('"ISC"', '"ISC", "MPL-2.0"'), "license-not-encountered"),
        (('crate = "getrandom@0.2"', 'crate = "getrandom@0.1"'), "duplicate"),
        (("rust-lang/crates.io-index", "somebody/index"), "source-not-allowed"),
    ],
)
def test_what_is_not_accepted_fails(project, change, complaint):
    tree, check = project
    accepted = (tree / "deny.toml").read_text()
    (tree / "deny.toml").write_text(accepted.replace(*change))
    assert (tree / "deny.toml").read_text() != accepted
    result = check()
    assert result.returncode != 0 and f"error[{complaint}]" in result.stderr, result.stderr


def test_there_is_one_tls_stack_in_every_lock_file_that_ships():
    banned = re.findall(r'crate = "([\w-]+)", reason = "(?:a second TLS|rustls uses|the C of)', (ROOT / "deny.toml").read_text())
    assert {"openssl", "native-tls", "aws-lc-rs"} <= set(banned)
    for lock in ("Cargo.lock", "fuzz/Cargo.lock"):
        packages = re.findall(r'^name = "(.+)"$', (ROOT / lock).read_text(), re.MULTILINE)
        assert not set(packages) & set(banned) and packages.count("rustls") == 1
