"""The scripts behind `make terraform-*`, with stand-ins for terraform and AWS (standin.py), in a copy of what they read."""

import os
import re
import shutil

import pytest
from support import ROOT
from test_setup import World

SCRIPTS = ["terraform-bootstrap", "terraform-plan", "terraform-apply", "terraform-database", "terraform-destroy"]
OF_AN_ENVIRONMENT = SCRIPTS[1:]
CHANGES = re.compile(r"terraform .*(apply|destroy)|aws ecr delete|kubectl .*delete")
THERE = {"bucket": True, "environment": "there", "cluster": "ACTIVE", "repository": True, "pushed": [], "balancer": "there"}


class Infrastructure(World):
    def __init__(self, folder):
        super().__init__(folder)
        self.tree = folder / "tree"
        shutil.copytree(ROOT / "scripts", self.tree / "scripts")
        shutil.copytree(ROOT / "terraform", self.tree / "terraform", ignore=shutil.ignore_patterns(".terraform*", "*.tfplan", "*.tfstate*", "*_override.tf"))
        self.plan = self.tree / "terraform/dev.tfplan"


@pytest.fixture
def world(tmp_path):
    return Infrastructure(tmp_path)


@pytest.fixture
def running(world):
    world.have(**THERE)
    return world


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_printed_without_doing_anything(world, name):
    result = world.run(name, "--help")
    assert result.returncode == 0 and f"Usage: make {name}" in result.stdout
    assert world.calls == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_missing_terraform_is_named_with_how_to_get_it(running, name):
    (running.bin / "terraform").unlink()
    running.plan.write_text("a plan")
    said = running.refused(name, ENV="dev")
    assert "terraform: https://developer.hashicorp.com/" in said and "Nothing was changed." in said
    assert running.made(CHANGES.pattern) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_expired_credentials_are_reported_before_anything_changes(running, name):
    running.plan.write_text("a plan")
    running.when("^aws sts", "An error occurred (ExpiredToken) when calling the GetCallerIdentity operation: expired", 254)
    said = running.refused(name, ENV="dev")
    assert "log in again" in said and "ExpiredToken" in said
    assert running.made("terraform|kubectl|ecr") == []


@pytest.mark.parametrize("name", OF_AN_ENVIRONMENT)
@pytest.mark.parametrize("environment", ["", "staging", "../dev"])
def test_an_environment_that_there_is_not_is_refused_with_those_that_there_are(running, name, environment):
    said = running.refused(name, ENV=environment)
    assert "there are: dev prod" in said and "Nothing was changed." in said
    assert running.calls == []


@pytest.mark.parametrize("name", ["terraform-plan", "terraform-database", "terraform-destroy"])
def test_without_the_bucket_nothing_is_done(world, name):
    assert "make terraform-bootstrap makes it" in world.refused(name, ENV="dev")
    assert world.made("^terraform") == []


@pytest.mark.parametrize("error", ["(403) when calling the HeadBucket operation: Forbidden", "Could not connect to the endpoint URL"])
def test_a_bucket_that_cannot_be_asked_for_is_not_taken_for_missing(world, error):
    world.when("s3api head-bucket", error, 254)
    for name in ["terraform-plan", "terraform-bootstrap"]:
        assert error in world.refused(name, ENV="dev")
        assert world.made("^terraform") == []


def test_each_environment_has_a_state_of_its_own(running):
    keys = set()
    for environment in ["dev", "prod"]:
        running.succeed("terraform-plan", ENV=environment)
        (init,) = running.made("^terraform .* init")
        assert "-reconfigure" in init and "-backend-config=bucket=math-service-terraform-111122223333" in init
        keys.add(re.search(r"-backend-config=key=(\S+)", init)[1])
    assert keys == {"dev/terraform.tfstate", "prod/terraform.tfstate"}


def test_a_plan_changes_nothing_and_says_what_would(running):
    said = running.succeed("terraform-plan", ENV="dev").stdout
    (plan,) = running.made("^terraform .* plan")
    assert "-var-file=config/dev.tfvars" in plan and "-out=dev.tfplan" in plan
    assert "make terraform-apply ENV=dev" in said and "COSTS MONEY" in said
    assert running.made(CHANGES.pattern) == []


def test_a_plan_that_fails_leaves_no_older_one_behind(running):
    running.succeed("terraform-plan", ENV="dev")
    running.when("terraform .* plan", "Error: Invalid value for variable")
    running.refused("terraform-plan", ENV="dev")
    assert "there is no plan" in running.refused("terraform-apply", ENV="dev")
    assert running.made(CHANGES.pattern) == []


def test_what_was_shown_is_applied_and_once(running):
    running.succeed("terraform-plan", ENV="dev")
    said = running.succeed("terraform-apply", ENV="dev").stdout
    assert running.made("^terraform .* apply") == ["terraform -chdir=terraform apply -input=false dev.tfplan"]
    for line in [
        "aws eks update-kubeconfig --name math-service-dev", "export AWS_REGION=eu-west-1", "export CLUSTER=math-service-dev",
        "export REPOSITORY=111122223333.dkr.ecr.eu-west-1.amazonaws.com/my-math-service",
        "export STATE_URL='dynamodb://math-service-dev-state?region=eu-west-1'", "make terraform-destroy ENV=dev",
    ]:
        assert line in said
    assert "there is no plan of dev" in running.refused("terraform-apply", ENV="dev")


def test_what_was_shown_for_one_environment_is_not_applied_to_another(running):
    running.succeed("terraform-plan", ENV="dev")
    assert "there is no plan of prod" in running.refused("terraform-apply", ENV="prod")
    assert running.made(CHANGES.pattern) == []


