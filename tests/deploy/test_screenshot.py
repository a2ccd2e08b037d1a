"""scripts/screenshot.py, which takes the README's pictures."""

import shutil
import struct
import subprocess
import sys

import pytest
from support import PATIENCE_SECONDS, ROOT, cannot_run


def take(page: str, picture, *options: str) -> subprocess.CompletedProcess:
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        cannot_run("Chromium is not installed")
    command = [sys.executable, ROOT / "scripts/screenshot.py", page, picture, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS)


def size(picture) -> tuple[int, int]:
    return struct.unpack(">II", picture.read_bytes()[16:24])


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>x</title><body style='margin:0'><div style='height:700px'>hello</div>")
    return path


@pytest.mark.parametrize(("options", "expected"), [([], (1280, 900)), (["--width", "390", "--height", "300"], (390, 300)),
                                                   (["--width", "390", "--height", "300", "--full"], (390, 700))])
def test_a_page_is_taken_as_large_as_it_is_asked_for(options, expected, page, tmp_path):
    picture = tmp_path / "pictures/page.png"
    result = take(str(page), picture, *options)
    assert result.returncode == 0, result.stderr
    assert size(picture) == expected


def test_dark_pages_are_dark(page, tmp_path):
    page.write_text("<style>@media(prefers-color-scheme:dark){body{background:black}}</style><body>")
    pictures = [tmp_path / "light.png", tmp_path / "dark.png"]
    for picture, options in zip(pictures, [[], ["--dark"]]):
        assert take(str(page), picture, *options).returncode == 0
    assert pictures[0].read_bytes() != pictures[1].read_bytes()


@pytest.mark.parametrize(("body", "said"), [("<script>throw new Error('broken')</script>", "has errors: broken"),
                                            ("<script>console.error('wrong')</script>", "has errors: wrong")])
def test_a_page_with_errors_makes_no_picture(body, said, page, tmp_path):
    page.write_text(body)
    result = take(str(page), tmp_path / "page.png")
    assert result.returncode == 1 and said in result.stderr and not (tmp_path / "page.png").exists(), result.stderr


def test_a_page_that_is_not_there_is_named(tmp_path):
    result = take(str(tmp_path / "nothing.html"), tmp_path / "page.png")
    assert result.returncode == 1 and "there is no file" in result.stderr and "Traceback" not in result.stderr
    result = take("http://127.0.0.1:9/", tmp_path / "page.png")
    assert result.returncode == 1 and "ERR_" in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_the_readmes_pictures_are_small():
    for picture in (ROOT / "docs/images").glob("*.png"):
        assert picture.stat().st_size < 250_000, picture
        assert f"docs/images/{picture.name}" in (ROOT / "README.md").read_text(), picture
