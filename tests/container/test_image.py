"""The image that the Dockerfile builds, run as Kubernetes runs it: nobody, read-only, no capabilities, little memory."""

import contextlib
import http.client
import json
import os
import random
import re
import secrets
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import pytest
from engine import DOCKER, REVISION, VERSION, docker
from support import PATIENCE_SECONDS, ROOT, cannot_run, free_port, get, post_sum, wait_until_it_answers

MEGABYTE = 1_000_000
RESTRICTED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "64m"]


@contextlib.contextmanager
def container(image: str, *options: str):
    """A running container, removed at the end; its id."""
    identity = docker("run", "--detach", *RESTRICTED, *options, image)
    try:
        yield identity
    finally:
        docker("rm", "--force", identity, check=False)


def wait_for(identity: str, port: int) -> None:
    def ended():
        if docker("inspect", "--format", "{{.State.Running}}", identity) != "true":
            return docker("logs", identity) or "the container ended"

    wait_until_it_answers(port, ended)


def published(identity: str) -> int:
    return int(docker("port", identity, "8000/tcp").rsplit(":", 1)[1])


@pytest.fixture(scope="module")
def service(image):
    """A container that is ready: its id and the published port."""
    with container(image, "--publish", "127.0.0.1::8000") as identity:
        port = published(identity)
        wait_for(identity, port)
        yield identity, port


@pytest.fixture(scope="module")
def inspected(image):
    (described,) = json.loads(docker("image", "inspect", image))
    return described


def test_it_adds(service):
    _, port = service
    assert post_sum(port).text == '{"result":15.0}'


def test_it_is_small(inspected):
    print(f"image: {inspected['Size'] / MEGABYTE:.2f} MB")
    assert inspected["Size"] < 15 * MEGABYTE


def test_its_labels_say_what_it_is(inspected):
    labels = inspected["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "math-service"
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] == REVISION
    assert {"org.opencontainers.image.description", "org.opencontainers.image.licenses", "org.opencontainers.image.source"} <= labels.keys()


