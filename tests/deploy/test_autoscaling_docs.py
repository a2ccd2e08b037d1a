"""docs/autoscaling.md: its tables and figures, recomputed from the manifests, the load and the benchmark's budget."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from autoscaler import SYNC_SECONDS, course, desired, limited, target, utilization_targets
from support import PATIENCE_SECONDS, ROOT, bytes_of, cpus
from test_overlays import (
    add_cycle_seconds, autoscaler, locust_users, pods_that_fit, request_cpu_seconds, users_for, waiting_request_bytes,
)

PAGE = (ROOT / "docs/autoscaling.md").read_text()
LOCUST = pathlib.Path(sys.executable).with_name("locust")
LOAD_SECONDS = 300
BURN_SECONDS = 5


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its first two lines."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def figure(pattern: str) -> float:
    """The one number of the page that the pattern finds."""
    (text,) = re.findall(pattern, " ".join(PAGE.split()))
    return float(text.replace(",", ""))


@pytest.fixture
def named(base, overlay):
    """The manifests that a table means by `name`."""
    return lambda cell: base if cell == "base" else overlay(cell.strip("`"))


def load_of(page_comment: str) -> tuple[str, int]:
    """The class and the number of users of the documented load for an overlay."""
    (command,) = re.findall(rf"^\$ locust (.*)# (?:.*, )?{page_comment}\b", PAGE, re.MULTILINE)
    (users,) = re.findall(r"--users (\d+)", command)
    assert f"--run-time {LOAD_SECONDS // 60}m" in command
    return "MixedUser" if "MixedUser" in command else "AddUser", int(users)


def in_flight_requests(manifests) -> float:
    """Of all pods, while the documented load runs."""
    user, users = load_of("in-flight")
    assert user == "AddUser"
    cycle = add_cycle_seconds(manifests)
    return users * (cycle - locust_users()["think"]) / cycle


def burning_percent(manifests, pods: int) -> float:
    """Of its request, by each pod: what its slots can burn, or its part of what the users ask for."""
    user, users = load_of(manifests.name)
    think = locust_users()["think"]
    delay = add_cycle_seconds(manifests) - think if "ADD_DELAY" in manifests.env() else 0
    asked = users * locust_users()["users"][user]["burn_or_wait"] / (delay + think) * BURN_SECONDS
    resources = manifests.container()["resources"]
    burnt = min(int(manifests.env()["LOAD_SLOTS"]), cpus(resources["limits"]["cpu"]), asked / pods)
    return 100 * burnt / cpus(resources["requests"]["cpu"])


def measured(manifests, pods: int) -> float:
    if manifests.name == "in-flight":
        return in_flight_requests(manifests) / pods
    return burning_percent(manifests, pods)


def test_waiting_uses_as_little_as_the_page_says(overlay):
    demo = overlay("demo")
    aim = utilization_targets(autoscaler(demo))
    requests = demo.container()["resources"]["requests"]
    # The benchmark's figure moves with the machine.
    roughly = lambda value: pytest.approx(value, rel=0.25)
    assert figure(r"about (\d+) microseconds of CPU: it waits") == roughly(request_cpu_seconds() * 1e6)
    assert figure(r"Some ([\d,]+) such users for each pod") == roughly(users_for(aim["cpu"] / 100 * cpus(requests["cpu"]), demo))
    users = figure(r"the (\d+) users of the load below")
    assert users == load_of("demo")[1]
    assert figure(r"use about ([\d.]+) % of one") == roughly(users / users_for(1, demo) * 100)
    held = aim["memory"] / 100 * bytes_of(requests["memory"])
    assert figure(r"some ([\d,]+) requests hold that wait at once") == pytest.approx(held / waiting_request_bytes()[0], rel=0.05)
    assert figure(r"does so every ([\d.]+) s") == add_cycle_seconds(demo)


def test_the_overlays_of_the_page_are_those_that_there_are():
    # README tells how to make one of one's own.
    folders = {path.name for path in (ROOT / "k8s/overlays").iterdir()} - {"mine"}
    listed = {row[0].strip("`") for row in table("The overlays")} - {"base"}
    others = set(re.findall(r"`(alb|dynamodb|jobs|jobs-dynamodb|postgres|servicemonitor)`", PAGE))
    assert listed | others == folders and not listed & others
    readme = (ROOT / "README.md").read_text()
    assert "(docs/autoscaling.md)" in readme
    assert {f"k8s/overlays/{folder}" for folder in folders} <= set(re.findall(r"k8s/overlays/[\w-]+", readme))


def test_the_table_of_overlays_has_their_targets_and_bounds(named):
    for name, _, pods, aim in table("The overlays"):
        manifests, spec = named(name), autoscaler(named(name))
        assert pods.startswith(f"{spec['minReplicas']} to {spec['maxReplicas']}"), name
        requests = manifests.container()["resources"]["requests"]
        targets = utilization_targets(spec)
        if not targets:
            assert aim == f"{target(spec):.0f} requests in flight a pod"
        for resource, percent in targets.items():
            request = str(requests[resource]) + (" CPU" if resource == "cpu" else "")
            assert f"{percent} % of {request}" in aim, name


def test_the_formula_is_worked_right_for_each_overlay(named):
    rows = table("The formula, by hand")
    assert {row[0].strip("`") for row in rows} == {"base", "demo", "cpu-load", "in-flight"}
    for name, pods, value, aim, formula, gets, _ in rows:
        manifests, spec = named(name), autoscaler(named(name))
        pods, value, aim = int(pods), float(value.rstrip(" %")), float(aim.rstrip(" %"))
        assert aim == target(spec), name
        wanted = desired(pods, value, aim)
        if pods == wanted:
            shown = re.fullmatch(r"([\d.]+) / ([\d.]+) = ([\d.]+)", formula)
            assert shown and [float(each) for each in shown.groups()] == [value, aim, round(value / aim, 2)]
        else:
            assert formula == f"ceil({pods} × {value:g} / {aim:g}) = {wanted}", name
        assert int(gets) == limited(spec, 0, pods, {0: wanted}, {}), name
        # What is measured is what the documented load does; the base's row is an example.
        if name != "base":
            assert value == pytest.approx(measured(manifests, pods), abs=0.05), name


def test_the_time_table_is_what_the_rules_of_behavior_give(overlay):
    names = ["demo", "cpu-load", "in-flight"]
    rows = table("Five minutes of load")
    moments = [int(row[0]) for row in rows]
    for column, name in enumerate(names, start=1):
        manifests = overlay(name)
        spec = autoscaler(manifests)
        history = course(
            spec,
            spec["minReplicas"],
            lambda pods, second: measured(manifests, pods) if 0 <= second < LOAD_SECONDS else 0,
            1200,
        )
        expected = [history[max(moment for moment in history if moment <= now)] for now in moments]
        assert [int(row[column]) for row in rows] == expected, name
        # Nothing happens that the table leaves out.
        assert set(history) <= set(moments), name
    assert all(moment % SYNC_SECONDS == 0 for moment in moments)


def test_the_figures_in_the_text_follow_from_the_manifests(overlay):
    demo, cpu_load, in_flight = overlay("demo"), overlay("cpu-load"), overlay("in-flight")
    fits = pods_that_fit(demo)
    assert figure(r"so (\d+) of the 5 run") == fits < autoscaler(demo)["maxReplicas"] == 5
    assert f"{load_of('in-flight')[1]} users wait 5 s of every 6.5 s" in PAGE
    assert figure(r"([\d.]+) requests in flight, 38.5 for") == round(in_flight_requests(in_flight), 1)
    burnt = figure(r"thousand burns are ([\d,]+) s of CPU time")
    assert burnt == 1000 * BURN_SECONDS
    pods = autoscaler(cpu_load)["maxReplicas"]
    minutes = figure(r"no less than (\d+) minutes")
    assert minutes == round(burnt / pods / cpus(cpu_load.container()["resources"]["limits"]["cpu"]) / 60)


def commands() -> list[str]:
    """Every Locust command of the page and the README, without its comment."""
    pages = PAGE + (ROOT / "README.md").read_text()
    return [line.split("#")[0].removeprefix("$ ") for line in pages.splitlines() if line.startswith("$ locust ")]


def test_every_locust_command_is_one_that_locust_takes():
    assert len(commands()) >= 8
    for command in commands():
        arguments = shlex.split(command.replace("$URL", "http://127.0.0.1:9"))[1:]
        # Parses everything, prints what the users do, and ends.
        result = subprocess.run(
            [LOCUST, *arguments, "--show-task-ratio"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert result.returncode == 0 and "Task ratio per User class" in result.stdout, f"{command}: {result.stderr}"


def test_every_file_of_the_page_exists():
    for path in re.findall(r"(?:k8s|bench)/[\w./-]+", PAGE):
        assert (ROOT / path.rstrip(".")).exists(), path
