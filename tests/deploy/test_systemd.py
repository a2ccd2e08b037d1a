"""deploy/systemd: the unit for a machine of its own, judged by systemd itself, and its settings by the service."""

import http.client
import os
import re
import shutil
import signal
import subprocess
import time

from support import PATIENCE_SECONDS, ROOT, bytes_of, free_port, get, needs, post_sum, running, running_server, seconds, server_binary

UNIT = ROOT / "deploy/systemd/math-service.service"
PAGE = ROOT / "docs/ec2.md"
# Of 10; what is left is that it listens, and runs in the machine's own tree.
MOST_EXPOSED = 1.5


def options(section: str) -> dict[str, list[str]]:
    """The unit's settings; systemd adds up those that come more than once."""
    found, inside = {}, ""
    for line in UNIT.read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            inside = heading[1]
        elif inside == section and re.match(r"\w+=", line):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def environment() -> dict[str, str]:
    lines = (ROOT / "deploy/systemd/environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    program = needs("systemd-analyze", "check the unit")
    # It looks for the program too.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/math-service", shutil.which("true")))
    result = subprocess.run([program, "verify", unit], capture_output=True, text=True)
    assert result.returncode == 0 and "math-service" not in result.stderr, result.stderr


def test_systemd_calls_the_unit_hardly_exposed():
    program = needs("systemd-analyze", "measure how exposed the unit is")
    result = subprocess.run([program, "security", "--offline=true", "--no-pager", UNIT], capture_output=True, text=True)
    exposure = float(re.search(r"Overall exposure level for math-service.service: ([\d.]+)", result.stdout)[1])
    print(f"exposure: {exposure} of 10")
    assert exposure <= MOST_EXPOSED, result.stdout


def test_systemd_waits_for_the_whole_drain(known_settings):
    setting = {**known_settings, **environment()}
    assert options("Service")["KillSignal"] == ["SIGTERM"]
    (patience,) = options("Service")["TimeoutStopSec"]
    assert float(patience) >= seconds(setting["DRAIN_DELAY"]) + seconds(setting["DRAIN_TIMEOUT"]) + 5


def test_every_setting_of_the_environment_file_is_one_and_the_service_starts_with_them(known_settings, tmp_path):
    assert environment().keys() <= known_settings.keys()
    state = environment()["STATE_URL"].replace("/var/lib/math-service", str(tmp_path))
    # The port is the test's; the address is the file's.
    with running_server(**{**environment(), "STATE_URL": state}) as (port, process):
        assert get(port, "/readyz").status == 200


def test_the_state_is_in_the_folder_that_systemd_gives():
    (folder,) = options("Service")["StateDirectory"]
    assert environment()["STATE_URL"].startswith(f"sqlite:///var/lib/{folder}/")
    assert options("Service")["ProtectSystem"] == ["strict"], "and nowhere else can be written"


def test_a_setting_that_cannot_be_used_is_not_tried_again():
    (code,) = options("Service")["RestartPreventExitStatus"]
    assert f"const USAGE: u8 = {code};" in (ROOT / "src/bin/server.rs").read_text()


def test_it_gets_the_memory_that_a_pod_gets_and_admits_as_many_requests(base):
    (memory,) = options("Service")["MemoryMax"]
    assert bytes_of(memory + "i") == bytes_of(base.container()["resources"]["limits"]["memory"])
    for setting in ["MAX_IN_FLIGHT", "MAX_CONNECTIONS"]:
        assert environment()[setting] == base.env()[setting]


def test_the_page_installs_the_files_that_are_here_where_the_unit_expects_them():
    page = PAGE.read_text()
    (program,) = options("Service")["ExecStart"]
    (settings_file,) = options("Service")["EnvironmentFile"]
    assert f"deploy/systemd/environment {settings_file}" in page
    assert "deploy/systemd/math-service.service /etc/systemd/system/" in page
    assert re.search(rf"math-service {program}$", page, re.MULTILINE)


def test_the_page_builds_what_the_image_holds():
    (built,) = re.findall(r"^\$ scripts/build.sh (.*) (\S+)$", PAGE.read_text(), re.MULTILINE)
    assert built == ("math-service container math-service", "aarch64-unknown-linux-musl")
    assert "scripts/build.sh math-service container /math-service" in (ROOT / "Dockerfile").read_text()
    tool = re.search(r"/(cargo-auditable)-([\d.]+)/", (ROOT / "scripts/tools.mk").read_text())
    assert f"cargo install --locked {tool[1]}@{tool[2]}\n" in PAGE.read_text()


def test_the_page_asks_for_tokens_of_the_second_version_only():
    page = PAGE.read_text()
    assert "HttpTokens=required" in page and "HttpPutResponseHopLimit=1" in page


def calls_of(groups: list[str]) -> set[str]:
    """The system calls of systemd's groups, which hold each other."""
    program = needs("systemd-analyze", "know what a group of system calls holds")
    found = set()
    for group in groups:
        text = subprocess.run([program, "syscall-filter", group], check=True, capture_output=True, text=True).stdout
        members = [line.strip() for line in text.splitlines()[1:] if line.startswith("    ") and not line.strip().startswith("#")]
        found |= {member for member in members if not member.startswith("@")}
        found |= calls_of([member for member in members if member.startswith("@")])
    return found


def next_number(connection: http.client.HTTPConnection) -> int:
    """The answer's status."""
    connection.request("POST", "/fibonacci/next", headers={"X-Session-Key": "k" * 32})
    response = connection.getresponse()
    response.read()
    return response.status


def test_every_system_call_of_the_service_is_one_that_the_unit_allows(tmp_path):
    strace = needs("strace", "see what the service asks of the kernel")
    allowed, denied = options("Service")["SystemCallFilter"]
    permitted = calls_of(allowed.split()) - calls_of(denied.removeprefix("~").split())
    port, log = free_port(), tmp_path / "calls"
    env = {**environment(), "PORT": str(port), "STATE_URL": f"sqlite://{tmp_path}/state.db", "LOAD_ENABLED": "true", "DRAIN_DELAY": "0s"}
    with running([strace, "-f", "--output", str(log), server_binary()], port, env):
        assert post_sum(port).status == 200
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := next_number(connection)) != 200:
            # Under strace a slow disk may need longer than the store's deadline.
            assert answer == 503 and time.monotonic() < deadline, answer
            time.sleep(0.1)
        assert get(port, "/load?seconds=0.01").status == get(port, "/metrics").status == get(port, "/health").status == 200
        connection.close()
        # The service itself is told to stop, so that its drain is seen too.
        os.kill(int(log.read_text().split(maxsplit=1)[0]), signal.SIGTERM)
    made = set(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))
    assert {"accept4", "fdatasync"} & made and len(made) > 20, made
    # SQLite gives its files to their folder's owner when it runs as root, as tests may; the unit's user is nobody.
    assert made - {"fchown"} <= permitted, made - permitted
