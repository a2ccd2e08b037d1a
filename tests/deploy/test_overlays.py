"""What each overlay claims, rendered as `kubectl apply -k` would send it."""

import contextlib
import functools
import http.client
import json
import re
import subprocess
import sys
import time
import tomllib

import pytest
from autoscaler import utilization_targets
from support import PATIENCE_SECONDS, ROOT, bytes_of, cpus, get, read_yaml, running_server, seconds

PROMETHEUS = "prometheus.io/"
LOAD_OVERLAYS = ["demo", "cpu-load", "minikube"]
# Of a t3.large's two CPUs EKS keeps 70m for itself, and its own pods on every node request 150m.
NODE_CPUS = 2 - 0.07 - 0.15


def autoscaler(manifests) -> dict:
    return manifests.one("HorizontalPodAutoscaler")["spec"]


def pods_that_fit(manifests) -> int:
    """On as many nodes as the cluster may have."""
    (group,) = read_yaml("cluster-config.yaml")["managedNodeGroups"]
    assert group["instanceType"] == "t3.large"
    return group["maxSize"] * int(NODE_CPUS / cpus(manifests.container()["resources"]["requests"]["cpu"]))


@functools.cache
def locust_users() -> dict:
    """What the users of locustfile.py do: each task's share, and the mean pause. In a process of its own: Locust patches sockets."""
    program = """
import collections, json, locustfile as f
users = {}
for user in (f.AddUser, f.MixedUser):
    counts = collections.Counter(task.__name__ for task in user.tasks)
    users[user.__name__] = {name: count / len(user.tasks) for name, count in counts.items()}
print(json.dumps({"users": users, "think": sum(f.THINK_SECONDS) / 2, "wait": f.MixedUser.wait_time(None)}))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    known = json.loads(result.stdout)
    assert 1 <= known["wait"] <= 2, "the pause is the documented one"
    return known


def request_cpu_seconds() -> float:
    """CPU time of one addition, as the benchmark measured it."""
    return tomllib.loads((ROOT / "bench/budget.toml").read_text())["cpu"]["request_us"] / 1e6


def add_cycle_seconds(manifests) -> float:
    """How long a user takes from one addition to the next."""
    return seconds(manifests.env()["ADD_DELAY"]) + locust_users()["think"]


def users_for(cpu: float, manifests) -> float:
    """How many AddUsers it takes to use that much of a CPU."""
    return cpu / request_cpu_seconds() * add_cycle_seconds(manifests)


def burn_seconds(manifests, known_settings) -> float:
    """How long the longest burn takes in the worst case: every slot burns, on a node where a pod gets what it requested."""
    setting = {**known_settings, **manifests.env()}
    requested = cpus(manifests.container()["resources"]["requests"]["cpu"])
    slots = int(setting["LOAD_SLOTS"])
    # One thread cannot use more than one CPU.
    return float(setting["LOAD_MAX_SECONDS"]) / min(1, requested / slots)


def test_the_demo_is_the_originals_show(overlay):
    demo = overlay("demo")
    assert demo.one("Deployment")["spec"]["replicas"] == 2
    assert demo.env()["ADD_DELAY"] == "5s" and demo.env()["LOAD_ENABLED"] == "true"
    resources = demo.container()["resources"]
    assert {name: str(value) for name, value in resources["requests"].items()} == {"cpu": "1", "memory": "2Gi"}
    assert {name: str(value) for name, value in resources["limits"].items()} == {"cpu": "2", "memory": "4Gi"}
    assert utilization_targets(autoscaler(demo)) == {"cpu": 2, "memory": 4}
    assert (autoscaler(demo)["minReplicas"], autoscaler(demo)["maxReplicas"]) == (1, 5)


def test_the_demo_crosses_its_target_with_mixed_users_and_not_with_adding_ones(overlay):
    demo = overlay("demo")
    aim = utilization_targets(autoscaler(demo))["cpu"] / 100 * cpus(demo.container()["resources"]["requests"]["cpu"])
    replicas = demo.one("Deployment")["spec"]["replicas"]
    users = 50
    # Ten thousand users would be more than the documented load by far, and still not enough.
    assert users_for(aim, demo) > 10_000
    adding = users / users_for(aim, demo)
    assert adding < 0.01, "the documented number of users reaches a hundredth of the target"
    # A burn runs one after another in a slot; one user of ten is enough to keep the slots of two pods busy.
    share = locust_users()["users"]["MixedUser"]["burn_or_wait"]
    burns_per_second = users * share / add_cycle_seconds(demo)
    cpu_per_pod = min(burns_per_second * 5 / replicas, int(demo.env()["LOAD_SLOTS"]))
    assert cpu_per_pod > 10 * aim, "far past the target and its tolerance"


def test_the_demos_memory_target_is_not_met_by_waiting_either(overlay):
    demo = overlay("demo")
    aim = bytes_of(demo.container()["resources"]["requests"]["memory"]) * utilization_targets(autoscaler(demo))["memory"] // 100
    waiting, largest = waiting_request_bytes()
    assert aim / waiting > 3000, "requests waiting at once, in each pod"
    limit = bytes_of(demo.container()["resources"]["limits"]["memory"])
    assert int(demo.env()["MAX_IN_FLIGHT"]) * largest < limit / 2, "requests are refused long before the pod is killed"


def waiting_request_bytes() -> tuple[int, int]:
    """What a waiting request holds, and one with the largest body: the figures in the base's own comment."""
    text = (ROOT / "k8s/base/deployment.yaml").read_text()
    waiting, largest = re.search(r"A waiting request holds (\d+) KB, with the largest body (\d+) KB", text).groups()
    return int(waiting) * 1000, int(largest) * 1000


