"""The page in a real browser: choose, check, Test, Go, watch, take home."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.e2e, pytest.mark.slow]  # two dozen seconds for the first walk


def test_from_the_first_look_to_the_file(
    surfer: Any, bare_series: Path, visualizer: Path, tmp_path: Path
) -> None:
    tab = surfer.tab
    surfer.enter()
    tab.get_by_role("link", name="cells").click()
    tab.wait_for_url("**/?under=cells")
    surfer.connected()
    surfer.sees("600 frames · 128 × 128 px")
    assert surfer.unnamed() == []
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
    assert surfer.unnamed() == []
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
    assert surfer.unnamed() == []
    surfer.picture("test")
    slider = tab.get_by_role("slider", name="Threshold").locator("[tabindex='0']")
    _press_until_seen(surfer, slider, "PageUp", "At this threshold nothing is left")
    _press_until_seen(surfer, slider, "PageDown", "press Test to see what a lower threshold adds")
    tab.get_by_role("tab", name="Settings").click()
    surfer.sees("Detection (1 changed)")
    surfer.button("Defaults").click()
    surfer.sees(re.compile("^Detection$"))

    surfer.button("Go").click()
    tab.wait_for_url("**/job/*")
    surfer.connected()
    surfer.sees(re.compile("^done$"))
    tab.wait_for_function("() => document.querySelector('.stage img').naturalWidth > 200")
    assert surfer.unnamed() == []
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
    surfer.button("Open in PYMEVisualize").click()
    surfer.sees("PYMEVisualize starts; its window takes some seconds.")
    opened = (visualizer / "opened").read_text(encoding="utf-8").splitlines()
    assert opened == ["1", str(bare_series.parent / "analysis" / "filaments.h5r")]

    surfer.go("/jobs")
    surfer.sees("600 of 600")
    surfer.picture("jobs")
    surfer.go("/cluster")
    surfer.sees("1 worker on 1 machine")
    surfer.sees(re.compile(r"B free"))
    surfer.picture("cluster")
    assert surfer.hosts == {urlsplit(surfer.base).netloc}
    assert surfer.complaints == []


def test_an_offset_that_cannot_be_is_flagged_and_a_test_says_to_check_it(surfer: Any) -> None:
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


def test_a_token_that_may_only_look_starts_nothing(surfer: Any, shared_shell: Any) -> None:
    token = shared_shell.run("token", "--role", "viewer", "--name", "lab").stdout.strip()
    surfer.link = f"{surfer.base}/login#token={token}"
    surfer.enter()

    surfer.go("/analyse?series=cells/filaments.tif")

    surfer.sees("Your token may look, not start jobs.")
    assert surfer.button("Go").is_disabled()


def test_a_wrong_token_stays_outside_and_says_what_to_do(surfer: Any) -> None:
    surfer.link = f"{surfer.base}/login#token=c1.owner.guess"

    surfer.tab.goto(surfer.link)

    surfer.sees(re.compile("not one of this cluster's"))
    assert "guess" not in surfer.tab.url


def test_a_scheduler_that_goes_away_is_said_and_comes_back_by_itself(surfer: Any, shared_shell: Any) -> None:
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


def _press_until_seen(surfer: Any, slider: Any, key: str, said: str) -> None:
    """Press a key as a person does, who looks where the slider is: one press may be lost while the page redraws."""
    wanted = surfer.tab.get_by_text(said).first
    for _ in range(12):
        for _ in range(10):
            slider.press(key)
        try:
            wanted.wait_for(timeout=5000)
        except sync_api.TimeoutError:
            continue
        return
    surfer.sees(said)
