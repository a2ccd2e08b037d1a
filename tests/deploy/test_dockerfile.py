"""The Dockerfile without Docker; tests/container builds and runs it."""

import pathlib
import re
import subprocess
import sys

from support import ROOT


def instructions() -> list[str]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return re.sub(r"\s*\\\n\s*", " ", text).strip().splitlines()


def test_hadolint_finds_nothing():
    program = pathlib.Path(sys.executable).parent / "hadolint"
    result = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_build_names_the_features_that_the_container_ships():
    (build,) = (line for line in instructions() if "scripts/build.sh" in line)
    assert build.endswith("scripts/build.sh math-service container /math-service")
    assert any(line.startswith("COPY --from=build /math-service ") for line in instructions())


def test_what_ships_and_what_is_compared_are_built_by_the_one_script():
    """tests/deploy/test_reproducible.py sees what the script says to the compilers."""
    for file in ("Dockerfile", "deploy/lambda/build.mk", "scripts/reproducible.sh"):
        text = re.sub(r"^ *#.*\n", "", (ROOT / file).read_text(), flags=re.MULTILINE)
        for own in ("RUSTFLAGS", "_LINKER", "SOURCE_DATE_EPOCH", "cargo auditable build", "cargo build"):
            assert own not in text, f"{file}: {own} is scripts/build.sh's"
    assert "scripts/build.sh" in (ROOT / "deploy/lambda/build.mk").read_text()


def test_the_image_starts_as_nobody_from_nothing():
    final = instructions()[[i for i, line in enumerate(instructions()) if line.startswith("FROM")][-1] :]
    assert final[0] == "FROM gcr.io/distroless/static-debian12:nonroot"
    assert "USER 65532:65532" in final
    assert not any(line.startswith("RUN") for line in final)


def test_a_volume_that_docker_makes_belongs_to_the_user_that_writes_into_it():
    (command,) = re.findall(r"^\$ docker run (.*) my-math-service$", (ROOT / "README.md").read_text(), re.MULTILINE)
    (folder,) = re.findall(r"-v [\w-]+:(\S+)", command)
    assert f"-e STATE_URL=sqlite://{folder}/" in command and "--read-only" in command
    (user,) = (line.removeprefix("USER ") for line in instructions() if line.startswith("USER "))
    assert f"COPY --from=build --chown={user} {folder} {folder}" in instructions()


def test_the_exposed_port_is_the_one_listened_on(known_settings):
    assert f"EXPOSE {known_settings['PORT']}" in instructions()


def test_the_build_needs_no_frontend_from_a_registry():
    assert "syntax=" not in (ROOT / "Dockerfile").read_text().splitlines()[0]


def test_only_what_the_build_reads_goes_into_it():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*", "everything is left out but what is named"
    assert {"!Cargo.toml", "!Cargo.lock", "!src", "!scripts/build.sh", "!scripts/layout.ld"} <= set(rules)
    assert not {"!target", "!.git", "!.tools"} & set(rules)


def test_the_binary_lists_what_it_holds_with_the_tool_that_the_bundle_uses():
    (version,) = re.findall(r"cargo-auditable@([\d.]+)", (ROOT / "Dockerfile").read_text())
    assert f"cargo-auditable-{version}/bin" in (ROOT / "scripts/tools.mk").read_text()
