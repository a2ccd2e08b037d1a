"""locustfile.py against both targets, a few seconds each, and against servers that answer wrongly."""

import contextlib
import http.server
import json
import pathlib
import subprocess
import sys
import threading

import pytest
from support import PATIENCE_SECONDS, ROOT, free_port, gateway_binary, lambda_binary, running, running_server

USERS = 20


def locust(host: str, users: int = USERS, run_time: int = 4) -> tuple[dict, int, str]:
    """Runs the load; the figures of `POST /`, the exit code, and what was said."""
    command = [pathlib.Path(sys.executable).parent / "locust", "--locustfile", ROOT / "locustfile.py", "--host", host]
    command += ["--headless", "--json", "--users", str(users), "--spawn-rate", str(users)]
    # The last requests may finish, or they would count as lost.
    command += ["--run-time", f"{run_time}s", "--stop-timeout", "10"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, cwd="/")
    figures = json.loads(result.stdout)
    assert len(figures) == 1, result.stderr
    return figures[0], result.returncode, result.stderr


@pytest.fixture(scope="module", params=["the container target", "the Lambda target"])
def target(request):
    """The port of a running target."""
    with contextlib.ExitStack() as stack:
        if request.param == "the container target":
            port, _ = stack.enter_context(running_server())
        else:
            port = free_port()
            command = [gateway_binary(), "--front", "http-v2", "--port", str(port), "--processes", "2", lambda_binary()]
            stack.enter_context(running(command, port))
        yield port


@pytest.mark.parametrize("slash", ["", "/"], ids=["host without slash", "host with slash"])
def test_no_request_fails_on_either_target_with_either_form_of_the_host(target, slash):
    figures, code, said = locust(f"http://127.0.0.1:{target}{slash}")
    assert figures["num_failures"] == 0 and code == 0, said
    # Each user asks at once and again after at most two seconds.
    assert figures["num_requests"] >= 2 * USERS
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
        figures, code, said = locust(f"http://127.0.0.1:{server.server_port}", users=10, run_time=1)
        server.shutdown()
    assert figures["num_failures"] == figures["num_requests"] >= len(answers)
    assert code != 0
    for message in (message for _, _, message in answers):
        assert message in said, said


def test_a_server_that_is_not_there_is_a_failure_that_says_so():
    figures, code, said = locust(f"http://127.0.0.1:{free_port()}", users=1, run_time=1)
    assert figures["num_failures"] == figures["num_requests"] > 0 and code != 0
    assert "no answer: " in said, said
