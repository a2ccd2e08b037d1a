"""terraform/ against the rest of the project: cluster-config.yaml, k8s/, template.yaml, the scripts, the README. What it is
in itself, its own tests say (`make test-terraform`)."""

import ipaddress
import json
import os
import re
import shutil
import subprocess

import pytest
import yaml
from conftest import rendered
from support import ROOT, read_yaml
from test_lambda_template import Loader

README = (ROOT / "README.md").read_text()
SECTION = re.search(r"^## EKS with Terraform\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)[1]


def source(file: str) -> str:
    return (ROOT / "terraform" / file).read_text()


def block(file: str, head: str) -> str:
    """What is between the braces of a block, as it is written."""
    text = source(file)
    start = text.index("{", text.index(f"{head} {{"))
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start + 1 : position]
    raise AssertionError(f"{head} in {file} does not end")


def default(variable: str) -> str:
    return re.search(r"^  default += (.+)$", block("variables.tf", f'variable "{variable}"'), re.MULTILINE)[1].strip('"')


def value(text: str, name: str) -> str:
    return re.search(rf"^ *{re.escape(name)} += (.+)$", text, re.MULTILINE)[1].strip('"')


def actions(text: str) -> set[str]:
    return set(re.findall(r'"([a-z0-9-]+:[A-Z][A-Za-z]+)"', text))


@pytest.fixture
def cluster():
    return read_yaml("cluster-config.yaml")


@pytest.fixture
def node_group(cluster):
    (group,) = cluster["managedNodeGroups"]
    return group


@pytest.fixture
def template():
    return yaml.load((ROOT / "template.yaml").read_text(), Loader)


@pytest.fixture
def associations(cluster):
    return {(a["namespace"], a["serviceAccountName"]): a for a in cluster["iam"]["podIdentityAssociations"]}


def test_version_and_region_are_eksctls(cluster):
    assert default("kubernetes_version") == cluster["metadata"]["version"]
    assert default("region") == cluster["metadata"]["region"]
    for file in ["backend.tf", "bootstrap/backend.tf"]:
        assert value(source(file), "region") == cluster["metadata"]["region"]


def test_nodes_are_eksctls(node_group):
    assert default("node_instance_type") == node_group["instanceType"]
    assert int(default("node_volume_gib")) == node_group["volumeSize"]
    sizes = dict(re.findall(r"(\w+) = (\d+)", default("nodes")))
    assert {name: int(size) for name, size in sizes.items()} == {
        "min": node_group["minSize"], "desired": node_group["desiredCapacity"], "max": node_group["maxSize"],
    }
    assert value(source("locals.tf"), "node_group") == node_group["name"]
    written = block("eks.tf", 'resource "aws_eks_node_group" "standard"')
    assert dict(re.findall(r'(\w+) = "(\w+)"', value(written, "labels"))) == node_group["labels"]
    assert f'nodegroup-type = "{node_group["tags"]["nodegroup-type"]}"' in written


def test_the_autoscalers_tags_are_eksctls(cluster, node_group):
    written = dict(re.findall(r'"(k8s\.io/[^"]+)" += "(\w+)"', source("locals.tf")))
    expected = {key.replace(cluster["metadata"]["name"], "${local.name}"): tag for key, tag in node_group["tags"].items() if key.startswith("k8s.io/")}
    assert written == expected


def test_add_ons_and_their_settings_are_eksctls(cluster):
    expected = {addon["name"]: json.loads(addon.get("configurationValues", "null")) for addon in cluster["addons"]}
    written = re.findall(r"^    ([a-z-]+) += \{ before_nodes = (?:true|false), configuration = (.+) \}$", source("eks.tf"), re.MULTILINE)
    assert {name for name, _ in written} == expected.keys()
    for name, configuration in written:
        settings = dict(re.findall(r'(\w+) = "(\w+)"', configuration)) or None
        assert settings == expected[name]


def pods() -> dict[str, tuple[str, str]]:
    """Name, namespace and ServiceAccount of each role for pods."""
    names = {"local.service_namespace": value(source("locals.tf"), "service_namespace"), "local.service_account": value(source("locals.tf"), "service_account")}
    found = re.findall(r'^    (\w+) += \{ namespace = (\S+), service_account = (\S+) \}$', source("iam.tf"), re.MULTILINE)
    return {name: (names.get(namespace, namespace.strip('"')), names.get(account, account.strip('"'))) for name, namespace, account in found}


def test_roles_are_for_the_service_accounts_that_eksctl_knows(associations):
    assert set(pods().values()) - {("kube-system", "aws-node")} == associations.keys()
    addons = {addon["name"]: addon for addon in read_yaml("cluster-config.yaml")["addons"]}
    assert addons["vpc-cni"]["useDefaultPodIdentityAssociations"] is True, "that is aws-node's"


