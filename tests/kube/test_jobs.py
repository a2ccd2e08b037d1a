"""Jobs and namespaces on a real API server, from an HTTP request to either target: what the scripted one cannot prove."""

import concurrent.futures
import itertools
import re

import pytest
from apiserver import wait_for
from service import IMAGE, TARGETS, serving
from support import get, post_sum

numbers = itertools.count(1)


@pytest.fixture(scope="module", params=TARGETS)
def service(request, cluster, granted, tmp_path_factory):
    """A service on either target, with the rights that are shipped."""
    with serving(request.param, cluster, tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def namespace(cluster) -> str:
    """A namespace that is nobody's, in which the service may work."""
    name = f"team-{next(numbers)}"
    cluster.api.make_namespace(name)
    return name


def create(service, namespace: str, name: str, **fields) -> dict:
    answer = service.call("POST", service.jobs(namespace), {"name": name, "image": IMAGE, **fields})
    assert answer.status == 201, answer
    return answer.body


def status(service, namespace: str, name: str) -> dict:
    answer = service.call("GET", service.jobs(namespace, name))
    assert answer.status == 200, answer
    return answer.body


def problem(answer, status: int) -> str:
    """What a refusal says."""
    assert answer.status == answer.body["status"] == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.body["detail"]


# A Job's life


def test_a_job_goes_from_a_request_to_complete_and_away_after_its_ttl(service, cluster):
    namespace = f"team-{next(numbers)}"
    assert service.call("POST", "/api/v1/namespaces", {"name": namespace}).status == 201
    created = create(service, namespace, "whole", command=["echo"], args=["hello"], env={"A": "b"}, completions=2, parallelism=2, ttl_seconds=2)
    job = cluster.api.job(namespace, "whole")
    assert created["uid"] == job["metadata"]["uid"] and created["status"] == "pending"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["command"], container["args"]) == (IMAGE, ["echo"], ["hello"])
    assert container["env"] == [{"name": "A", "value": "b"}]
    cluster.api.set_pods(namespace, "whole", {"phase": "Running"})
    assert status(service, namespace, "whole")["status"] == "running"
    wait_for(lambda: len(cluster.api.pods(namespace, "whole")) == 2, "both pods")
    cluster.api.set_pods(namespace, "whole", {"phase": "Succeeded"})
    done = wait_for(lambda: (now := status(service, namespace, "whole"))["status"] == "succeeded" and now, "the end")
    assert (done["succeeded"], done["completions"]) == (2, 2) and {"Complete"} == {c["type"] for c in done["conditions"]}
    assert [pod["phase"] for pod in done["pods"]] == ["Succeeded", "Succeeded"]
    wait_for(lambda: service.call("GET", service.jobs(namespace, "whole")).status == 404, "the Job to go")
    assert cluster.api.job(namespace, "whole") is None
    assert service.call("DELETE", f"/api/v1/namespaces/{namespace}").status == 202


def test_the_pods_of_a_short_form_meet_pod_security_restricted(service, cluster, namespace):
    """Which this version of Kubernetes does not enforce."""
    create(service, namespace, "restricted")
    (pod,) = wait_for(lambda: cluster.api.pods(namespace, "restricted"), "its pod")
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert not spec.get("volumes"), "no token of any account"
    job = cluster.api.job(namespace, "restricted")["spec"]
    assert job["activeDeadlineSeconds"] > 0 and job["ttlSecondsAfterFinished"] > 0


def terminated(reason: str, code: int) -> dict:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    return {"phase": "Failed", "containerStatuses": [container_status(state)]}


def container_status(state: dict) -> dict:
    return {"name": "main", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0, "state": state}


