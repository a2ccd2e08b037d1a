"""Our OpenAPI document is true: schemathesis makes requests of it, right and wrong ones, and checks every answer."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from service import TARGETS, bearer, serving
from support import ROOT

SCHEMATHESIS = pathlib.Path(sys.executable).with_name("schemathesis")
# The same requests every time, but for what the answers lead to.
SEED, EXAMPLES = "20261121", "60"
# Everything may be asked for: what is refused before it reaches the cluster would try nothing.
OPEN = {"JOBS_NAMESPACES": "*", "JOBS_IMAGES": "*", "JOBS_RATE_LIMIT": "100000/s", "LOGLEVEL": "ERROR"}


@pytest.fixture(scope="module", params=TARGETS)
def service(request, cluster, granted, tmp_path_factory):
    # An HTTP API answers some malformed paths itself; a load balancer passes everything on.
    with serving(request.param, cluster, tmp_path_factory.mktemp("service"), front="alb-multi", **OPEN) as service:
        service.target = request.param
        yield service


def run(service, folder: pathlib.Path, *options: str, configuration: str = "") -> subprocess.CompletedProcess:
    config = folder / "schemathesis.toml"
    # What stands outside of every table has to come first.
    config.write_text(configuration + (ROOT / "tests/kube/schemathesis.toml").read_text())
    command = [SCHEMATHESIS, "--config-file", config, "--no-color", "run", f"http://127.0.0.1:{service.port}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {bearer('all')}", "--checks", "all", "--continue-on-failure"]
    command += ["--seed", SEED, "--max-examples", EXAMPLES, "--request-timeout", "60"]
    # A simulation's crossover takes seconds in a debug build; how long, on a busy machine, is no matter of this test.
    command += ["--max-response-time", "60", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


def requests_tried(result: subprocess.CompletedProcess) -> int:
    return int(re.search(r"^  (\d+) generated", result.stdout, re.MULTILINE)[1])


@pytest.mark.parametrize("where", ["any namespace", "a namespace that exists"])
def test_no_answer_is_an_error_of_ours_or_undocumented(service, cluster, tmp_path, where):
    configuration = ""
    if where == "a namespace that exists":
        cluster.api.make_namespace("team-fuzz")
        configuration += '[parameters]\n"path.namespace" = "team-fuzz"\n'
    # The container's alone: on Lambda there is no such path, whatever the method.
    options = ["--exclude-path", "/metrics"] if service.target == "lambda" else []
    # An answer that goes on for as long as its Job does, or that waits for it to change: test_events.py reads those.
    options += ["--exclude-path-regex", "/events$"]
    result = run(service, tmp_path, *options, configuration=configuration)
    tried = requests_tried(result)
    print(f"schemathesis, {service.target}, {where}: {tried} requests")
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr
    assert tried > 500


def test_schemathesis_would_see_an_undocumented_answer(service, tmp_path):
    """Told of a document that leaves one answer out."""
    document = service.call("GET", "/openapi.json", who=None).body
    assert "403" in document["paths"]["/load"]["get"]["responses"], "it is not enabled here"
    del document["paths"]["/load"]["get"]["responses"]["403"]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [SCHEMATHESIS, "--no-color", "run", "openapi.json", "--url", f"http://127.0.0.1:{service.port}", "--include-path", "/load"]
    result = subprocess.run([*command, "--checks", "status_code_conformance"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1 and "Undocumented status code" in result.stdout, result.stdout
