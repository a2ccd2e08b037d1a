"""make release: every file that names the version, and when it refuses."""

import re
import subprocess
import tarfile

import pytest
from support import ROOT, needs

OLD = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
# Put together, so that this file does not name it.
NEW = ".".join(["77", "8", "9"])
# Of dependencies and tools, which may have the same version as the service.
OTHERS = {"Cargo.lock", "bench/Cargo.lock", "fuzz/Cargo.lock", "scripts/tools.mk", "CHANGELOG.md"}


def git(folder, *arguments: str) -> str:
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def tree(tmp_path):
    """The project as it is now, in a repository of its own."""
    names = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    with tarfile.open(tmp_path / "tree.tar", "w") as archive:
        for name in (name for name in names if (ROOT / name).is_file()):
            archive.add(ROOT / name, name)
    folder = tmp_path / "tree"
    with tarfile.open(tmp_path / "tree.tar") as archive:
        archive.extractall(folder, filter="data")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Everything")
    return folder


def release(tree, version: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", "--silent", "release", f"VERSION={version}"], cwd=tree, capture_output=True, text=True)


def naming(tree, version: str) -> set[str]:
    """The files that name a version, not as a part of another number."""
    pattern = rf"(?<![\d.]){re.escape(version)}(?![\d.]*\d)"
    return {name for name in git(tree, "ls-files").splitlines() if re.search(pattern, (tree / name).read_text(errors="replace"))}


def test_no_file_that_names_the_version_is_missed(tree):
    before = naming(tree, OLD)
    result = release(tree, NEW)
    assert result.returncode == 0, result.stderr
    assert naming(tree, OLD) <= OTHERS, "a file that scripts/release.sh does not know of names the version"
    changed = set(git(tree, "diff", "--name-only").splitlines())
    assert naming(tree, NEW) == changed >= {"Cargo.toml", "Cargo.lock", "bench/Cargo.lock", "fuzz/Cargo.lock", "README.md", "CHANGELOG.md"}
    assert changed - {"CHANGELOG.md"} <= before
    # A line each, or the two of a heading: nothing else in the files changed.
    for line in git(tree, "diff", "--unified=0").splitlines():
        assert not re.match(r"[-+][^-+]", line) or OLD in line or NEW in line, line


def test_cargo_takes_the_lock_files_as_they_are_then(tree):
    needs("cargo", "read the lock file")
    release(tree, NEW)
    for manifest in ("Cargo.toml", "fuzz/Cargo.toml", "bench/Cargo.toml"):
        command = ["cargo", "metadata", "--locked", "--offline", "--format-version", "1", "--manifest-path", manifest]
        result = subprocess.run(command, cwd=tree, capture_output=True, text=True)
        # Where packages were never fetched, it cannot be asked; a lock that does not fit says so first.
        assert "--locked" not in result.stderr, result.stderr


def test_the_changelog_gets_a_heading_and_keeps_one_for_what_comes(tree):
    release(tree, NEW)
    assert re.search(rf"^## Unreleased\n\n## {re.escape(NEW)} - \d{{4}}-\d\d-\d\d\n\n- ", (tree / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_it_says_what_comes_next_and_commits_nothing(tree):
    head = git(tree, "rev-parse", "HEAD")
    said = release(tree, NEW).stdout
    assert f"git tag --annotate --message 'math-service {NEW}' v{NEW}" in said and "make test" in said
    assert git(tree, "rev-parse", "HEAD") == head and not git(tree, "tag")


@pytest.mark.parametrize("version", ["", OLD, "0.0.1", "1.2", "v1.2.3", "1.2.3-rc1", "01.2.3", "1.2.3; rm -rf /"])
def test_a_version_that_is_none_or_not_above_the_present_one_is_refused(tree, version):
    result = subprocess.run([tree / "scripts/release.sh", version], cwd=tree, capture_output=True, text=True)
    assert result.returncode == 1 and "error:" in result.stderr
    assert not git(tree, "status", "--porcelain")


def test_a_tree_with_other_changes_is_refused(tree):
    (tree / "README.md").write_text("changed")
    result = release(tree, NEW)
    assert result.returncode != 0 and "commit first" in result.stderr and "README.md" in result.stderr
    assert (tree / "Cargo.toml").read_text() == (ROOT / "Cargo.toml").read_text()


def test_a_version_that_was_released_is_refused(tree):
    git(tree, "tag", f"v{NEW}")
    assert f"there is a tag v{NEW}" in release(tree, NEW).stderr


def test_a_release_of_nothing_is_refused(tree):
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 0.0.1 - 2026-01-01\n\n- A thing.\n")
    git(tree, "commit", "--quiet", "--all", "--message", "An empty changelog")
    assert "Unreleased" in release(tree, NEW).stderr
