"""The home page and the lab in a real browser, on both targets: what people do there, and whether everybody can."""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import SCREENSHOTS, SIZES
from playwright.sync_api import expect

SPIKE = {
    "traffic.from": "5",
    "traffic.to": "60",
    "traffic.at_hours": "0.5",
    "traffic.for_hours": "0.5",
    "hours": "3",
    "profile.wait_ms": "0",
}
# As small as it gets: where the result does not matter.
SHORT = "/lab?hours=0.1"


def fill_in(page, scenario: dict[str, str]) -> None:
    page.get_by_label("Shape").select_option("spike")
    for name, value in scenario.items():
        page.locator(f'[name="{name}"]').fill(value)


def figure(page, name: str, column: int) -> str:
    return page.get_by_role("row", name=name, exact=False).first.get_by_role("cell").nth(column).inner_text()


def test_two_numbers_are_added_and_the_sequence_goes_on(service, visit):
    page = visit().page
    page.goto(service.url)
    assert f"the {service.target} target answers" in page.inner_text("header")
    page.get_by_label("First").fill("2.5")
    page.get_by_label("Second").fill("40")
    page.get_by_role("button", name="Add").press("Enter")
    expect(page.locator("#sum")).to_have_text("= 42.5")
    for expected in ["F(0) = 0", "F(1) = 1", "F(2) = 1"]:
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#number")).to_have_text(expected)


def test_the_home_page_leads_to_the_lab_and_to_the_documentation(service, visit):
    page = visit().page
    page.goto(service.url)
    page.get_by_role("link", name="Scaling lab").click()
    assert page.url == f"{service.url}/lab" and page.title() == "Scaling lab"
    page.go_back()
    assert page.get_by_role("link", name="API Every route").get_attribute("href") == "docs"


def test_a_scenario_is_filled_in_and_its_result_is_that_of_the_api(service, visit):
    page = visit().page
    page.goto(f"{service.url}{SHORT}")
    fill_in(page, SPIKE)
    page.get_by_role("button", name="Simulate").click()
    page.wait_for_url("**traffic.shape=spike**")
    scenario = {"hours": 3, "traffic": {"shape": "spike", "from": 5, "to": 60, "at_hours": 0.5, "for_hours": 0.5}, "profile": {"wait_ms": 0}}
    answer = page.request.post(f"{service.url}/api/v1/simulations", data=scenario).json()
    assert page.locator("#verdict").inner_text() == f"Take Lambda: it saves ${answer['verdict']['saves_usd']:.2f} a month."
    assert figure(page, "A month", 0) == f"${answer['eks']['month']['usd']:.2f}" == "$295.85"
    first = page.get_by_label("Decisions in order of time").get_by_role("listitem").first.inner_text()
    assert "pods 2 to 4" in first and answer["eks"]["decisions"][0]["why"] in first
    assert page.locator("svg.chart").count() == 5, "traffic, both sizes, latency, cost"
    assert "arrived: 5 to 60" in page.locator("svg.chart desc").first.text_content()


def test_a_permalink_leads_to_the_same_result_and_files_hold_it(service, visit):
    page = visit().page
    page.goto(f"{service.url}{SHORT}")
    fill_in(page, SPIKE)
    page.get_by_role("button", name="Simulate").click()
    page.wait_for_url("**traffic.shape=spike**")
    told = page.locator(".results").inner_text()
    long = page.url
    page.get_by_role("link", name="Link to this result").click()
    page.wait_for_url(lambda url: url != long)
    assert len(page.url) < len(long) / 3, "defaults are left out"
    assert page.locator(".results").inner_text() == told
    texts = {}
    for name in ["JSON", "SVG", "HTML"]:
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        assert download.value.suggested_filename == f"simulation.{name.lower()}"
        texts[name] = download.value.path().read_text()
    assert json.loads(texts["JSON"])["eks"]["month"]["usd"] == 295.85
    assert texts["SVG"].startswith("<svg") and "Take Lambda" in texts["HTML"]


def test_fields_that_a_shape_does_not_have_are_not_shown(service, visit):
    page = visit().page
    page.goto(f"{service.url}{SHORT}")
    for shape, shown in [("diurnal", [1, 0, 0]), ("constant", [0, 0, 0]), ("step", [1, 1, 0]), ("spike", [1, 1, 1])]:
        page.get_by_label("Shape").select_option(shape)
        fields = ["traffic.to", "traffic.at_hours", "traffic.for_hours"]
        assert [page.locator(f'[name="{name}"]').is_visible() for name in fields] == [bool(each) for each in shown], shape


def test_the_form_is_used_with_the_keyboard_alone(service, visit):
    page = visit().page
    page.goto(f"{service.url}{SHORT}")
    page.get_by_label("Shape").focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.textContent"))
        if reached[-1] == "Simulate":
            break
    assert reached[-1] == "Simulate" and "profile.cpu_ms" in reached and "eks.max_replicas" in reached, reached
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is seen"
    page.keyboard.press("Enter")
    page.wait_for_url("**traffic.shape=diurnal**")


def test_what_is_wrong_is_said_beside_the_field(service, visit):
    opened = visit()
    page = opened.page
    assert page.goto(f"{service.url}/lab?hours=1000&traffic.from=7").status == 422
    assert "Simulated time must be a number from 0.1 to 168" in page.get_by_role("alert").inner_text()
    page.get_by_role("link", name="Simulated time").click()
    assert page.locator('[aria-invalid="true"]').get_attribute("name") == "hours"
    assert page.locator('[name="traffic.from"]').input_value() == "7"
    # The browser itself names a page with such a status.
    assert all("422" in complaint for complaint in opened.complaints) and len(opened.complaints) == 1
    opened.complaints.clear()


@pytest.mark.parametrize("path", ["/", SHORT, "/lab?hours=3&traffic.shape=spike&eks.up_pods=1"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(service, visit, path, scheme, size):
    opened = visit(size=size, scheme=scheme)
    page = opened.page
    page.goto(f"{service.url}{path}")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size]["width"]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = "home" if path == "/" else "lab" if path == SHORT else "lab-spike"
    page.screenshot(path=SCREENSHOTS / f"{name}-{service.target}-{size}-{scheme}.png", full_page=True)


def test_axe_would_find_a_field_without_a_label(service, visit):
    page = visit().page
    page.goto(f"{service.url}{SHORT}")
    page.evaluate("document.querySelector('label[for=hours]').remove()")
    assert Axe().run(page).violations_count > 0


@pytest.mark.parametrize("path, most", [("/", 3), ("/lab", 3)])
def test_a_page_asks_for_its_own_files_and_for_nothing_else(service, visit, path, most):
    opened = visit()
    opened.page.goto(f"{service.url}{path}", wait_until="networkidle")
    asked = [url for url in opened.requests if not url.startswith("data:")]
    weight = opened.page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".reduce((sum, entry) => sum + entry.encodedBodySize, 0)"
    )
    print(f"page: {service.target} {path}: {len(asked)} requests, {weight} bytes")
    assert weight < 100_000
    assert len(asked) <= most and all(url.startswith(service.url) for url in asked), asked


def test_nothing_inline_would_run(service, visit):
    opened = visit()
    opened.page.goto(f"{service.url}{SHORT}")
    opened.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\" id=probe>x</p>')")
    assert opened.page.evaluate("getComputedStyle(document.getElementById('probe')).color") != "rgb(255, 0, 0)"
    assert len(opened.complaints) == 1 and "Content Security Policy" in opened.complaints.pop()
