"""template.yaml: against cfn-lint, and against the service that it deploys."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from support import ROOT, dynamodb_actions, get, running_server, seconds


class Loader(yaml.SafeLoader):
    """Reads `!Ref X` as {"Ref": "X"} and `!Sub x` as {"Fn::Sub": "x"}."""


def intrinsic(loader, tag, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    else:
        value = loader.construct_sequence(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


Loader.add_multi_constructor("!", intrinsic)

# What Lambda itself sets.
LAMBDA = {"AWS_REGION": "eu-west-2"}


def resolved(value, conditions: dict[str, bool]):
    """A value as CloudFormation would fill it in: names of resources and parameters stand for themselves."""
    match value:
        case {"Fn::If": [condition, yes, no]}:
            return resolved(yes if conditions.get(condition) else no, conditions)
        case {"Ref": "AWS::NoValue"}:
            return None
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([A-Za-z:]+)\}", r"\1", text)
        case {"Ref": name}:
            return name
        case _:
            return value


@pytest.fixture
def template():
    return yaml.load((ROOT / "template.yaml").read_text(), Loader)


@pytest.fixture
def function(template):
    (function,) = (r for r in template["Resources"].values() if r["Type"] == "AWS::Serverless::Function")
    return function["Properties"]


@pytest.fixture
def api(template):
    (api,) = (r for r in template["Resources"].values() if r["Type"] == "AWS::Serverless::HttpApi")
    return api["Properties"]


def lint(path: pathlib.Path) -> subprocess.CompletedProcess:
    program = pathlib.Path(sys.executable).parent / "cfn-lint"
    return subprocess.run([program, "--template", path], capture_output=True, text=True)


def test_cfn_lint_finds_nothing():
    result = lint(ROOT / "template.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_cfn_lint_sees_mistakes_inside_sam_resources(tmp_path):
    wrong = tmp_path / "template.yaml"
    wrong.write_text((ROOT / "template.yaml").read_text().replace("provided.al2023", "provided.al2032"))
    result = lint(wrong)
    assert result.returncode != 0 and "provided.al2032" in result.stdout, result.stdout


def test_a_slow_request_gets_our_504_before_anybody_gives_up(function, known_settings):
    request_timeout = seconds({**known_settings, **function["Environment"]["Variables"]}["REQUEST_TIMEOUT"])
    assert request_timeout < function["Timeout"] < 30, "an HTTP API gives up after 30 s"


# What somebody might give, where a parameter's default would leave a setting out.
GIVEN = {
    "OidcIssuer": "https://issuer.example", "OidcAudience": "jobs", "EksClusterName": "cluster", "EksClusters": "a@eu-west-1,b@us-east-1",
    "JobsWebhookHosts": "hooks.example.com,*.example.org",
}
# Which parameters switch on what belongs to Jobs.
SWITCHES = {"NamesCluster": "EksClusterName", "NamesClusters": "EksClusters", "HasFiles": "JobsFiles", "HasTemplates": "JobsTemplatesDir", "HasWebhooks": "JobsWebhookHosts", "SignsIn": "OidcIssuer"}


@pytest.mark.parametrize(
    "conditions",
    [
        ["MakesTable"], ["SignsIn"], ["NamesCluster", "ManagesJobs"], ["NamesCluster", "ManagesJobs", "SignsIn"], ["NamesClusters", "ManagesJobs"],
        ["NamesCluster", "NamesClusters", "ManagesJobs", "SignsIn", "HasFiles", "HasTemplates", "HasWebhooks"],
    ],
    ids=lambda conditions: "+".join(conditions),
)
def test_every_variable_is_a_setting_and_has_a_usable_value(template, function, known_settings, tmp_path, conditions):
    variables = function["Environment"]["Variables"]
    assert variables.keys() <= known_settings.keys()
    filled = {name: resolved(value, dict.fromkeys(conditions, True)) for name, value in variables.items()}
    # A parameter stands for itself: for its default, or for what somebody might give.
    (tmp_path / "templates").mkdir()
    (tmp_path / "webhook-secrets").write_text("whsec_" + "A" * 43 + "=\n")
    layer = {"JobsTemplatesDir": str(tmp_path / "templates"), "JobsWebhookSecretFile": str(tmp_path / "webhook-secrets")}
    given = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()} | GIVEN | layer
    env = {name: str(given.get(value, value)) for name, value in filled.items() if value is not None}
    with running_server(**env, **LAMBDA) as (port, _):
        assert get(port, "/readyz").status == 200


def test_the_layer_and_the_names_in_it_agree(template, function):
    # tests/container shows that `sam local` reads it.
    (layer,) = function["Layers"]
    assert resolved(layer, {"HasFiles": True}) == "JobsFiles" and resolved(layer, {}) is None
    # Where Lambda puts the files of a layer.
    assert all(template["Parameters"][name]["AllowedPattern"].lstrip("^(").startswith("/opt/") for name in ("JobsTemplatesDir", "JobsWebhookSecretFile"))


def test_every_setting_of_the_jobs_api_is_a_parameter_or_of_no_use_on_lambda(function, known_settings):
    # A Lease is for processes that live between requests; tokens in a file would need a deployment for each change of theirs;
    # the region is the function's own; the limit is each environment's.
    of_no_use = {"JOBS_LEASE_NAMESPACE", "AUTH_TOKENS_FILE", "EKS_REGION", "JOBS_RATE_LIMIT"}
    of_jobs = {name for name in known_settings if name.startswith(("JOBS_", "EKS_", "OIDC_"))} | {"AUTH_TOKENS_FILE"}
    assert of_jobs - function["Environment"]["Variables"].keys() == of_no_use


def test_the_lab_is_on_as_in_the_container_and_a_parameter_switches_it_off(template, function, known_settings):
    assert function["Environment"]["Variables"]["LAB_SLOTS"] == {"Ref": "LabSlots"}
    # An environment works for one request at a time: more slots would be of no use.
    slots = template["Parameters"]["LabSlots"]
    assert (slots["MinValue"], slots["MaxValue"], str(slots["Default"])) == (0, 1, known_settings["LAB_SLOTS"])


def test_the_jobs_api_and_signing_in_are_off_unless_asked_for(template, function):
    for condition, parameter in SWITCHES.items():
        assert template["Parameters"][parameter]["Default"] == ""
        assert template["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, ""]}]}
    assert template["Conditions"]["ManagesJobs"] == {"Fn::Or": [{"Condition": "NamesCluster"}, {"Condition": "NamesClusters"}]}
    variables = function["Environment"]["Variables"]
    for name in variables.keys() - {"REQUEST_TIMEOUT", "STATE_URL", "LAB_SLOTS"}:
        assert resolved(variables[name], {}) is None
    assert resolved(variables["EKS_CLUSTER_NAME"], {"NamesCluster": True}) == "EksClusterName"
    assert resolved(variables["EKS_CLUSTERS"], {"NamesClusters": True}) == "EksClusters"
    assert resolved(variables["OIDC_ISSUER"], {"SignsIn": True}) == "OidcIssuer"


def test_the_function_may_ask_where_clusters_are_and_nothing_else_of_eks(function):
    (policy,) = function["Policies"]
    *_, one, several = policy["Statement"]
    for statement, condition, of in ((one, "NamesCluster", ":cluster/EksClusterName"), (several, "NamesClusters", ":cluster/*")):
        assert resolved(statement, {}) is None
        allowed = resolved(statement, {condition: True})
        assert (allowed["Effect"], allowed["Action"]) == ("Allow", "eks:DescribeCluster")
        assert resolved(allowed["Resource"], {}).endswith(of)


def test_the_log_that_the_lab_reads_is_an_output(template, function):
    assert template["Outputs"]["LogGroup"]["Value"] == function["LoggingConfig"]["LogGroup"] == {"Ref": "FunctionLogs"}
    for page in ("docs/lab.md", "src/bin/math-lab/profile.rs", "src/bin/math-lab/locust.rs"):
        text = (ROOT / page).read_text()
        assert "OutputKey=='LogGroup'" in text and set(re.findall(r"aws logs tail (\S+)", text)) == {"$LOGS"}, page


def test_the_output_says_whom_to_let_into_which_clusters(template):
    output = template["Outputs"]["JobsRole"]
    assert output["Condition"] == "ManagesJobs"
    # SAM's name for the role that it makes for the function; scripts/jobs-lib.sh reads the line.
    assert output["Value"]["Fn::Sub"] == ",${EksClusterName}@${AWS::Region},${EksClusters}, ${MathServiceFunctionRole.Arn}"
    script = (ROOT / "scripts/jobs-lib.sh").read_text()
    assert "OutputKey=='JobsRole' && contains(OutputValue, ',$cluster@$region,')" in script


def test_the_state_is_in_the_table_that_the_template_makes_or_in_the_one_that_is_named(template, function):
    url = function["Environment"]["Variables"]["STATE_URL"]
    assert resolved(url, {"MakesTable": True}) == "dynamodb://StateTable"
    assert resolved(url, {"MakesTable": False}) == "dynamodb://TableName"
    assert template["Parameters"]["TableName"]["Default"] == ""
    assert template["Conditions"]["MakesTable"] == {"Fn::Equals": [{"Ref": "TableName"}, ""]}
    table = template["Resources"]["StateTable"]
    assert table["Condition"] == "MakesTable"
    # As the adapter writes it, and as the tests' own table is.
    assert table["Properties"]["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
    names = [attribute["AttributeName"] for attribute in table["Properties"]["AttributeDefinitions"]]
    assert names == ["id", "log", "position"]
    (index,) = table["Properties"]["GlobalSecondaryIndexes"]
    assert index["IndexName"] == re.search(r'INDEX: &str = "(\w+)"', (ROOT / "src/store/dynamodb/records.rs").read_text())[1]
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["log", "position"]
    assert index["Projection"] == {"ProjectionType": "ALL"}
    assert table["Properties"]["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert table["Properties"]["BillingMode"] == "PAY_PER_REQUEST", "idle, it costs nothing"


def test_the_function_may_do_what_it_sends_to_its_own_table_and_nothing_else(function):
    (policy,) = function["Policies"]
    statement, query, *_ = policy["Statement"]
    sent = dynamodb_actions()
    assert statement["Effect"] == "Allow"
    assert set(statement["Action"]) | {query["Action"]} == sent
    # In the index alone.
    assert query["Action"] == "dynamodb:Query" not in statement["Action"]
    for made in (True, False):
        assert resolved(query["Resource"], {"MakesTable": made}).endswith("/index/records")
    assert resolved(statement["Resource"], {"MakesTable": True}) == {"Fn::GetAtt": "StateTable.Arn"}
    assert resolved(statement["Resource"], {"MakesTable": False}).endswith(":table/TableName")


def test_the_function_is_arm64_unless_asked_otherwise(template, function):
    assert template["Parameters"]["Architecture"]["Default"] == "arm64"
    assert function["Architectures"] == [{"Ref": "Architecture"}]
    assert function["Runtime"] == "provided.al2023"
    assert function["MemorySize"] == {"Ref": "MemorySize"}


@pytest.mark.parametrize(("architecture", "target"), [("arm64", "aarch64"), ("x86_64", "x86_64")])
def test_the_parameter_decides_what_is_built(template, function, architecture, target):
    assert architecture in template["Parameters"]["Architecture"]["AllowedValues"]
    folder = ROOT / function["CodeUri"]["Fn::Sub"].replace("${Architecture}", architecture)
    assert {path.name for path in folder.iterdir()} == {"Makefile"}, "SAM copies this folder: nothing big belongs here"
    # What SAM runs, told to say what it would do.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "--dry-run", "--makefile", folder / "Makefile", "build-MathServiceFunction", "ARTIFACTS_DIR=/artifacts"]
    plan = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    assert f"scripts/build.sh' lambda function '/artifacts/bootstrap' {target}-unknown-linux-musl\n" in plan
    assert "zig-cc --version" in plan, "a missing C compiler is named before minutes of building"


def test_every_request_reaches_the_router(function, api):
    assert function["Events"]["Everything"] == {"Type": "HttpApi", "Properties": {"ApiId": {"Ref": "MathServiceApi"}}}
    assert api["StageName"] == "$default"


def test_the_history_of_jobs_is_written_every_minute_where_there_are_jobs(function):
    _, history = function["Events"].values()
    assert history["Type"] == "Schedule"
    assert history["Properties"]["Schedule"] == "rate(1 minute)", "Kubernetes keeps changes for five"
    state = history["Properties"]["State"]
    assert [resolved(state, {"ManagesJobs": yes}) for yes in (True, False)] == ["ENABLED", "DISABLED"]
    # It ends by itself before Lambda ends it.
    (seconds_,) = re.findall(r"CATCH_UP: .*from_secs\((\d+)\)", (ROOT / "src/app.rs").read_text())
    assert int(seconds_) < function["Timeout"]


def test_a_stranger_cannot_make_the_bill_unbounded(api):
    assert 0 < api["DefaultRouteSettings"]["ThrottlingRateLimit"] <= api["DefaultRouteSettings"]["ThrottlingBurstLimit"]


def test_access_log_lines_are_json(api):
    line = json.loads(api["AccessLogSettings"]["Format"])
    assert line["status"] == "$context.status" and line["request_id"] == "$context.requestId"


def test_no_log_is_kept_for_ever_and_none_is_dropped_on_the_way(template, function, api):
    groups = {name: r["Properties"] for name, r in template["Resources"].items() if r["Type"] == "AWS::Logs::LogGroup"}
    assert all(group["RetentionInDays"] <= 30 for group in groups.values())
    assert function["LoggingConfig"]["LogGroup"]["Ref"] in groups
    assert api["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"].removesuffix(".Arn") in groups
    assert function["LoggingConfig"]["ApplicationLogLevel"] == "TRACE", "LOGLEVEL decides"


def test_traces_are_on_and_the_outputs_say_how_to_call_it(template, function):
    assert function["Tracing"] == "Active"
    assert template["Outputs"]["Url"]["Value"]["Fn::Sub"].endswith("/")
    assert """-d '{"a":10,"b":5}'""" in template["Outputs"]["Try"]["Value"]["Fn::Sub"]
