"""locustfile.py against both targets, a few seconds each, and against servers that answer wrongly."""

import contextlib
import csv
import http.server
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import pytest
from support import PATIENCE_SECONDS, ROOT, free_port, gateway_binary, get, lambda_binary, running, running_server

USERS = 20
# What CI burns for each request.
BURN_SECONDS = 0.05
BURN = ("--load-seconds", str(BURN_SECONDS))
# The last requests may finish, or they would count as lost.
STOP = ("--stop-timeout", str(PATIENCE_SECONDS))
LOCUST = [str(pathlib.Path(sys.executable).parent / "locust"), "--locustfile", str(ROOT / "locustfile.py")]


def run_locust(host: str, *arguments: str) -> tuple[dict[str, dict], int, str]:
    """Runs Locust without its page: the figures by name, the exit code, and what was said."""
    command = [*LOCUST, "--host", host, "--headless", "--json", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS, cwd="/")
    return {row["name"]: row for row in json.loads(result.stdout)}, result.returncode, result.stderr


def locust(host: str, users: int = USERS, run_time: int = 4) -> tuple[dict, int, str]:
    """Runs what nobody has to choose: the figures of `POST /`, the exit code, and what was said."""
    limits = ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{run_time}s", *STOP]
    figures, code, said = run_locust(host, *limits)
    assert len(figures) == 1, said
    (figure,) = figures.values()
    return figure, code, said


@pytest.fixture(scope="module", params=["the container target", "the Lambda target"])
def target(request):
    """The port of a running target."""
    with contextlib.ExitStack() as stack:
        if request.param == "the container target":
            port, _ = stack.enter_context(running_server(LOAD_ENABLED="true"))
        else:
            port = free_port()
            command = [gateway_binary(), "--front", "http-v2", "--port", str(port), "--processes", "2", "--env", "LOAD_ENABLED=true"]
            stack.enter_context(running([*command, lambda_binary()], port))
        yield port


@pytest.mark.parametrize("slash", ["", "/"], ids=["host without slash", "host with slash"])
def test_no_request_fails_on_either_target_with_either_form_of_the_host(target, slash):
    figures, code, said = locust(f"http://127.0.0.1:{target}{slash}")
    assert figures["num_failures"] == 0 and code == 0, said
    # Each user asks at once; how often again depends on how busy this machine is.
    assert figures["num_requests"] >= USERS
    assert figures["method"] == "POST" and figures["name"].strip("/") == ""


WRONG = {
    "a wrong sum": (200, '{"result": 15.5}', "{'result': 15.5} instead of {'result': 15.0}"),
    "a string": (200, '{"result": "15.0"}', "{'result': '15.0'} instead of"),
    "more than the sum": (200, '{"result": 15.0, "note": "x"}', "'note': 'x'} instead of"),
    "no JSON": (200, "<html>", "'<html>' instead of"),
    "an error": (503, '{"result": 15.0}', "status 503 instead of 200"),
}


def test_every_kind_of_wrong_answer_is_a_failure_that_says_what_came():
    answers = list(WRONG.values())

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        requests = 0

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            status, body, _ = answers[Handler.requests % len(answers)]
            Handler.requests += 1
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        figures, code, said = locust(f"http://127.0.0.1:{server.server_port}", users=10, run_time=3)
        server.shutdown()
    assert figures["num_failures"] == figures["num_requests"] >= len(answers)
    assert code != 0
    for message in (message for _, _, message in answers):
        assert message in said, said


def test_a_server_that_is_not_there_is_a_failure_that_says_so():
    figures, code, said = locust(f"http://127.0.0.1:{free_port()}", users=1, run_time=3)
    assert figures["num_failures"] == figures["num_requests"] > 0 and code != 0
    assert "no answer: " in said, said


@pytest.mark.parametrize("slash", ["", "/"], ids=["host without slash", "host with slash"])
def test_load_users_end_by_themselves_when_all_requests_are_done(target, slash):
    figures, code, said = run_locust(f"http://127.0.0.1:{target}{slash}", "LoadUser", *BURN, "--load-requests", "60")
    assert code == 0 and "LoadUser passed: 60 of 60 done, 0 failed" in said, said
    assert (figures["/load"]["num_requests"], figures["/load"]["num_failures"]) == (60, 0)
    progress = [int(done) for done in re.findall(r"LoadUser: (\d+) of 60 done", said)]
    assert set(range(6, 61, 6)) <= set(progress), "it says how far it is"
    # Twenty at once find fewer slots; each waits and comes back.
    busy = figures.pop("/load (busy)", {"num_requests": 0, "num_failures": 0})
    assert f"{busy['num_requests']} times busy" in said and busy["num_failures"] == 0
    assert figures.keys() == {"/load"}


