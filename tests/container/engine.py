"""The Docker engine that the tests of this folder talk to."""

import os
import platform
import shlex
import subprocess

# For engines and clients that need it: another client (DOCKER), flags of `docker build` (DOCKER_BUILD_FLAGS).
DOCKER = os.environ.get("DOCKER", "docker")
BUILD_FLAGS = shlex.split(os.environ.get("DOCKER_BUILD_FLAGS", ""))

VERSION, REVISION = "1.2.3-test", "0123456789abcdef"
HOST_ARCHITECTURE = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"


def docker(*arguments: str, check: bool = True) -> str:
    result = subprocess.run([DOCKER, *arguments], capture_output=True, text=True)
    assert not check or result.returncode == 0, f"docker {' '.join(arguments)}: {result.stderr}"
    return result.stdout.strip()