def test_the_services_role_is_for_the_manifests_service_account():
    account = rendered("k8s/base").one("ServiceAccount")["metadata"]
    assert pods()["service"] == (account.get("namespace", "default"), account["name"])
    autoscaler = next(d for d in yaml.safe_load_all((ROOT / "k8s/cluster-autoscaler.yaml").read_text()) if d["kind"] == "ServiceAccount")
    assert pods()["cluster_autoscaler"] == (autoscaler["metadata"]["namespace"], autoscaler["metadata"]["name"])


def granted(association: dict) -> set[str]:
    statements = association["permissionPolicy"]["Statement"]
    return {action for s in statements for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}


def test_pods_may_do_the_same_on_either_cluster(associations):
    service = granted(associations[pods()["service"]])
    assert actions(block("iam.tf", "uses_the_table =")) == {action for action in service if action.startswith("dynamodb:")}
    assert service <= actions(block("iam.tf", "uses_the_table =")) | actions(block("iam.tf", "finds_the_cluster ="))
    assert actions(block("iam.tf", 'resource "aws_iam_role_policy" "cluster_autoscaler"')) == granted(associations[pods()["cluster_autoscaler"]])


def test_the_function_may_do_what_the_boundary_lets_it(template):
    function = next(r for r in template["Resources"].values() if r["Type"] == "AWS::Serverless::Function")["Properties"]
    # Whatever it gets in some case: in an `If`, the statement is the second of three.
    statements = [s["Fn::If"][1] if "Fn::If" in s else s for policy in function["Policies"] for s in policy["Statement"]]
    asked = set().union(*({s["Action"]} if isinstance(s["Action"], str) else s["Action"] for s in statements))
    assert asked <= actions(block("iam.tf", "uses_the_table =")) | actions(block("iam.tf", "finds_the_cluster =")), "what the template gives and the boundary does not, the function does not have"
    assert function["PermissionsBoundary"] == {"Fn::If": ["HasBoundary", {"Ref": "PermissionsBoundary"}, {"Ref": "AWS::NoValue"}]}
    assert template["Parameters"]["PermissionsBoundary"]["Default"] == ""


def test_cloudformation_may_make_every_resource_of_the_template(template):
    rights = {
        "AWS::Serverless::Function": {"lambda", "iam"}, "AWS::Serverless::HttpApi": {"apigateway"},
        "AWS::Logs::LogGroup": {"logs"}, "AWS::DynamoDB::Table": {"dynamodb"}, "AWS::CloudWatch::Alarm": {"cloudwatch"},
    }
    needed = set().union(*(rights.get(r["Type"], {r["Type"]}) for r in template["Resources"].values()))
    policy = block("iam.tf", 'resource "aws_iam_role_policy" "cloudformation"')
    assert needed <= {action.split(":")[0] for action in re.findall(r'"([a-z]+:[A-Za-z*]+)"', policy)}
    # CloudFormation's own names begin with the stack's, and go on with these.
    for name in ["MathServiceFunctionRole", "StateTable"]:
        assert f"-{name}-" in policy and (name.removesuffix("Role") in template["Resources"])


def test_the_table_is_the_templates(template):
    table = template["Resources"]["StateTable"]["Properties"]
    written = block("dynamodb.tf", 'resource "aws_dynamodb_table" "state"')
    (key,) = table["KeySchema"]
    (index,) = table["GlobalSecondaryIndexes"]
    keys = {part["KeyType"]: part["AttributeName"] for part in index["KeySchema"]}
    (written_index,) = re.findall(r"global_secondary_index \{(.*?)\n  \}", written, re.DOTALL)
    assert value(written.replace(written_index, ""), "hash_key") == key["AttributeName"] and written.count("range_key") == 1
    assert [value(written_index, name) for name in ("name", "hash_key", "range_key", "projection_type")] == [
        index["IndexName"], keys["HASH"], keys["RANGE"], index["Projection"]["ProjectionType"]
    ]
    assert re.findall(r'attribute \{\s+name = "(\w+)"\s+type = "(\w)"\s+\}', written) == [
        (attribute["AttributeName"], attribute["AttributeType"]) for attribute in table["AttributeDefinitions"]
    ]
    assert value(written, "billing_mode") == table["BillingMode"]
    assert table["TimeToLiveSpecification"] == {"AttributeName": value(written, "attribute_name"), "Enabled": True}


def test_the_table_has_a_name_that_the_template_takes_and_eksctls_policy_covers(template, associations):
    pattern = template["Parameters"]["TableName"]["AllowedPattern"]
    (statement,) = (s for s in associations[pods()["service"]]["permissionPolicy"]["Statement"] if "dynamodb:GetItem" in s["Action"])
    for environment in ["dev", "prod"]:
        name = f"math-service-{environment}-state"
        assert re.fullmatch(pattern, name)
        assert name.startswith(statement["Resource"].split("table/")[1].removesuffix("*"))


