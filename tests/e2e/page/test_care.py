"""The page for whoever looks after things: what failed and why, who wants in, what drifted, files from elsewhere; by mouse, by keyboard alone, on a tablet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
import tifffile

from cluster.client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
}
SCREENS = {"desk": {"width": 1280, "height": 720}, "tablet": {"width": 820, "height": 1180}}


@pytest.fixture(scope="module")
def client(shared_shell: Any, link: str) -> Iterator[Client]:
    identity_line = next(shared_shell.said(process) for process in shared_shell.started)
    token = shared_shell.run("token", "--role", "owner", "--name", "lab").stdout.strip()
    url = re.search(r"scheduler +(http\S+)", identity_line)
    assert url is not None
    with Client(url[1], token) as client:
        yield client


@pytest.fixture(scope="module")
def drifting(shared_shell: Any) -> Path:
    """1500 frames of a sample that moves by 0.2 nm a frame along x."""
    path: Path = shared_shell.home / "data" / "cells" / "drifting.tif"
    made = shared_shell.run(
        "simulate", path, "--frames", 1500, "--size", 96, "--seed", 7, "--drift", 0.2, "--photon-spread", 0.5
    )
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture(scope="module")
def drifting_job(client: Client, bare_series: Path, drifting: Path) -> str:
    """A job on it that is done."""
    job = client.submit("cells/drifting.tif")
    *_, last = client.watch(job.id)
    assert last.state == "done"
    return job.id


def torn_series(folder: Path) -> Path:
    """Sixty compressed frames, of which one is not what its compression says."""
    path = folder / "torn.tif"
    frames = np.random.default_rng(0).poisson(140, (60, 64, 64)).astype(np.uint16)
    tifffile.imwrite(path, frames, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as opened:
        offset, size = opened.pages[30].dataoffsets[0], opened.pages[30].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    path.with_suffix(".json").write_text(json.dumps(METADATA), encoding="utf-8")
    return path


def test_frames_that_cannot_be_read_are_listed_with_the_reason_and_what_to_do(
    surfer: Any, bare_series: Path
) -> None:
    torn_series(bare_series.parent)
    tab = surfer.tab
    surfer.enter()
    surfer.go("/analyse?series=cells/torn.tif")
    surfer.sees("60 frames, from 0 to 59")
    surfer.button("Go").click()
    tab.wait_for_url("**/job/*")
    surfer.connected()

    surfer.sees("done, with failed frames")
    surfer.sees("cannot be read from the file")
    surfer.picture("job_with_failed_frames")
    surfer.button("Retry failed frames").click()

    surfer.sees(re.compile("Mend the file"))
    assert surfer.complaints == []


def test_a_job_whose_file_went_away_says_so_and_is_done_after_a_retry(
    surfer: Any, client: Client, drifting: Path, eventually: Callable[..., Any]
) -> None:
    worker = psutil.Process(client.workers()[0].pid)
    away = drifting.with_suffix(".away")
    worker.suspend()
    try:
        job = client.submit("cells/drifting.tif")
        drifting.rename(away)
    finally:
        worker.resume()
    surfer.enter()
    surfer.go(f"/job/{job.id}")
    surfer.sees("done, with failed frames")
    surfer.sees(re.compile("there is no series"))
    away.rename(drifting)

    surfer.button("Retry failed frames").click()

    surfer.sees("The failed frames are queued again.")
    surfer.sees(re.compile("^done$"))
    assert client.job(job.id).frames.localised == 1500
    assert surfer.complaints == []


def test_a_machine_that_asks_to_join_is_approved_on_the_page(surfer: Any, client: Client) -> None:
    surfer.enter()
    surfer.go("/cluster")
    ask = {"machine": "m9", "host": "microscope-2", "cores": 8, "version": "0.1.0", "secret": "s" * 40}
    with httpx.Client(base_url=client.url, trust_env=False) as stranger:
        assert stranger.post("/api/v1/join", json=ask).status_code == 202
        surfer.sees("microscope-2 asks to join")
        surfer.picture("cluster_joining")
        surfer.button("Approve").click()
        surfer.tab.wait_for_function("() => !document.body.innerText.includes('asks to join')")

        answer = stranger.post("/api/v1/join", json=ask)

    assert answer.status_code == 200
    assert answer.json()["token"].startswith("c1.worker.")


def test_a_brush_filters_the_picture_and_the_drift_can_be_taken_off(
    surfer: Any, drifting_job: str, client: Client, tmp_path: Path
) -> None:
    tab = surfer.tab
    surfer.enter()
    surfer.go(f"/job/{drifting_job}")
    surfer.sees(re.compile("^photons: "))
    tab.wait_for_function("() => document.querySelector('.stage img').naturalWidth > 200")

    box = tab.locator(".brush").first.bounding_box()
    tab.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 20, steps=4)
    tab.mouse.up()
    surfer.sees(re.compile(r"of [\d,]+ shown"))
    tab.wait_for_function("() => document.querySelector('.stage img').src.includes('filters=photons')")

    tab.get_by_label("Drift", exact=True).click()
    tab.get_by_text("corrected, from the localisations").click()
    surfer.sees(re.compile("the rows stay as they are"))
    tab.wait_for_function("() => document.querySelector('.stage img').src.includes('drift=correlation')")
    drift = client.drift(drifting_job)
    assert np.polyfit(drift.frame, drift.x_nm, 1)[0] == pytest.approx(0.2, abs=0.02)
    tab.wait_for_function("() => document.querySelector('.stage img').complete")
    surfer.picture("job_without_drift")

    with tab.expect_download() as downloading:
        tab.get_by_role("link", name="TIFF of it").click()
    downloading.value.save_as(tmp_path / "seen.tif")
    assert tifffile.imread(tmp_path / "seen.tif").max() > 0
    surfer.button("Show all").click()
    tab.wait_for_function("() => !document.querySelector('.stage img').src.includes('filters=')")
    assert surfer.complaints == []


def test_files_from_elsewhere_are_dropped_on_the_page_and_nothing_is_written_over(
    surfer: Any, bare_series: Path, tmp_path: Path
) -> None:
    tab = surfer.tab
    dropped = [tmp_path / "from elsewhere.tif", tmp_path / "from elsewhere.json"]
    dropped[0].write_bytes(bare_series.read_bytes())
    dropped[1].write_text(json.dumps(METADATA), encoding="utf-8")
    surfer.enter()
    surfer.go("/?under=cells")
    for turn in ("done", "exists already"):
        with tab.expect_file_chooser() as choosing:
            surfer.button("Choose files").click()
        choosing.value.set_files(dropped)
        tab.wait_for_function(
            "(said) => [...document.querySelectorAll('.drop-line')].slice(-2).filter((line) => line.innerText.includes(said)).length === 2",
            arg=turn,
        )
        surfer.picture("series_upload")

    assert (bare_series.parent / "from elsewhere.tif").read_bytes() == bare_series.read_bytes()
    tab.get_by_role("link", name="from elsewhere.tif").click()
    surfer.sees("600 frames, from 0 to 599")


def test_a_drop_from_the_desktop_is_taken(surfer: Any, bare_series: Path) -> None:
    tab = surfer.tab
    surfer.enter()
    surfer.go("/?under=cells")
    tab.locator(".drop").wait_for()

    tab.evaluate(
        """() => {
            const carried = new DataTransfer();
            carried.items.add(new File(['{}'], 'notes of the day.json'));
            document.querySelector('.drop').dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: carried}));
        }"""
    )

    surfer.sees("done")
    assert (bare_series.parent / "notes of the day.json").read_text(encoding="utf-8") == "{}"


def test_workers_say_how_busy_they_are_and_the_log_is_there(
    surfer: Any, eventually: Callable[..., Any], client: Client
) -> None:
    eventually(lambda: client.workers()[0].load, "a worker's load")
    surfer.enter()
    surfer.go("/cluster")
    surfer.sees(re.compile(r"of a core · \d+ MB"))
    surfer.sees(re.compile(r"GB of .* free"))
    surfer.tab.get_by_text("Log of the scheduler").click()
    surfer.sees(re.compile(r"INFO cluster\.scheduler"))
    assert (
        surfer.button("Drain").count() + surfer.tab.get_by_role("button", name=re.compile("^Drain ")).count()
        >= 1
    )
    surfer.picture("cluster_log")


def test_a_worker_is_drained_and_used_again(
    surfer: Any, eventually: Callable[..., Any], client: Client
) -> None:
    def state() -> str:
        return client.workers()[0].state

    surfer.enter()
    surfer.go("/cluster")
    surfer.tab.get_by_role("button", name=re.compile("^Drain ")).first.click()
    surfer.sees("finishes what it has begun, and gets no more")
    drained = state()
    surfer.tab.get_by_role("button", name=re.compile("^Use .* again$")).first.click()
    eventually(lambda: state() == "idle", "a worker that is used again")

    surfer.tab.get_by_role("button", name=re.compile("^Drain ")).first.wait_for()
    assert drained == "draining"
    assert surfer.complaints == []


def test_words_that_would_be_markup_are_words(surfer: Any, client: Client, drifting: Path) -> None:
    hostile = "<img src=x onerror='window.entered=1'><b>bold</b>"
    job = client.submit("cells/drifting.tif", name=hostile, owner=hostile, analysis={"stop_at": 60})
    ask = {"machine": "m8", "host": hostile[:60], "cores": 8, "version": hostile[:20], "secret": "t" * 40}
    surfer.enter()
    with httpx.Client(base_url=client.url, trust_env=False) as stranger:
        stranger.post("/api/v1/join", json=ask)
        for path in ("/jobs", f"/job/{job.id}", "/cluster"):
            surfer.go(path)
            surfer.sees(re.compile("<img src=x"))
            assert surfer.tab.evaluate("window.entered") is None, path
            assert surfer.tab.locator("img[src=x]").count() == 0, path
    for waiting in client.pending_joins():
        client.decide_join(waiting.id, approve=False)


@pytest.mark.parametrize(("screen", "scheme"), [("desk", "light"), ("tablet", "dark")])
def test_every_view_can_be_used_by_everyone(surfer: Any, drifting_job: str, screen: str, scheme: str) -> None:
    surfer.tab.set_viewport_size(SCREENS[screen])
    surfer.tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    surfer.enter()
    found = {}
    for name, path, ready in (
        ("series", "/?under=cells", "filaments.tif"),
        ("jobs", "/jobs", "drifting"),
        ("job", f"/job/{drifting_job}", re.compile("^photons: ")),
        ("analyse", "/analyse?series=cells/drifting.tif", re.compile("frames, from 0 to")),
        ("cluster", "/cluster", "More machines"),
    ):
        surfer.go(path)
        surfer.sees(ready)
        if screen == "tablet":
            surfer.picture(f"tablet_{name}")
            surfer.tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        wide = surfer.tab.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        faults = (
            surfer.faults() + surfer.unnamed() + ([f"{wide} px wider than the screen"] if wide > 0 else [])
        )
        if faults:
            found[path] = faults

    assert found == {}
    assert surfer.hosts == {urlsplit(surfer.base).netloc}


def test_two_fingers_zoom_into_frames_and_pictures(surfer: Any, drifting_job: str) -> None:
    surfer.tab.set_viewport_size({"width": 1024, "height": 768})
    surfer.enter()
    surfer.go("/analyse?series=cells/drifting.tif")
    surfer.sees("1,500 frames, from 0")
    _spread_two_fingers(surfer)
    surfer.tab.wait_for_function(
        "() => document.querySelector('.stage').style.transform.includes('scale(2)')"
    )

    surfer.go(f"/job/{drifting_job}")
    surfer.tab.wait_for_function("() => document.querySelector('.stage img').naturalWidth > 200")
    _spread_two_fingers(surfer)
    surfer.tab.wait_for_function("() => document.querySelector('.stage img').src.includes('region=')")

    assert surfer.complaints == []


def _spread_two_fingers(surfer: Any) -> None:
    """Put two fingers on the window's middle, and move them to twice their distance."""
    box = surfer.tab.locator(".viewport").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    devices = surfer.tab.context.new_cdp_session(surfer.tab)
    devices.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    for kind, apart in (("touchStart", 50), ("touchMove", 75), ("touchMove", 100), ("touchEnd", None)):
        fingers = [] if apart is None else [{"x": x + side * apart, "y": y, "id": side} for side in (1, -1)]
        devices.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


def test_a_job_is_started_with_the_keyboard_alone(surfer: Any, drifting: Path) -> None:
    """From the list of series to the running job: Tab, Enter, Space and arrows."""
    tab = surfer.tab
    surfer.enter()
    surfer.go("/?under=cells")
    surfer.sees("drifting.tif")

    def tab_to(name: str) -> None:
        for _ in range(150):
            tab.keyboard.press("Tab")
            said = tab.evaluate(
                "() => { const e = document.activeElement; return (e.getAttribute('aria-label') || e.innerText || '').trim(); }"
            )
            if [line.lower() for line in said.splitlines()[-1:]] == [name.lower()]:  # buttons shout
                return
        pytest.fail(f"{name} cannot be reached with Tab")

    tab_to("drifting.tif")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/analyse?*")
    surfer.connected()
    surfer.sees("1,500 frames, from 0")
    tab_to("Metadata")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    surfer.button("Test this frame").wait_for()
    tab_to("Test this frame")
    tab.keyboard.press("Enter")
    surfer.sees(re.compile(r"localisations? of \d+ candidates? in 1 frame"))
    tab_to("Go")
    tab.keyboard.press("Enter")

    tab.wait_for_url("**/job/*")
    surfer.sees(re.compile("^done$"))
