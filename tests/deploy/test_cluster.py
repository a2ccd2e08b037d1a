"""cluster-config.yaml: against eksctl's schema, and against what the rest of the project expects of the cluster."""

import copy
import json
import os
import pathlib

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support import ROOT, cannot_run, read_yaml


@pytest.fixture
def cluster():
    return read_yaml("cluster-config.yaml")


@pytest.fixture
def schema():
    path = os.environ.get("EKSCTL_SCHEMA")
    if not path or not pathlib.Path(path).is_file():
        cannot_run("EKSCTL_SCHEMA names no file; `eksctl utils schema` prints the schema")
    return json.loads(pathlib.Path(path).read_text())


def test_it_is_what_eksctl_expects(cluster, schema):
    jsonschema.validate(cluster, schema)


def test_the_schema_refuses_a_misspelled_field(cluster, schema):
    wrong = copy.deepcopy(cluster)
    wrong["managedNodeGroups"][0]["volumesize"] = 20
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_the_cluster_is_the_documented_one(cluster):
    assert cluster["metadata"] == {"name": "math-service-cluster", "region": "eu-west-2", "version": "1.35"}
    # The schema takes any word here.
    assert cluster["accessConfig"]["authenticationMode"] in {"API", "API_AND_CONFIG_MAP", "CONFIG_MAP"}


def test_the_node_group_is_the_documented_one(cluster):
    (group,) = cluster["managedNodeGroups"]
    assert (group["name"], group["instanceType"], group["volumeSize"]) == ("standard-workers", "t3.large", 20)
    assert group["minSize"] <= group["desiredCapacity"] <= group["maxSize"]
    assert (group["minSize"], group["maxSize"]) == (2, 3)
    assert group["labels"] == {"role": "worker"}
    assert group["tags"]["nodegroup-type"] == "standard"


def test_network_policies_are_enforced_and_the_autoscaler_has_its_metrics(cluster):
    addons = {addon["name"]: addon for addon in cluster["addons"]}
    assert addons.keys() == {"vpc-cni", "coredns", "kube-proxy", "metrics-server", "eks-pod-identity-agent"}
    assert json.loads(addons["vpc-cni"]["configurationValues"])["enableNetworkPolicy"] == "true"


@pytest.fixture
def autoscaler():
    """The documents of cluster-autoscaler's manifest by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all((ROOT / "k8s/cluster-autoscaler.yaml").read_text())}


def autoscaler_container(autoscaler) -> dict:
    (container,) = autoscaler["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


def test_cluster_autoscaler_finds_the_nodes(cluster, autoscaler):
    (group,) = cluster["managedNodeGroups"]
    (discovery,) = (c for c in autoscaler_container(autoscaler)["command"] if c.startswith("--node-group-auto-discovery=asg:tag="))
    asked = set(discovery.split("tag=", 1)[1].split(","))
    assert asked == {"k8s.io/cluster-autoscaler/enabled", f"k8s.io/cluster-autoscaler/{cluster['metadata']['name']}"}
    assert asked <= group["tags"].keys()
    assert group["propagateASGTags"] is True
    assert {"name": "AWS_REGION", "value": cluster["metadata"]["region"]} in autoscaler_container(autoscaler)["env"]


def test_cluster_autoscaler_changes_the_groups_of_this_cluster_only(cluster, autoscaler):
    accounts = {(a["namespace"], a["serviceAccountName"]): a for a in cluster["iam"]["podIdentityAssociations"]}
    account = autoscaler["ServiceAccount"]["metadata"]
    association = accounts[account["namespace"], account["name"]]
    assert autoscaler["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
    assert "wellKnownPolicies" not in association, "eksctl's own is not restricted to a cluster"
    statements = association["permissionPolicy"]["Statement"]
    (writing,) = (s for s in statements if "autoscaling:SetDesiredCapacity" in s["Action"])
    assert set(writing["Action"]) == {"autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"}
    (group,) = cluster["managedNodeGroups"]
    required = {tag.removeprefix("aws:ResourceTag/"): value for tag, value in writing["Condition"]["StringEquals"].items()}
    assert required.items() <= group["tags"].items(), "else it may not change its own"
    assert f"k8s.io/cluster-autoscaler/{cluster['metadata']['name']}" in required
    for statement in statements:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        if statement is not writing:
            assert all(action.split(":")[1].startswith(("Describe", "Get")) for action in actions)


def test_cluster_autoscaler_is_valid_and_of_the_clusters_minor_version(cluster, autoscaler):
    for document in autoscaler.values():
        kubernetes_validate.validate(document, cluster["metadata"]["version"], strict=True)
    assert autoscaler_container(autoscaler)["image"].startswith(f"registry.k8s.io/autoscaling/cluster-autoscaler:v{cluster['metadata']['version']}.")


def test_cluster_autoscaler_may_read_what_its_scheduler_simulation_waits_for(autoscaler):
    readable = {
        (group, resource)
        for rule in autoscaler["ClusterRole"]["rules"] if {"get", "list", "watch"} <= set(rule["verbs"])
        for group in rule["apiGroups"] for resource in rule["resources"]
    }
    # The informers of the scheduler of Kubernetes 1.35; without any one of them nothing ever scales.
    assert {
        ("", "namespaces"), ("", "nodes"), ("", "persistentvolumeclaims"), ("", "persistentvolumes"), ("", "pods"),
        ("", "replicationcontrollers"), ("", "services"), ("apps", "replicasets"), ("apps", "statefulsets"),
        ("policy", "poddisruptionbudgets"), ("resource.k8s.io", "deviceclasses"), ("resource.k8s.io", "resourceclaims"),
        ("resource.k8s.io", "resourceslices"), ("storage.k8s.io", "csidrivers"), ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "csistoragecapacities"), ("storage.k8s.io", "storageclasses"), ("storage.k8s.io", "volumeattachments"),
    } <= readable


def test_a_role_names_what_it_may_change(autoscaler):
    for kind in ["ClusterRole", "Role"]:
        for rule in autoscaler[kind]["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
    for kind in ["ClusterRoleBinding", "RoleBinding"]:
        assert autoscaler[kind]["roleRef"]["name"] == autoscaler[kind]["subjects"][0]["name"] == "cluster-autoscaler"
