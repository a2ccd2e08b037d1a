"""The Lambda bundle as `sam build` makes it, invoked with AWS's own tools."""

import http.client
import json
import os
import pathlib
import struct
import subprocess
import sys
import zipfile

import pytest
from engine import HOST_ARCHITECTURE, docker
from support import PATIENCE_SECONDS, ROOT, free_port, gateway_binary, get, needs, post_sum, wait_until_it_answers

SAM = pathlib.Path(sys.executable).parent / "sam"
ENV = {**os.environ, "SAM_CLI_TELEMETRY": "0"}
MEGABYTE = 1_000_000
# Numbers of the ELF header's e_machine.
MACHINES = {"x86_64": 62, "arm64": 183}

ANSWERS = {
    "http-api": (200, '{"result":15.0}'),
    "rest-api": (200, '{"result":15.0}'),
    "function-url": (200, '{"result":15.0}'),
    "load-balancer": (200, '{"result":15.0}'),
    "health": (200, '{"status":"ok"}'),
    "bad-request": (422, None),
}


def build(folder: pathlib.Path, *overrides: str) -> pathlib.Path:
    needs("cargo", "build the function")
    command = [SAM, "build", "--build-dir", folder, *overrides]
    result = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "MathServiceFunction"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The bundle for this machine's architecture."""
    return build(tmp_path_factory.mktemp("sam"), "--parameter-overrides", f"Architecture={HOST_ARCHITECTURE}")


@pytest.fixture(scope="module")
def local(bundle):
    """What `sam local invoke` and `sam local start-api` need to run that bundle."""
    arguments = ["--template", str(bundle.parent / "template.yaml"), "--parameter-overrides", f"Architecture={HOST_ARCHITECTURE}"]
    base = f"public.ecr.aws/lambda/provided:al2023-{HOST_ARCHITECTURE}"
    # An image that is here is good enough; otherwise sam fetches it.
    return [*arguments, "--skip-pull-image"] if docker("images", "--quiet", base) else arguments


def machine(bundle: pathlib.Path) -> int:
    header = (bundle / "bootstrap").open("rb").read(20)
    assert header.startswith(b"\x7fELF")
    return struct.unpack_from("<H", header, 18)[0]


def test_the_bundle_is_one_small_static_program_for_this_machine(bundle, tmp_path):
    assert [path.name for path in bundle.iterdir()] == ["bootstrap"]
    assert machine(bundle) == MACHINES[HOST_ARCHITECTURE]
    assert b"ld-linux" not in (bundle / "bootstrap").read_bytes(), "it would need the host's libc"
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(bundle / "bootstrap", "bootstrap")
    size = (tmp_path / "bundle.zip").stat().st_size
    print(f"bundle: {size / MEGABYTE:.2f} MB zipped, {(bundle / 'bootstrap').stat().st_size / MEGABYTE:.2f} MB unpacked")
    assert size < 4 * MEGABYTE


def test_the_bundle_lists_what_it_is_made_of(bundle, tmp_path):
    command = ["make", "--silent", "sbom", f"BINARY={bundle / 'bootstrap'}", f"SBOM={tmp_path / 'sbom.json'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    names = {component["name"] for component in json.loads((tmp_path / "sbom.json").read_text())["components"]}
    assert {"axum", "lambda_runtime", "ring"} <= names and "libsqlite3-sys" not in names


def test_the_bundle_tells_nobody_where_it_was_built(bundle):
    assert str(ROOT).encode() not in (bundle / "bootstrap").read_bytes()


def test_the_bundle_says_which_credentials_it_misses(bundle, tmp_path):
    port = free_port()
    command = [gateway_binary(), "--port", str(port), "--env", "STATE_URL=dynamodb://table?region=eu-west-2", bundle / "bootstrap"]
    # No keys in the function's environment, and it looks nowhere else: nobody is called.
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_it_answers(port, lambda: process.poll() is not None and (tmp_path / "log").read_text())
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            connection.request("POST", "/fibonacci/next")
            assert connection.getresponse().status == 503
            connection.close()
        finally:
            process.terminate()
            process.wait()
    told = (tmp_path / "log").read_text()
    assert "AWS_ACCESS_KEY_ID is not set, and this program looks in the environment alone" in told


def test_the_default_architecture_is_built_on_this_machine_too(tmp_path):
    assert machine(build(tmp_path)) == MACHINES["arm64"]


def test_every_event_has_an_expected_answer():
    assert {path.stem for path in (ROOT / "events").glob("*.json")} == ANSWERS.keys()


@pytest.mark.parametrize("event", ANSWERS)
def test_sam_local_invoke_answers_every_event(local, event):
    command = [SAM, "local", "invoke", *local, "--event", ROOT / "events" / f"{event}.json"]
    result = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    status, body = ANSWERS[event]
    assert answer["statusCode"] == status
    if body:
        assert answer["body"] == body
    else:
        problem = json.loads(answer["body"])
        assert [error["pointer"] for error in problem["errors"]] == ["/a", "/b"]


def test_sam_local_start_api_serves_the_sum(local, tmp_path):
    port = free_port()
    command = [SAM, "local", "start-api", *local, "--port", str(port)]
    with (tmp_path / "sam.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=log, stderr=log)
    try:
        wait_until_it_answers(port, lambda: process.poll() is not None and "sam local start-api ended")
        answer = post_sum(port)
        assert (answer.status, answer.text) == (200, '{"result":15.0}')
        wrong = post_sum(port, '{"a":"10"}')
        assert wrong.status == 422
        assert json.loads(wrong.text)["status"] == 422
        assert get(port, "/healthz").text == '{"status":"ok"}'
    finally:
        process.terminate()
        process.wait()
        # For whoever reads of a failure: SAM's own answers say nothing of why.
        print((tmp_path / "sam.log").read_text()[-10_000:])
