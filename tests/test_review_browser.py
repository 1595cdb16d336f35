"""The review page as a person uses it: headless Chromium, the keyboard, a reload, and a server that is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ubhpd.pool.build import BuildConfig, build
from ubhpd.quality.decisions import read
from ubhpd.quality.review import Heads
from ubhpd.synth.writers import aflw_writer, biwi_writer, w300lp_writer

pytest.importorskip("flask", reason="the review page needs Flask: pip install 'ubhpd[web]'")
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
SHOTS = os.environ.get("UBHPD_SCREENSHOTS")  # a folder: what the page looks like is kept there


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    biwi_writer.write(root / "raw", (1,), frames=30, with_depth=False)
    aflw_writer.write(root / "raw", 60, seed=2)
    w300lp_writer.write(root / "raw", 24, seed=3)
    build(BuildConfig(("biwi", "aflw", "300wlp"), root / "out", str(root / "raw")))
    return root / "out"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


class Server:
    """`ubhpd review` in a process of its own."""

    def __init__(self, out, port="0"):
        command = [sys.executable, "-m", "ubhpd", "review", str(out), "--port", port, "--who", "anna", "--quiet"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()
        self.port = self.address.split("/?")[0].rpartition(":")[2]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


class Page:
    """What a person sees and does."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get(address)
        self.wait(lambda: self.cards)

    def wait(self, condition, seconds=10):
        return WebDriverWait(self.driver, seconds, 0.03).until(lambda _: condition())

    def find(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    @property
    def cards(self):
        return self.find("#grid .card")

    @property
    def name(self):
        return self.find("#name")[0].text

    @property
    def counts(self):
        return self.find("#counts")[0].text

    @property
    def position(self):
        return self.find("#position")[0].text

    def press(self, *keys):
        for key in keys:
            self.find("body")[0].send_keys(key)

    def choose(self, field, value):
        before = self.position
        Select(self.driver.find_element(By.NAME, field)).select_by_value(value)
        self.wait(lambda: self.position != before)

    def shot(self, name):
        if SHOTS:
            time.sleep(0.8)
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


@pytest.fixture
def server(built):
    (built / "decisions.csv").unlink(missing_ok=True)
    server = Server(built)
    yield server
    server.kill()


@pytest.fixture
def page(driver, server):
    page = Page(driver, server.address)
    yield page
    severe = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    # Images on their way when a server is killed, here or at the end of the last test, are missed by right.
    assert [m for m in severe if "net::ERR_" not in m] == []


def decisions(out):
    return {k: d.decision for k, d in read(out / "decisions.csv").items()}


def test_keys_keep_drop_undo_and_move(page, built):
    names = [h["sample_id"] for h in (Heads(built).card(i) for i in range(5))]
    assert page.name == names[0] and "Undecided" in page.find("#verdict")[0].text
    page.press("k", "d", Keys.ARROW_RIGHT, "k")
    page.wait(lambda: "2 kept, 1 dropped" in page.counts)
    assert decisions(built) == {names[0]: "keep", names[1]: "drop", names[3]: "keep"}
    assert page.name == names[4]
    page.press("u")
    page.wait(lambda: "1 kept, 1 dropped" in page.counts)
    assert page.name == names[3] and names[3] not in decisions(built)
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    page.wait(lambda: page.name == names[1])
    assert "Dropped by anna" in page.find("#verdict")[0].text
    page.press(Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.HOME)
    page.wait(lambda: page.name == names[0])
    page.shot("grid")


def test_a_reason_is_typed_without_deciding(page, built):
    page.press("r")
    page.find("#reason")[0].send_keys("dark, kudu", Keys.ENTER)
    assert not (built / "decisions.csv").exists()
    name = page.name
    page.press("d")
    page.wait(lambda: "1 dropped" in page.counts)
    assert read(built / "decisions.csv")[name].reason == "dark, kudu"


def test_a_reload_comes_back_to_the_same_place(page, built):
    page.choose("dataset", "aflw")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, "d")
    page.wait(lambda: "1 dropped" in page.counts)
    name, position = page.name, page.position
    page.driver.refresh()
    page.wait(lambda: page.cards and page.name == name)
    assert page.position == position and "1 dropped" in page.counts
    assert len(page.find(".badge.decision.drop")) == 1


