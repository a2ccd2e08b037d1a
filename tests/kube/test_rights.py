"""The rights that k8s/components/jobs grants: each is needed by some request, and no request needs another."""

import copy
import itertools

import pytest
from apiserver import wait_for
from eks import CLUSTER, shipped
from service import IMAGE, TARGETS, serving

numbers = itertools.count(1)
ROLE = shipped("ClusterRole")
GRANTED = [
    (group, resource, verb)
    for rule in ROLE["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
]


@pytest.fixture(scope="module", params=TARGETS)
def service(request, cluster, granted, tmp_path_factory):
    with serving(request.param, cluster, tmp_path_factory.mktemp("service")) as service:
        yield service


def read_what_its_pods_do(service, namespace: str) -> list:
    """Logs are asked of pods alone, so there has to be one, unless the Job cannot be made or seen; the events' answer goes on."""
    job = service.jobs(namespace, "a")
    wait_for(lambda: service.call("GET", job).body.get("pods", True), "a pod")
    return [service.call("GET", f"{job}/logs", raw=True), service.begins(f"{job}/events")]


def tour(service) -> list:
    """Every route once, as far as it gets."""
    namespace = f"team-rights-{next(numbers)}"
    path = f"/api/v1/namespaces/{namespace}"
    named = f"/api/v1/clusters/{CLUSTER}/namespaces"
    manifest = {"metadata": {"name": "b"}, "spec": {"template": {"spec": {"containers": [
        {"name": "c", "image": IMAGE, "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}, "securityContext": {"runAsUser": 1000}}
    ]}}}}
    return [
        service.call("POST", "/api/v1/namespaces", {"name": namespace}),
        service.call("GET", "/api/v1/namespaces"),
        service.call("GET", path),
        service.call("POST", service.jobs(namespace), {"name": "a", "image": IMAGE}),
        service.call("POST", service.jobs(namespace), {"job_manifest": manifest}, idempotency_key="k"),
        service.call("POST", f"{service.jobs(namespace)}:batch", {"items": [{"name": "e", "image": IMAGE}]}),
        service.call("GET", service.jobs(namespace)),
        service.call("GET", service.jobs(namespace, "a")),
        service.call("POST", "/api/eks-create-job", {"namespace": namespace, "job_manifest": {**manifest, "metadata": {"name": "d"}}}),
        service.call("GET", f"/api/eks-job-status?namespace={namespace}&job_name=d"),
        service.call("DELETE", f"/api/eks-delete-job?namespace={namespace}&job_name=d"),
        *read_what_its_pods_do(service, namespace),
        service.call("DELETE", service.jobs(namespace, "a")),
        service.call("DELETE", path),
        service.call("GET", "/api/v1/clusters"),
        service.call("GET", named),
        service.call("POST", "/api/eks-create-namespace", {"namespace": f"{namespace}-alias"}),
        service.call("DELETE", f"/api/eks-delete-namespace?namespace={namespace}-alias"),
    ]


def test_the_tour_takes_every_route_of_the_api(service):
    document = service.call("GET", "/openapi.json", who=None).body
    routes = {
        (method.upper(), path) for path, item in document["paths"].items() if path.startswith("/api/")
        for method in item if method in ("get", "post", "delete", "put", "patch")
    }
    taken = {
        (method, path) for path, methods in {
            "/api/v1/clusters": ["GET"],
            "/api/v1/namespaces": ["GET", "POST"],
            "/api/v1/namespaces/{namespace}": ["GET", "DELETE"],
            "/api/v1/namespaces/{namespace}/jobs": ["GET", "POST"],
            "/api/v1/namespaces/{namespace}/jobs:batch": ["POST"],
            "/api/v1/namespaces/{namespace}/jobs/{name}": ["GET", "DELETE"],
            "/api/v1/namespaces/{namespace}/jobs/{name}/logs": ["GET"],
            "/api/v1/namespaces/{namespace}/jobs/{name}/events": ["GET"],
            "/api/eks-create-job": ["POST"],
            "/api/eks-job-status": ["GET"],
            "/api/eks-delete-job": ["DELETE"],
            "/api/eks-create-namespace": ["POST"],
            "/api/eks-delete-namespace": ["DELETE"],
        }.items() for method in methods
    }
    # What the service knows itself: no right in the cluster is needed to be told.
    taken |= {("GET", "/api/v1/namespaces/{namespace}/jobs/{name}/history"), ("GET", "/api/v1/audit")}
    # Arithmetic for everybody.
    taken |= {("POST", "/api/v1/simulations")}
    taken |= {("GET", "/api/v1/templates"), ("GET", "/api/v1/templates/{name}")}
    taken |= {("GET", path) for path in ("/api/v1/webhooks/dead-letters", "/api/v1/clusters/{cluster}/webhooks/dead-letters")}
    # Below a cluster are the same routes, answered by the same handlers.
    taken |= {(method, path.replace("/api/v1", "/api/v1/clusters/{cluster}")) for method, path in taken if path.startswith("/api/v1/namespaces")}
    assert routes == taken


def test_what_is_shipped_is_enough_for_every_route(service):
    statuses = [answer.status for answer in tour(service)]
    assert all(status < 300 for status in statuses), statuses


@pytest.mark.parametrize(("group", "resource", "verb"), GRANTED, ids=[f"{verb} {resource}" for _, resource, verb in GRANTED])
def test_a_right_that_is_missing_is_named_and_so_none_is_granted_for_nothing(service, cluster, group, resource, verb):
    role = copy.deepcopy(ROLE)
    for rule in role["rules"]:
        if resource in rule["resources"]:
            rule["verbs"] = [each for each in rule["verbs"] if each != verb]
    role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]
    # What the tour makes may be left over, since it may lack the right to delete.
    cluster.api.apply(role)
    try:
        refusals = [answer for answer in tour(service) if answer.status == 403]
    finally:
        cluster.api.apply(ROLE)
    assert refusals, "it is granted for nothing"
    assert all(verb in answer.body["detail"] and resource in answer.body["detail"] for answer in refusals), [a.body["detail"] for a in refusals]


def test_without_any_right_every_route_says_which_it_lacks(service, cluster):
    cluster.api.apply({**ROLE, "rules": []})
    try:
        answers = tour(service)
    finally:
        cluster.api.apply(ROLE)
    answered = [answer.body["items"][0] for answer in answers if answer.status == 200]
    # The list of clusters asks none of them; a batch has its refusals in its items.
    assert [item["status"] for item in answered if "default" not in item] == [403]
    answers = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in answers} == {403}
    assert all(any(f"{verb} {resource}" in answer.body["detail"] for _, resource, verb in GRANTED) for answer in answers), [
        answer.body["detail"] for answer in answers
    ]


