"""docs/operations.md and docs/ec2.md: their figures, recomputed, and the names in them, looked up."""

import re

import pytest
import yaml
from support import ROOT, read_yaml, seconds
from test_lambda_template import Loader
from test_systemd import environment

PAGE = (ROOT / "docs/operations.md").read_text()
EC2 = (ROOT / "docs/ec2.md").read_text()
HOURS = 730


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def tables(heading: str) -> list[list[list[str]]]:
    """The cells of each table of a section, without the two lines of its head."""
    blocks = re.findall(r"(?:^\|.*\n)+", section(heading), re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]] for block in blocks]


def row(heading: str, start: str) -> list[str]:
    (found,) = (cells for table in tables(heading) for cells in table if cells[0].startswith(start))
    return found


def computed(arithmetic: str) -> float:
    """`2 × 0.0832 × 730`, and nothing but sums of products."""
    assert re.fullmatch(r"[\d.]+(?: [×+] [\d.]+)*", arithmetic), arithmetic
    total = 0.0
    for product in arithmetic.split(" + "):
        value = 1.0
        for factor in product.split(" × "):
            value *= float(factor)
        total += value
    return total


@pytest.fixture(scope="module")
def template() -> dict:
    return yaml.load((ROOT / "template.yaml").read_text(), Loader)


def test_every_cost_is_what_its_arithmetic_gives():
    lines = [cells for table in tables("What it costs") for cells in table if re.match(r"[\d.]+ [×+]", cells[1])]
    assert len(lines) == 15
    for part, arithmetic, result in lines:
        decimals = len(result.split(".")[1])
        assert round(computed(arithmetic) + 1e-9, decimals) == float(result), f"{part}: {computed(arithmetic)}"


def test_the_sums_are_those_of_the_parts():
    eks, _, million = tables("What it costs")
    *parts, (name, _, total) = eks
    assert name == "all" and round(sum(float(cells[2]) for cells in parts), 2) == float(total)
    lambda_parts = [float(cells[2]) for cells in million if cells[0].startswith(("Lambda: ", "HTTP API", "logs: "))]
    assert len(lambda_parts) == 4 and round(sum(lambda_parts), 2) == float(row("What it costs", "Lambda, all")[2])


def test_the_costs_are_of_what_the_files_make(template):
    (group,) = read_yaml("cluster-config.yaml")["managedNodeGroups"]
    assert row("What it costs", f"{group['desiredCapacity']} nodes, {group['instanceType']}")[1].startswith(f"{group['desiredCapacity']} × ")
    disks = row("What it costs", "their disks")
    assert disks[0].endswith(f"{group['volumeSize']} GB each") and disks[1].startswith(f"{group['desiredCapacity']} × {group['volumeSize']} × ")
    assert row("What it costs", "the cluster")[1].endswith(f"× {HOURS}")
    alarms = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    metrics = sum(len([m for m in alarm.get("Metrics", [alarm]) if "MetricStat" in m or "MetricName" in m]) for alarm in alarms)
    assert row("What it costs", f"its {len(alarms)} alarms, of {metrics} metrics")[1].startswith(f"{metrics} × ")
    memory = template["Parameters"]["MemorySize"]["Default"]
    billed = row("What it costs", "Lambda: 2 ms billed")
    assert f"of {memory} MB, {template['Parameters']['Architecture']['Default']}" in billed[0]
    assert f"1000000 × 0.002 × {memory / 1024} × " in billed[1]


def test_the_points_where_one_becomes_cheaper_are_computed():
    text = " ".join(section("What it costs").split())
    rest, call, balancer = (float(row("What it costs", start)[-1]) for start in ("all", "Lambda, all", "EKS: the load balancer"))
    machine = float(row("What it costs", "EC2")[-1])
    even = rest / (call - balancer)
    assert f"({rest} / ({call} - {balancer}) = {even:.1f} million)" in text
    stated, rate = re.search(r"up to (\d+) million additions a month, (\d+) a second", text).groups()
    assert int(stated) == int(even) and int(rate) == int(even * 1e6 / (HOURS * 3600))
    assert f"({machine} / {call} = {machine / call:.1f} million)" in text and f"from {round(machine / call)} million on" in text


def test_the_limits_are_those_of_the_files(base, overlay, known_settings, template):
    limit = lambda start: row("Limits and quotas", start)[1]  # noqa: E731
    pods = base.one("HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    assert limit("pods, base") == str(pods)
    assert limit("nodes") == str(read_yaml("cluster-config.yaml")["managedNodeGroups"][0]["maxSize"])
    assert limit("requests under way in a pod") == base.env()["MAX_IN_FLIGHT"]
    assert limit("connections of a pod") == base.env()["MAX_CONNECTIONS"]
    throttling = template["Resources"]["MathServiceApi"]["Properties"]["DefaultRouteSettings"]
    assert limit("requests a second, HTTP API") == f"{throttling['ThrottlingRateLimit']}, in bursts {throttling['ThrottlingBurstLimit']}"
    on_lambda = template["Resources"]["MathServiceFunction"]["Properties"]["Environment"]["Variables"]["REQUEST_TIMEOUT"]
    assert limit("time of a request") == f"{seconds(known_settings['REQUEST_TIMEOUT']):.0f} s, and {seconds(on_lambda):.0f} s on Lambda"
    assert limit("body") == f"{int(known_settings['MAX_BODY_BYTES']) // 1024} KiB"
    assert limit("connections to PostgreSQL") == f"{pods} pods × {overlay('postgres').env()['STATE_CONNECTIONS']}"


def test_what_is_said_of_the_store_covers_every_kind_of_record_in_it():
    rows = {
        "transition": "the history of Jobs", "present": "what the watcher", "watch": "what the watcher", "audit": "the audit",
        "webhook": "webhooks that wait, and dead letters",
    }
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    # A message's digest is its id, and the name of no record.
    assert rows.keys() == set(re.findall(r'Name::of\("([\w-]+)"', source)) - {"message"}
    kinds, stores = tables("The state store")
    assert "uses_the_table = {" in (ROOT / "terraform/iam.tf").read_text()
    assert ":table/math-service*" in (ROOT / "cluster-config.yaml").read_text()
    for start in {"where each sequence stands", *rows.values()}:
        assert len(list(filter(None, row("The state store", start)))) == 4
    assert len(kinds) == len({"where each sequence stands", *rows.values()}) and len(stores) == 3


def test_every_setting_that_is_named_is_one(known_settings):
    # The last is being built.
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)(?:=[^`]*)?`", PAGE + EC2)) - set(re.findall(r"^\| `([A-Z_]+)` \|", section("Releases"), re.MULTILINE))
    assert named <= known_settings.keys(), named - known_settings.keys()


def test_every_make_command_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = PAGE + EC2 + (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+(?:-[a-z]+)*)", pages))
    assert {"release", "rollout", "lambda", "kind", "smoke", "eks-down"} <= named <= targets


def test_every_link_leads_somewhere():
    for name, text in (("operations.md", PAGE), ("ec2.md", EC2)):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
            assert (ROOT / "docs" / target).exists(), f"{name}: {target}"
    anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\((?:operations\.md)?#([\w-]+)\)", PAGE + EC2)) <= anchors


def test_the_times_of_a_stop_on_a_machine_of_its_own_are_those_of_its_settings():
    stop = next(line for line in EC2.splitlines() if "stop without losing" in line)
    delay, drain = (seconds(environment()[name]) for name in ("DRAIN_DELAY", "DRAIN_TIMEOUT"))
    assert f"for {delay:.0f} s new requests" in stop and f"may take {drain:.0f} s" in stop
