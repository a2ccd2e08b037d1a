"""A headless Chromium, and the service on both targets as it meets one."""

import contextlib
import pathlib
import typing

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from support import ROOT, cannot_run, free_port, gateway_binary, lambda_binary, running, running_server

CHROMIUM = "/usr/bin/chromium"
# As root in a container there is no sandbox; the rest keeps the browser from calling home.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENSHOTS = ROOT / "target/screenshots"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}


class Service(typing.NamedTuple):
    target: str
    url: str


@pytest.fixture(scope="session")
def browser():
    if not pathlib.Path(CHROMIUM).exists():
        cannot_run("there is no /usr/bin/chromium; `make chromium` installs Debian's")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session", params=["container", "lambda"])
def service(request, tmp_path_factory):
    """The running service. A file is enough for the sequences of one process, on Lambda too."""
    store = {"STATE_URL": f"sqlite://{tmp_path_factory.mktemp('state')}/state.db", "ALLOW_EMBEDDED_STORE": "true"}
    with contextlib.ExitStack() as stack:
        if request.param == "container":
            port, _ = stack.enter_context(running_server(**store))
        else:
            port = free_port()
            words = [word for name, value in store.items() for word in ("--env", f"{name}={value}")]
            command = [gateway_binary(), "--front", "http-v2", "--port", str(port), "--processes", "1", *words, lambda_binary()]
            stack.enter_context(running(command, port))
        yield Service(request.param, f"http://127.0.0.1:{port}")


class Visit:
    """A page of its own, and what it complained about and loaded meanwhile."""

    def __init__(self, browser: Browser, size: str = "desktop", scheme: str = "light"):
        self.context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, accept_downloads=True)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda sent: self.complaints.append(f"failed: {sent.url}"))
        self.page.on("request", lambda sent: self.requests.append(sent.url))


@pytest.fixture
def visit(browser):
    """Opens pages; at the end none of them may have complained."""
    visits: list[Visit] = []

    def open_page(**how: str) -> Visit:
        visits.append(Visit(browser, **how))
        return visits[-1]

    yield open_page
    complaints = [complaint for each in visits for complaint in each.complaints]
    for each in visits:
        each.context.close()
    assert complaints == []
