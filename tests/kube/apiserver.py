"""The real Kubernetes API server that the tests of this folder talk to, and its administrator.

A command starts it: KUBE_UP names one. With `--auth-webhook URL` it starts etcd, kube-apiserver and
kube-controller-manager on this machine (those that do not run already), with bearer tokens sent to that webhook, and
prints `export KUBECONFIG=… KUBE_URL=… KUBE_CA=…`; `--wipe` ends and removes them. It keeps its state in KUBE_UP_DIR,
with a file for each process: its id in `run/kube-apiserver.pid` and the like, what it says in `log/kube-apiserver.log`
and the like. It listens on KUBE_UP_PORT and the three ports after it.
"""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import time
import typing

import yaml
from support import PATIENCE_SECONDS, cannot_run

# The first start may build what it starts.
START_SECONDS = 1500
# The command has its own idea of how long a start may take, and a busy machine another.
ATTEMPTS = 3
# For an answer that takes no time where there is one at all.
PROBE_SECONDS = 10
# What is shown of each log.
LOG_LINES, LINE_LENGTH = 20, 300


class CannotStart(Exception):
    """There is no cluster, and there will be none. Says all that is known of it."""


class Answer(typing.NamedTuple):
    status: int
    body: dict


class ApiServer:
    def __init__(self, command: str, folder: pathlib.Path):
        self.command = shlex.split(command)
        self.folder = folder / "cluster"
        self.port = self.url = self.webhook = None

    def start(self, webhook: str) -> None:
        self.webhook = webhook
        self.ensure()

    def ensure(self) -> None:
        """All of it runs, and answers. What does not run is started; what was stored is kept."""
        failures, deadline = [], time.monotonic() + START_SECONDS
        for _ in range(ATTEMPTS):
            if self.is_well():
                return
            try:
                self._start(deadline - time.monotonic())
                wait_for(self.is_well, "an answer of the API server's")
            except (AssertionError, subprocess.TimeoutExpired) as failure:
                failures.append(str(failure))
                # What runs and does not answer would be left as it is.
                self._kill()
        if not self.is_well():
            raise CannotStart("\n".join(["there is no Kubernetes API server to test with", *failures, self._ends_of_logs()]))

    def is_well(self) -> bool:
        """Whether each process runs that was started, and the API server is ready, as it is with its etcd only."""
        pids = self._pids()
        if "kube-apiserver" not in pids or not all(runs(pid) for pid in pids.values()):
            return False
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._send("GET", "/readyz", None, "", "application/json", PROBE_SECONDS)[0] == 200
        return False

    @contextlib.contextmanager
    def killed(self):
        """Without an API server, as after a crash: nothing is said goodbye to. At the end it is back, with its objects."""
        try:
            self._kill()
            yield
        finally:
            self.ensure()

    def crash(self) -> None:
        """It is killed, and is back when this returns."""
        with self.killed():
            pass

    def wipe(self) -> None:
        try:
            self._run("--wipe")
        except AssertionError:
            # A process may end by itself at the moment in which it is to be ended.
            self._run("--wipe")

    def _start(self, patience: float) -> None:
        if self.url is None:
            self.port = free_ports(4)
        said = self._run("--auth-webhook", self.webhook, patience=patience)
        exported = dict(word.split("=", 1) for word in shlex.split(said.replace("export ", " ")))
        self.url = exported["KUBE_URL"]
        self.ca = pathlib.Path(exported["KUBE_CA"]).read_text()
        self._read_credentials(pathlib.Path(exported["KUBECONFIG"]))

    def _kill(self) -> None:
        """Then there is none, not even one that is about to end."""
        pid = self._pids().get("kube-apiserver")
        if pid is not None and runs(pid):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not runs(pid), "the end of the API server")

    def _pids(self) -> dict[str, int]:
        """Of what was started, by name."""
        written = {path.stem: path.read_text().strip() for path in (self.folder / "run").glob("*.pid")}
        return {name: int(text) for name, text in written.items() if text}

    def _ends_of_logs(self) -> str:
        logs = sorted((self.folder / "log").glob("*.log"))
        ends = [(log.name, log.read_text(errors="replace").splitlines()[-LOG_LINES:]) for log in logs]
        return "\n".join(line[:LINE_LENGTH] for name, end in ends for line in [f"--- {name}", *end])

    def _run(self, *arguments: str, patience: float = PATIENCE_SECONDS) -> str:
        env = {**os.environ, "KUBE_UP_DIR": str(self.folder), "KUBE_UP_PORT": str(self.port)}
        result = subprocess.run([*self.command, *arguments], env=env, capture_output=True, text=True, timeout=max(patience, 1))
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def _read_credentials(self, kubeconfig: pathlib.Path) -> None:
        (user,) = yaml.safe_load(kubeconfig.read_text())["users"]
        self._context = ssl.create_default_context(cadata=self.ca)
        pair = self.folder / "admin.pem"
        pair.write_bytes(b"".join(base64.b64decode(user["user"][f"client-{part}-data"]) for part in ("certificate", "key")))
        self._context.load_cert_chain(pair)

    def ask(self, method: str, path: str, body=None, token: str = "", kind: str = "application/json") -> Answer:
        """A request of the administrator's, or of whoever `token` stands for."""
        status, text = self._send(method, path, json.dumps(body) if body is not None else None, token, kind)
        return Answer(status, json.loads(text or "{}"))

    def text(self, path: str) -> str:
        """What is no JSON."""
        return self._send("GET", path, None, "", "application/json")[1]

    def _send(
        self, method: str, path: str, body: str | None, token: str, kind: str, patience: float = PATIENCE_SECONDS
    ) -> tuple[int, str]:
        # Whoever has a token is not to be taken for the administrator, who has a certificate.
        context = ssl.create_default_context(cadata=self.ca) if token else self._context
        headers = {"content-type": kind, **({"authorization": f"Bearer {token}"} if token else {})}
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=patience, context=context)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def apply(self, document: dict) -> None:
        """Creates an object of the RBAC group, or gives the one that is there this content; in `default` what is in a namespace."""
        kind = document["kind"]
        place = "" if kind.startswith("Cluster") else "/namespaces/default"
        path = f"/apis/{document['apiVersion']}{place}/{kind.lower()}s"
        answer = self.ask("POST", path, document)
        if answer.status == 409:
            answer = self.ask("PUT", f"{path}/{document['metadata']['name']}", document)
        assert answer.status in (200, 201), answer

    def job_path(self, namespace: str, name: str = "") -> str:
        return f"/apis/batch/v1/namespaces/{namespace}/jobs" + (f"/{name}" if name else "")

    def job(self, namespace: str, name: str) -> dict | None:
        answer = self.ask("GET", self.job_path(namespace, name))
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None

    def pods(self, namespace: str, job: str) -> list[dict]:
        answer = self.ask("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector=job-name%3D{job}")
        assert answer.status == 200, answer
        return answer.body["items"]

    def set_pods(self, namespace: str, job: str, status: dict) -> None:
        """Plays kubelet: says of each pod of a Job what became of it. There are no nodes."""
        pods = wait_for(lambda: self._own_pods(namespace, job), f"pods of {job}")
        for pod in pods:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status"
            answer = self.ask("PATCH", path, {"status": status}, kind="application/merge-patch+json")
            assert answer.status == 200, answer

    def _own_pods(self, namespace: str, job: str) -> list[dict]:
        """Without those of a Job that had the name before, which are deleted some time after it."""
        found = self.job(namespace, job)
        uid = found["metadata"]["uid"] if found else None
        return [pod for pod in self.pods(namespace, job) if uid in [owner["uid"] for owner in pod["metadata"].get("ownerReferences", [])]]

    def make_namespace(self, name: str) -> None:
        """A namespace of nobody's, with the account that its pods run as."""
        answer = self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        assert answer.status in (201, 409), answer
        path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        wait_for(lambda: self.ask("GET", path).status == 200, f"the default account of {name}")


def wait_for(condition, what: str, patience: float = PATIENCE_SECONDS):
    """What `condition` gives, once that is something."""
    deadline = time.monotonic() + patience
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, f"{what}: not in {patience} s"
        time.sleep(0.1)


def runs(pid: int) -> bool:
    """Whether there is such a process. One that has ended and that nobody has asked about is none."""
    with contextlib.suppress(OSError):
        # The name before it may hold anything, a parenthesis too.
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on. By chance, since others look for some at the same moment."""
    for first in random.sample(range(26443, 30000, count), 100):
        if not any(listens(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def command() -> str:
    """The command that starts a cluster, or no test of this folder can run."""
    asked = os.environ.get("KUBE_UP", "")
    if not asked or not shutil.which(shlex.split(asked)[0]):
        cannot_run("KUBE_UP names no command that starts a Kubernetes API server (CONTRIBUTING.md says what it must do)")
    return asked
