"""What the Python tests share: the repository, the binaries, a running server, and how a check says that it cannot run."""

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
# For everything that is waited for; no test is about how long it takes, and a busy machine is slow.
PATIENCE_SECONDS = 180


def cannot_run(reason: str):
    """Skips a test that lacks something here. In CI nothing is skipped silently: there it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"a check must not be skipped in CI: {reason}", pytrace=False)
    pytest.skip(f"skipped: {reason}")


def needs(program: str, purpose: str) -> str:
    """The path of a program of this machine."""
    return shutil.which(program) or cannot_run(f"{program} is not installed; it is needed to {purpose}")


def read_yaml(path: str):
    return yaml.safe_load((ROOT / path).read_text())


def binary(variable: str, default: str, build: str) -> str:
    """A binary of this project: the one that the variable names, else the debug build."""
    path = pathlib.Path(os.environ.get(variable, ROOT / default))
    if not path.exists():
        cannot_run(f"{path} does not exist; run `{build}` or set {variable}")
    return str(path)


def server_binary() -> str:
    return binary("MATH_SERVICE_BIN", "target/debug/math-service", "cargo build")


def lambda_binary() -> str:
    return binary("LAMBDA_BIN", "target/debug/lambda", "cargo build")


def gateway_binary() -> str:
    return binary("GATEWAY_BIN", "target/debug/examples/gateway", "cargo build --example gateway")


def lab_binary() -> str:
    return binary("MATH_LAB_BIN", "target/debug/math-lab", "cargo build")


def settings() -> dict[str, str]:
    """Every setting that the binary knows, with its default (`none` where there is none)."""
    help_text = subprocess.run([server_binary(), "--help"], check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^  ([A-Z_]+) .*\[default: (.*?)\](?: \[aliases: (.*)\])?$", help_text, re.MULTILINE)
    assert lines, f"no setting found in:\n{help_text}"
    known = {}
    for name, default, aliases in lines:
        for each in [name, *filter(None, aliases.split(", "))]:
            known[each] = default
    return known


def seconds(duration: str) -> float:
    """`1m30s` and `300ms` as seconds."""
    parts = re.findall(r"(\d+)\s*(ms|s|m|h)", duration)
    assert parts and re.fullmatch(r"(\s*\d+\s*(ms|s|m|h))+\s*", duration), f"not a duration: {duration!r}"
    return sum(int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


def bytes_of(quantity: str) -> int:
    """`64Mi` and `2Gi`, as Kubernetes means them."""
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", quantity).groups()
    return int(number) * {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def cpus(quantity: str | int) -> float:
    """`250m` and `"2"`, as Kubernetes means them."""
    number, milli = re.fullmatch(r"(\d+)(m?)", str(quantity)).groups()
    return int(number) / (1000 if milli else 1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_it_answers(port: int, alive=lambda: None) -> None:
    """Waits for a 200 of /readyz; `alive` says what went wrong when there is nobody left to wait for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(port, "/readyz").status == 200:
                return
        if problem := alive():
            raise AssertionError(problem)
        assert time.monotonic() < deadline, f"nothing is ready on port {port}"
        time.sleep(0.05)


def get(port: int, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("GET", path)
    response = connection.getresponse()
    response.text = response.read().decode()
    connection.close()
    return response


def post_sum(port: int, body: str = '{"a":10,"b":5}') -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("POST", "/", body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.text = response.read().decode()
    connection.close()
    return response


@contextlib.contextmanager
def running(command: list[str], port: int, env: dict[str, str] | None = None):
    """A server process that is ready on `port`; it is ended by its own id."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def alive():
        if process.poll() is not None:
            return f"{command[0]} ended with {process.returncode}: {process.stderr.read()}"

    try:
        wait_until_it_answers(port, alive)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


@contextlib.contextmanager
def running_server(**env: str):
    port = free_port()
    with running([server_binary()], port, {**env, "HOST": "127.0.0.1", "PORT": str(port)}) as process:
        yield port, process


def dynamodb_actions() -> set[str]:
    """The rights for what the DynamoDB adapter sends."""
    text = "".join(path.read_text() for path in (ROOT / "src/store/dynamodb").glob("*.rs"))
    sent = set(re.findall(r'call\("(\w+)"', text))
    # A transaction needs the rights of its parts.
    parts = {"PutItem", "UpdateItem", "DeleteItem"} if "TransactWriteItems" in sent else set()
    return {f"dynamodb:{action}" for action in (sent - {"TransactWriteItems"}) | parts}
