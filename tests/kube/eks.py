"""EKS for the tests of this folder: the real API server, its webhook, AWS in front of it, and who is in IAM."""

import dataclasses
import functools
import subprocess

import yaml
from apiserver import ApiServer
from aws import Aws
from support import ROOT, cannot_run
from webhook import Principal, Webhook

CLUSTER, REGION = "math-service-cluster", "eu-west-2"
PODS, FUNCTION, STRANGER = "AKIAEXAMPLEPODS00000", "ASIAEXAMPLEFUNCTION0", "AKIAEXAMPLESTRANGER0"
# The group of the access entries (scripts/jobs-lib.sh).
GROUP = "math-service-jobs"
# AWS's documentation uses this account.
ROLE = "arn:aws:sts::111122223333:assumed-role/math-service/session"


@dataclasses.dataclass
class Cluster:
    """Everything that stands in for EKS: the real API server, its webhook, and AWS in front of it."""

    api: ApiServer
    webhook: Webhook
    aws: Aws
    aws_url: str


def principals() -> dict[str, Principal]:
    """The service's two roles, and somebody with an access entry but without a group."""
    return {
        PODS: Principal("secret/of+the=pods", ROLE, [GROUP]),
        FUNCTION: Principal("secret/of+the=function", f"{ROLE}-function", [GROUP], "session/token+of=it=="),
        STRANGER: Principal("secret-of-a-stranger", f"{ROLE}-stranger", []),
    }


@functools.cache
def shipped(kind: str) -> dict:
    """The one document of that kind in k8s/overlays/jobs, as `kubectl apply -k` would send it."""
    result = subprocess.run([ROOT / "tests/deploy/kustomize.sh", ROOT / "k8s/overlays/jobs"], capture_output=True, text=True)
    if result.returncode == 3:
        cannot_run("neither kustomize nor a kubectl from 1.27 on is installed")
    assert result.returncode == 0, result.stderr
    (document,) = (document for document in yaml.safe_load_all(result.stdout) if document and document["kind"] == kind)
    return document