def test_a_busy_service_is_asked_again_and_that_is_no_failure():
    with running_server(LOAD_ENABLED="true", LOAD_SLOTS="1") as (port, _):
        figures, code, said = run_locust(f"http://127.0.0.1:{port}", "LoadUser", *BURN, "--load-requests", "30")
        (busy,) = re.findall(r"^http_server_requests_shed_total (\d+)$", get(port, "/metrics").text, re.MULTILINE)
    assert code == 0 and "30 of 30 done, 0 failed" in said, said
    # The first twenty come at once.
    assert figures["/load (busy)"]["num_requests"] == int(busy) > 0
    assert figures["/load (busy)"]["num_failures"] == 0


def test_mixed_users_add_and_burn(target):
    limits = ["--users", "60", "--spawn-rate", "60", "--run-time", "8s", *STOP]
    figures, code, said = run_locust(f"http://127.0.0.1:{target}/", "MixedUser", *BURN, *limits)
    assert code == 0, said
    adds = sum(row["num_requests"] for row in figures.values() if row["method"] == "POST")
    burns = sum(row["num_requests"] for row in figures.values() if row["method"] == "GET")
    assert figures["/load"]["num_requests"] > 0 and adds > burns > 0, "nine to one, but for chance"


def test_a_service_that_may_not_burn_is_told_apart_before_anything_is_sent():
    with running_server(LOAD_ENABLED="false") as (port, _):
        figures, code, said = run_locust(f"http://127.0.0.1:{port}", "LoadUser")
    assert code == 1 and not figures and "Traceback" not in said
    assert "LoadUser sends nothing: " in said and "start the service with LOAD_ENABLED=true" in said, said


def test_a_host_that_is_not_there_is_named_before_anything_is_sent():
    host = f"http://127.0.0.1:{free_port()}"
    figures, code, said = run_locust(host, "LoadUser")
    assert code == 1 and not figures and "Traceback" not in said
    assert f"LoadUser sends nothing: no answer from {host}/load" in said, said


