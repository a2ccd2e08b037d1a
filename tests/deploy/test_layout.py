"""scripts/layout.py, which writes down what runs; the tests of the image see what the layout gains."""

import importlib.util
import re
import subprocess
import sys
import types

import pytest
from support import ROOT

LAYOUT = (ROOT / "scripts/layout.ld").read_text()
NAMES = re.findall(r"^    \*\(\.text\*\.(\S+)\)$", LAYOUT, re.MULTILINE)


@pytest.fixture(scope="module")
def layout():
    specification = importlib.util.spec_from_file_location("layout", ROOT / "scripts/layout.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "symbol, expected",
    [
        ("memcpy", "memcpy"),
        ("_ZN12math_service8addition3add17h8fa577dcbff9fa1eE", "_ZN12math_service8addition3add17h*"),
        ("_ZN4core3ops8function6FnOnce9call_once17h01a209341e2c2c6cE.llvm.1234", "_ZN4core3ops8function6FnOnce9call_once17h*"),
        ("_RNvNtNtCsaz6eC2DG7lh_3std6thread9functions", "_RNvNtNtCs*_3std6thread9functions"),
    ],
)
def test_a_name_goes_without_what_changes_from_build_to_build(layout, symbol, expected):
    assert layout.pattern(symbol) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="layout.py is for Linux: other systems' symbols are others")
def test_what_ran_is_told_by_every_name_that_it_has(layout, tmp_path):
    """callgrind gives one; where the linker folded several functions into one, the layout needs that which it kept."""
    (tmp_path / "some.c").write_text(
        'int both(void) { return 1; }\nint alias(void) __attribute__((alias("both")));\nint other(void) { return 2; }\nint called(void) { return 3; }\nint main(void) { return 0; }\n'
    )
    subprocess.run(["cc", "-o", "some", "some.c"], cwd=tmp_path, check=True)
    counts = tmp_path / "some.callgrind"
    counts.write_text("fl=(1) ???\nfn=(1) alias\n12 1\ncfn=(2) called'2\ncalls=1 1\nfn=(1)\n(below main)\n")
    assert layout.executed(tmp_path / "some", counts) == {"both", "alias", "called"}


@pytest.mark.parametrize("change, said", [({"sysname": "Darwin"}, "Linux on x86_64"), ({"machine": "aarch64"}, "Linux on x86_64"), ({}, "no valgrind")])
def test_what_is_missing_is_said_before_anything_is_built(layout, monkeypatch, change, said):
    machine = types.SimpleNamespace(**({"sysname": "Linux", "machine": "x86_64"} | change))
    monkeypatch.setattr(layout.os, "uname", lambda: machine)
    monkeypatch.setattr(layout, "VALGRIND", "false")
    monkeypatch.setattr(layout, "build", lambda *_: pytest.fail("it builds"))
    with pytest.raises(SystemExit, match=said):
        layout.main()


def test_the_layout_names_what_both_targets_execute():
    assert "\nINSERT BEFORE .text;\n" in LAYOUT, "all that is not named comes behind"
    assert NAMES == sorted(set(NAMES)) and len(NAMES) == LAYOUT.count("*(")
    assert not [name for name in NAMES if re.search(r"17h[0-9a-f]{16}|Cs[0-9A-Za-z]+_", name)]
    for part in ("math_service8addition", "math_service7targets9container", "math_service7targets6lambda", "5hyper5proto2h1", "_mi_malloc"):
        assert any(part in name for name in NAMES), f"{part} runs, but is not in the layout"
