import os
import subprocess

import pytest
from engine import BUILD_FLAGS, DOCKER, REVISION, VERSION
from support import ROOT, cannot_run


@pytest.fixture(scope="session", autouse=True)
def engine():
    try:
        answered = subprocess.run([DOCKER, "info"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        answered = False
    if not answered:
        cannot_run("no Docker engine answers")


@pytest.fixture(scope="session")
def image(engine):
    """The real Dockerfile, built."""
    command = [DOCKER, "build", *BUILD_FLAGS, "--tag", "math-service:test"]
    command += ["--build-arg", f"VERSION={VERSION}", "--build-arg", f"REVISION={REVISION}", str(ROOT)]
    result = subprocess.run(command, env={**os.environ, "DOCKER_BUILDKIT": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return "math-service:test"