def test_the_jobs_apis_group_is_the_overlays():
    if (ROOT / "k8s/overlays/jobs").is_dir():
        (subject,) = rendered("k8s/overlays/jobs").one("ClusterRoleBinding")["subjects"]
        assert value(block("iam.tf", 'resource "aws_eks_access_entry" "jobs"'), "kubernetes_groups") == f'["{subject["name"]}"]'


def test_the_repository_is_the_one_of_the_scripts():
    assert value(source("locals.tf"), "repository") == re.search(r"^image=(\S+)$", (ROOT / "scripts/lib.sh").read_text(), re.MULTILINE)[1]
    assert 'image_tag_mutability = "IMMUTABLE"' in source("ecr.tf") and "--image-tag-mutability IMMUTABLE" in (ROOT / "scripts/eks.sh").read_text()


def test_scripts_and_bootstrap_mean_the_same_bucket():
    named = re.search(r'echo "(math-service-terraform-)\$account"', (ROOT / "scripts/terraform-lib.sh").read_text())[1]
    assert value(source("bootstrap/state.tf"), "bucket") == named + "${local.account}"
    assert value(source("bootstrap/state.tf"), "region") == value(source("bootstrap/backend.tf"), "region")


def test_states_lock_themselves_and_none_has_the_key_of_another():
    for file in ["backend.tf", "bootstrap/backend.tf"]:
        assert value(source(file), "use_lockfile") == "true" and value(source(file), "encrypt") == "true"
    assert value(source("bootstrap/backend.tf"), "key") == "bootstrap/terraform.tfstate"
    assert not re.search(r"^ *(key|bucket) ", source("backend.tf"), re.MULTILINE), "the script names them, by environment"
    assert not (ROOT / "terraform/config/bootstrap.tfvars").exists()


def networks() -> list[ipaddress.IPv4Network]:
    return [ipaddress.ip_network(value((ROOT / f"terraform/config/{name}.tfvars").read_text(), "vpc_cidr")) for name in ["dev", "prod"]]


def test_pods_may_reach_the_database_of_each_environment():
    policy = rendered("k8s/overlays/postgres").one("NetworkPolicy")
    blocks = [ipaddress.ip_network(to["ipBlock"]["cidr"]) for rule in policy["spec"]["egress"] for to in rule["to"] if "ipBlock" in to]
    for network in networks():
        assert any(network.subnet_of(block) for block in blocks)


def test_the_database_takes_the_connections_of_every_replica():
    """The overlay is sized for this instance class."""
    assert default("database_instance_class") == "db.t4g.micro"
    assert "db.t4g.micro" in (ROOT / "k8s/components/postgres/kustomization.yaml").read_text()


def test_the_secret_and_the_certificates_are_those_that_the_overlay_reads():
    script = (ROOT / "scripts/terraform-database.sh").read_text()
    named = dict(re.findall(r"^(secret|authorities|mount)=(\S+)$", script, re.MULTILINE))
    overlay = rendered("k8s/overlays/postgres")
    variable = next(v for v in overlay.container()["env"] if v["name"] == "STATE_URL")
    assert variable["valueFrom"]["secretKeyRef"] == {"name": named["secret"], "key": "url"}
    volume = next(v for v in overlay.one("Deployment")["spec"]["template"]["spec"]["volumes"] if "configMap" in v)
    assert volume["configMap"]["name"] == named["authorities"]
    assert overlay.container()["volumeMounts"][0]["mountPath"] == named["mount"]


def test_the_balancers_of_the_manifests_are_what_the_controller_may_make():
    ingress = rendered("k8s/overlays/alb").one("Ingress")["metadata"]["annotations"]
    asked = " ".join(ingress)
    for service in ["waf", "shield", "auth-type"]:
        assert service not in asked, "the controller's role has no right to it"


def test_every_output_that_is_named_exists():
    outputs = set(re.findall(r'^output "(\w+)"', source("outputs.tf"), re.MULTILINE))
    scripts = "".join(path.read_text() for path in (ROOT / "scripts").glob("terraform-*.sh"))
    named = set(re.findall(r"\$\(output (\w+)\)", scripts)) | set(re.findall(r"outputs? `(\w+)`", SECTION))
    assert {"kubectl_command", "registry_url", "state_url", "certificate_arn"} <= named | {"certificate_arn"}
    assert named <= outputs


def test_every_variable_that_the_readme_names_exists():
    variables = set(re.findall(r'^variable "(\w+)"', source("variables.tf"), re.MULTILINE))
    assert set(re.findall(r"`(\w+) = ", SECTION)) | {"api_public_cidrs"} <= variables