def test_its_binary_lists_what_it_is_made_of(image, tmp_path):
    identity = docker("create", image)
    try:
        docker("cp", f"{identity}:/math-service", str(tmp_path / "math-service"))
    finally:
        docker("rm", identity)
    result = subprocess.run(["make", "--silent", "sbom", f"BINARY={tmp_path / 'math-service'}", f"SBOM={tmp_path / 'sbom.json'}"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    bill = json.loads((tmp_path / "sbom.json").read_text())
    names = {component["name"] for component in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX" and {"axum", "ring", "rustls", "tokio"} <= names
    assert not names & {"aws-lc-rs", "native-tls", "openssl", "openssl-sys"}
    print(f"bill of materials: {len(names)} crates")


def test_its_process_is_nobody_and_needs_little_memory_when_idle(service, inspected):
    identity, _ = service
    assert inspected["Config"]["User"] == "65532:65532"
    assert list(inspected["Config"]["ExposedPorts"]) == ["8000/tcp"]
    _, process = docker("top", identity, "-eo", "pid,uid,rss").splitlines()
    _, uid, kilobytes = process.split()
    print(f"idle resident memory: {int(kilobytes) * 1024 / MEGABYTE:.2f} MB")
    assert uid == "65532"
    # Some 1.4 MB are its own; the rest are pages of the binary, which the kernel maps 16 at a time and can take back. Should
    # they become more, `make layout` may help.
    assert int(kilobytes) * 1024 < 8 * MEGABYTE


def test_it_holds_no_shell_and_no_libc(image):
    identity = docker("create", image)
    try:
        with tempfile.TemporaryFile() as archive:
            subprocess.run([DOCKER, "export", identity], stdout=archive, check=True)
            archive.seek(0)
            names = [member.name for member in tarfile.open(fileobj=archive)]
    finally:
        docker("rm", identity)
    assert "math-service" in names
    unwanted = {"sh", "bash", "dash", "ash", "busybox", "apt", "apk", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6"}
    assert not [name for name in names if name.rsplit("/", 1)[-1] in unwanted]


def test_it_answers_the_corpus_as_every_other_door_does(image):
    command = ["cargo", "test", "--quiet", "--test", "api", "parity::a_live", "--", "--ignored"]
    # The origin that the corpus's expectations are written for.
    options = ["--publish", "127.0.0.1::8000"]
    with container(image, *options) as identity:
        port = published(identity)
        wait_for(identity, port)
        env = {**os.environ, "PARITY_URL": f"http://127.0.0.1:{port}"}
        result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout, "the test has another name now"


# What the image makes of half a processor, and far more than half a processor has room for.
@pytest.mark.parametrize("slots", ["CPUs", "8"])
def test_with_half_a_cpu_and_every_slot_busy_liveness_answers(image, slots):
    probes = 300
    settings = {"LOAD_ENABLED": "true", "LOAD_SLOTS": slots, "LOAD_MAX_SECONDS": "3600", "REQUEST_TIMEOUT": "2h"}
    options = [option for name, value in settings.items() for option in ("--env", f"{name}={value}")]
    with container(image, "--cpus", "0.5", "--publish", "127.0.0.1::8000", *options) as identity:
        port = published(identity)
        wait_for(identity, port)

        def metric(name: str) -> float:
            return float(re.search(rf"^{name} (\S+)$", get(port, "/metrics").text, re.MULTILINE)[1])

        burns = []
        for _ in range(int(metric("load_slots"))):
            burn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            burn.request("GET", "/load?seconds=3600")
            burns.append(burn)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while metric("load_slots_busy") < len(burns):
            assert time.monotonic() < deadline, "every slot is busy"
        before, began = metric("process_cpu_seconds_total"), time.monotonic()
        durations = []
        for _ in range(probes):
            # The kernel stops the container for a part of every 100 ms: probes that followed each other at once would
            # nearly all fall between two stops.
            time.sleep(random.uniform(0, 0.1))
            asked = time.monotonic()
            # On a connection of its own, as the kubelet does. Nobody waits for a burn, which takes an hour; the kubelet's
            # own limit is a second, which is what the figure below is to be compared with.
            assert get(port, "/livez").status == 200
            durations.append(time.monotonic() - asked)
        assert metric("load_slots_busy") == len(burns), "it burnt all the while"
        cpus = (metric("process_cpu_seconds_total") - before) / (time.monotonic() - began)
        for burn in burns:
            burn.close()
    p50, p99 = (statistics.quantiles(durations, n=100)[percent - 1] for percent in (50, 99))
    print(
        f"/livez, {len(burns)} burns, {cpus:.2f} CPUs used of 0.5: {probes} probes, "
        f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, longest {max(durations) * 1000:.0f} ms"
    )


def next_of_a_sequence(port: int, session: str) -> tuple[int, int]:
    """The status and the index."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("POST", "/fibonacci/next", headers={"x-session-key": session})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer.get("index", answer)


def test_the_readmes_docker_run_keeps_sequences_beyond_the_container(image):
    (shown,) = re.findall(r"^\$ docker run (.*) my-math-service$", (ROOT / "README.md").read_text(), re.MULTILINE)
    volume, session = f"math-service-test-{secrets.token_hex(8)}", secrets.token_hex(32)
    command = shown.replace("-p 8000:", "-p 127.0.0.1::").replace("-v math-state:", f"-v {volume}:").split()
    # Nothing else is other than shown: where it is published, and a volume that is nobody's.
    assert [own for own, word in zip(command, shown.split(), strict=True) if own != word] == ["127.0.0.1::8000", f"{volume}:/data"]

    def check(identity: str, index: int):
        port = published(identity)
        wait_for(identity, port)
        assert next_of_a_sequence(port, session) == (200, index)
        assert get(port, "/health").status == 200

    try:
        # A new volume, and then the same one under another container.
        for index in (0, 2):
            identity = docker("run", "--detach", *command, image)
            try:
                check(identity, index)
                docker("restart", identity)
                check(identity, index + 1)
            finally:
                docker("rm", "--force", identity, check=False)
    finally:
        docker("volume", "rm", "--force", volume, check=False)


def test_docker_stop_under_keep_alive_load_loses_no_request(image):
    if sys.platform != "linux":
        cannot_run("a published port's proxy accepts connections that nobody serves; the host's network is Linux's")
    port = free_port()
    # Every addition is under way for a while, so that the signal meets several.
    options = ["--network", "host", "--env", "HOST=127.0.0.1", "--env", f"PORT={port}", "--env", "ADD_DELAY=50ms"]
    answered, lost = [], []

    def client():
        """Asks again and again, on one connection as long as the server keeps it, until nobody listens."""
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            try:
                connection.connect()
            except OSError:
                return
            try:
                while True:
                    connection.request("POST", "/", '{"a":10,"b":5}', {"content-type": "application/json"})
                    response = connection.getresponse()
                    body = response.read()
                    answered.append((response.status, body))
                    if response.will_close:
                        break
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                return
            finally:
                connection.close()

    with container(image, *options) as identity:
        wait_for(identity, port)
        clients = [threading.Thread(target=client) for _ in range(16)]
        for each in clients:
            each.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(answered) < 100:
            assert time.monotonic() < deadline, (answered[:3], lost[:3])
            time.sleep(0.01)
        docker("stop", "-t", "30", identity)
        for each in clients:
            each.join(PATIENCE_SECONDS)
        code = docker("inspect", "--format", "{{.State.ExitCode}}", identity)
    assert not lost, f"{len(lost)} requests lost, {len(answered)} answered: {lost[:3]}"
    assert {(status, body) for status, body in answered} == {(200, b'{"result":15.0}')}
    assert code == "0", "not ended by a signal"
