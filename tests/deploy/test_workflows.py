"""The workflows of .github: what their schema and zizmor (make lint-workflows) do not know of this project."""

import pathlib
import re
import subprocess
import sys
import tomllib
import types

import pytest
import yaml
from support import ROOT, read_yaml

SHELLCHECK = pathlib.Path(sys.executable).with_name("shellcheck")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEXT = {path.name: path.read_text() for path in WORKFLOWS}
RUST = tomllib.loads((ROOT / "bench/budget.toml").read_text())["toolchain"]["rustc"]


@pytest.fixture(params=sorted(TEXT))
def workflow(request) -> dict:
    return yaml.safe_load(TEXT[request.param])


def jobs() -> list[tuple[str, dict]]:
    return [(f"{name}: {job}", content) for name, text in TEXT.items() for job, content in yaml.safe_load(text)["jobs"].items()]


def scripts() -> list[tuple[str, str]]:
    return [(where, step["run"]) for where, job in jobs() for step in job["steps"] if "run" in step]


def evaluated(text, **contexts: dict) -> str:
    """What GitHub makes of its expressions, of which these workflows use the part that is Python once it is spelt so."""
    names = {name: types.SimpleNamespace(**values) for name, values in contexts.items()}
    spelt = lambda match: str(eval(match[1].replace("&&", " and ").replace("||", " or "), {"__builtins__": {}}, names))  # noqa: E731
    return re.sub(r"\$\{\{(.*?)\}\}", spelt, text)


def concurrency(where: str, job: dict) -> dict:
    return job.get("concurrency") or yaml.safe_load(TEXT[where.split(":")[0]])["concurrency"]


def group(where: str, job: dict, environment: str = "dev", **github: str) -> str:
    """What the job waits in, when this happened."""
    github = {"event_name": "push", "ref": "refs/heads/main", "sha": "a", **github}
    return evaluated(concurrency(where, job)["group"], github=github, matrix={"environment": environment})


def plans(job: dict) -> bool:
    """Whether it only shows what it would change, in an environment whose role may only read."""
    return job.get("environment", "").endswith("-plan")


def test_the_workflows_are_found():
    assert TEXT.keys() == {"ci.yml", "release.yml", "terraform.yml"}