def most_memory(manifests) -> tuple[int, int, int]:
    """Requests at once, connections beside them, and the bytes that all of them hold, by the base's own comments."""
    text = (ROOT / "k8s/base/deployment.yaml").read_text()
    idle, unfinished = (int(re.search(words, text)[1]) for words in [r"measured at (\d+) MB when idle", r"it holds (\d+) KB at most"])
    requests, connections = (int(manifests.env()[name]) for name in ["MAX_IN_FLIGHT", "MAX_CONNECTIONS"])
    beside = connections - requests
    return requests, beside, idle * 10**6 + requests * waiting_request_bytes()[1] + beside * unfinished * 1000


def test_as_many_connections_as_there_may_be_fit_into_the_memory_limit(manifests):
    requests, beside, needed = most_memory(manifests)
    assert needed < bytes_of(manifests.container()["resources"]["limits"]["memory"])
    # So requests that wait, each on a connection of its own, leave the last tenth of the places to others.
    assert 0.9 * (requests + beside) > requests


def test_the_bases_arithmetic_of_connections_is_right(base):
    requests, beside, needed = most_memory(base)
    limit = bytes_of(base.container()["resources"]["limits"]["memory"])
    text = re.sub(r"\n +# ", " ", (ROOT / "k8s/base/deployment.yaml").read_text())
    stated = f"With 9 MB of the process's own, {requests} of the former and {beside} of these are {needed // 10**6} MB of the limit's {limit // 10**6}."
    assert stated in text


def test_cpu_load_has_small_pods_and_half_a_cpu_each(overlay):
    cpu_load = overlay("cpu-load")
    assert cpu_load.container()["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi"}
    assert cpu_load.env()["LOAD_ENABLED"] == "true" and cpu_load.env()["LOAD_MAX_SECONDS"] == "10"
    assert utilization_targets(autoscaler(cpu_load)) == {"cpu": 50}
    assert len(autoscaler(cpu_load)["metrics"]) == 1
    assert (autoscaler(cpu_load)["minReplicas"], autoscaler(cpu_load)["maxReplicas"]) == (1, 10)


def test_cpu_load_doubles_at_most_once_a_minute_and_halves_at_most_once_a_minute_after_five(overlay):
    behavior = autoscaler(overlay("cpu-load"))["behavior"]
    assert behavior == {
        "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 300, "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]},
    }


