"""The one-command setup: the scripts behind `make minikube`, `make eks`, `make lambda` and their reverse, with stand-ins
for every program that they call (standin.py)."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from support import PATIENCE_SECONDS, ROOT, cannot_run, read_yaml

STANDINS = [
    "aws", "cargo", "curl", "docker", "eksctl", "git", "jq", "kind", "kubectl", "locust", "minikube", "openssl", "rustup", "sam",
    "terraform", "uname",
]
# What the scripts use of any system; nothing else of this machine is on their PATH.
SYSTEM = ["awk", "basename", "bash", "cat", "cut", "dirname", "env", "find", "grep", "make", "mktemp", "rm", "sed", "sleep", "tail", "tr"]
SCRIPTS = [
    "minikube", "minikube-down", "eks", "eks-down", "eks-pause", "eks-resume", "jobs-access", "jobs-access-down", "lambda", "lambda-down"
]
ON_AWS = [name for name in SCRIPTS if not name.startswith("minikube")]
WITH_DOCKER = ["minikube", "minikube-down", "eks"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REGISTRY = "111122223333.dkr.ecr.eu-west-2.amazonaws.com"
CLUSTER_STACK = "eksctl-math-service-cluster-cluster"
NODES_STACK = "eksctl-math-service-cluster-nodegroup-standard-workers"
# Whatever brings something into being, or ends it.
CHANGES = re.compile(
    r"eksctl |aws (ecr|eks) (create|delete|update-nodegroup|update-access)|docker (build|push|tag|login)|minikube .*(start|addons|load|delete)"
    r"|kubectl .*(apply|delete|scale)|sam (build|deploy|delete)"
)

NOTHING_YET = {
    "rules": [], "docker_os": "Debian GNU/Linux 13", "system": "Linux", "image_id": "feedc0ffee00feedc0ffee", "changed_files": "",
    "commit": COMMIT, "answer": '{"result":15.0}', "minikube": False, "loaded": [], "stacks": {}, "settles": {}, "cluster": None,
    "addons": "", "rights": False, "nodes": 0, "min_nodes": 2, "max_nodes": 3, "repository": False, "pushed": [], "balancer": "",
    "balancer_comes": True, "balancer_goes": True, "autoscaler": None, "service_rights": False, "entries": {}, "function_for": None,
    "bucket": False, "environment": "", "database": False,
    # What a deployment is judged by: its revision (none before the first), what answers, what a load met, who wants pods.
    "revision": None, "changes": 1, "version": "1.2.3", "former_version": "1.2.2", "health": "healthy", "kind": False, "requests": 900, "failures": 0, "wanted": "3",
}
RUNNING = {
    "stacks": {CLUSTER_STACK: "CREATE_COMPLETE", NODES_STACK: "CREATE_COMPLETE", "math-service": "CREATE_COMPLETE"},
    "cluster": "ACTIVE", "addons": "coredns\teks-pod-identity-agent\tkube-proxy\tmetrics-server\tvpc-cni", "rights": True,
    "nodes": 2, "repository": True, "pushed": [COMMIT[:7]], "balancer": "there", "autoscaler": 1, "minikube": True, "service_rights": True,
}


@functools.cache
def rendered_text(folder: str) -> str:
    result = subprocess.run([ROOT / "tests/deploy/kustomize.sh", ROOT / folder], capture_output=True, text=True)
    if result.returncode == 3:
        cannot_run("neither kustomize nor a kubectl from 1.27 on is installed")
    assert result.returncode == 0, result.stderr
    return result.stdout


class World:
    """A machine with the stand-ins on its PATH, and what they remember."""

    # Whose scripts run.
    tree = ROOT

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "rendered").mkdir()
        for name in SYSTEM:
            (self.bin / name).symlink_to(shutil.which(name) or cannot_run(f"{name} is not installed"))
        program = folder / "standin.py"
        program.write_text(f"#!{sys.executable} -SE\n" + (ROOT / "tests/deploy/standin.py").read_text())
        program.chmod(0o755)
        for name in STANDINS:
            (self.bin / name).symlink_to(program)
        for overlay in [ROOT / "k8s/base", *(ROOT / "k8s/overlays").iterdir()]:
            (folder / "rendered" / overlay.name).write_text(rendered_text(str(overlay.relative_to(ROOT))))
        self.have(**NOTHING_YET)

    @property
    def state(self) -> dict:
        return json.loads((self.folder / "state.json").read_text())

    def have(self, **facts):
        path = self.folder / "state.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **facts}))

    def when(self, call: str, says: str = "", code: int = 1, hang: bool = False, **then):
        """Every call that matches fails from now on, or hangs until a signal."""
        self.have(rules=[*self.state["rules"], {"call": call, "says": says, "code": code, "hang": hang, "then": then}])

    def start(self, name: str, *arguments: str, **env: str) -> subprocess.Popen:
        (self.folder / "calls.log").write_text("")
        return subprocess.Popen(
            [self.tree / f"scripts/{name}.sh", *arguments], cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # A group of its own, as a terminal makes it: Ctrl-C reaches the script and what it runs.
            start_new_session=True,
            # Tests that run in the background ignore SIGINT, and a shell cannot trap what it was started to ignore.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={"PATH": str(self.bin), "HOME": str(self.folder), "STANDIN": str(self.folder), "POLL_SECONDS": "0.01", **env},
        )

    def run(self, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        process = self.start(name, *arguments, **env)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess(name, process.returncode, out, err)

    def succeed(self, name: str, **env: str) -> subprocess.CompletedProcess:
        result = self.run(name, **env)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "Next steps:" in result.stdout
        return result

    def refused(self, name: str, **env: str) -> str:
        """What it says when it fails."""
        result = self.run(name, WAIT_SECONDS="1", **env)
        assert result.returncode not in (0, 130), result.stdout + result.stderr
        assert "Next steps:" not in result.stdout
        return result.stderr

    def interrupted_at(self, name: str, call: str, **then) -> str:
        """What it says when Ctrl-C comes during that call."""
        self.when(call, hang=True, **then)
        process = self.start(name)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (self.folder / "hanging").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130, out + err
        assert "Next steps:" not in out
        (self.folder / "hanging").unlink()
        self.have(rules=[])
        return err

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls.log").read_text().splitlines()

    def made(self, pattern: str) -> list[str]:
        return [call for call in self.calls if re.search(pattern, call)]

    def position(self, pattern: str) -> int:
        (first, *_) = (number for number, call in enumerate(self.calls) if re.search(pattern, call))
        return first

    def applied(self) -> list[dict]:
        return list(yaml.safe_load_all((self.folder / "applied.yaml").read_text()))

    def applied_image(self) -> str:
        (deployment,) = (document for document in self.applied() if document["kind"] == "Deployment")
        return deployment["spec"]["template"]["spec"]["containers"][0]["image"]


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.fixture
def running(world) -> World:
    """Everything is set up already."""
    world.have(**RUNNING)
    return world


# What is checked first


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_printed_without_doing_anything(world, name):
    result = world.run(name, "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert f"Usage: make {name}" in result.stdout and "shellcheck" not in result.stdout and "source" not in result.stdout
    assert world.calls == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_argument_that_it_does_not_know_is_refused(world, name):
    result = world.run(name, "--delete-all")
    assert result.returncode == 2 and "--delete-all" in result.stderr
    assert world.calls == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_missing_tool_is_named_at_once_with_how_to_get_it(world, name):
    asked = [tool for tool in STANDINS if tool != "uname"]
    for tool in asked:
        (world.bin / tool).unlink()
    said = world.refused(name)
    needed = re.findall(r"^  ([a-z]+): (.+)$", said, re.MULTILINE)
    declared = re.search(r"^need (?!aws_)(.+)$", (ROOT / f"scripts/{name}.sh").read_text(), re.MULTILINE)[1].split()
    # sam may also be where `make test` puts it.
    assert {tool for tool, _ in needed} | {"sam"} >= set(declared) - {"make"}
    assert len(needed) >= 2 or name in ("jobs-access-down", "lambda-down")
    assert all("http" in how or "install" in how for _, how in needed)
    assert "Nothing was changed." in said and world.calls == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_tool_that_it_calls_was_checked_first(running, name):
    running.succeed(name)
    declared = set(re.search(r"^need (?!aws_)(.+)$", (ROOT / f"scripts/{name}.sh").read_text(), re.MULTILINE)[1].split())
    assert {call.split()[0] for call in running.calls} - {"uname"} <= declared


@pytest.mark.parametrize("name", WITH_DOCKER)
def test_a_stopped_docker_is_reported_before_anything_changes(world, name):
    world.when("^docker info", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock")
    said = world.refused(name)
    assert "start it first" in said and "Cannot connect to the Docker daemon" in said and "Nothing was changed." in said
    assert world.made(CHANGES.pattern) == []


@pytest.mark.parametrize("name", ON_AWS)
def test_expired_credentials_are_reported_before_anything_changes(running, name):
    running.when("^aws sts", "An error occurred (ExpiredToken) when calling the GetCallerIdentity operation: expired", 254)
    said = running.refused(name)
    assert "log in again" in said and "ExpiredToken" in said and "Nothing was changed." in said
    assert running.made(CHANGES.pattern) == []


@pytest.mark.parametrize("name", ["minikube", "eks"])
def test_an_overlay_that_does_not_exist_is_refused_with_those_that_do(world, name):
    said = world.refused(name, OVERLAY="dmeo")
    assert "no overlay dmeo" in said and "alb" in said and "base" in said
    assert world.made(CHANGES.pattern) == []


def test_the_image_of_a_commit_is_built_of_that_commit_only(running):
    running.have(changed_files=" M src/app.rs\n")
    said = running.refused("eks")
    assert "commit first" in said and "src/app.rs" in said
    (asked,) = running.made("^git status")
    assert {"Dockerfile", "src", "Cargo.lock"} <= set(asked.split()), "what the image is built from"
    assert running.made(CHANGES.pattern) == []


def test_an_overlay_for_images_of_this_machine_is_not_for_eks(running):
    if not (ROOT / "k8s/overlays/minikube").is_dir():
        pytest.fail("there is no minikube overlay")
    assert "not for EKS" in running.refused("eks", OVERLAY="minikube")
    assert running.made(CHANGES.pattern) == []


# minikube


def test_minikube_goes_from_nothing_to_an_answer(world):
    said = world.succeed("minikube").stdout
    order = ["docker info", "minikube .* start --driver docker", "addons enable metrics-server", "apiservice/v1beta1.metrics", "docker build",
             "image load", "kubectl .* apply", "rollout status deployment/math-service-deployment", "curl .*http://192.168.49.2:30080/"]
    positions = [world.position(call) for call in order]
    assert positions == sorted(positions), world.calls
    assert "10 + 5 is 15 at http://192.168.49.2:30080/" in said
    assert world.applied_image() == "my-math-service:feedc0ffee00", "named after its content"
    assert world.state["loaded"] == ["my-math-service:feedc0ffee00"]


def test_minikube_has_a_cluster_of_its_own(world):
    world.succeed("minikube")
    assert all("--profile math-service" in call for call in world.made("^minikube"))
    assert all("--context math-service" in call for call in world.made("^kubectl (?!kustomize)"))
    world.succeed("minikube-down")
    assert world.made("^minikube") == ["minikube --profile math-service delete"]


def test_minikube_applies_its_own_overlay_unless_asked_for_another(world):
    world.succeed("minikube")
    assert world.made("kustomize") == ["kubectl kustomize k8s/overlays/minikube"]
    world.succeed("minikube", OVERLAY="base")
    assert world.made("kustomize") == ["kubectl kustomize k8s/base"]


def test_minikube_again_starts_and_loads_nothing(world):
    world.succeed("minikube")
    world.succeed("minikube")
    assert world.made("minikube .*(start|load)|docker tag") == []


def test_minikube_again_runs_a_changed_image(world):
    world.succeed("minikube")
    world.have(image_id="abcdefabcdefabcdef")
    world.succeed("minikube")
    assert world.applied_image() == "my-math-service:abcdefabcdef"


@pytest.mark.parametrize("machine", [{"system": "Darwin"}, {"docker_os": "Docker Desktop"}])
def test_where_docker_is_a_virtual_machine_the_service_is_reached_through_a_tunnel(world, machine):
    world.have(**machine)
    said = world.succeed("minikube").stdout
    assert "minikube --profile math-service service math-service-service --url" in said
    assert world.made("^curl") == [] and world.made("get --raw .*/math-service-service:http/proxy/healthz")


def test_minikube_continues_after_ctrl_c(world):
    said = world.interrupted_at("minikube", "minikube .* start")
    assert "Interrupted while starting minikube" in said and "the same command continues" in said
    world.interrupted_at("minikube", "^docker build")
    world.succeed("minikube")
    assert world.made("minikube .* start") == [], "it was started by the run before"


def test_a_rollout_that_times_out_shows_the_pods_and_fails(world):
    world.when("rollout status deployment/math", "error: timed out waiting for the condition")
    said = world.refused("minikube")
    assert "not ready in time" in said and "Failed while applying minikube" in said
    assert world.made("get pods") and world.made("describe pods --selector app=math-service") and world.made("get events")
    assert world.made("^curl") == []


@pytest.mark.parametrize("name", ["minikube", "eks", "eks-resume"])
def test_without_metrics_an_autoscaler_is_of_no_use(running, name):
    running.when("apiservice", 'Error from server (NotFound): apiservices "v1beta1.metrics.k8s.io" not found')
    assert "metrics-server is not ready in time" in running.refused(name)
    assert len(running.made("apiservice")) > 1, "it may be a moment late"


def test_a_service_that_answers_wrongly_is_no_success(world):
    world.have(answer='{"result":16.0}')
    assert "not ready in time" in world.refused("minikube")


# EKS


def test_eks_goes_from_nothing_to_an_answer(world):
    said = world.succeed("eks").stdout
    order = ["aws sts", "eksctl create cluster --config-file cluster-config.yaml", "update-kubeconfig", "apply --filename k8s/cluster-autoscaler.yaml",
             "ecr create-repository", "docker build", "docker login", "docker push", "apply --filename -", "rollout status deployment/math",
             "get service", "curl .*http://balancer-1"]
    positions = [world.position(call) for call in order]
    assert positions == sorted(positions), world.calls
    assert "10 + 5 is 15" in said and "curl http://balancer-1.eu-west-2.elb.amazonaws.com/ -H" in said


def test_the_image_on_eks_is_that_of_the_commit_for_the_nodes_processor(world):
    world.succeed("eks")
    image = f"{REGISTRY}/my-math-service:{COMMIT[:7]}"
    (build,) = world.made("^docker build")
    assert "--platform linux/amd64" in build and f"--tag {image}" in build and f"REVISION={COMMIT}" in build
    assert world.made("^docker push") == [f"docker push {image}"]
    assert world.applied_image() == image
    (create,) = world.made("create-repository")
    assert "--image-tag-mutability IMMUTABLE" in create
    assert not [call for call in world.calls if ":latest" in call]


def test_eks_again_creates_nothing(world):
    world.succeed("eks")
    world.succeed("eks")
    assert world.made("create|^eksctl|^docker (build|push|login)|update-nodegroup-config") == []
    assert world.made("apply --filename -")


def test_a_cluster_that_exists_is_used(running):
    running.succeed("eks")
    assert running.made("^eksctl") == []


def test_everything_happens_in_the_configured_region_and_cluster(world):
    world.succeed("eks", AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1")
    assert all("--context math-service-cluster" in call for call in world.made("^kubectl (?!kustomize)"))
    assert world.applied_image().startswith(REGISTRY)
    assert "in eu-west-2" in world.run("eks-resume", AWS_REGION="us-east-1").stdout + world.succeed("eks").stdout


@pytest.mark.parametrize(
    "call", ["describe-stacks", "list-addons", "describe-nodegroup", "describe-repositories", "describe-images", "list-pod-identity"]
)
def test_a_question_that_fails_is_not_taken_for_an_absence(running, call):
    running.when(f"^aws .*{call}", "An error occurred (AccessDenied) when calling the operation: you may not", 254)
    running.refused("eks")
    assert running.made("create|^eksctl|update-nodegroup-config|^docker (build|push)") == []


def test_eks_continues_after_ctrl_c_while_the_cluster_was_being_created(world):
    # eksctl dies; CloudFormation goes on, and the nodes and the rights were never asked for.
    said = world.interrupted_at("eks", "eksctl create cluster", stacks={CLUSTER_STACK: "CREATE_IN_PROGRESS"}, cluster="CREATING")
    assert "Interrupted while looking for the cluster" in said and "the same command continues" in said
    world.succeed("eks")
    assert world.made("create cluster") == []
    assert world.made("^aws cloudformation wait") == [f"aws cloudformation wait stack-create-complete --stack-name {CLUSTER_STACK}"]
    assert [call.split()[2] for call in world.made("^eksctl create")] == ["addon", "nodegroup", "podidentityassociation"]


@pytest.mark.parametrize("call", ["apply --filename k8s/cluster", "ecr create-repository", "docker build", "docker push", "rollout status deployment/math", "^curl"])
def test_eks_continues_after_ctrl_c_anywhere(world, call):
    said = world.interrupted_at("eks", call)
    assert "Interrupted while" in said
    world.succeed("eks")
    assert world.made("eksctl create") == []


@pytest.mark.parametrize("state", ["ROLLBACK_COMPLETE", "CREATE_FAILED", "DELETE_IN_PROGRESS", "DELETE_FAILED"])
def test_a_cluster_that_failed_is_not_built_upon(world, state):
    world.have(stacks={CLUSTER_STACK: state})
    said = world.refused("eks")
    assert state in said and "make eks-down" in said
    assert world.made(CHANGES.pattern) == []


def test_a_load_balancer_that_never_appears_is_reported(world):
    world.have(balancer_comes=False)
    said = world.refused("eks")
    assert "no name in time" in said and "Failed while waiting for the load balancer" in said
    assert world.made("describe service math-service-service") and world.made("get events")
    world.have(balancer_comes=True)
    world.succeed("eks")


def test_a_balancer_that_never_answers_is_reported(world):
    world.when("^curl", code=6)
    assert "not ready in time" in world.refused("eks")


def test_a_rollout_on_eks_that_times_out_shows_the_pods_and_fails(world):
    world.when("rollout status deployment/math", "error: timed out waiting for the condition")
    assert "the rollout is not ready in time" in world.refused("eks")
    assert world.made("get pods") and world.made("describe pods") and world.made("get events")


def test_an_overlay_is_chosen_through_make(running):
    (running.folder / "calls.log").write_text("")
    env = {"PATH": str(running.bin), "HOME": str(running.folder), "STANDIN": str(running.folder), "POLL_SECONDS": "0.01"}
    result = subprocess.run(["make", "-C", str(ROOT), "eks", "OVERLAY=servicemonitor"], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert running.made("kustomize") == ["kubectl kustomize k8s/overlays/servicemonitor"]
    assert [d for d in running.applied() if d["kind"] == "ServiceMonitor"]


def test_an_overlay_without_a_load_balancer_waits_for_none(running):
    assert "get ingress" in running.succeed("eks", OVERLAY="alb").stdout
    assert running.made("get service|^curl") == []


@pytest.mark.parametrize("overlay", sorted(p.name for p in (ROOT / "k8s/overlays").iterdir() if p.name != "minikube") + ["base"])
def test_every_replica_fits_on_the_nodes(running, overlay):
    running.succeed("eks", OVERLAY=overlay)
    documents = {document["kind"]: document for document in running.applied()}
    requests = documents["Deployment"]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    cpu = float(requests["cpu"].removesuffix("m")) if requests["cpu"].endswith("m") else float(requests["cpu"]) * 1000
    memory = {"Mi": 1, "Gi": 1024}[requests["memory"][-2:]] * int(requests["memory"][:-2])
    # Of a t3.large: 1930m and 7100Mi for pods, less what every node runs (network, proxy, identity) and the cluster's own
    # (DNS, metrics, autoscaler).
    each = min((1930 - 230) // cpu, (7100 - 500) // memory)
    assert each >= 1
    assert documents["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] <= each * running.state["max_nodes"]
    assert running.state["max_nodes"] >= read_yaml("cluster-config.yaml")["managedNodeGroups"][0]["maxSize"]


def test_the_original_show_needs_more_nodes_than_the_cluster_has_by_itself(running):
    if not (ROOT / "k8s/overlays/demo").is_dir():
        pytest.fail("there is no demo overlay")
    running.succeed("eks", OVERLAY="demo")
    assert running.state["max_nodes"] == 5, "five pods of one CPU, on nodes that have 1.7 to spare"
    running.succeed("eks")
    assert running.state["max_nodes"] == 5, "never taken back: nodes may be in use"


def test_a_paused_cluster_is_brought_back(running):
    running.have(nodes=0, min_nodes=0, autoscaler=0)
    running.succeed("eks")
    assert (running.state["nodes"], running.state["min_nodes"], running.state["autoscaler"]) == (2, 2, 1)


# EKS: the way back


def test_eks_down_deletes_the_service_waits_for_the_balancer_and_only_then_deletes_the_cluster(running):
    running.succeed("eks-down")
    order = ["kubectl .* delete service math-service-service", "aws elb describe", "eksctl delete cluster"]
    positions = [running.position(call) for call in order]
    assert positions == sorted(positions), running.calls
    assert len(running.made("aws elb describe")) >= 2, "it went a while after the Service"
    assert "vpc-1" in running.made("aws elb describe")[0] and running.made("aws elbv2 describe.*vpc-1")
    (delete,) = running.made("^eksctl delete")
    assert "--disable-nodegroup-eviction" in delete and "--wait" in delete
    assert running.state["cluster"] is None


def test_a_balancer_that_does_not_go_keeps_the_cluster(running):
    running.have(balancer_goes=False)
    said = running.refused("eks-down")
    assert "a0b1c2" in said and "the cluster stays" in said
    assert running.made("^eksctl delete") == []


@pytest.mark.parametrize("call", ["aws elb ", "aws elbv2 "])
def test_the_cluster_is_not_deleted_while_nobody_can_tell_whether_a_balancer_is_left(running, call):
    running.when(call, "An error occurred (Throttling)", 254)
    running.refused("eks-down")
    assert running.made("^eksctl delete") == []


def test_a_service_that_cannot_be_deleted_keeps_the_cluster(running):
    running.when("delete service", "error: You must be logged in to the server")
    running.refused("eks-down")
    assert running.made("^eksctl delete") == []


def test_eks_down_continues_after_ctrl_c(running):
    running.interrupted_at("eks-down", "aws elbv2")
    # eksctl was interrupted after the cluster was gone, and before its network was.
    running.interrupted_at("eks-down", "eksctl delete", cluster=None)
    running.succeed("eks-down")
    assert running.made("^kubectl") == [] and running.made("^eksctl delete")


def test_eks_down_again_deletes_nothing(running):
    running.succeed("eks-down")
    assert "there is none" in running.succeed("eks-down").stdout
    assert running.made(CHANGES.pattern) == []


def test_the_images_stay_unless_asked(running):
    assert "aws ecr delete-repository" in running.succeed("eks-down").stdout
    assert running.made("ecr delete") == []
    running.succeed("eks-down", DELETE_IMAGES="yes")
    assert running.made("ecr delete") == ["aws ecr delete-repository --repository-name my-math-service --force"]
    running.succeed("eks-down", DELETE_IMAGES="yes")
    assert running.made("ecr delete") == [], "there is none"


def test_a_pause_stops_the_autoscaler_before_it_takes_the_nodes(running):
    running.succeed("eks-pause")
    assert running.position("scale deployment.apps/cluster-autoscaler .*--replicas 0") < running.position("eksctl scale")
    assert running.made("^eksctl") == ["eksctl scale nodegroup --cluster math-service-cluster --name standard-workers --nodes 0 --nodes-min 0"]
    running.succeed("eks-pause")
    assert running.made("^eksctl") == []


def test_nodes_are_not_taken_while_the_autoscaler_runs(running):
    running.when("scale deployment.apps/cluster-autoscaler", "error: forbidden")
    running.refused("eks-pause")
    assert running.made("^eksctl") == []


def test_a_pause_is_not_over_while_nodes_cannot_be_counted(running):
    running.when("get nodes --output name", "Unable to connect to the server")
    assert "still there" in running.refused("eks-pause")


def test_a_resume_goes_back_to_the_configured_sizes(running):
    running.succeed("eks-pause")
    said = running.succeed("eks-resume").stdout
    (group,) = read_yaml("cluster-config.yaml")["managedNodeGroups"]
    assert running.made("^eksctl") == [
        "eksctl scale nodegroup --cluster math-service-cluster --name standard-workers"
        f" --nodes {group['desiredCapacity']} --nodes-min {group['minSize']}"
    ]
    assert running.state["autoscaler"] == 1
    assert "10 + 5 is 15" in said and running.made("rollout status deployment/math")
    running.succeed("eks-resume")
    assert running.made("^eksctl") == []


def test_pause_and_resume_continue_after_ctrl_c(running):
    running.interrupted_at("eks-pause", "eksctl scale")
    assert running.state["autoscaler"] == 0
    running.succeed("eks-pause")
    running.interrupted_at("eks-resume", "cluster-autoscaler.yaml")
    running.succeed("eks-resume")
    assert running.state["autoscaler"] == 1


def test_nodes_that_do_not_come_back_are_reported(running):
    running.have(nodes=0, min_nodes=0)
    running.when("eksctl scale", code=0)
    assert "not ready in time" in running.refused("eks-resume")


@pytest.mark.parametrize("name", ["eks-pause", "eks-resume"])
def test_without_a_cluster_there_is_nothing_to_pause(world, name):
    assert "make eks creates it" in world.refused(name)
    assert world.made(CHANGES.pattern) == []


# The Jobs API's way into the cluster

PODS_ROLE = "arn:aws:iam::111122223333:role/eksctl-pods"
FUNCTION_ROLE = "arn:aws:iam::111122223333:role/function"


def test_jobs_access_lets_the_pods_in_as_the_group_that_the_overlay_binds(running):
    said = running.succeed("jobs-access").stdout
    (binding,) = (d for d in yaml.safe_load_all(rendered_text("k8s/overlays/jobs")) if d["kind"] == "ClusterRoleBinding")
    (subject,) = binding["subjects"]
    assert running.state["entries"] == {PODS_ROLE: subject["name"]}
    (create,) = running.made("create-access-entry")
    assert "--type STANDARD" in create and "--cluster-name math-service-cluster" in create
    assert "none is deployed for this cluster" in said and f"{PODS_ROLE} is in now" in said


def test_jobs_access_again_changes_nothing_in_the_cluster(running):
    running.succeed("jobs-access")
    assert "is in already" in running.succeed("jobs-access").stdout
    # What eksctl itself leaves alone when nothing differs.
    assert running.made(CHANGES.pattern) == ["eksctl update podidentityassociation --config-file cluster-config.yaml"]


def test_jobs_access_makes_the_pods_role_where_there_is_none(running):
    running.have(service_rights=False)
    running.succeed("jobs-access")
    assert running.made("^eksctl") == ["eksctl create podidentityassociation --config-file cluster-config.yaml"]
    assert running.state["entries"].keys() == {PODS_ROLE}


@pytest.mark.parametrize("clusters", [",math-service-cluster@eu-west-2,,", ",@eu-west-1,a@us-east-1,math-service-cluster@eu-west-2,"])
def test_jobs_access_lets_the_function_in_that_was_deployed_for_this_cluster(running, clusters):
    running.have(function_for=clusters)
    running.succeed("jobs-access")
    assert running.state["entries"].keys() == {PODS_ROLE, FUNCTION_ROLE}
    running.succeed("jobs-access-down")
    assert running.state["entries"] == {}


def test_jobs_access_lets_the_function_of_another_stack_in(running):
    running.have(stacks={CLUSTER_STACK: "CREATE_COMPLETE", "another": "CREATE_COMPLETE"}, function_for=",math-service-cluster@eu-west-2,,")
    assert "by the stack math-service" in running.succeed("jobs-access").stdout
    assert running.state["entries"].keys() == {PODS_ROLE}
    running.succeed("jobs-access", STACK="another")
    assert running.state["entries"].keys() == {PODS_ROLE, FUNCTION_ROLE}
    running.succeed("jobs-access-down", STACK="another")
    assert running.state["entries"] == {}


@pytest.mark.parametrize("clusters", [",math-service-cluster-2@eu-west-2,,", ",math-service-cluster@us-east-1,a@eu-west-2,"])
def test_a_function_for_another_cluster_or_none_stays_out(running, clusters):
    running.have(stacks={CLUSTER_STACK: "CREATE_COMPLETE"})
    running.succeed("jobs-access")
    running.have(stacks=RUNNING["stacks"], function_for=clusters)
    running.succeed("jobs-access")
    assert running.state["entries"].keys() == {PODS_ROLE}


def test_an_entry_with_other_groups_gets_the_right_one(running):
    running.have(entries={PODS_ROLE: "viewers"})
    assert "with other groups" in running.succeed("jobs-access").stdout
    assert running.state["entries"] == {PODS_ROLE: "math-service-jobs"}


@pytest.mark.parametrize("name", ["jobs-access", "jobs-access-down"])
@pytest.mark.parametrize("call", ["describe-stacks", "list-pod-identity", "describe-pod-identity", "describe-access-entry"])
def test_access_is_not_changed_while_a_question_fails(running, name, call):
    running.have(entries={PODS_ROLE: "viewers"})
    running.when(f"^aws .*{call}", "An error occurred (AccessDenied) when calling the operation: you may not", 254)
    running.refused(name)
    if call != "describe-stacks":
        assert running.state["entries"] == {PODS_ROLE: "viewers"}


def test_jobs_access_down_shuts_out_and_only_once(running):
    running.succeed("jobs-access")
    running.succeed("jobs-access-down")
    assert running.made(CHANGES.pattern) == [f"aws eks delete-access-entry --cluster-name math-service-cluster --principal-arn {PODS_ROLE}"]
    assert "was not in" in running.succeed("jobs-access-down").stdout
    assert running.made(CHANGES.pattern) == []


def test_jobs_access_continues_after_ctrl_c(running):
    running.have(service_rights=False, function_for=",math-service-cluster@eu-west-2,,")
    running.interrupted_at("jobs-access", "eksctl create podidentityassociation", service_rights=True)
    running.interrupted_at("jobs-access", "create-access-entry")
    running.succeed("jobs-access")
    assert running.state["entries"].keys() == {PODS_ROLE, FUNCTION_ROLE}


@pytest.mark.parametrize("name", ["jobs-access", "jobs-access-down"])
def test_without_a_cluster_nobody_is_let_in(world, name):
    assert "make eks creates it" in world.refused(name)
    assert world.made(CHANGES.pattern) == []


# Lambda


def test_lambda_goes_from_nothing_to_an_answer(world):
    said = world.succeed("lambda").stdout
    assert [call.split()[1] for call in world.made("^sam")] == ["build", "deploy"]
    (deploy,) = world.made("sam deploy")
    assert "--no-confirm-changeset" in deploy and "--no-fail-on-empty-changeset" in deploy
    assert world.position("sam deploy") < world.position("^curl .*https://api.example/")
    assert "10 + 5 is 15 at https://api.example/" in said and "make parity URL=https://api.example/" in said


def test_build_and_deploy_are_for_the_same_processor(world):
    world.succeed("lambda")
    assert all("--parameter-overrides Architecture=arm64" in call for call in world.made("^sam"))
    world.succeed("lambda", ARCHITECTURE="x86_64")
    assert all("--parameter-overrides Architecture=x86_64" in call for call in world.made("^sam"))


def test_a_region_that_is_said_goes_before_the_one_of_the_file(world):
    for name, command in (("lambda", "sam deploy"), ("lambda-down", "sam delete")):
        for said, where in (({"AWS_REGION": "us-east-1"}, "us-east-1"), ({}, "eu-west-2")):
            assert f"in {where}\n" in world.succeed(name, **said).stdout
            (call,) = world.made(command)
            assert f"--region {where} " in call
            world.have(stacks=RUNNING["stacks"])


def test_a_function_that_manages_jobs_is_told_the_cluster_and_who_signs_in(world):
    jobs = {"JOBS_NAMESPACES": "jobs-*,batch", "JOBS_IMAGES": "registry.example/*"}
    world.succeed("lambda", EKS_CLUSTER_NAME="math-service-cluster", OIDC_ISSUER="https://issuer.example", OIDC_AUDIENCE="jobs", **jobs)
    expected = (
        "Architecture=arm64 EksClusterName=math-service-cluster JobsNamespaces=jobs-*,batch JobsImages=registry.example/*"
        " OidcIssuer=https://issuer.example OidcAudience=jobs"
    )
    assert all(f"--parameter-overrides {expected}" in call for call in world.made("^sam"))
    world.succeed("lambda", EKS_CLUSTERS="a@eu-west-1,b@us-east-1")
    assert all("--parameter-overrides Architecture=arm64 EksClusters=a@eu-west-1,b@us-east-1" in call for call in world.made("^sam"))


def test_lambda_continues_after_ctrl_c_when_cloudformation_went_on(world):
    world.interrupted_at("lambda", "sam deploy", stacks={"math-service": "CREATE_IN_PROGRESS"}, settles={"CREATE_IN_PROGRESS": "CREATE_COMPLETE"})
    world.succeed("lambda")
    assert len(world.made("describe-stacks.*StackStatus")) == 2, "it waited for the end of the first"


@pytest.mark.parametrize("state", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_that_can_only_be_deleted_is_reported(world, state):
    world.have(stacks={"math-service": state})
    assert "make lambda-down" in world.refused("lambda")
    assert world.made("^sam") == []


def test_a_build_that_fails_deploys_nothing(world):
    world.when("sam build", "Build Failed")
    assert "Failed while building" in world.refused("lambda")
    assert world.made("sam deploy") == []


def test_a_function_that_does_not_add_is_reported(world):
    world.have(answer='{"message":"Internal Server Error"}')
    assert "sam logs" in world.refused("lambda")


def test_lambda_down_deletes_the_stack_and_only_once(running):
    running.succeed("lambda-down")
    assert running.made("^sam") == ["sam delete --stack-name math-service --region eu-west-2 --no-prompts"]
    assert "there is none" in running.succeed("lambda-down").stdout
    assert running.made("^sam") == []


# The files beside the scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_make_has_a_target_for_every_script(name):
    assert re.search(rf"^{name}: ## .+\n\tscripts/{name}\.sh$", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_make_command_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [path.read_text() for path in [ROOT / "README.md", *(ROOT / "scripts").glob("*.sh")]]
    named = {name for text in texts for name in re.findall(r"(?:^|[$`] ?|: |  )make ([a-z]+(?:-[a-z]+)*)", text, re.MULTILINE)}
    assert set(SCRIPTS) <= named
    assert named <= targets


def recipe(target: str, **variables: str) -> list[str]:
    """What make would run for it."""
    given = [f"{name}={value}" for name, value in variables.items()]
    result = subprocess.run(["make", "--no-print-directory", "--dry-run", target, *given], cwd=ROOT, check=True, capture_output=True, text=True)
    return result.stdout.splitlines()


def test_make_gateway_runs_what_it_built_wherever_cargo_builds():
    *builds, run = recipe("gateway", CARGO_TARGET_DIR="/elsewhere")
    assert run == "/elsewhere/release/examples/gateway /elsewhere/release/lambda"
    # With the same features, nothing is compiled a second time.
    features = lambda lines: {line.split("--no-default-features")[1] for line in lines}  # noqa: E731
    assert len(builds) == 2 and features(builds) < features(recipe("demo-build"))
