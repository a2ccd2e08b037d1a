"""The real Kubernetes API server that the tests of this folder talk to, and its administrator.

A command starts it: KUBE_UP names one. With `--auth-webhook URL` it starts etcd, kube-apiserver and
kube-controller-manager on this machine (those that do not run already), with bearer tokens sent to that webhook, and
prints `export KUBECONFIG=… KUBE_URL=… KUBE_CA=…`; `--wipe` ends and removes them. It keeps its state in KUBE_UP_DIR,
with the API server's process id in `run/kube-apiserver.pid`, and listens on KUBE_UP_PORT and the three ports after it.
"""

import base64
import contextlib
import http.client
import json
import os
import pathlib
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


class Answer(typing.NamedTuple):
    status: int
    body: dict


class ApiServer:
    def __init__(self, command: str, folder: pathlib.Path):
        self.command = shlex.split(command)
        self.folder = folder / "cluster"
        self.port = free_ports(4)
        self.webhook = None

    def start(self, webhook: str) -> None:
        """Starts what does not run; what was stored is kept."""
        self.webhook = webhook
        said = self._run("--auth-webhook", webhook)
        exported = dict(word.split("=", 1) for word in shlex.split(said.replace("export ", " ")))
        self.url = exported["KUBE_URL"]
        self.ca = pathlib.Path(exported["KUBE_CA"]).read_text()
        self._read_credentials(pathlib.Path(exported["KUBECONFIG"]))

    def kill(self) -> None:
        """As a crash would: nothing is said goodbye to."""
        pid = int((self.folder / "run/kube-apiserver.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while listens(self.port):
            assert time.monotonic() < deadline, "the API server survives SIGKILL"
            time.sleep(0.05)

    def restart(self) -> None:
        self.start(self.webhook)

    def wipe(self) -> None:
        self._run("--wipe")

    def _run(self, *arguments: str) -> str:
        env = {**os.environ, "KUBE_UP_DIR": str(self.folder), "KUBE_UP_PORT": str(self.port)}
        result = subprocess.run([*self.command, *arguments], env=env, capture_output=True, text=True, timeout=START_SECONDS)
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

    def _send(self, method: str, path: str, body: str | None, token: str, kind: str) -> tuple[int, str]:
        # Whoever has a token is not to be taken for the administrator, who has a certificate.
        context = ssl.create_default_context(cadata=self.ca) if token else self._context
        headers = {"content-type": kind, **({"authorization": f"Bearer {token}"} if token else {})}
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS, context=context)
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
        pods = wait_for(lambda: self.pods(namespace, job), f"pods of {job}")
        for pod in pods:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status"
            answer = self.ask("PATCH", path, {"status": status}, kind="application/merge-patch+json")
            assert answer.status == 200, answer

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


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for first in range(26443, 30000, count):
        if not any(listens(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def command() -> str:
    """The command that starts a cluster, or no test of this folder can run."""
    asked = os.environ.get("KUBE_UP", "")
    if not asked or not shutil.which(shlex.split(asked)[0]):
        cannot_run("KUBE_UP names no command that starts a Kubernetes API server (CONTRIBUTING.md says what it must do)")
    return asked
