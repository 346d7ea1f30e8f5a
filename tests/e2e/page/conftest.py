"""A browser, a cluster with a page, and a series that lacks a value.

With CLUSTEROFONE_PICTURES=docs/pictures/page the tests leave a picture of every view there, dark and light.
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

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'"
)

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e '.[test]'")
AXE = axe.Axe()

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

    def unnamed(self) -> list[str]:
        """What can be used and has no name that a screen reader could say."""
        return list(self.tab.evaluate(UNNAMED))

    def faults(self) -> list[str]:
        """What axe-core finds that keeps people from using this view."""
        found = AXE.run(self.tab, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
        return [
            f"{fault['id']}: {fault['help']}: {[node['target'] for node in fault['nodes']][:4]}"
            for fault in found.response["violations"]
        ]

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
def visualizer(shared_shell: Any) -> Path:
    """A folder for the path, with a program in PYMEVisualize's place, which notes beside itself what it was asked to open."""
    folder: Path = shared_shell.home / "programs"
    folder.mkdir()
    program = folder / "PYMEVis"
    note = folder / "opened"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$#" "$1" > "{note}.part" && mv "{note}.part" "{note}"\n', encoding="utf-8")  # fmt: skip
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def link(shared_shell: Any, bare_series: Path, visualizer: Path, eventually: Callable[..., Any]) -> str:
    """The link that a running cluster printed, started by somebody who has a screen and PYMEVisualize."""
    with pytest.MonkeyPatch.context() as surroundings:
        surroundings.setenv("PATH", str(visualizer), prepend=os.pathsep)
        surroundings.setenv("DISPLAY", ":0")
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
