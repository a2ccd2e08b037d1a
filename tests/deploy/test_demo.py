"""`make demo` with the debug builds and a short load: its page, and that nothing of it is left, however it ends."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from support import PATIENCE_SECONDS, ROOT, cannot_run, free_port, gateway_binary, lab_binary, lambda_binary, server_binary

SECONDS = 3
LOCUST = pathlib.Path(sys.executable).with_name("locust")


class Demo:
    """A run of scripts/demo.sh in a session of its own, which all that it starts belongs to."""

    def __init__(self, folder: pathlib.Path, tree: pathlib.Path = ROOT, **env: str):
        if not pathlib.Path("/proc/self/stat").exists():
            cannot_run("without /proc it cannot be seen who is left")
        self.folder = folder
        binaries = {
            "MATH_SERVICE_BIN": server_binary(), "LAMBDA_BIN": lambda_binary(), "GATEWAY_BIN": gateway_binary(), "MATH_LAB_BIN": lab_binary(),
        }
        known = {"PATH": os.environ["PATH"], "HOME": str(folder), "LOCUST": str(LOCUST), "DEMO_FOLDER": str(folder / "demo")}
        self.said = (folder / "said").open("w+")
        self.process = subprocess.Popen(
            [tree / "scripts/demo.sh"], cwd=folder, stdin=subprocess.DEVNULL, stdout=self.said, stderr=subprocess.STDOUT,
            start_new_session=True,
            # Tests in the background ignore SIGINT, those under nohup SIGHUP, and a shell cannot trap what it was started to
            # ignore.
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
            env={**known, **binaries, "DEMO_SECONDS": str(SECONDS), "DEMO_USERS": "10", **env},
        )

    def text(self) -> str:
        return (self.folder / "said").read_text()

    def wait_for(self, found):
        """What `found` gives, once that is something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            ended = self.process.poll() is not None
            if result := found():
                return result
            assert not ended and time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def ends(self) -> int:
        """The exit status, once it has one; nobody is left then."""
        status = self.process.wait(3 * PATIENCE_SECONDS)
        assert not self.left(), (self.left(), self.text())
        return status

    def left(self) -> dict[int, str]:
        """Who lives in the session: names by id."""
        found = {}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name, state, _, _, session = re.fullmatch(r"\d+ \((.*)\) (\S) (\d+) (\d+) (\d+) .*\n", (folder / "stat").read_text()).groups()
                if int(session) == self.process.pid and state != "Z":
                    found[int(folder.name)] = name
        return found

    def ids_of(self, name: str) -> list[int]:
        return sorted(id for id, of in self.left().items() if of == name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for id in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(id, signal.SIGKILL)
        self.process.wait(PATIENCE_SECONDS)
        self.said.close()


def test_a_demo_ends_with_a_page_about_what_was_measured_and_can_be_repeated(tmp_path):
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            # Whoever else has the service's own port does not matter.
            stack.enter_context(socket.create_server(("", 8000)))
        for _ in range(2):
            demo = stack.enter_context(Demo(tmp_path))
            assert demo.ends() == 0, demo.text()
    said, folder = demo.text(), tmp_path / "demo"
    assert re.search(r"The page about it, after \d+ s in all: .*/demo/report.html", said), said
    phases = ["building", "starting both", "loading both", "profiling the container", "profiling the function", "simulating a day"]
    assert [said.index(f"==> {phase}") for phase in phases] == sorted(said.index(f"==> {phase}") for phase in phases)
    assert len(re.findall(r"^    done after \d+ s$", said, re.MULTILINE)) == len(phases)
    container, function = (json.loads((folder / f"{name}.json").read_text()) for name in ("container", "lambda"))
    for profile in (container, function):
        # What waits 20 ms takes no less, however busy this machine is.
        assert profile["cpu_ms"] > 0 and profile["cpu_ms"] + profile["wait_ms"] >= 20, profile
    assert container["cpu_ms"] == function["cpu_ms"] and container["request_bytes"] == function["request_bytes"]
    assert function["init_ms"] > 0 and function["memory_mib"] > 0, function
    page = (folder / "report.html").read_text()
    # A whole number of them has no point on the page.
    cpu, init = (f"{number} ms".replace(".0 ", " ") for number in (container["cpu_ms"], function["init_ms"]))
    for expected in ["Two runs of the same load", "Two profiles", "A month of such days", "POST /", cpu, init, "10 users of Locust",
                     "Cold starts and billed durations are Lambda"]:
        assert expected in page, expected
    (verdict,) = re.findall(r"Take (?:EKS|Lambda): it saves \$[\d,.]+ a month\.", page)
    assert f"    {verdict} What weighs most:" in said
    assert page.count('<svg class="chart"') >= 6
    for outside in ["<script", "src=", "href=", "@import", "url("]:
        assert outside not in page, outside


def that_stays(folder: pathlib.Path, program: str, argument: str = "", work: str = ":") -> str:
    """A program that stays until it is told to end, once it is called with this argument; before, it is the other one."""
    script = folder / "program-that-stays"
    script.write_text(f"""#!/bin/sh
case " $* " in
  *" {argument}"*) {work}; touch '{folder}/stays'; exec sleep 600 ;;
  *) exec '{program}' "$@" ;;
esac
""")
    script.chmod(0o755)
    return str(script)


# Some of these are over in a tenth of a second. The last one, which writes the page that must not be there afterwards, only stays.
@pytest.mark.parametrize(
    ("moment", "argument", "works"),
    [("profiling the container", "--concurrency 64 ", True), ("profiling the function", "--reports ", True), ("simulating", "page ", False)],
)
def test_ctrl_c_ends_everything_while_figures_are_made(moment, argument, works, tmp_path):
    work = f"'{lab_binary()}' \"$@\" & :" if works else ":"
    with Demo(tmp_path, MATH_LAB_BIN=that_stays(tmp_path, lab_binary(), argument, work)) as demo:
        demo.wait_for((tmp_path / "stays").exists)
        assert_interrupted(demo, moment)


def test_ctrl_c_ends_everything_while_a_server_does_not_listen_yet(tmp_path):
    with Demo(tmp_path, GATEWAY_BIN=that_stays(tmp_path, gateway_binary())) as demo:
        demo.wait_for((tmp_path / "stays").exists)
        assert demo.ids_of("math-service"), "the other one does"
        assert_interrupted(demo, "starting both")


def test_ctrl_c_ends_everything_under_load(tmp_path):
    with Demo(tmp_path, DEMO_SECONDS="60") as demo:
        demo.wait_for(lambda: "==> loading both" in demo.text())
        assert_interrupted(demo, "loading both")


def assert_interrupted(demo: Demo, moment: str) -> None:
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.ends() == 130
    said = demo.text()
    assert f"Interrupted while {moment}" in said and "Nothing of it runs any more" in said, said
    assert not (demo.folder / "demo/report.html").exists()


@pytest.mark.parametrize("seconds", [0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_ctrl_c_ends_everything_while_it_begins(seconds, tmp_path):
    with Demo(tmp_path, DEMO_SECONDS="60") as demo:
        demo.wait_for(lambda: demo.text() or demo.process.poll())
        time.sleep(seconds)
        os.killpg(demo.process.pid, signal.SIGINT)
        assert demo.ends() == 130, demo.text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_to_the_script_alone_ends_everything_under_load(number, status, tmp_path):
    with Demo(tmp_path, DEMO_SECONDS="60") as demo:
        # All that it ever has at once: the gateway with its function, the container, and two of Locust.
        demo.wait_for(lambda: len(demo.ids_of("lambda")) == 4 and len(demo.ids_of("locust")) == 2 and demo.ids_of("math-service"))
        os.kill(demo.process.pid, number)
        assert demo.ends() == status, demo.text()


def test_ctrl_c_while_it_builds_ends_the_build(tmp_path):
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin/make"
    make.write_text("#!/bin/sh\necho 'Compiling math-service'\nsleep 600 & sleep 600\n")
    make.chmod(0o755)
    with Demo(tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", MATH_LAB_BIN="") as demo:
        demo.wait_for(lambda: len(demo.ids_of("sleep")) >= 2)
        os.killpg(demo.process.pid, signal.SIGINT)
        assert demo.ends() == 130 and "Interrupted while building" in demo.text(), demo.text()


@pytest.mark.parametrize(("program", "name"), [("math-service", "container"), ("gateway", "lambda")])
def test_a_server_that_dies_ends_the_demo_with_its_last_lines(program, name, tmp_path):
    with Demo(tmp_path, DEMO_SECONDS="60") as demo:
        demo.wait_for(lambda: len(demo.ids_of("locust")) == 2 and "Computed result" in (tmp_path / f"demo/{name}.log").read_text())
        os.kill(demo.ids_of(program)[0], signal.SIGKILL)
        assert demo.ends() == 1
        said = demo.text()
    assert f"error: {name} ended by itself" in said and "Failed while loading both" in said, said
    assert "--- the last lines of" in said and '"event":"Computed result"' in said, said


def test_a_server_that_does_not_start_says_why(tmp_path):
    with Demo(tmp_path, DEMO_DELAY="soon") as demo:
        assert demo.ends() == 1
        said = demo.text()
    assert "error: container ended by itself" in said and "ADD_DELAY" in said, said


@pytest.mark.parametrize("which", [0, 1])
def test_a_port_that_is_taken_is_named(which, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Demo(tmp_path, DEMO_PORT=str(port - which)) as demo:
            assert demo.ends() == 1
            assert f"error: port {port} is taken; DEMO_PORT=… takes another one" in demo.text(), demo.text()


def test_the_ports_that_are_given_are_taken(tmp_path):
    port = free_port()
    with Demo(tmp_path, DEMO_PORT=str(port), DEMO_SECONDS="60") as demo:
        demo.wait_for(lambda: f"http://127.0.0.1:{port}, the function's behind a gateway on http://127.0.0.1:{port + 1}" in demo.text())
        os.killpg(demo.process.pid, signal.SIGINT)
        assert demo.ends() == 130


def test_without_locust_nothing_is_started(tmp_path):
    with Demo(tmp_path, LOCUST=str(tmp_path / "locust")) as demo:
        assert demo.ends() == 1
        assert f"error: there is no Locust at {tmp_path}/locust" in demo.text() and "starting" not in demo.text(), demo.text()


def test_without_python_it_says_how_to_get_it(tmp_path):
    tree, machine = tmp_path / "tree", tmp_path / "machine"
    (tree / "scripts").mkdir(parents=True)
    machine.mkdir()
    for script in ["demo.sh", "lib.sh"]:
        shutil.copy(ROOT / "scripts" / script, tree / "scripts")
    for read in ["k8s", "cluster-config.yaml", "template.yaml"]:
        (tree / read).symlink_to(ROOT / read)
    for tool in ["bash", "curl", "dirname", "env", "mkdir", "mktemp", "rm", "sleep"]:
        (machine / tool).symlink_to(shutil.which(tool))
    with Demo(tmp_path, tree, PATH=str(machine), LOCUST="") as demo:
        assert demo.ends() == 1
        assert "error: not installed:\n  python3: " in demo.text(), demo.text()


def test_a_build_that_fails_shows_its_last_lines(tmp_path):
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin/make"
    make.write_text("#!/bin/sh\necho \"error: could not compile $2\"\nexit 101\n")
    make.chmod(0o755)
    with Demo(tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", LAMBDA_BIN="") as demo:
        assert demo.ends() == 1
        said = demo.text()
    assert "error: could not compile demo-build" in said and "error: build failed with status 101" in said, said


@pytest.mark.parametrize("setting", ["DEMO_SECONDS=0", "DEMO_SECONDS=1m", "DEMO_USERS=-1", "DEMO_PORT=65535", "DEMO_PORT=http", "DEMO_TRAFFIC=waves"])
def test_settings_that_make_no_sense_are_refused(setting, tmp_path):
    name, value = setting.split("=")
    with Demo(tmp_path, **{name: value}) as demo:
        assert demo.ends() == 1
        assert f"error: {name}={value}: " in demo.text() and "loading" not in demo.text(), demo.text()
