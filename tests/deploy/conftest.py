import functools
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest
import yaml
from support import ROOT, cannot_run, running_server, settings

KUSTOMIZATIONS = ["k8s/base", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "k8s/overlays").iterdir())]


class Rendered(list):
    """The documents of a kustomization, found by kind. The name is its folder's."""

    def __init__(self, folder: str, documents):
        super().__init__(documents)
        self.name = folder.rsplit("/", 1)[-1]

    def all(self, kind: str) -> list[dict]:
        return [document for document in self if document["kind"] == kind]

    def one(self, kind: str) -> dict:
        (document,) = self.all(kind)
        return document

    def container(self) -> dict:
        (container,) = self.one("Deployment")["spec"]["template"]["spec"]["containers"]
        return container

    def env(self) -> dict[str, str]:
        """What the manifests say themselves; what a Secret says is not among it."""
        return {variable["name"]: variable["value"] for variable in self.container().get("env", []) if "value" in variable}


@functools.cache
def rendered(folder: str) -> Rendered:
    """What `kubectl apply -k` would send."""
    result = subprocess.run([ROOT / "tests/deploy/kustomize.sh", ROOT / folder], capture_output=True, text=True)
    if result.returncode == 3:
        cannot_run("neither kustomize nor a kubectl from 1.27 on is installed")
    assert result.returncode == 0, result.stderr
    return Rendered(folder, (document for document in yaml.safe_load_all(result.stdout) if document))


@functools.cache
def readmes_own() -> Rendered:
    """The kustomization of one's own that README shows, where README says that it goes."""
    ((path, text),) = re.findall(r"```yaml\n# (k8s/overlays/\S+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "k8s", pathlib.Path(folder) / "k8s")
        written = pathlib.Path(folder) / path
        written.parent.mkdir(exist_ok=True)
        written.write_text(text)
        return rendered(str(written.parent))


@pytest.fixture
def base() -> Rendered:
    return rendered("k8s/base")


@pytest.fixture(params=[*KUSTOMIZATIONS, "README.md"])
def manifests(request) -> Rendered:
    """The base, every overlay, and the one that README shows in turn."""
    return readmes_own() if request.param == "README.md" else rendered(request.param)


@pytest.fixture
def overlay():
    return lambda name: rendered(f"k8s/overlays/{name}")


@pytest.fixture(scope="session")
def known_settings() -> dict[str, str]:
    return settings()


@pytest.fixture(scope="session")
def server():
    """A running server: its port and its process."""
    with running_server() as server:
        yield server
