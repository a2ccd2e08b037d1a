"""Many Jobs in one request, on a real API server."""

import http.client
import json
import time

import pytest
from apiserver import wait_for
from service import IMAGE, TARGETS, bearer, serving
from support import PATIENCE_SECONDS

COUNT = 100


@pytest.fixture(scope="module", params=TARGETS)
def service(request, cluster, granted, tmp_path_factory):
    with serving(request.param, cluster, tmp_path_factory.mktemp("service")) as service:
        yield service


def items(prefix: str) -> list[dict]:
    return [{"name": f"{prefix}-{number}", "image": IMAGE} for number in range(COUNT)]


def one_by_one(service, namespace: str, jobs: list[dict]) -> None:
    """On one connection, each after the answer to the one before: as fast as a client that waits can be."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_SECONDS)
    headers = {"authorization": f"Bearer {bearer('all')}", "content-type": "application/json"}
    for job in jobs:
        connection.request("POST", service.jobs(namespace), json.dumps(job), headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
    connection.close()


def names(cluster, namespace: str) -> set[str]:
    return {job["metadata"]["name"] for job in cluster.api.ask("GET", cluster.api.job_path(namespace)).body["items"]}


def test_a_hundred_jobs_in_one_request_are_all_there_and_sooner_than_one_by_one(service, cluster, request):
    namespace = f"team-batch-{request.node.callspec.params['service']}"
    cluster.api.make_namespace(namespace)
    # Connections and credentials are at hand for both.
    one_by_one(service, namespace, [{"name": "first", "image": IMAGE}])
    began = time.monotonic()
    one_by_one(service, namespace, items("single"))
    single = time.monotonic() - began
    began = time.monotonic()
    answer = service.call("POST", f"{service.jobs(namespace)}:batch", {"items": items("batch")})
    batch = time.monotonic() - began
    assert answer.status == 200, answer
    assert (answer.body["created"], answer.body["failed"]) == (COUNT, 0), answer.body
    assert [item["job"]["name"] for item in answer.body["items"]] == [job["name"] for job in items("batch")]
    assert names(cluster, namespace) == {"first"} | {job["name"] for job in items("single") + items("batch")}
    print(f"\n{COUNT} Jobs: one by one {single:.2f} s, as a batch {batch:.2f} s, ratio {single / batch:.1f}")


def test_a_batch_sent_again_under_its_key_makes_what_is_missing(service, cluster, request):
    namespace = f"team-again-{request.node.callspec.params['service']}"
    cluster.api.make_namespace(namespace)
    path, jobs = f"{service.jobs(namespace)}:batch", [{"image": IMAGE} for _ in range(10)]
    first = service.call("POST", path, {"items": jobs}, idempotency_key="k").body
    assert first["created"] == len(jobs) == len(names(cluster, namespace))
    missing = first["items"][3]["job"]["name"]
    assert service.call("DELETE", service.jobs(namespace, missing)).status == 202
    wait_for(lambda: missing not in names(cluster, namespace), "its end")
    second = service.call("POST", path, {"items": jobs}, idempotency_key="k").body
    assert [item.get("replayed", False) for item in second["items"]] == [index != 3 for index in range(len(jobs))]
    # The key decides the name, so it is the same again.
    assert [item["job"]["name"] for item in second["items"]] == [item["job"]["name"] for item in first["items"]]
    assert len(names(cluster, namespace)) == len(jobs)