@contextlib.contextmanager
def burner(answer):
    """A server that gives `answer(number of the request)`: status, headers, body. The first is the check's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with lock:
                paths.append(self.path)
                status, headers, body = answer(len(paths) - 1)
            if body is None:
                (seconds,) = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)["seconds"]
                body = json.dumps({"seconds": float(seconds), "iterations": 7})
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128

    paths, lock = [], threading.Lock()
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", paths
        finally:
            server.shutdown()


RIGHT = (200, {}, None)


def test_unless_told_otherwise_twenty_workers_burn_five_seconds_a_thousand_times():
    with burner(lambda _: RIGHT) as (host, paths):
        figures, code, said = run_locust(host, "LoadUser")
    assert code == 0 and "passed: 1000 of 1000 done" in said, said
    assert set(paths[1:]) == {"/load?seconds=5.0"} and len(paths) == 1 + 1000
    assert '{"LoadUser": 20} (20 total users)' in said
    assert figures["/load"]["num_requests"] == 1000


# One in a hundred may fail.
@pytest.mark.parametrize(("failing", "verdict", "expected"), [(2, "passed", 0), (3, "FAILED", 1)])
def test_too_many_failures_are_the_exit_code(failing, verdict, expected):
    with burner(lambda number: (500, {}, "{}") if 0 < number <= failing else RIGHT) as (host, _):
        figures, code, said = run_locust(host, "LoadUser", "--load-requests", "200")
    assert code == expected, said
    assert f"LoadUser {verdict}: 200 of 200 done, {failing} failed" in said, said
    assert figures["/load"]["num_failures"] == failing


WRONG_BURNS = {
    "other seconds": (200, {}, '{"seconds": 4.0, "iterations": 7}'),
    "no iterations": (200, {}, '{"seconds": 5.0, "iterations": 0}'),
    "no number of iterations": (200, {}, '{"seconds": 5.0}'),
    "a list": (200, {}, "[]"),
    "no JSON": (200, {}, "<html>"),
    "busy, but not on purpose": (503, {}, "{}"),
    "an error with a time": (500, {"retry-after": "0"}, "{}"),
}


@pytest.mark.parametrize("answer", WRONG_BURNS.values(), ids=WRONG_BURNS.keys())
def test_every_kind_of_wrong_burn_is_a_failure(answer):
    with burner(lambda number: answer if number else RIGHT) as (host, _):
        figures, code, said = run_locust(host, "LoadUser", "--load-requests", "20")
    assert code == 1 and figures["/load"]["num_failures"] == 20, said
    assert "/load (busy)" not in figures


def test_a_busy_service_gets_the_time_that_it_asked_for():
    moments = []

    def answer(number):
        moments.append(time.monotonic())
        return (503, {"retry-after": "2"}, "{}") if number == 1 else RIGHT

    with burner(answer) as (host, _):
        figures, code, said = run_locust(host, "LoadUser", "--users", "1", "--load-requests", "1")
    assert code == 0 and "1 of 1 done, 0 failed, 1 times busy" in said, said
    assert moments[2] - moments[1] >= 2


def test_a_run_that_is_cut_short_has_failed():
    # Two at once: on no machine are a thousand of them done at once.
    with running_server(LOAD_ENABLED="true", LOAD_SLOTS="2") as (port, _):
        host = f"http://127.0.0.1:{port}"
        _, code, said = run_locust(host, "LoadUser", *BURN, "--run-time", "2s")
        assert code == 1 and re.search(r"LoadUser FAILED: \d+ of 1000 done, 0 failed", said), said
        command = [*LOCUST, "--host", host, "--headless", "LoadUser", *BURN]
        # As in a terminal: what runs in the background, CI perhaps, ignores SIGINT, and its children would too.
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            for line in process.stderr:
                if "of 1000 done" in line:
                    process.send_signal(signal.SIGINT)
                    break
            said = process.stderr.read()
            assert process.wait(PATIENCE_SECONDS) == 1 and "LoadUser FAILED: " in said, said


def test_load_users_are_refused_where_their_requests_would_be_counted_twice():
    command = [*LOCUST, "--host", "http://127.0.0.1:9", "--headless", "--master", "LoadUser", "--expect-workers", "1"]
    result = subprocess.run([*command, "--master-bind-port", str(free_port())], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert result.returncode != 0 and "LoadUser counts its requests in one process" in result.stderr, result.stderr


@pytest.mark.parametrize("option", ["--load-seconds", "--load-requests"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "many"])
def test_options_that_make_no_sense_are_refused(option, value):
    result = subprocess.run([*LOCUST, f"{option}={value}"], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert result.returncode == 2 and f"argument {option}: invalid" in result.stderr, result.stderr


def course(shape: str, users: int, seconds: int) -> list[int]:
    """How many users a shape asks for, at each second of a run: by a clock that does not depend on this machine's."""
    program = f"""
import json, types, locustfile
options = types.SimpleNamespace(num_users={users}, run_time={seconds})
shape = locustfile.SHAPES[{shape!r}]()
shape.runner = types.SimpleNamespace(environment=types.SimpleNamespace(parsed_options=options))
ticks = []
for second in range({seconds}):
    shape.get_run_time = lambda: second
    ticks.append(shape.tick()[0])
shape.get_run_time = lambda: {seconds}
assert shape.tick() is None, "the end"
print(json.dumps(ticks))
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_steps_are_five_of_the_same_height_and_length():
    assert course("steps", 10, 20) == [users for users in (2, 4, 6, 8, 10) for _ in range(4)]


def test_a_ramp_goes_steadily_up_to_all_users_and_down_again():
    assert course("ramp", 100, 20) == [1, *range(10, 101, 10), *range(90, 0, -10)]


def users_over_time(shape: str, users: int, seconds: int) -> list[int]:
    """What Locust makes of it. It asks about once a second, and on a busy machine less often."""
    with burner(lambda _: RIGHT) as (host, _):
        limits = ["--users", str(users), "--run-time", f"{seconds}s", *STOP]
        _, code, said = run_locust(host, "MixedUser", "--shape", shape, *limits)
    assert "Shape test stopping" in said and "Run time limit" in said, said
    return [int(number) for number in re.findall(r"Shape test updating to (\d+) users", said)]


# What was seen of a shape must be right at once; a machine too busy to see enough of it gets a longer run.
LENGTHS = (10, 30, 90)


def test_locust_follows_the_steps_and_ends():
    for seconds in LENGTHS:
        followed = users_over_time("steps", 10, seconds)
        assert followed == sorted(set(followed)) and set(followed) <= {2, 4, 6, 8, 10}
        if len(followed) > 1:
            return
    pytest.fail(f"only {followed}")


def test_locust_follows_the_ramp_and_ends():
    for seconds in LENGTHS:
        followed = users_over_time("ramp", 100, seconds)
        top = followed.index(max(followed))
        assert followed[: top + 1] == sorted(followed[: top + 1]) and followed[top:] == sorted(followed[top:], reverse=True)
        if 0 < top < len(followed) - 1:
            return
    pytest.fail(f"only {followed}")


@contextlib.contextmanager
def web_page(host: str, *arguments: str):
    """Locust with its page; gives a function that asks it."""
    port = free_port()
    command = [*LOCUST, "--host", host, "--web-host", "127.0.0.1", "--web-port", str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str, form: dict | None = None) -> str:
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=PATIENCE_SECONDS) as response:
            return response.read().decode()

    try:
        wait_for(lambda: ask("/"))
        yield ask
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def wait_for(condition):
    """What `condition` gives, once that is something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError):
            if result := condition():
                return result
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_load_users_run_and_end_from_the_page_too(target):
    host = f"http://127.0.0.1:{target}/"
    with web_page(host, "LoadUser", *BURN) as ask:
        assert re.search(r'"num_users": ?20\b', ask("/")), "the page proposes the twenty workers"
        form = {"user_count": 20, "spawn_rate": 20, "host": host}
        # Twice: the second run counts from the beginning.
        for requests in (20, 25):
            assert json.loads(ask("/swarm", {**form, "load_requests": requests}))["success"] is True
            assert wait_for(lambda: row_of_stopped_run(ask, requests))["num_failures"] == 0


