"""README.md: its contents and its links. Its commands are compared where what they run is tested."""

import functools
import pathlib
import re

import pytest
from support import ROOT

README = ROOT / "README.md"
LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")


@functools.cache
def anchors(page: pathlib.Path) -> list[str]:
    """The headings as GitHub links to them, without the title."""
    headings = re.findall(r"^##+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_contents_are_the_headings_in_their_order():
    contents = re.findall(r"\(#([\w-]+)\)", re.search(r"^- \*\*Run it\*\*.*?\n\n", README.read_text(), re.MULTILINE | re.DOTALL)[0])
    assert contents == [anchor for anchor in anchors(README) if anchor != "license"]


@pytest.mark.parametrize("page", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page):
    links = LINK.findall(page.read_text())
    for file, anchor in links:
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"
    assert links or page != README
