"""The page in a real browser: choose, check, Test, Go, watch, take home.

With CLUSTEROFONE_PICTURES=docs/pictures/page the walk leaves a picture of every view there, dark and light.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'"
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]  # two dozen seconds for the first walk

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = next(filter(None, map(shutil.which, BROWSERS)), None)
PATIENCE_MS = 90_000
UNNAMED = """() => [...document.querySelectorAll('button, a, input, [role=slider], [role=tab]')]
    .filter((e) => e.offsetParent !== null && e.type !== 'file')
    .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('title') || e.closest('label')?.innerText.trim() || e.innerText?.trim()
        || e.closest('.q-field, .q-checkbox, .q-slider')?.getAttribute('aria-label')))
    .map((e) => e.outerHTML.slice(0, 200))"""


class Surfer:
    """A browser's tab, and everything it asked for and complained of."""

    def __init__(self, tab: Any, link: str) -> None:
        self.tab = tab
        self.base = "{0.scheme}://{0.netloc}".format(urlsplit(link))
        self.link = link
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("request", lambda request: self._note(request.url))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"data", "blob"}:
            self.hosts.add(parts.netloc)

    def enter(self) -> None:
        self.tab.goto(self.link)
        self.tab.get_by_role("heading", name="Series").wait_for()
        self.connected()

    def go(self, path: str) -> None:
        self.tab.goto(f"{self.base}{path}")
        self.connected()

    def connected(self) -> None:
        """Wait until the page has heard of its cluster: before, it shows itself and takes nothing in."""
        self.tab.get_by_text("lab", exact=True).wait_for()

    def button(self, name: str) -> Any:
        return self.tab.get_by_role("button", name=name, exact=True)

    def sees(self, text: str | re.Pattern[str]) -> Any:
        found = self.tab.get_by_text(text).first
        found.wait_for()
        return found

    def picture(self, name: str) -> None:
        """Leave pictures for the documentation, if they are wanted; nobody is to be seen moving in them."""
        folder = os.environ.get("CLUSTEROFONE_PICTURES")
        if folder is None:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.tab.mouse.move(640, 5)
        self.tab.add_style_tag(
            content=".output { display: none }"
        )  # where this machine keeps its files is nobody's matter
        for scheme in ("light", "dark"):
            self.tab.emulate_media(color_scheme=scheme)
            self.tab.wait_for_timeout(700)
            self.tab.screenshot(path=Path(folder) / f"{name}_{scheme}.png")
        self.tab.emulate_media(color_scheme="light")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if EXECUTABLE is None:
        pytest.skip(f"no browser is installed: {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def bare_series(shared_shell: Any) -> Path:
    """A series whose metadata lack the read noise."""
    path: Path = shared_shell.home / "data" / "cells" / "filaments.tif"
    path.parent.mkdir(exist_ok=True)
    made = shared_shell.run("simulate", path, "--frames", 600, "--size", 128, "--seed", 5)
    assert made.returncode == 0, made.stderr
    sidecar = path.with_suffix(".json")
    told = json.loads(sidecar.read_text(encoding="utf-8"))
    del told["Camera.ReadNoise"]
    sidecar.write_text(json.dumps(told), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def link(shared_shell: Any, bare_series: Path, eventually: Callable[..., Any]) -> str:
    """The link that a running cluster printed."""
    process = shared_shell.start("-n", 1, "--no-browser", "--name", "lab")
    said = eventually(
        lambda: re.search(r"page +(http\S+/login#token=\S+)", shared_shell.said(process)), "the page"
    )
    return str(said.group(1))


@pytest.fixture
def surfer(chromium: Any, link: str) -> Iterator[Surfer]:
    context = chromium.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    yield Surfer(context.new_page(), link)
    context.close()


def test_from_the_first_look_to_the_file(surfer: Surfer, bare_series: Path, tmp_path: Path) -> None:
    tab = surfer.tab
    surfer.enter()
    tab.get_by_role("link", name="cells").click()
    tab.wait_for_url("**/?under=cells")
    surfer.connected()
    surfer.sees("600 frames · 128 × 128 px")
    assert tab.evaluate(UNNAMED) == []
    surfer.picture("series")
    tab.get_by_role("link", name="filaments.tif").click()
    tab.wait_for_url("**/analyse?*")
    surfer.connected()

    # what is missing is asked for, and nothing starts before
    surfer.sees("1 value missing: type it below")
    assert surfer.button("Go").is_disabled()
    assert tab.locator(".metadata-line.urgent").count() == 1
    surfer.picture("metadata_missing")
    noise = tab.get_by_label("Camera.ReadNoise")
    noise.fill("1,6")
    noise.press("Tab")
    surfer.sees("600 frames, from 0 to 599, with LatGaussFitFR")
    surfer.sees("typed here")
    assert tab.evaluate(UNNAMED) == []
    surfer.picture("metadata")

    # frames by keys, the value under the cursor
    frame = tab.get_by_label("Frame number")
    tab.locator(".viewport").focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("() => document.querySelector('[aria-label=\"Frame number\"]').value === '301'")
    tab.locator(".viewport img").hover()
    surfer.sees(re.compile(r"x \d+ · y \d+ · \d+ ADU"))
    assert frame.input_value() == "301"

    tab.get_by_role("tab", name="Settings").click()
    surfer.sees("PSF sigma [nm]")
    surfer.picture("settings")

    tab.get_by_role("tab", name="Test").click()
    surfer.button("Test 12 frames").click()
    surfer.sees(re.compile(r"\d+ localisations of \d+ candidates in 12 frames"))
    tab.wait_for_function("() => document.querySelectorAll('.stage svg circle').length > 3")
    assert tab.evaluate(UNNAMED) == []
    surfer.picture("test")
    slider = tab.get_by_role("slider", name="Threshold").locator("[tabindex='0']")
    for _ in range(20):
        slider.press("PageUp")
    surfer.sees("At this threshold nothing is left")
    for _ in range(20):
        slider.press("PageDown")
    surfer.sees("press Test to see what a lower threshold adds")
    tab.get_by_role("tab", name="Settings").click()
    surfer.sees("Detection (1 changed)")
    surfer.button("Defaults").click()
    surfer.sees(re.compile("^Detection$"))

    surfer.button("Go").click()
    tab.wait_for_url("**/job/*")
    surfer.connected()
    surfer.sees(re.compile("^done$"))
    tab.wait_for_function("() => document.querySelector('.stage img').naturalWidth > 200")
    assert tab.evaluate(UNNAMED) == []
    surfer.picture("job")
    surfer.button("Zoom in").click()
    tab.wait_for_function("() => document.querySelector('.stage img').src.includes('region=')")
    with tab.expect_download() as downloading:
        tab.get_by_role("link", name=".h5r (PYME)").click()
    downloading.value.save_as(tmp_path / "taken.h5r")
    assert (tmp_path / "taken.h5r").read_bytes() == (
        bare_series.parent / "analysis" / "filaments.h5r"
    ).read_bytes()
    assert downloading.value.suggested_filename == "filaments.h5r"

    surfer.go("/jobs")
    surfer.sees("600 of 600")
    surfer.picture("jobs")
    surfer.go("/cluster")
    surfer.sees("1 worker on 1 machine")
    surfer.picture("cluster")
    assert surfer.hosts == {urlsplit(surfer.base).netloc}
    assert surfer.complaints == []


def test_an_offset_that_cannot_be_is_flagged_and_a_test_says_to_check_it(surfer: Surfer) -> None:
    tab = surfer.tab
    surfer.enter()
    surfer.go("/analyse?series=cells/filaments.tif")
    surfer.sees("1 value missing")
    tab.get_by_label("Camera.ReadNoise").fill("1.6")
    tab.get_by_label("Camera.ReadNoise").press("Tab")
    surfer.sees("600 frames, from 0")
    tab.get_by_label("Camera.ADOffset").fill("5000")
    tab.get_by_label("Camera.ADOffset").press("Tab")

    surfer.sees("a tenth of this frame's pixels are darker than 5000 ADU")
    tab.get_by_role("tab", name="Test").click()
    surfer.button("Test this frame").click()

    surfer.sees(re.compile("Check Camera.ADOffset first"))


def test_a_token_that_may_only_look_starts_nothing(surfer: Surfer, shared_shell: Any) -> None:
    token = shared_shell.run("token", "--role", "viewer", "--name", "lab").stdout.strip()
    surfer.link = f"{surfer.base}/login#token={token}"
    surfer.enter()

    surfer.go("/analyse?series=cells/filaments.tif")

    surfer.sees("Your token may look, not start jobs.")
    assert surfer.button("Go").is_disabled()


def test_a_wrong_token_stays_outside_and_says_what_to_do(surfer: Surfer) -> None:
    surfer.link = f"{surfer.base}/login#token=c1.owner.guess"

    surfer.tab.goto(surfer.link)

    surfer.sees(re.compile("not one of this cluster's"))
    assert "guess" not in surfer.tab.url


def test_a_scheduler_that_goes_away_is_said_and_comes_back_by_itself(
    surfer: Surfer, shared_shell: Any
) -> None:
    surfer.enter()
    surfer.go("/cluster")
    surfer.sees("More machines")
    scheduler = next(
        child
        for process in shared_shell.started
        for child in psutil.Process(process.pid).children(recursive=True)
        if "scheduler" in child.cmdline()[3:5]
    )

    scheduler.suspend()
    surfer.sees(re.compile("Connection to the cluster lost"))
    surfer.picture("connection_lost")
    scheduler.kill()

    surfer.tab.wait_for_function("() => !document.body.innerText.includes('Connection to the cluster lost')")
    surfer.go("/jobs")
    surfer.sees("Jobs")