def test_the_group_may_do_nothing_else(cluster, granted):
    """Asked of the API server itself, for whatever there is."""
    groups = ["", *[g["name"] for g in cluster.api.ask("GET", "/apis").body["groups"]]]
    asked, allowed = 0, set()
    for group in groups:
        path = "/api/v1" if not group else f"/apis/{preferred(cluster, group)}"
        for resource in cluster.api.ask("GET", path).body["resources"]:
            for verb in resource["verbs"]:
                asked += 1
                if may(cluster, group, resource["name"], verb):
                    allowed.add((group, resource["name"], verb))
    assert asked > 300
    # What everybody may: ask what they may.
    everybody = {("authorization.k8s.io", name, "create") for name in ("selfsubjectaccessreviews", "selfsubjectrulesreviews")}
    assert allowed - everybody == set(GRANTED)


def preferred(cluster, group: str) -> str:
    return cluster.api.ask("GET", f"/apis/{group}").body["preferredVersion"]["groupVersion"]


def may(cluster, group: str, resource: str, verb: str) -> bool:
    name, _, sub = resource.partition("/")
    attributes = {"group": group, "resource": name, "subresource": sub, "verb": verb}
    spec = {"user": "somebody", "groups": [shipped("ClusterRoleBinding")["subjects"][0]["name"], "system:authenticated"]}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {**spec, "resourceAttributes": attributes}}
    answer = cluster.api.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert answer.status == 201, answer
    return answer.body["status"]["allowed"]