def test_filters_and_pages(page, built):
    heads = Heads(built)
    page.choose("dataset", "biwi")
    assert page.position == "1 to 24 of 30"
    page.press(Keys.PAGE_DOWN)
    page.wait(lambda: page.position == "25 to 30 of 30")
    page.press(Keys.ARROW_LEFT)
    page.wait(lambda: page.position == "1 to 24 of 30")
    page.find("#clear")[0].click()
    page.wait(lambda: page.position.endswith(f"of {len(heads)}"))
    page.choose("yaw", "7")
    inside = heads.choices()["bins"]["yaw"]["inside"][7]
    assert page.position.endswith(f"of {inside}")


def test_the_undecided_are_worked_through_to_the_last(page, built):
    page.choose("dataset", "biwi")
    Select(page.driver.find_element(By.NAME, "decision")).select_by_value("undecided")
    for i in range(30):
        page.wait(lambda: page.cards)
        page.press("kd"[i % 2])
        page.wait(lambda i=i: f"{i // 2 + 1} kept, {(i + 1) // 2} dropped" in page.counts)
    page.wait(lambda: page.find("#empty")[0].is_displayed())
    assert len(decisions(built)) == 30


def test_a_killed_server_loses_nothing_and_the_open_page_goes_on(page, server, built):
    page.press("d")
    page.wait(lambda: "1 dropped" in page.counts)
    first = next(iter(decisions(built)))
    server.kill()
    page.press("k")
    page.wait(lambda: page.find("#error")[0].is_displayed())
    assert "does not answer" in page.find("#error")[0].text
    lost = page.find("#error")[0].text.partition("Not saved: ")[2].split(".")[0]
    again = Server(built, server.port)
    try:
        name = page.name
        page.press("k")
        page.wait(lambda: "1 kept, 1 dropped" in page.counts)
        assert decisions(built) == {first: "drop", name: "keep"}
        assert lost not in decisions(built) and lost in page.find("#error")[0].text
        page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT, "k")
        page.wait(lambda: not page.find("#error")[0].is_displayed())
        assert decisions(built)[lost] == "keep"
    finally:
        again.kill()


def test_axes_boxes_and_landmarks_are_drawn_where_they_should_be(page, built):
    page.choose("dataset", "aflw")
    card = Heads(built).card(Heads(built).row(page.name))
    assert len(page.find("#large .axis:not(.rim)")) == 3 and len(page.find("#large .box")) == 1
    z = page.find("#large .axis.z:not(.rim)")[0]
    dx, dy = (float(z.get_attribute(f"{a}2")) - float(z.get_attribute(f"{a}1")) for a in "xy")
    length = 0.6 * max(card["bbox_xyxy"][2] - card["bbox_xyxy"][0], card["bbox_xyxy"][3] - card["bbox_xyxy"][1])
    assert dx / length == pytest.approx(card["rotation"][2], abs=1e-6)
    assert -dy / length == pytest.approx(card["rotation"][5], abs=1e-6)
    page.press("a", "b", "l")
    visible = sum(p is not None for p in card["landmarks"]) // 2
    page.wait(lambda: len(page.find("#large .dot")) == visible)
    assert not page.find("#large .axis") and not page.find("#large .box")
    page.press("a", "b")
    page.shot("detail")
    page.wait(lambda: page.driver.execute_script(
        "return [...document.querySelectorAll('svg image')].every((i) => i.getBBox().width > 0)"))  # fmt: skip


def test_it_is_read_aloud_sensibly_and_fits_a_telephone(page):
    grid = page.find("#grid")[0]
    assert grid.get_attribute("role") == "listbox"
    page.press(Keys.ARROW_RIGHT)
    selected = page.find("#grid [aria-selected=true]")
    assert [s.get_attribute("id") for s in selected] == [grid.get_attribute("aria-activedescendant")]
    for field in page.find("select, input"):
        assert page.driver.execute_script("return arguments[0].labels.length", field) == 1
    for image in page.find("svg.view"):
        assert "yaw, pitch, roll" in image.get_attribute("aria-label")
    page.press("?")
    page.wait(lambda: page.find("#help")[0].is_displayed())
    page.shot("help")
    page.find("#help button")[0].click()
    page.driver.set_window_size(420, 900)
    try:
        page.wait(lambda: page.driver.execute_script(
            "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"))  # fmt: skip
        page.shot("narrow")
    finally:
        page.driver.set_window_size(1400, 950)