def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it():
    pins = {}
    for name, text in TEXT.items():
        for line in re.findall(r"^.*\buses:.*$", text, re.MULTILINE):
            pin = re.fullmatch(r"\s+(?:- )?uses: ([\w.-]+/[\w.-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
            assert pin, f"{name}: {line.strip()}"
            pins.setdefault(pin[1], set()).add((pin[2], pin[3]))
    assert len(pins) > 5 and all(len(versions) == 1 for versions in pins.values()), pins


def test_a_workflow_may_do_nothing_but_what_its_jobs_ask_for(workflow):
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["permissions"].get("contents") == "read", name
        assert {right for right, level in job["permissions"].items() if level == "write"} <= {"id-token", "attestations"}, name


@pytest.mark.parametrize("where, job", jobs())
def test_every_job_ends_and_does_not_meet_another_of_its_kind(where, job):
    assert 0 < job["timeout-minutes"] <= 90
    assert group(where, job)
    if "environment" in job:
        assert concurrency(where, job)["cancel-in-progress"] is False, "a deployment is not cut short"
    if "environment" in job and not plans(job):
        assert concurrency(where, job)["queue"] == "max", "without it, the next cancels the one that waits"


@pytest.mark.parametrize("where, job", [case for case in jobs() if case[0].startswith("ci.yml")])
def test_a_request_has_one_answer_at_a_time_and_a_commit_on_main_its_own(where, job):
    request = {"event_name": "pull_request", "ref": "refs/pull/7/merge"}
    main = {"event_name": "push", "ref": "refs/heads/main"}
    assert group(where, job, **request, sha="a") == group(where, job, **request, sha="b")
    assert group(where, job, **main, sha="a") != group(where, job, **main, sha="b"), "the second would cancel the first if that waits"
    cancels = concurrency(where, job)["cancel-in-progress"]
    assert evaluated(cancels, github=request) == "True" and evaluated(cancels, github=main) == "False"


def test_a_plan_meets_neither_an_apply_nor_another_requests_plan():
    (plan,), (apply,) = ([case for case in jobs() if case[0] == f"terraform.yml: {name}"] for name in ("plan", "apply"))
    assert plans(plan[1]) and not plans(apply[1])
    request, main = {"event_name": "pull_request", "ref": "refs/pull/7/merge"}, {"event_name": "push", "ref": "refs/heads/main"}
    assert group(*plan, **request) != group(*plan, **{**request, "ref": "refs/pull/8/merge"})
    assert group(*plan, **request) != group(*apply, **main)
    assert group(*apply, **main) != group(*apply, environment="prod", **main)


def test_terraform_waits_for_the_lock_of_another_run_and_no_longer_than_its_job():
    workflow = yaml.safe_load(TEXT["terraform.yml"])
    for name, job in workflow["jobs"].items():
        (minutes,) = re.fullmatch(r"-lock-timeout=(\d+)m", workflow["env"][f"TF_CLI_ARGS_{name}"]).groups()
        assert 0 < int(minutes) < job["timeout-minutes"]


@pytest.mark.parametrize("where, job", jobs())
def test_whoever_takes_a_role_of_aws_is_in_an_environment(where, job):
    takes = [step for step in job["steps"] if "configure-aws-credentials" in step.get("uses", "")]
    assert all(step["with"]["role-to-assume"] == "${{ vars.AWS_ROLE_ARN }}" for step in takes)
    assert not takes or job["environment"], "the role trusts the environment's tokens, not the repository's"
    assert not takes or job["permissions"]["id-token"] == "write"


def test_no_secret_is_stored_and_none_is_read():
    assert not [name for name, text in TEXT.items() if re.search(r"\bsecrets\.|AWS_SECRET|access-key", text)]


def test_no_checkout_leaves_its_token_behind():
    checkouts = [(where, step) for where, job in jobs() for step in job["steps"] if "actions/checkout" in step.get("uses", "")]
    assert len(checkouts) >= 8
    for where, step in checkouts:
        assert step["with"]["persist-credentials"] is False, where


@pytest.mark.parametrize("where, script", scripts())
def test_a_script_of_a_workflow_is_sound_and_nothing_is_pasted_into_it(where, script):
    assert "${{" not in script, f"{where}: what an attacker may name reaches a script as a variable only"
    text = "#!/usr/bin/env bash\n# shellcheck disable=SC2154\n" + script
    result = subprocess.run([SHELLCHECK, "-"], input=text, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_task_that_a_workflow_calls_is_one_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    tasks = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    called = {
        word
        for _, script in scripts()
        for command in re.findall(r"(?:^|[\n(;&|] *)make ((?:[\w=\"$-]+ ?)+)", script)
        for word in command.split()
        if "=" not in word and not word.startswith("-")
    }
    assert {"test", "test-container", "kind", "parity", "rollout", "lambda", "sbom"} <= called
    # Where there is no terraform/, there is nothing for its workflow to do.
    there = tasks if (ROOT / "terraform").is_dir() else tasks | {"terraform-plan", "terraform-apply"}
    assert called <= there


def test_what_reaches_prod_is_what_dev_ran():
    release = yaml.safe_load(TEXT["release.yml"])["jobs"]
    deploy = release["deploy"]
    assert deploy["strategy"] == {"max-parallel": 1, "fail-fast": True, "matrix": {"environment": ["dev", "prod"]}}
    assert set(deploy["needs"]) == {"version", "sign", "bundle"}
    assert deploy["env"]["IMAGE"].endswith("/my-math-service@${{ needs.sign.outputs.digest }}"), "by its content"
    commands = "\n".join(step.get("run", "") for step in deploy["steps"])
    assert "BUILD=no" in commands and "docker build" not in commands and "sam build" not in commands
    order = [commands.index(word) for word in ("make lambda", "make parity", "cosign verify", "make rollout")]
    assert order == sorted(order)


def test_a_release_says_what_each_environment_has_of_its_own():
    said = yaml.safe_load(TEXT["release.yml"])["jobs"]["deploy"]["env"]
    needed = set(re.findall(r"^this_environments \w+ (\w+)$", (ROOT / "scripts/rollout.sh").read_text(), re.MULTILINE))
    assert needed == {"STATE_URL", "CLUSTER", "AWS_REGION"}
    needed.add("CERTIFICATE_ARN")
    assert {name: said[name] for name in needed} == {name: f"${{{{ vars.{name} }}}}" for name in needed}


def test_a_bundle_keeps_the_right_to_be_run():
    bundle = yaml.safe_load(TEXT["release.yml"])["jobs"]["bundle"]
    (upload,) = (step for step in bundle["steps"] if "upload-artifact" in step.get("uses", ""))
    assert upload["with"]["path"].split() == ["bundle.tar", "bundle.cdx.json"], "an artifact forgets modes; tar does not"


def test_the_compilers_are_those_that_the_budget_was_counted_with():
    for name in ("ci.yml", "release.yml"):
        assert yaml.safe_load(TEXT[name])["env"]["RUSTUP_TOOLCHAIN"] == RUST
    assert yaml.safe_load(TEXT["ci.yml"])["jobs"]["test"]["container"] == f"rust:{RUST}-bookworm"


def test_what_is_compared_is_compiled_with_the_images_c_compiler():
    steps = "\n".join(step.get("run", "") for step in yaml.safe_load(TEXT["ci.yml"])["jobs"]["reproducible"]["steps"])
    (package,) = re.findall(r"--no-install-recommends (\S+)", (ROOT / "Dockerfile").read_text())
    assert f"--no-install-recommends {package}" in steps


def test_kind_runs_the_kubernetes_of_the_cluster():
    version = read_yaml("cluster-config.yaml")["metadata"]["version"]
    assert f"kindest/node:v{version}." in (ROOT / "scripts/kind.sh").read_text()


def test_both_terraform_jobs_run_the_same_terraform():
    assert len(set(re.findall(r"terraform_version: (\S+)", TEXT["terraform.yml"]))) == 1


def test_dependencies_are_looked_after_wherever_they_are_named():
    updates = read_yaml(".github/dependabot.yml")["updates"]
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)
    looked_after = {(u["package-ecosystem"], d) for u in updates for d in u.get("directories", [u.get("directory")])}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    for file, ecosystem in (("Cargo.lock", "cargo"), ("requirements.txt", "pip"), ("Dockerfile", "docker")):
        for path in (path for path in tracked if path.rsplit("/", 1)[-1] == file):
            assert (ecosystem, "/" + path.removesuffix(file).rstrip("/")) in looked_after, path


def test_every_variable_of_a_workflow_is_explained():
    page = (ROOT / "docs/operations.md").read_text()
    used = {name for text in TEXT.values() for name in re.findall(r"\bvars\.([A-Z_]+)", text)}
    explained = set(re.findall(r"^\| `([A-Z_]+)` \|", page.split("\n## Releases\n")[1].split("\n## ")[0], re.MULTILINE))
    assert used == explained