def test_what_keeps_a_job_and_what_ended_it_is_said_in_words(service, cluster, namespace):
    create(service, namespace, "pulls")
    waiting = container_status({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})
    cluster.api.set_pods(namespace, "pulls", {"phase": "Pending", "containerStatuses": [waiting]})
    pulls = status(service, namespace, "pulls")
    assert (pulls["status"], pulls["reason"]) == ("pending", "ImagePullBackOff") and pulls["explanation"]

    create(service, namespace, "large", backoff_limit=0)
    cluster.api.set_pods(namespace, "large", terminated("OOMKilled", 137))
    large = wait_for(lambda: (now := status(service, namespace, "large"))["status"] == "failed" and now, "the failure")
    assert large["reason"] == "OOMKilled" or [pod["reason"] for pod in large["pods"]] == ["OOMKilled"]

    create(service, namespace, "slow", deadline_seconds=1)
    slow = wait_for(lambda: (now := status(service, namespace, "slow"))["status"] == "failed" and now, "the deadline")
    assert slow["reason"] == "DeadlineExceeded" and slow["explanation"]


def test_a_whole_manifest_is_created_as_it_is(service, cluster, namespace):
    container = {"name": "tool", "image": IMAGE, "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}, "securityContext": {"runAsUser": 1000}}
    manifest = {"metadata": {"name": "whole", "labels": {"team": "a"}}, "spec": {"template": {"spec": {"containers": [container]}}}}
    answer = service.call("POST", service.jobs(namespace), {"job_manifest": manifest})
    assert answer.status == 201, answer
    job = cluster.api.job(namespace, "whole")
    (created,) = job["spec"]["template"]["spec"]["containers"]
    assert created["name"] == "tool" and created["securityContext"]["runAsUser"] == 1000
    assert job["metadata"]["labels"]["team"] == "a"


def test_jobs_are_listed_by_pages_and_by_label(service, cluster, namespace):
    for number in range(5):
        create(service, namespace, f"job-{number}", labels={"odd": str(number % 2)})
    seen, query = [], {"limit": "2"}
    while True:
        page = service.call("GET", service.jobs(namespace, **query))
        assert page.status == 200, page
        assert len(page.body["items"]) <= 2
        seen += [job["name"] for job in page.body["items"]]
        if not page.body.get("continue"):
            break
        query["continue"] = page.body["continue"]
    assert sorted(seen) == [f"job-{number}" for number in range(5)]
    odd = service.call("GET", service.jobs(namespace, label_selector="odd=1")).body["items"]
    assert sorted(job["name"] for job in odd) == ["job-1", "job-3"]


def test_a_deleted_job_takes_its_pods_along(service, cluster, namespace):
    created = create(service, namespace, "gone")
    wait_for(lambda: cluster.api.pods(namespace, "gone"), "its pod")
    answer = service.call("DELETE", service.jobs(namespace, "gone"), if_match=f'"{created["uid"]}"')
    assert answer.status == 202, answer
    wait_for(lambda: cluster.api.job(namespace, "gone") is None, "the Job to go")
    wait_for(lambda: not cluster.api.pods(namespace, "gone"), "its pods to go")
    assert "gone" in problem(service.call("GET", service.jobs(namespace, "gone")), 404)


def test_the_originals_routes_do_the_same_and_answer_as_it_did(service, cluster):
    namespace = f"team-{next(numbers)}"
    assert service.call("POST", "/api/eks-create-namespace", {"namespace": namespace}).status == 200
    container = {"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}, "securityContext": {"runAsUser": 1000}}
    manifest = {"metadata": {"name": "old"}, "spec": {"template": {"spec": {"containers": [container]}}}}
    created = service.call("POST", "/api/eks-create-job", {"namespace": namespace, "job_manifest": manifest})
    assert created.status == 200, created
    assert created.body.keys() == {"job_name", "namespace", "creation_timestamp", "status"}
    job = cluster.api.job(namespace, "old")["metadata"]
    assert (created.body["job_name"], created.body["namespace"], created.body["creation_timestamp"]) == ("old", namespace, job["creationTimestamp"])
    asked = service.call("GET", f"/api/eks-job-status?namespace={namespace}&job_name=old").body
    assert (asked["job_name"], asked["uid"]) == ("old", job["uid"])
    # Named in the body, or in the query.
    assert service.call("DELETE", "/api/eks-delete-job", {"namespace": namespace, "job_name": "old"}).status == 200
    wait_for(lambda: cluster.api.job(namespace, "old") is None, "the Job to go")
    assert service.call("DELETE", f"/api/eks-delete-namespace?namespace={namespace}").status == 200
    wait_for(lambda: service.call("GET", f"/api/v1/namespaces/{namespace}").status == 404, "the namespace to go")


# What stands in the way


def test_a_name_that_is_taken_is_a_conflict(service, namespace):
    create(service, namespace, "taken")
    assert problem(service.call("POST", service.jobs(namespace), {"name": "taken", "image": IMAGE}), 409)


def test_another_job_of_the_same_name_is_not_deleted_in_place_of_the_one_that_was_meant(service, cluster, namespace):
    old = create(service, namespace, "again")
    assert service.call("DELETE", service.jobs(namespace, "again")).status == 202
    wait_for(lambda: cluster.api.job(namespace, "again") is None, "the Job to go")
    new = create(service, namespace, "again")
    problem(service.call("DELETE", service.jobs(namespace, "again"), if_match=f'"{old["uid"]}"'), 412)
    assert cluster.api.job(namespace, "again")["metadata"]["uid"] == new["uid"]


def test_a_namespace_lives_from_its_creation_to_its_end(service, cluster):
    name = f"team-{next(numbers)}"
    path = f"/api/v1/namespaces/{name}"
    assert service.call("GET", path).status == 404
    assert service.call("POST", "/api/v1/namespaces", {"name": name}).status == 201
    problem(service.call("POST", "/api/v1/namespaces", {"name": name}), 409)
    labels = cluster.api.ask("GET", path).body["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert name in [item["name"] for item in service.call("GET", "/api/v1/namespaces").body["items"]]
    # Something that has to end before the namespace can.
    held = {"metadata": {"name": "held", "finalizers": ["example.com/held"]}}
    assert cluster.api.ask("POST", f"{path}/configmaps", held).status == 201
    assert service.call("DELETE", path).status == 202
    wait_for(lambda: service.call("GET", path).body["status"] == "terminating", "the end to begin")
    refusal = problem(service.call("POST", service.jobs(name), {"name": "late", "image": IMAGE}), 409)
    assert "terminat" in refusal or "being deleted" in refusal, refusal
    problem(service.call("POST", "/api/v1/namespaces", {"name": name}), 409)
    release = {"metadata": {"finalizers": None}}
    assert cluster.api.ask("PATCH", f"{path}/configmaps/held", release, kind="application/merge-patch+json").status == 200
    wait_for(lambda: service.call("GET", path).status == 404, "the end")


def creates_received(cluster, resource: str) -> float:
    """How many creates the API server has had. Its own controllers list and watch whenever they like, and make no Jobs."""
    text = cluster.api.text("/metrics")
    lines = re.findall(r"^apiserver_request_total\{(.*)\} (\S+)$", text, re.MULTILINE)
    return sum(float(count) for labels, count in lines if f'resource="{resource}"' in labels and 'verb="POST"' in labels)


REFUSED = {
    "an image from elsewhere": ({"name": "a", "image": "docker.io/library/busybox"}, "/image"),
    "a name that is none": ({"name": "A_b", "image": IMAGE}, "/name"),
    "no image": ({"name": "a"}, "/image"),
}
PRIVILEGED = {
    "hostPath": ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, {}, "/job_manifest/spec/template/spec/volumes/0/hostPath"),
    "hostNetwork": ({"hostNetwork": True}, {}, "/job_manifest/spec/template/spec/hostNetwork"),
    "privileged": ({}, {"securityContext": {"privileged": True}}, "/job_manifest/spec/template/spec/containers/0/securityContext/privileged"),
    "a capability": (
        {}, {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
        "/job_manifest/spec/template/spec/containers/0/securityContext/capabilities/add",
    ),
    "no limits": ({}, {"resources": {}}, "/job_manifest/spec/template/spec/containers/0/resources/limits"),
}


@pytest.mark.parametrize("case", [*REFUSED, *PRIVILEGED])
def test_what_the_policy_refuses_never_reaches_the_cluster(service, cluster, namespace, case):
    if case in REFUSED:
        body, pointer = REFUSED[case]
    else:
        pod, container, pointer = PRIVILEGED[case]
        container = {"name": "c", "image": IMAGE, "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}, **container}
        body = {"job_manifest": {"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [container], **pod}}}}}
    before = creates_received(cluster, "jobs")
    answer = service.call("POST", service.jobs(namespace), body)
    assert answer.status == 422, answer
    assert any(error["pointer"].startswith(pointer) for error in answer.body["errors"]), answer.body["errors"]
    assert creates_received(cluster, "jobs") == before
    assert cluster.api.job(namespace, "a") is None


@pytest.mark.parametrize("name", ["kube-system", "default", "elsewhere"])
def test_a_namespace_that_is_not_allowed_is_not_touched(service, cluster, name):
    problem(service.call("POST", service.jobs(name), {"name": "a", "image": IMAGE}), 403)
    problem(service.call("GET", service.jobs(name)), 403)
    problem(service.call("DELETE", f"/api/v1/namespaces/{name}"), 403)
    assert name not in [item["name"] for item in service.call("GET", "/api/v1/namespaces").body["items"]]
    assert cluster.api.job("default", "a") is None and cluster.api.job("kube-system", "a") is None


def test_what_others_made_is_not_deleted(service, cluster, namespace):
    container = {"name": "c", "image": "elsewhere"}
    foreign = {"metadata": {"name": "foreign"}, "spec": {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}}}
    assert cluster.api.ask("POST", cluster.api.job_path(namespace), foreign).status == 201
    assert status(service, namespace, "foreign")["managed"] is False
    problem(service.call("DELETE", service.jobs(namespace, "foreign")), 403)
    problem(service.call("DELETE", f"/api/v1/namespaces/{namespace}"), 403)
    assert cluster.api.job(namespace, "foreign")["metadata"].get("deletionTimestamp") is None
    assert cluster.api.ask("GET", f"/api/v1/namespaces/{namespace}").body["status"]["phase"] == "Active"


@pytest.mark.parametrize("who", [None, "reader", "maker"])
def test_a_caller_without_the_scope_does_not_reach_the_cluster(service, cluster, namespace, who):
    answer = service.call("POST", service.jobs(namespace), {"name": "a", "image": IMAGE}, who=who)
    assert answer.status == (401 if who is None else 403), answer
    assert cluster.api.job(namespace, "a") is None


# Several at once, and outages


def test_fifty_creates_with_one_key_on_two_replicas_make_one_job(service, cluster, namespace, tmp_path):
    with serving("container", cluster, tmp_path) as other:
        replicas = itertools.cycle([service, other])

        def ask(replica):
            return replica.call("POST", replica.jobs(namespace), {"image": IMAGE}, idempotency_key="the-same")

        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(ask, itertools.islice(replicas, 50)))
    assert {answer.status for answer in answers} == {201}, {answer.status for answer in answers}
    (uid,) = {answer.body["uid"] for answer in answers}
    (job,) = cluster.api.ask("GET", cluster.api.job_path(namespace)).body["items"]
    assert job["metadata"]["uid"] == uid


def test_while_the_api_server_is_down_jobs_answer_502_in_time_and_all_else_goes_on(service, cluster, namespace):
    create(service, namespace, "before")
    with cluster.api.killed():
        for method, path, body in [
            ("GET", service.jobs(namespace), None),
            ("POST", service.jobs(namespace), {"name": "meanwhile", "image": IMAGE}),
            ("DELETE", service.jobs(namespace, "before"), None),
            ("GET", "/api/v1/namespaces", None),
        ]:
            answer = service.call(method, path, body, patience=25)
            assert answer.status in (502, 504), answer
            assert "127.0.0.1" not in answer.body["detail"], "where the cluster is, is nobody's business"
        assert post_sum(service.port).text == '{"result":15.0}'
        assert get(service.port, "/readyz").status == 200
        health = service.call("GET", "/health", who=None)
        assert (health.status, health.body["status"], health.body["clusters"][0]["status"]) == (503, "degraded", "unavailable")
    wait_for(lambda: service.call("GET", service.jobs(namespace, "before")).status == 200, "the cluster to be back")
    create(service, namespace, "after")
    assert cluster.api.job(namespace, "meanwhile") is None, "a refused connection did nothing"
