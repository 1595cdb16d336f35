"""The leaderboard page in headless Chromium: mouse, keyboard, light and dark colours, and without scripts."""

import json
import shutil
from dataclasses import replace

import pytest
from leaderboard_data import result, score

from ubhpd.experiments.plan import known
from ubhpd.leaderboards.page import publish
from ubhpd.leaderboards.result import MethodInfo, Training, write

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium: apt-get install chromium chromium-driver"
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1400,950"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    made = [result(m, v) for m, v in (("b", 6.0), ("a", 5.0), ("<script>alert(1)</script>", 10.5))]
    submitted = Training("submitted", "", "not known", "not known", declared="my photographs")
    third = result("c", 7.0, speed=None, training=submitted, info=MethodInfo("https://example.org/p", year=2024))
    # By MAE c is before b, by balanced MAE after it.
    made += [replace(third, scores={**third.scores, "mae": score(5.5)}), result("a", 5.0, protocol="ubhpd")]
    for i, own in enumerate(made):
        write(own, folder / f"{i}.json")
    publish([folder], folder, ["html"], known())
    return (folder / "leaderboard.html").as_uri()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, address):
    driver.get_log("performance")
    driver.get(address)
    yield driver
    assert [e["message"] for e in driver.get_log("browser")] == []
    events = [json.loads(e["message"])["message"] for e in driver.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    own = [p["request"]["url"] for p in sent if p["documentURL"].startswith(address)]
    assert own and all(url.startswith(address) or url == "data:," for url in own)


def find(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def heading(page, key):
    return find(page, f"section[data-protocol] th[data-key={key}]")[0]


def column(page, key, group=1):
    """The cells of a column in a group of the first table, from top to bottom."""
    at = [h.get_attribute("data-key") for h in find(page, "section[data-protocol] thead th")].index(key)
    script = (
        "return [...document.querySelector('section[data-protocol] table').tBodies[arguments[0]].rows]"
        ".filter((r) => !r.classList.contains('group')).map((r) => r.cells[arguments[1]].firstChild?.textContent)"
    )
    return page.execute_script(script, group - 1, at)


def test_a_click_sorts_and_a_second_click_reverses(page):
    assert column(page, "mae") == ["5.00", "6.00", "5.50", "10.50"]
    assert heading(page, "rank").get_attribute("aria-sort") == "ascending"
    heading(page, "mae").find_element(By.TAG_NAME, "button").click()
    heading(page, "mae").find_element(By.TAG_NAME, "button").click()
    assert column(page, "mae") == ["10.50", "6.00", "5.50", "5.00"]
    assert heading(page, "mae").get_attribute("aria-sort") == "descending"
    assert heading(page, "rank").get_attribute("aria-sort") is None
    assert find(page, "#said")[0].get_attribute("textContent") == "Sorted by MAE, descending."


def test_the_keyboard_sorts_and_rows_without_a_value_stay_last(page):
    for _ in range(2):
        heading(page, "speed").find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert column(page, "speed")[-1] == "–"
    heading(page, "model").find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert column(page, "model") == ["<script>alert(1)</script>", "a", "b", "c"]


def test_each_group_is_sorted_on_its_own(page):
    reported = column(page, "mae", 3)
    heading(page, "mae").find_element(By.TAG_NAME, "button").click()
    heading(page, "mae").find_element(By.TAG_NAME, "button").click()
    titles = [e.text for e in find(page, "section[data-protocol]")[0].find_elements(By.CSS_SELECTOR, ".group")]
    assert titles == ["Methods", "The same pose for every head, not ranked", "Reported in papers, not ranked"]
    assert sorted(column(page, "mae", 3), key=float) == reported != column(page, "mae", 3)
    assert column(page, "model", 2) == ["mean pose"]


def test_the_menu_shows_one_protocol_and_a_link_shows_all_again(page):
    def shown():
        return [s.get_attribute("data-protocol") for s in find(page, "section[data-protocol]") if s.is_displayed()]

    assert shown() == ["300wlp_aflw2000_1969", "ubhpd"]
    Select(find(page, "#filter select")[0]).select_by_visible_text("ubhpd")
    assert shown() == ["ubhpd"]
    find(page, "nav a")[0].click()
    assert shown() == ["300wlp_aflw2000_1969", "ubhpd"]


def overview(page):
    """What the first table shows: (method, [text of each protocol's cell])."""
    found = []
    for row in find(page, "#overview tbody tr"):
        if row.is_displayed():
            cells = row.find_elements(By.CSS_SELECTOR, "td.number")[:2]
            name = row.find_element(By.CSS_SELECTOR, "th").get_attribute("data-value") or "mean pose"
            found.append((name, [c.text.replace("\n", " ") for c in cells]))
    return found


def test_the_first_table_switches_between_metrics(page):
    first = overview(page)
    assert [name for name, _ in first] == ["a", "b", "c", "<script>alert(1)</script>", "mean pose"]
    assert first[0][1] == ["1 10.00 MAE 5.00"] * 2 and first[2][1] == ["3 14.00 MAE 5.50", ""]
    Select(find(page, "#metric")[0]).select_by_value("mae")
    by_mae = overview(page)
    assert [name for name, _ in by_mae] == ["a", "c", "b", "<script>alert(1)</script>", "mean pose"]
    assert by_mae[1][1] == ["2 5.50 balanced MAE 14.00", ""]
    assert column(page, "model") == ["a", "c", "b", "<script>alert(1)</script>"]
    assert [e.text for e in find(page, "section[data-protocol] tbody:nth-of-type(1) td:first-child")][:4] == [
        "1", "2", "3", "4"
    ]  # fmt: skip
    assert find(page, "#said")[0].get_attribute("textContent") == "Ranked by MAE."
    Select(find(page, "#metric")[0]).select_by_value("ubmae")
    assert overview(page)[0][1][0].startswith("1 15.00")
    Select(find(page, "#metric")[0]).select_by_value("balanced_mae")
    assert overview(page) == first


def test_a_heading_of_the_first_table_sorts_by_the_chosen_metric(page):
    Select(find(page, "#metric")[0]).select_by_value("mae")
    button = find(page, "#overview th[data-key='300wlp_aflw2000_1969'] button")[0]
    button.click()
    button.click()
    names = [name for name, _ in overview(page)]
    assert names == ["<script>alert(1)</script>", "b", "c", "a", "mean pose"]


def test_the_search_and_the_evidence_narrow_every_table(page):
    search = find(page, "#search")[0]
    search.send_keys("PHOTO")
    assert [name for name, _ in overview(page)] == ["c"]
    shown = [r for r in find(page, "section[data-protocol] tr[data-evidence]") if r.is_displayed()]
    assert [r.find_element(By.CSS_SELECTOR, "th").text.splitlines()[0] for r in shown] == ["c"]
    assert find(page, "#said")[0].get_attribute("textContent") == "1 method shown."
    search.clear()
    search.send_keys("hopenet")
    names = [r.text for r in find(page, "section[data-protocol] tr[data-search]") if r.is_displayed()]
    assert names and all("Hopenet" in n for n in names)  # reported rows are searched, too
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys(Keys.DELETE)
    boxes = find(page, "#evidence input")
    assert [b.get_attribute("value") for b in boxes] == ["trained", "submitted"]
    boxes[0].click()
    assert [name for name, _ in overview(page)] == ["c", "mean pose"]


def test_names_link_to_papers_and_the_downloads_are_files(page, tmp_path):
    (link,) = [a for a in find(page, "#overview a") if a.text == "paper" and "example" in a.get_attribute("href")]
    assert link.get_attribute("href") == "https://example.org/p" and "noopener" in link.get_attribute("rel")
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    for kind in ("csv", "json"):
        find(page, f"a[download='leaderboard.{kind}']")[0].click()
        WebDriverWait(page, 20).until(lambda _, kind=kind: (tmp_path / f"leaderboard.{kind}").is_file())
    assert (tmp_path / "leaderboard.csv").read_text().count("\n") == 6
    assert len(json.loads((tmp_path / "leaderboard.json").read_text())["tables"]) == 2


def test_a_cut_table_says_so(page):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 900, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        frame = find(page, "section[data-protocol] .frame")[0]
        button = frame.find_element(By.CSS_SELECTOR, ".more")
        WebDriverWait(page, 10).until(lambda _: "cut-right" in frame.get_attribute("class"))
        assert button.text == "More columns \u2192"
        page.execute_script("arguments[0].querySelector('.wide').scrollLeft = 1e6", frame)
        WebDriverWait(page, 10).until(lambda _: "cut-right" not in frame.get_attribute("class"))
        assert "cut-left" in frame.get_attribute("class") and button.text == "\u2190 First columns"
        page.set_window_size(1400, 950)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    overview_button = find(page, "#overview .more")[0]
    WebDriverWait(page, 10).until(lambda _: not overview_button.is_displayed())  # two protocols are not cut


@pytest.mark.parametrize("width", [1400, 420])
def test_the_table_scrolls_and_the_page_does_not(page, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        wide, inner = page.execute_script(
            "const w = document.querySelector('section[data-protocol] .wide');"
            " return [document.documentElement, w].map((e) => e.scrollWidth - e.clientWidth)"
        )
        assert wide == 0 < inner
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page, scheme):
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    script = (
        "const solid = (e) => { const c = getComputedStyle(e).backgroundColor;"
        " return c === 'rgba(0, 0, 0, 0)' ? solid(e.parentElement) : c; };"
        "const kinds = 'p, dt, dd, td, th, small, li, figcaption, code, label, .badge, .more';"
        "return [...document.querySelectorAll(kinds)].filter((e) =>"
        " e.getClientRects().length).map((e) => [getComputedStyle(e).color, solid(e)])"
    )
    for ink, back in {tuple(pair) for pair in page.execute_script(script)}:
        assert contrast(ink, back) >= 4.5, (ink, back)


def contrast(*colours):
    """WCAG 2: (lighter + 0.05) / (darker + 0.05) of the relative luminances."""

    def luminance(text):
        parts = [int(v) / 255 for v in text[text.index("(") + 1 : -1].split(",")[:3]]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def test_page_is_complete_without_scripts(page, address):
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(address)
        assert heading(page, "mae").text == "MAE"
        winners = find(page, "section[data-protocol] tr[data-standing-balanced_mae=winner] th")
        assert [e.text.splitlines()[0] for e in winners] == ["a", "a"]
        assert not find(page, "#controls")[0].is_displayed() and not find(page, "thead button")
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        page.get(address)