@pytest.mark.parametrize("name", LOAD_OVERLAYS)
def test_a_pod_that_burns_is_far_past_the_target(overlay, name):
    manifests = overlay(name)
    resources = manifests.container()["resources"]
    burning = min(int(manifests.env()["LOAD_SLOTS"]), cpus(resources["limits"]["cpu"])) / cpus(resources["requests"]["cpu"])
    assert 100 * burning >= 2 * utilization_targets(autoscaler(manifests))["cpu"], "two pods are wanted for each that burns"


@pytest.mark.parametrize("name", LOAD_OVERLAYS)
def test_the_longest_burn_ends_before_the_timeout_and_within_the_drain(overlay, name, known_settings):
    manifests = overlay(name)
    setting = {**known_settings, **manifests.env()}
    longest = burn_seconds(manifests, known_settings)
    assert seconds(setting["REQUEST_TIMEOUT"]) >= longest + 5
    assert seconds(setting["DRAIN_TIMEOUT"]) >= longest + 5
    assert 5 <= float(setting["LOAD_MAX_SECONDS"]), "what /load burns when it is not told must be allowed"


def test_only_those_overlays_burn_cpu_for_anybody_who_asks(manifests):
    assert (manifests.env().get("LOAD_ENABLED") == "true") == (manifests.name in LOAD_OVERLAYS)


def test_all_pods_fit_on_the_cluster_except_the_demos(manifests):
    fits = pods_that_fit(manifests) >= autoscaler(manifests)["maxReplicas"]
    assert fits == (manifests.name != "demo")
    # For the demo's five docs/autoscaling.md says to add nodes.
    assert pods_that_fit(manifests) >= 3


def test_minikube_is_cpu_load_with_a_local_image_behind_a_node_port(overlay):
    minikube, cpu_load = overlay("minikube"), overlay("cpu-load")
    assert minikube.container()["imagePullPolicy"] == "Never"
    assert "imagePullPolicy" not in cpu_load.container()
    service = minikube.one("Service")
    assert service["spec"]["type"] == "NodePort"
    assert "annotations" not in service["metadata"], "there is no AWS load balancer to configure"
    assert autoscaler(minikube) == autoscaler(cpu_load)
    different = {"imagePullPolicy": None, "env": None}
    assert {**minikube.container(), **different} == {**cpu_load.container(), **different}
    assert minikube.env() == {name: value for name, value in cpu_load.env().items() if name != "TRUSTED_PROXIES"}


def test_minikubes_image_is_the_one_that_make_image_builds(overlay):
    image = overlay("minikube").container()["image"]
    (line,) = re.findall(r"^image:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (tag,) = re.findall(r" -t (\S+)", line)
    assert image == f"{tag}:latest"


def active_requests(port: int) -> int:
    (value,) = re.findall(r"^http_server_active_requests (\d+)$", get(port, "/metrics").text, re.MULTILINE)
    return int(value)


def test_in_flight_scales_on_what_waits_and_on_nothing_else(overlay):
    in_flight = overlay("in-flight")
    (metric,) = autoscaler(in_flight)["metrics"]
    assert metric["type"] == "Pods"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "20"}
    assert in_flight.env()["ADD_DELAY"] == "5s", "so that there is something that waits"


def test_waiting_requests_move_the_metric_of_in_flight_and_use_next_to_no_cpu(overlay):
    (metric,) = autoscaler(overlay("in-flight"))["metrics"]
    name, count = metric["pods"]["metric"]["name"], 100
    # They wait for longer than this test does, however slow this machine is.
    with running_server(ADD_DELAY="600s", REQUEST_TIMEOUT="700s", LOGLEVEL="ERROR") as (port, _), contextlib.ExitStack() as clients:
        idle = active_requests(port)
        assert name in samples(port), "the binary exports the metric that the autoscaler asks for"
        for _ in range(count):
            client = clients.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)))
            client.request("POST", "/", '{"a":10,"b":5}', {"content-type": "application/json"})
        wait_for_active_requests(port, idle + count)
        before = samples(port)["process_cpu_seconds_total"]
        time.sleep(3)
        used = samples(port)["process_cpu_seconds_total"] - before
        assert active_requests(port) == idle + count, "they waited all the while"
        clients.close()
        wait_for_active_requests(port, idle)
    # A hundred requests for three seconds: the sum of the waiting is 300 s.
    assert used < 300 / 100, f"{used} s of CPU: waiting is not work"


