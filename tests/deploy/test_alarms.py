"""The alarms of both targets: CloudWatch's in template.yaml, Prometheus' in deploy/alarms."""

import re
import subprocess

import pytest
import yaml
from support import ROOT, cannot_run, get, post_sum, running_server
from test_lambda_template import Loader

RULES = ROOT / "deploy/alarms/prometheus.yaml"
TRIALS = ROOT / "deploy/alarms/prometheus.test.yaml"
# Of kube-state-metrics and of Prometheus itself; everything else is ours.
OTHERS = re.compile(r"kube_|ALERTS")
# By AWS's pages of metrics for Lambda, HTTP APIs and DynamoDB: CloudWatch takes any name, and waits for ever.
MEASURED_BY_AWS = {
    "AWS/Lambda": {"Errors", "Throttles"},
    "AWS/ApiGateway": {"5xx", "Count", "Latency"},
    "AWS/DynamoDB": {"WriteThrottleEvents"},
}


def promtool(*arguments) -> subprocess.CompletedProcess:
    result = subprocess.run([ROOT / "tests/deploy/promtool.sh", *arguments], capture_output=True, text=True)
    if result.returncode == 3:
        cannot_run("promtool is not installed, and Debian's cannot be fetched")
    return result


def rules() -> list[dict]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return group["rules"]


def metrics_of(expression: str) -> set[str]:
    """The names in an expression that are neither functions, nor labels, nor words of the language."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on)\s*\([^)]*\)|\"[^\"]*\"", " ", expression)
    return {name for name in re.findall(r"[a-z]\w+\b(?!\s*\()", bare) if "_" in name}


@pytest.fixture
def alarms() -> dict[str, dict]:
    template = yaml.load((ROOT / "template.yaml").read_text(), Loader)
    return {name: r for name, r in template["Resources"].items() if r["Type"] == "AWS::CloudWatch::Alarm"}


def test_prometheus_takes_the_rules():
    result = promtool("check", "rules", RULES)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_raise_what_they_should_and_nothing_else():
    result = promtool("test", "rules", TRIALS)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_rule_is_tried_in_both_directions():
    quiet, loud, *timed = yaml.safe_load(TRIALS.read_text())["tests"]
    raised = set(re.findall(r'alertname="(\w+)"', str(loud))) | {trial["alertname"] for test in timed for trial in test["alert_rule_test"]}
    assert raised == {rule["alert"] for rule in rules()}
    assert quiet["promql_expr_test"][0]["exp_samples"] == []


@pytest.mark.parametrize("change", [("> 0.01", "> 0.02"), (">= on", "> on"), ("0.8 * 256", "0.95 * 256"), ('"/load"', '"/lod"'), ("for: 2m", "for: 9m"), ("_timestamp_seconds)", "_timestamp_seconds > 0)"), (">= 0.9 * 3000", "> 0.9 * 3000"), ("0.9 * 3000", "0.89 * 3000")])
def test_a_threshold_that_moves_is_noticed(tmp_path, change):
    moved = RULES.read_text().replace(*change)
    assert moved != RULES.read_text()
    (tmp_path / RULES.name).write_text(moved)
    (tmp_path / TRIALS.name).write_text(TRIALS.read_text())
    assert promtool("test", "rules", tmp_path / TRIALS.name).returncode not in (0, 3)


def test_every_metric_of_a_rule_is_one_that_the_service_shows():
    # Nobody has to be there: that a history is to be kept is enough.
    with running_server(EKS_CLUSTER_NAME="a", JOBS_LEASE_NAMESPACE="a") as (port, _):
        post_sum(port)
        shown = set(re.findall(r"^([a-z_]+)(?:\{| )", get(port, "/metrics").text, re.MULTILINE))
    asked = {name for rule in rules() for name in metrics_of(rule["expr"]) if not OTHERS.match(name)}
    assert len(asked) >= 6 and asked <= shown, asked - shown


def test_every_label_of_a_rule_is_one_that_the_service_writes(server):
    port, _ = server
    post_sum(port)
    text = get(port, "/metrics").text
    for rule in rules():
        for label in re.findall(r"(http_\w+)(?:=|!)", rule["expr"]):
            assert f"{label}=" in text, label


def test_the_alarms_know_the_limits_of_the_base(base):
    (connections,) = (rule for rule in rules() if rule["alert"] == "MathServiceConnections")
    most = base.env()["MAX_CONNECTIONS"]
    assert connections["expr"].endswith(f" * {most}") and f"of {most}" in connections["annotations"]["summary"]
    (rule,) = (rule for rule in rules() if rule["alert"] == "MathServiceMemory")
    assert base.container()["resources"]["limits"]["memory"] == "256Mi" and "256 * 1024 * 1024" in rule["expr"]
    (autoscaler,) = (rule for rule in rules() if rule["alert"] == "MathServiceAtItsMaximum")
    assert f'"{base.one("HorizontalPodAutoscaler")["metadata"]["name"]}"' in autoscaler["expr"]


def test_the_function_has_alarms_where_somebody_is_told(alarms):
    assert alarms.keys() == {"FunctionErrors", "FunctionThrottles", "ApiErrors", "ApiLatency", "TableThrottles"}
    for name, alarm in alarms.items():
        assert alarm["Condition"] == "HasAlarms", f"{name}: without a topic it would cost and tell nobody"
        properties = alarm["Properties"]
        assert properties["AlarmActions"] == properties["OKActions"] == [{"Ref": "AlarmTopic"}]
        assert properties["TreatMissingData"] == "notBreaching", f"{name}: nobody calls at night"


def test_an_alarm_watches_this_stack(alarms):
    for name, alarm in alarms.items():
        properties = alarm["Properties"]
        metrics = [properties] if "MetricName" in properties else [m["MetricStat"]["Metric"] for m in properties["Metrics"] if "MetricStat" in m]
        for metric in metrics:
            assert metric["MetricName"] in MEASURED_BY_AWS[metric["Namespace"]], name
            (dimension,) = metric["Dimensions"]
            expected = {"AWS/Lambda": "FunctionName", "AWS/ApiGateway": "ApiId", "AWS/DynamoDB": "TableName"}[metric["Namespace"]]
            assert dimension["Name"] == expected and not isinstance(dimension["Value"], str), name


def test_the_page_says_what_to_do_about_every_alarm(alarms):
    page = (ROOT / "docs/operations.md").read_text().split("\n## Alarms\n")[1].split("\n## ")[0]
    explained = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert explained == alarms.keys() | {rule["alert"] for rule in rules()}
