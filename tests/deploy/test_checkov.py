"""checkov over everything that is deployed. What is not as it advises says why, beside it; for manifests, here."""

import functools
import json
import os
import pathlib
import shutil
import subprocess

import pytest
import yaml
from conftest import KUSTOMIZATIONS, rendered
from support import ROOT, cannot_run

# Findings in manifests that stay, and why. An annotation would travel to the cluster with every object.
ACCEPTED = {
    "CKV2_K8S_6": "cluster-autoscaler talks to the Kubernetes API and to AWS, whose addresses no policy can name; it accepts nothing.",
    "CKV_K8S_9": "Nothing calls cluster-autoscaler, so there is nothing that its readiness would decide.",
    "CKV_K8S_11": "No CPU limit: a pod may use what its node has to spare, and throttling would only add latency.",
    "CKV_K8S_14": "The tag is rewritten on the way to the cluster, to the commit's; `latest` never gets there.",
    "CKV_K8S_15": "Tags here are commits and versions, pulled once; minikube's image is in no registry.",
    "CKV_K8S_21": "No object names a namespace: which one is the choice of whoever applies it.",
    "CKV_K8S_35": "The database's URL is a setting like the others, and the image has no program that could print it.",
    "CKV_K8S_38": "cluster-autoscaler talks to the Kubernetes API: that is its work.",
    "CKV_K8S_43": "Tags cannot move in the registry (IMMUTABLE), and a version is what a person compares.",
}


@functools.cache
def program() -> str:
    path = pathlib.Path(os.environ.get("CHECKOV", ROOT / ".tools/checkov/bin/checkov"))
    return str(path) if path.exists() else cannot_run("checkov is not installed; `make test-deploy` installs it")


@functools.cache
def findings(framework: str, path: pathlib.Path, *options: str) -> dict[str, list[dict]]:
    """What checkov says of a file or folder: `failed_checks`, `skipped_checks`, `passed_checks`."""
    where = ["--directory" if path.is_dir() else "--file", str(path)]
    command = [program(), *where, "--framework", framework, "--output", "json", "--compact", "--skip-download", *options]
    result = subprocess.run(command, capture_output=True, text=True, cwd=path if path.is_dir() else path.parent)
    assert result.returncode in (0, 1), result.stderr
    results = json.loads(result.stdout)["results"]
    assert results["passed_checks"], f"it found nothing to check:\n{result.stderr}"
    assert results["parsing_errors"] == []
    return results


def lines(checks: list[dict]) -> str:
    return "\n".join(f"{check['check_id']} {check['resource']}: {check['check_name']}" for check in checks)


def is_clean(results):
    assert results["failed_checks"] == [], lines(results["failed_checks"])
    for check in results["skipped_checks"]:
        assert len(check["check_result"]["suppress_comment"].split()) >= 5, f"no reason: {lines([check])}"


# With development's values, and with all that can be switched on.
@pytest.mark.parametrize("values", ["config/dev.tfvars", "tests/everything.tfvars"])
def test_terraform(values):
    is_clean(findings("terraform", ROOT / "terraform", "--var-file", values))


def test_everything_that_can_be_switched_on_is_looked_at():
    results = findings("terraform", ROOT / "terraform", "--var-file", "tests/everything.tfvars")
    looked_at = {check["resource"].split("[")[0] for check in results["passed_checks"]}
    assert {"aws_db_instance.main", "aws_iam_role_policy.deploy", "aws_iam_role_policy.cloudformation", "aws_eks_cluster.main", "aws_s3_bucket.state"} <= looked_at


def test_the_sam_template():
    is_clean(findings("cloudformation", ROOT / "template.yaml"))


def test_the_dockerfile():
    is_clean(findings("dockerfile", ROOT / "Dockerfile"))


def test_the_manifests_as_they_are_applied(tmp_path):
    for folder in KUSTOMIZATIONS:
        (tmp_path / f"{folder.replace('/', '-')}.yaml").write_text(yaml.safe_dump_all(rendered(folder)))
    shutil.copy(ROOT / "k8s/cluster-autoscaler.yaml", tmp_path)
    failed = findings("kubernetes", tmp_path)["failed_checks"]
    unexpected = [check for check in failed if check["check_id"] not in ACCEPTED]
    assert unexpected == [], lines(unexpected)
    assert ACCEPTED.keys() == {check["check_id"] for check in failed}, "what is accepted and not found any more can go"


def test_a_mistake_is_found(tmp_path):
    """So that an empty answer means something."""
    (tmp_path / "bucket.tf").write_text('resource "aws_db_instance" "open" {\n  publicly_accessible = true\n  engine = "postgres"\n}\n')
    assert "CKV_AWS_17" in {check["check_id"] for check in findings("terraform", tmp_path)["failed_checks"]}


def test_no_check_is_switched_off_that_would_pass(tmp_path):
    """A skipped check stays skipped when its reason is gone."""
    shutil.copytree(ROOT / "terraform", tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    skipped = set()
    for file in (tmp_path / "terraform").rglob("*.tf"):
        text = file.read_text()
        skipped |= {line.split("skip=")[1].split(":")[0] for line in text.splitlines() if "checkov:skip=" in line}
        file.write_text("\n".join(line for line in text.splitlines() if "checkov:skip=" not in line))
    failed = set()
    for values in ["config/dev.tfvars", "tests/everything.tfvars"]:
        failed |= {check["check_id"] for check in findings("terraform", tmp_path / "terraform", "--var-file", values)["failed_checks"]}
    assert skipped == failed