def wait_for_active_requests(port: int, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (active := active_requests(port)) != count:
        assert time.monotonic() < deadline, f"{active} instead of {count}: each waiting request counts, and no other"
        time.sleep(0.05)


def samples(port: int) -> dict[str, float]:
    """The metrics without labels."""
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", get(port, "/metrics").text, re.MULTILINE)}


def test_prometheus_finds_the_pods_where_their_metrics_are(overlay, server):
    in_flight = overlay("in-flight")
    annotations = in_flight.one("Deployment")["spec"]["template"]["metadata"]["annotations"]
    (port,) = in_flight.container()["ports"]
    assert annotations == {
        f"{PROMETHEUS}scrape": "true", f"{PROMETHEUS}port": str(port["containerPort"]), f"{PROMETHEUS}path": "/metrics"
    }
    assert "http_server_active_requests" in get(server[0], annotations[f"{PROMETHEUS}path"]).text
    (ingress,) = in_flight.one("NetworkPolicy")["spec"]["ingress"]
    assert ingress == {"ports": [{"protocol": "TCP", "port": port["containerPort"]}]}, "Prometheus may come in"


def test_the_adapter_serves_the_metric_that_the_autoscaler_asks_for(overlay):
    values = read_yaml("k8s/overlays/in-flight/prometheus-adapter-values.yaml")
    assert values["rules"].keys() == {"default", "custom"} and values["rules"]["default"] is False
    (rule,) = values["rules"]["custom"]
    assert rule.keys() == {"seriesQuery", "resources", "metricsQuery"}, "no `name`: the metric keeps its own"
    (metric,) = autoscaler(overlay("in-flight"))["metrics"]
    series, selector = re.fullmatch(r"(\w+)\{(.*)\}", rule["seriesQuery"]).groups()
    assert series == metric["pods"]["metric"]["name"]
    # The labels that the chart's job `kubernetes-pods` writes.
    overrides = rule["resources"]["overrides"]
    assert overrides == {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
    assert set(selector.split(",")) == {f'{label}!=""' for label in overrides}
    # As the adapter fills the template in for two pods.
    query = rule["metricsQuery"]
    for placeholder, text in {"Series": series, "LabelMatchers": 'namespace="default",pod=~"a|b"', "GroupBy": "pod"}.items():
        query = query.replace(f"<<.{placeholder}>>", text)
    assert query == 'sum(http_server_active_requests{namespace="default",pod=~"a|b"}) by (pod)'


def test_the_adapter_asks_the_prometheus_that_the_other_values_set_up():
    adapter = read_yaml("k8s/overlays/in-flight/prometheus-adapter-values.yaml")["prometheus"]
    page = (ROOT / "docs/autoscaling.md").read_text()
    release, namespace = re.search(
        r"helm install (\S+) prometheus-community/prometheus --namespace (\S+)", page.replace("\\\n", " ")
    ).groups()
    assert adapter == {"url": f"http://{release}-server.{namespace}.svc", "port": 80}
    prometheus = read_yaml("k8s/overlays/in-flight/prometheus-values.yaml")
    assert prometheus["server"]["global"]["scrape_interval"] == "15s"
    assert prometheus["server"]["persistentVolume"]["enabled"] is False, "the cluster has no driver for disks"
    addons = {addon["name"] for addon in read_yaml("cluster-config.yaml")["addons"]}
    assert "aws-ebs-csi-driver" not in addons
