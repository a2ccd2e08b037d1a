"""The service as the tests of this folder start it: on either target, with credentials and nothing else of AWS's."""

import contextlib
import hashlib
import http.client
import json
import pathlib
import struct
import subprocess
import typing
import urllib.parse

from eks import CLUSTER, FUNCTION, PODS, REGION, Cluster, principals
from support import PATIENCE_SECONDS, free_port, gateway_binary, lambda_binary, needs, running, running_server

TARGETS = ["container", "lambda"]
IMAGE = "registry.example/team/tool:1"
# The tokens of the service's own callers, with what they may do.
TOKENS = {
    "all": "jobs:read,jobs:write,namespaces:write,audit:read",
    "reader": "jobs:read",
    "writer": "jobs:write",
    "maker": "namespaces:write",
}


def bearer(name: str) -> str:
    return f"token-of-{name}-" + "0123456789abcdef" * 2


def tokens_file(folder: pathlib.Path) -> pathlib.Path:
    lines = [f"{hashlib.sha256(bearer(name).encode()).hexdigest()} {name} {scopes}" for name, scopes in TOKENS.items()]
    path = folder / "tokens"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


class Answer(typing.NamedTuple):
    status: int
    body: typing.Any
    headers: http.client.HTTPMessage


class Service:
    def __init__(self, port: int, lines: pathlib.Path | None = None):
        self.port = port
        self.lines = lines

    def call(self, method: str, path: str, body=None, who: str | None = "all", patience: float = PATIENCE_SECONDS, raw: bool = False, **headers: str) -> Answer:
        """One request on a connection of its own; `if_match="x"` becomes the header If-Match. A `raw` answer need not be JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if who is not None:
            sent["authorization"] = f"Bearer {bearer(who)}"
        if body is not None:
            sent["content-type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, sent)
            response = connection.getresponse()
            text = response.read()
            is_json = not raw or "json" in response.headers["content-type"]
            return Answer(response.status, json.loads(text) if text and is_json else text, response.headers)
        finally:
            connection.close()

    def begins(self, path: str) -> Answer:
        """An answer that goes on: its head, and of a refusal all of it."""
        with self.stream(path) as response:
            body = json.loads(response.read()) if response.status >= 400 else None
            return Answer(response.status, body, response.headers)

    @contextlib.contextmanager
    def stream(self, path: str, last: str = "", patience: float = PATIENCE_SECONDS):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            headers = {"authorization": f"Bearer {bearer('all')}", **({"last-event-id": last} if last else {})}
            connection.request("GET", path, headers=headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def jobs(self, namespace: str, name: str = "", **query: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/jobs" + (f"/{name}" if name else "")
        return path + (f"?{urllib.parse.urlencode(query)}" if query else "")


class Clock:
    """The wall clock of a service, which a test sets ahead."""

    def __init__(self, folder: pathlib.Path):
        self.file = folder / "ahead"
        self.library = folder / "clock.so"
        source = pathlib.Path(__file__).with_name("clock.c")
        compiler = needs("cc", "move the service's clock")
        subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", self.library, source, "-ldl"], check=True)
        self.set(0)

    def set(self, seconds: int) -> None:
        # In place: the service looks at this very file.
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_AHEAD": str(self.file)}


def settings(cluster: Cluster, folder: pathlib.Path, key: str, **more: str) -> dict[str, str]:
    """What the service is told. Of AWS there is nothing but an access key, and where EKS is in place of AWS."""
    principal = principals()[key]
    session = {"AWS_SESSION_TOKEN": principal.session_token} if principal.session_token else {}
    return {
        "EKS_CLUSTER_NAME": CLUSTER,
        "EKS_REGION": REGION,
        "AWS_ENDPOINT_URL_EKS": cluster.aws_url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": principal.secret,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AUTH_TOKENS_FILE": str(tokens_file(folder)),
        "JOBS_NAMESPACES": "team-*",
        "JOBS_IMAGES": "registry.example/team/*",
        "JOBS_RATE_LIMIT": "100000/s",
        **session,
        **more,
    }


@contextlib.contextmanager
def serving(target: str, cluster: Cluster, folder: pathlib.Path, key: str = "", processes: int = 4, front: str = "http-v2", **more: str):
    """A running service. On Lambda it has a session token, as functions have."""
    # Its processes are all on this machine, and share the file.
    store = {"STATE_URL": f"sqlite://{folder / 'state.db'}", "ALLOW_EMBEDDED_STORE": "true"}
    env = {**store, **settings(cluster, folder, key or {"container": PODS, "lambda": FUNCTION}[target], **more)}
    if target == "container":
        with running_server(**env) as (port, _):
            yield Service(port)
    else:
        port = free_port()
        words = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        command = [gateway_binary(), "--front", front, "--port", str(port), "--processes", str(processes), *words, lambda_binary()]
        with running(command, port):
            yield Service(port)