def test_every_variable_has_a_type_and_a_description():
    for file in ["variables.tf", "bootstrap/variables.tf"]:
        for name in re.findall(r'^variable "(\w+)"', source(file), re.MULTILINE):
            text = block(file, f'variable "{name}"')
            assert re.search(r"^  type += ", text, re.MULTILINE) and len(value(text, "description")) > 20, name
            kind = value(text, "type")
            assert kind == "bool" or "validation {" in text, f"{name} takes anything"


def test_every_value_of_the_configurations_is_a_variable():
    variables = set(re.findall(r'^variable "(\w+)"', source("variables.tf"), re.MULTILINE))
    for path in (ROOT / "terraform/config").iterdir():
        assert set(re.findall(r"^(\w+) +=", path.read_text(), re.MULTILINE)) <= variables
    assert set(re.findall(r"^(\w+) +=", source("tests/everything.tfvars"), re.MULTILINE)) <= variables


def run_readme(command: str, **env: str) -> str:
    """A command of the README in a shell, up to what would reach a cluster."""
    (written,) = (c for c in re.findall(r"^\$ (.*?)(?=^\$|^```)", SECTION, re.MULTILINE | re.DOTALL) if command in c)
    local = written.split("| kubectl apply")[0].replace("kubectl kustomize", str(ROOT / "tests/deploy/kustomize.sh"))
    local = local.replace(" k8s/", f" {ROOT}/k8s/")
    return subprocess.run(["bash", "-euo", "pipefail", "-c", local], check=True, capture_output=True, text=True, env={**os.environ, **env}).stdout


def test_the_readmes_command_makes_the_overlay_this_environments():
    rendered("k8s/overlays/dynamodb")
    url, image = "dynamodb://math-service-dev-state?region=eu-west-1", "registry/my-math-service:0123456"
    documents = [d for d in yaml.safe_load_all(run_readme("overlays/dynamodb", IMAGE=image, STATE_URL=url)) if d]
    (deployment,) = (d for d in documents if d["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image
    assert {"name": "STATE_URL", "value": url} in container["env"]


def test_the_readmes_command_makes_the_autoscaler_this_environments():
    text = run_readme("cluster-autoscaler.yaml", CLUSTER="math-service-dev", AWS_REGION="eu-west-1")
    assert "k8s.io/cluster-autoscaler/math-service-dev" in text and "math-service-cluster" not in text
    (deployment,) = (d for d in yaml.safe_load_all(text) if d["kind"] == "Deployment")
    assert {"name": "AWS_REGION", "value": "eu-west-1"} in deployment["spec"]["template"]["spec"]["containers"][0]["env"]


def check_terraform(folder, **env: str) -> subprocess.CompletedProcess:
    """scripts/check-terraform.sh on a machine that has nothing but a shell."""
    machine = folder / "machine"
    machine.mkdir()
    for tool in ["bash", "dirname", "mktemp", "rm", "grep", "tr", "cat"]:
        (machine / tool).symlink_to(shutil.which(tool))
    for name, script in env.pop("programs", {}).items():
        (machine / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (machine / name).chmod(0o755)
    return subprocess.run([ROOT / "scripts/check-terraform.sh"], env={"PATH": str(machine), **env}, capture_output=True, text=True)


def test_without_terraform_its_check_says_so_and_fails_in_ci(tmp_path):
    (tmp_path / "ci").mkdir()
    result = check_terraform(tmp_path)
    assert result.returncode == 0 and result.stdout == "skipped: terraform is not installed\n"
    assert check_terraform(tmp_path / "ci", CI="true").returncode == 1


def test_without_terraforms_registry_its_check_says_so_and_any_other_error_is_one(tmp_path):
    unreachable = '[[ $* != *init* ]] || { echo "Error: Failed to query: could not connect to" >&2; echo "│ registry.terraform.io: no such host" >&2; exit 1; }'
    broken = '[[ $* != *init* ]] || { echo "Error: Unsupported argument" >&2; exit 1; }'
    (tmp_path / "broken").mkdir()
    result = check_terraform(tmp_path, programs={"terraform": unreachable})
    assert result.returncode == 0 and result.stdout.startswith("skipped: "), result.stderr
    result = check_terraform(tmp_path / "broken", programs={"terraform": broken})
    assert result.returncode == 1 and "Unsupported argument" in result.stderr


def test_another_command_may_check_it(tmp_path):
    checker = tmp_path / "checker"
    checker.write_text(f'#!{shutil.which("bash")}\necho "$*"\nexit 1\n')
    checker.chmod(0o755)
    result = check_terraform(tmp_path, TERRAFORM_CHECK=str(checker))
    assert (result.returncode, result.stdout) == (1, "terraform terraform/bootstrap\n")