def row_of_stopped_run(ask, requests: int) -> dict | None:
    stats = stopped(ask)
    rows = stats["stats"] if stats else []
    return next((row for row in rows if (row["name"], row["num_requests"]) == ("/load", requests)), None)


def stopped(ask) -> dict | None:
    stats = json.loads(ask("/stats/requests"))
    return stats if stats["state"] == "stopped" else None


def test_the_page_runs_mixed_users_and_stops_when_told(target):
    host = f"http://127.0.0.1:{target}"
    with web_page(host, "MixedUser", *BURN) as ask:
        assert json.loads(ask("/swarm", {"user_count": 30, "spawn_rate": 30, "host": host}))["success"] is True
        wait_for(lambda: json.loads(ask("/stats/requests"))["total_rps"] > 0)
        ask("/stop", {})
        stats = wait_for(lambda: stopped(ask))
        assert all(row["num_failures"] == 0 for row in stats["stats"])


def recorded(path: pathlib.Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("slash", ["", "/"], ids=["host without slash", "host with slash"])
def test_each_request_is_a_line_of_the_file_with_the_id_of_its_answer(target, slash, tmp_path):
    path = tmp_path / "requests.csv"
    limits = ["--users", "10", "--spawn-rate", "10", "--run-time", "3s", *STOP]
    figures, code, said = run_locust(f"http://127.0.0.1:{target}{slash}", *limits, "--requests-csv", str(path))
    lines = recorded(path)
    assert code == 0 and len(lines) == sum(figure["num_requests"] for figure in figures.values()) > 0, said
    assert {(line["method"], line["name"], line["status"], line["failed"]) for line in lines} == {("POST", "/", "200", "0")}
    ids = {line["request_id"] for line in lines}
    assert len(ids) == len(lines) and all(ids)
    assert all(abs(float(line["started"]) - time.time()) < 10 * PATIENCE_SECONDS and float(line["ms"]) > 0 for line in lines)


def test_failures_are_marked_in_the_file_and_those_that_were_busy_are_none(tmp_path):
    answers = {1: (500, {}, "{}"), 2: (503, {"retry-after": "0"}, "{}")}
    path = tmp_path / "requests.csv"
    with burner(lambda number: answers.get(number, RIGHT)) as (host, _):
        _, _, said = run_locust(host, "LoadUser", "--load-requests", "20", "--requests-csv", str(path))
    lines = recorded(path)
    assert [line["status"] for line in lines if line["failed"] == "1"] == ["500"], said
    assert [line["status"] for line in lines if line["name"] == "/load (busy)"] == ["503"]
    assert sum(line["name"] == "/load" for line in lines) == 20


def test_a_request_without_an_answer_is_a_failed_line_without_an_id(tmp_path):
    path = tmp_path / "requests.csv"
    limits = ["--users", "1", "--run-time", "3s"]
    run_locust(f"http://127.0.0.1:{free_port()}/stage", *limits, "--requests-csv", str(path))
    assert {(line["name"], line["status"], line["failed"], line["request_id"]) for line in recorded(path)} == {("/", "0", "1", "")}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--requests-csv", "/nowhere/at/all.csv"], "--requests-csv: "),
        (["--requests-csv", "/dev/null", "--master", "--expect-workers", "1"], "--requests-csv writes the requests of one process"),
    ],
)
def test_a_file_that_cannot_hold_all_requests_is_refused_before_anything_is_sent(arguments, reason):
    command = [*LOCUST, "--host", "http://127.0.0.1:9", "--headless", *arguments, "--master-bind-port", str(free_port())]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert result.returncode != 0 and reason in result.stderr, result.stderr
