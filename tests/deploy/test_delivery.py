"""The scripts of a delivery (smoke, rollout, the kind cluster, a released Lambda bundle), with stand-ins for every program
that they call (standin.py), and with the service itself where that can be had."""

import os
import re
import subprocess

import pytest
import yaml
from conftest import rendered
from support import PATIENCE_SECONDS, ROOT, free_port, read_yaml, running_server
from test_setup import RUNNING, World, world  # noqa: F401  (a fixture)

IMAGE = "111122223333.dkr.ecr.eu-west-2.amazonaws.com/my-math-service@sha256:" + "ab" * 32
SCRIPTS = ["smoke", "rollout", "kind"]


@pytest.fixture
def running(world) -> World:  # noqa: F811
    """A cluster with a service that has been updated before, and answers as version 1.2.3 since the image was applied."""
    world.have(**RUNNING, revision=7)
    return world


@pytest.fixture
def host(world) -> World:  # noqa: F811
    """A machine on which nothing runs yet."""
    return world


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_printed_without_doing_anything(host, name):
    result = host.run(name, "--help")
    assert result.returncode == 0 and f"Usage: make {name}" in result.stdout and "shellcheck" not in result.stdout
    assert host.calls == []


# smoke


def smoke(port: int, expected: str, seconds: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "URL": f"http://127.0.0.1:{port}//", "EXPECT": expected, "POLL_SECONDS": "0.1", "WAIT_SECONDS": seconds}
    return subprocess.run([ROOT / "scripts/smoke.sh"], env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def test_the_smoke_test_passes_on_the_service_itself():
    version = subprocess.run(["make", "--silent", "version"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    with running_server() as (port, _):
        right, wrong = smoke(port, version, "30"), smoke(port, "9.9.9", "1")
    assert right.returncode == 0, right.stderr
    assert f"{version} is healthy, and adds 10 and 5 to 15" in right.stdout
    assert wrong.returncode == 1 and f"answers as version '{version}', not 9.9.9" in wrong.stderr


def test_the_smoke_test_fails_on_a_service_whose_store_is_away():
    nobody = f"postgres://nobody@127.0.0.1:{free_port()}/nothing?sslmode=disable"
    with running_server(STATE_URL=nobody) as (port, _):
        result = smoke(port, "", "1")
    assert result.returncode == 1
    assert '/health says: {"status":"degraded"' in result.stderr and '{"kind":"postgres","status":"unavailable"}' in result.stderr


def test_the_smoke_test_fails_on_a_wrong_sum(host):
    host.have(answer='{"result":16.0}')
    assert "does not add" in host.refused("smoke", URL="http://service")


def test_the_smoke_test_needs_to_be_told_where(host):
    result = host.run("smoke")
    assert result.returncode != 0 and "give URL=" in result.stderr


# rollout


def test_a_rollout_applies_the_image_waits_and_asks(running):
    said = running.run("rollout", IMAGE=IMAGE, EXPECT="1.2.3", CONTEXT="prod")
    assert said.returncode == 0, said.stderr
    assert running.applied_image() == IMAGE
    order = ["get deployment/", "apply --filename -", "rollout status", "get service", "curl .*amazonaws.com/$"]
    positions = [running.position(call) for call in order]
    assert positions == sorted(positions), running.calls
    assert all("--context prod" in call for call in running.made("^kubectl (?!kustomize)"))
    assert running.made("rollout undo") == []


def test_a_rollout_asks_at_the_address_that_it_is_given(running):
    assert running.run("rollout", IMAGE=IMAGE, URL="https://service.example").returncode == 0
    assert running.made("curl .*https://service.example/") and not running.made("get service")


def test_a_rollout_that_does_not_become_ready_goes_back_and_fails(running):
    running.have(rules=[{"call": "rollout status", "says": "error: timed out", "code": 1, "hang": False, "then": {"rules": []}}])
    said = running.refused("rollout", IMAGE=IMAGE)
    assert running.made("rollout undo") == ["kubectl --context somewhere --request-timeout 30s rollout undo deployment/math-service-deployment --to-revision 7"]
    assert running.position("rollout undo") < len(running.calls) - 1 and "rollout status" in running.calls[-1], "it waits for the way back too"
    assert "revision 7 runs again" in said


@pytest.mark.parametrize("wrong", [{"answer": '{"result":16.0}'}, {"version": "1.2.2"}, {"health": "degraded"}])
def test_a_rollout_that_answers_wrongly_goes_back_and_fails(running, wrong):
    running.have(**wrong)
    said = running.refused("rollout", IMAGE=IMAGE, EXPECT="1.2.3")
    assert running.made("rollout undo .*--to-revision 7") and "revision 7 runs again" in said


def test_a_first_rollout_has_nothing_to_go_back_to(host):
    host.have(**{**RUNNING, "version": "0.0.0"})
    said = host.refused("rollout", IMAGE=IMAGE, EXPECT="1.2.3")
    assert "nothing ran here before" in said and not host.made("rollout undo")


def test_a_rollout_of_what_runs_already_does_not_go_back_beyond_it(running):
    running.have(version="0.0.0", changes=0)
    said = running.refused("rollout", IMAGE=IMAGE, EXPECT="1.2.3")
    assert "nothing to go back to" in said and not running.made("rollout undo")


def test_a_rollout_whose_way_back_fails_says_that_too(running):
    running.when("rollout status", "error: timed out")
    assert "neither" in running.refused("rollout", IMAGE=IMAGE)


# What the files in git name, and what each environment has instead.
OURS = {
    "STATE_URL": "dynamodb://math-service-dev-state?region=eu-west-1", "CLUSTER": "math-service-dev", "AWS_REGION": "eu-west-1",
    "CERTIFICATE_ARN": "arn:aws:acm:eu-west-1:111122223333:certificate/dev",
}
# AmazonEKSEditPolicy's, of those that are here: no rights, and no kind that an operator brings.
EDITED = {
    "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount",
}
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
COMPONENTS = sorted(f"k8s/components/{path.name}" for path in (ROOT / "k8s/components").iterdir())


def env_of_the_applied(world: World) -> dict[str, str]:
    (deployment,) = (document for document in world.applied() if document["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def test_a_rollout_keeps_the_table_that_the_environment_has(running):
    assert running.run("rollout", IMAGE=IMAGE, OVERLAY="dynamodb", **OURS).returncode == 0
    env = env_of_the_applied(running)
    assert env.pop("STATE_URL") == OURS["STATE_URL"]
    written = rendered("k8s/overlays/dynamodb").env()
    assert written.pop("STATE_URL") != OURS["STATE_URL"] and env == written, "and nothing else differs"


def test_a_rollout_of_the_jobs_api_is_for_the_environments_own_cluster(running):
    assert running.run("rollout", IMAGE=IMAGE, OVERLAY="jobs", **OURS).returncode == 0
    env = env_of_the_applied(running)
    assert (env["EKS_CLUSTER_NAME"], env["EKS_REGION"]) == (OURS["CLUSTER"], OURS["AWS_REGION"])


@pytest.mark.parametrize("overlay, missing", [("dynamodb", "STATE_URL"), ("jobs", "CLUSTER"), ("jobs", "AWS_REGION"), ("alb", "CERTIFICATE_ARN"), ("jobs-dynamodb", "STATE_URL"), ("jobs-dynamodb", "CLUSTER")])
def test_a_rollout_that_is_not_told_what_its_overlay_needs_changes_nothing(running, overlay, missing):
    said = running.refused("rollout", IMAGE=IMAGE, OVERLAY=overlay, **{**OURS, missing: ""})
    assert f"k8s/overlays/{overlay} needs {missing}=…" in said and "Nothing was changed." in said
    assert not running.made("kubectl .*apply")


def test_a_rollout_keeps_the_certificate_that_the_environment_has(running):
    assert running.run("rollout", IMAGE=IMAGE, OVERLAY="alb", URL="http://service", **OURS).returncode == 0
    (ingress,) = (document for document in running.applied() if document["kind"] == "Ingress")
    annotations = ingress["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/certificate-arn"] == OURS["CERTIFICATE_ARN"]
    said = running.refused("rollout", IMAGE=IMAGE, OVERLAY="alb", CERTIFICATE_ARN="x|e id")
    assert "CERTIFICATE_ARN is no ARN" in said


def test_a_rollout_takes_no_value_that_would_be_other_yaml(running):
    said = running.refused("rollout", IMAGE=IMAGE, OVERLAY="dynamodb", STATE_URL='x"\n  - name: LOAD_ENABLED')
    assert "STATE_URL holds characters" in said and not running.made("kubectl .*apply")


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS])
def test_a_rollout_applies_what_a_role_that_edits_one_namespace_may(running, overlay):
    folder = "k8s/base" if overlay == "base" else f"k8s/overlays/{overlay}"
    result = running.run("rollout", IMAGE=IMAGE, OVERLAY=overlay, URL="http://service", **OURS)
    assert result.returncode == 0, result.stderr
    applied, whole = ([(d["kind"], d["metadata"]["name"]) for d in documents] for documents in (running.applied(), rendered(folder)))
    assert applied == [(kind, name) for kind, name in whole if kind in EDITED]
    left = " ".join(kind for kind, _ in whole if kind not in EDITED)
    assert f"left to an administrator: {left}" in result.stdout if left else "administrator" not in result.stdout


def test_the_page_names_the_files_that_a_rollout_leaves_to_an_administrator():
    left = {
        f"{folder}/{path.name}"
        for folder in [*(f"k8s/overlays/{overlay}" for overlay in OVERLAYS), *COMPONENTS]
        for path in (ROOT / folder).glob("*.yaml")
        if path.name in read_yaml(f"{folder}/kustomization.yaml").get("resources", [])
        and any(document["kind"] not in EDITED for document in yaml.safe_load_all(path.read_text()))
    }
    page = (ROOT / "docs/operations.md").read_text()
    assert left and left == set(re.findall(r"kubectl apply -f (\S+\.yaml)", page))


# kind


def test_the_kind_run_goes_from_nothing_to_more_pods_and_leaves_nothing(host):
    said = host.run("kind")
    assert said.returncode == 0, said.stdout + said.stderr
    order = ["kind create cluster", "components.yaml", "patch deployment metrics-server", "apiservice", "docker build", "kind load", "apply --filename -",
             "curl", "locust .*AddUser", "locust .*MixedUser", "get hpa", "kind delete cluster"]
    positions = [host.position(call) for call in order]
    assert positions == sorted(positions), host.calls
    assert "900 requests, 0 failed" in said.stdout and "wants 3 pods" in said.stdout
    assert host.applied_image() == "my-math-service:second", "the update is the second apply"
    assert host.state["kind"] is False


def test_an_update_that_loses_a_request_fails_the_kind_run(host):
    host.have(failures=1)
    assert "1 of 900 requests failed during the update" in host.refused("kind")
    assert host.state["kind"] is False, "and no cluster is left"


def test_an_update_that_hardly_anybody_met_proves_nothing(host):
    host.have(requests=12)
    assert "only 12 requests" in host.refused("kind")


def test_an_autoscaler_that_stays_at_one_pod_fails_the_kind_run(host):
    host.have(wanted="1")
    assert "the autoscaler is not ready in time" in host.refused("kind")
    assert host.made("describe pods")


def test_a_load_that_ends_by_itself_fails_the_kind_run(host):
    host.when("^locust", "cannot connect")
    assert "locust ended" in host.refused("kind")


def test_the_kind_cluster_stays_for_those_who_ask(host):
    assert host.run("kind", KEEP="yes").returncode == 0
    assert host.state["kind"] is True


def test_the_kind_run_interrupted_leaves_nothing(host):
    said = host.interrupted_at("kind", "rollout status")
    assert "Interrupted while" in said
    assert host.state["kind"] is False


# a released Lambda bundle


def test_a_released_bundle_is_deployed_as_it_was_built_to_the_stack_that_is_named(host):
    host.have(stacks={"math-service-dev": "CREATE_COMPLETE"})
    output = host.folder / "output"
    said = host.run(
        "lambda", BUILD="no", STACK="math-service-dev", PARAMETERS="TableName=t AlarmTopic=arn", EXPECT="1.2.3", GITHUB_OUTPUT=str(output)
    )
    assert said.returncode == 0, said.stderr
    (deploy,) = host.made("^sam ")
    assert "--stack-name math-service-dev --region eu-west-2 --parameter-overrides Architecture=arm64 TableName=t AlarmTopic=arn " in deploy
    assert output.read_text() == "url=https://api.example/\n"
    assert "--role-arn" not in deploy


def test_cloudformation_takes_the_role_that_is_named(host):
    host.have(stacks={"math-service": "CREATE_COMPLETE"})
    role = "arn:aws:iam::111122223333:role/cloudformation"
    assert host.run("lambda", BUILD="no", ROLE_ARN=role).returncode == 0
    (deploy,) = host.made("^sam ")
    assert f"--role-arn {role} " in deploy


def test_a_function_of_another_version_than_released_is_a_failure(host):
    host.have(stacks={"math-service": "CREATE_COMPLETE"})
    assert "not 9.9.9" in host.refused("lambda", BUILD="no", EXPECT="9.9.9")
