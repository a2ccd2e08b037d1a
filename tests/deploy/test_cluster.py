"""cluster-config.yaml: against eksctl's schema, and against what the rest of the project expects of the cluster."""

import copy
import json
import os
import pathlib

import jsonschema
import pytest
from support import cannot_run, read_yaml


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


def test_cluster_autoscaler_has_its_rights_and_finds_the_nodes(cluster):
    accounts = {a["serviceAccountName"]: a for a in cluster["iam"]["podIdentityAssociations"]}
    assert accounts["cluster-autoscaler"]["namespace"] == "kube-system"
    assert accounts["cluster-autoscaler"]["wellKnownPolicies"] == {"autoScaler": True}
    (group,) = cluster["managedNodeGroups"]
    assert {"k8s.io/cluster-autoscaler/enabled", f"k8s.io/cluster-autoscaler/{cluster['metadata']['name']}"} <= group["tags"].keys()
    assert group["propagateASGTags"] is True
