#!/usr/bin/env python3
"""Writes scripts/layout.ld, by which build.sh has the linker put what runs into one place.

    scripts/layout.py

The kernel maps 64 KB of a binary around each page that runs. What a start and an addition execute is a tenth of the code,
but the linker takes functions as the compiler gives them, and so more than half of the code is in memory. This builds what
ships with its symbols, has valgrind write down which functions are executed, from the start to SIGTERM, and writes their
names for the linker, which puts all others behind them. A name that is no longer there does no harm, and a function that is
not named costs 64 KB at most: renew it now and then, not with every change. The tests of the image say when it is time.

Linux on x86_64; Arm has the same names. Some ten minutes on two cores, nearly all of it compiling.
"""

import collections
import contextlib
import http.client
import http.server
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYOUT = ROOT / "scripts/layout.ld"
VALGRIND = ROOT / "bench/valgrind.sh"
# The function's start and an addition, as each door hands it over.
EVENTS = [(ROOT / "events" / name).read_bytes() for name in ("http-api.json", "rest-api.json")]
ADDITIONS = 20
PATIENCE_S = 120

HEADER = """\
/* Which functions a start and an addition execute, on either target: they come first, side by side, and the rest of the
   code stays out of memory. Written by `make layout`; scripts/layout.py says why. */
"""


def build(binary: str, features: str, folder: pathlib.Path) -> pathlib.Path:
    print(f"layout: building {binary} with its symbols", flush=True)
    symbols = {f"CARGO_PROFILE_{profile}_STRIP": "none" for profile in ("RELEASE", "FUNCTION")}
    subprocess.run([ROOT / "scripts/build.sh", binary, features, folder / binary], env=os.environ | symbols, check=True)
    return folder / binary


@contextlib.contextmanager
def observed(binary: pathlib.Path, environment: dict[str, str], counts: pathlib.Path):
    """The program under valgrind, with nothing else in its environment; ended by SIGTERM."""
    print(f"layout: running {binary.name}", flush=True)
    command = [VALGRIND, "--quiet", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={counts}", binary]
    environment = environment | {"PATH": os.environ["PATH"]}
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, env=environment, cwd=counts.parent, stdout=log) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(method, path, body, {"content-type": "application/json"} if body else {})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, f"{method} {path}: {answer.status}"


def wait_for(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        time.sleep(0.1)
    sys.exit("layout: the service does not listen")


def run_container(binary: pathlib.Path, counts: pathlib.Path) -> None:
    """What a pod without work does, and additions."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with observed(binary, {"HOST": "127.0.0.1", "PORT": str(port)}, counts) as process:
        wait_for(port, process)
        for path in ("/livez", "/readyz", "/healthz", "/metrics"):
            ask(port, "GET", path)
        for number in range(ADDITIONS):
            ask(port, "POST", "/", b'{"a":%d,"b":0.5}' % number)


class RuntimeApi(http.server.BaseHTTPRequestHandler):
    """Hands out the events, ADDITIONS in all, and then keeps the function waiting."""

    protocol_version = "HTTP/1.1"
    given = 0
    all_answered = threading.Event()

    def do_GET(self) -> None:
        if RuntimeApi.given == ADDITIONS:
            RuntimeApi.all_answered.set()
            return time.sleep(PATIENCE_S)
        RuntimeApi.given += 1
        event = EVENTS[RuntimeApi.given % len(EVENTS)]
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", str(RuntimeApi.given))
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + PATIENCE_S) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:layout")
        self.send_header("Content-Length", str(len(event)))
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"]))
        if b'"statusCode":200' not in said:
            return print(f"layout: the function said {said}", file=sys.stderr)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


def run_function(binary: pathlib.Path, counts: pathlib.Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "layout",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "REQUEST_TIMEOUT": "25s",
        "STATE_URL": "dynamodb://state",
    }
    with observed(binary, environment, counts):
        if not RuntimeApi.all_answered.wait(PATIENCE_S):
            sys.exit("layout: the function did not answer every event")


def executed(binary: pathlib.Path, counts: pathlib.Path) -> set[str]:
    """The symbols of the functions that ran: all of a function's, as the linker folds functions of the same code into one."""
    ran = set(re.findall(r"^c?fn=\(\d+\) ([^\s']+)", counts.read_text(), re.MULTILINE))
    symbols = subprocess.run(["nm", "--defined-only", binary], capture_output=True, text=True, check=True).stdout
    names = collections.defaultdict(set)
    for address, kind, name in (line.split() for line in symbols.splitlines()):
        if kind in "tTwW":
            names[address].add(name)
    return set().union(*(known for known in names.values() if known & ran))


def pattern(symbol: str) -> str:
    """The symbol without what changes from compiler to compiler and from version to version."""
    symbol = re.sub(r"17h[0-9a-f]{16}E.*$", "17h*", symbol)
    return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", symbol)


def main() -> None:
    # Before the minutes of compiling.
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        sys.exit("layout: what runs is observed on Linux on x86_64")
    if subprocess.run([VALGRIND, "--version"], stdout=subprocess.DEVNULL).returncode != 0:
        sys.exit("layout: there is no valgrind to observe with")
    targets = (("math-service", "container", run_container), ("lambda", "function", run_function))
    symbols = set()
    with tempfile.TemporaryDirectory(prefix="layout-") as folder:
        for name, features, run in targets:
            binary, counts = build(name, features, pathlib.Path(folder)), pathlib.Path(folder) / f"{name}.callgrind"
            run(binary, counts)
            symbols |= executed(binary, counts)
    # Cold functions are in sections whose names begin with .text.unlikely.
    lines = (f"    *(.text*.{name})\n" for name in sorted({pattern(symbol) for symbol in symbols}))
    LAYOUT.write_text(f"{HEADER}SECTIONS {{\n  .text.hot : {{\n{''.join(lines)}  }}\n}}\nINSERT BEFORE .text;\n")
    print(f"layout: {len(symbols)} functions; build again to have them laid out so")


if __name__ == "__main__":
    main()