@pytest.mark.parametrize("file", ["eks.tf", "config/dev.tfvars"])
def test_a_plan_that_is_older_than_the_files_is_not_applied(running, file):
    running.succeed("terraform-plan", ENV="dev")
    os.utime(running.tree / "terraform" / file)
    os.utime(running.plan, (1, 1))
    said = running.refused("terraform-apply", ENV="dev")
    assert f"terraform/{file}" in said and "make terraform-plan ENV=dev again" in said
    assert running.made(CHANGES.pattern) == []


def test_the_first_bootstrap_makes_the_bucket_and_moves_its_own_state_there(world):
    world.succeed("terraform-bootstrap", GITHUB_REPOSITORY="example/math-service")
    order = [r"apply -target=aws_s3_bucket.state", r"init -migrate-state -force-copy", r"init -reconfigure -backend-config", r"bootstrap apply$"]
    positions = [world.position(call) for call in order]
    assert positions == sorted(positions), world.calls
    folder = world.tree / "terraform/bootstrap"
    assert not (folder / "backend_override.tf").exists() and not (folder / "terraform.tfstate").exists()


def test_a_later_bootstrap_changes_what_changed(running):
    running.succeed("terraform-bootstrap")
    assert [call.split(" ", 2)[2] for call in running.made("^terraform")] == [
        "init -reconfigure -backend-config=bucket=math-service-terraform-111122223333", "apply",
    ]


def test_a_bootstrap_that_was_interrupted_before_the_move_goes_on_there(world):
    world.when("init -migrate-state", "Error: error uploading state")
    world.refused("terraform-bootstrap")
    assert (world.tree / "terraform/bootstrap/terraform.tfstate").exists(), "the state is not lost"
    world.have(rules=[])
    world.succeed("terraform-bootstrap")
    assert len(world.made("init -migrate-state")) == 1 and world.made("-target") == []


def test_destroying_begins_with_the_balancer(running):
    running.succeed("terraform-destroy", ENV="dev")
    order = ["update-kubeconfig --name math-service-dev", "kubectl .*delete service", "elb describe-load-balancers", "terraform .* destroy"]
    positions = [running.position(call) for call in order]
    assert positions == sorted(positions), running.calls
    (destroy,) = running.made("terraform .* destroy")
    assert "-var-file=config/dev.tfvars" in destroy
    assert all("--context math-service-dev" in call for call in running.made("^kubectl"))


def test_nothing_is_destroyed_while_a_balancer_is_left(running):
    running.have(balancer_goes=False)
    assert "a0b1c2" in running.refused("terraform-destroy", ENV="dev")
    assert running.made("terraform .* destroy") == []


def test_images_go_only_when_it_is_said(running):
    running.have(pushed=["0123456"])
    assert "DELETE_IMAGES=yes" in running.refused("terraform-destroy", ENV="dev")
    assert running.made(CHANGES.pattern) == []
    running.succeed("terraform-destroy", ENV="dev", DELETE_IMAGES="yes")
    assert running.position("ecr delete-repository") < running.position("terraform .* destroy")


def test_production_is_not_destroyed_as_it_is(running):
    said = running.refused("terraform-destroy", ENV="prod")
    assert "deletion_protection = false in terraform/config/prod.tfvars" in said
    assert running.calls == []


def test_what_was_never_applied_is_destroyed_without_asking_a_cluster(world):
    world.have(bucket=True)
    world.succeed("terraform-destroy", ENV="dev")
    assert world.made("^kubectl|eks|elb") == []


def test_a_state_that_cannot_be_read_is_not_taken_for_empty(running):
    running.when("terraform .* output", "Error: error loading state: AccessDenied")
    running.refused("terraform-destroy", ENV="dev")
    assert running.made(CHANGES.pattern) == []


def test_the_service_gets_a_user_of_its_own_and_a_secret_with_its_url(running):
    running.have(database=True)
    running.succeed("terraform-database", ENV="dev")
    said = (running.folder / "exec.txt").read_text().splitlines()
    assert said[0] == "Kept~Secret#1", "psql's shell reads the administrator's password first"
    password = said[-1]
    assert said[-3:] == ["\\password math_service", password, password]
    secret = running.applied()[0]
    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", "math-service-state")
    assert secret["stringData"] == {"url": f"postgres://math_service:{password}@db.example/math_service?sslrootcert=/etc/postgres/global-bundle.pem"}
    order = ["create configmap", "wait --for condition=Ready pod/", "exec --stdin", "delete pod .*--wait=false"]
    positions = [running.position(call) for call in order]
    assert positions == sorted(positions), running.calls


def test_no_password_is_in_an_argument(running):
    running.have(database=True)
    said = running.succeed("terraform-database", ENV="dev")
    password = (running.folder / "exec.txt").read_text().splitlines()[-1]
    for text in ["\n".join(running.calls), said.stdout, said.stderr]:
        assert password not in text and "Kept~Secret#1" not in text


def test_without_a_database_there_is_no_user_to_make(running):
    assert "database = true in terraform/config/dev.tfvars" in running.refused("terraform-database", ENV="dev")
    assert running.made("kubectl|secretsmanager") == []


def test_a_user_that_was_not_made_gets_no_secret(running):
    running.have(database=True)
    running.when("^kubectl .*exec", "psql: error: connection refused")
    running.refused("terraform-database", ENV="dev")
    assert not running.applied() or running.applied()[0]["kind"] != "Secret"


@pytest.mark.parametrize("name", SCRIPTS)
def test_make_has_a_target_for_every_script(name):
    assert re.search(rf"^{name}: ## .+\n\tscripts/{name}\.sh$", (ROOT / "Makefile").read_text(), re.MULTILINE)
