"""What is looked at of a job while it runs: its picture, filtered and without its drift, its histograms, its drift."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fitting.localisations import LAT_GAUSS_DTYPE

pytestmark = pytest.mark.anyio

ResultBody = Callable[..., bytes]


def spread_rows(lease: dict[str, Any], per_frame: int = 40) -> np.ndarray:
    """Molecules at twenty fixed places of the field of 4.8 × 6.4 µm, and a sample that moves by 2 nm a frame along x."""
    start, stop = lease["start"], lease["stop"]
    rng = np.random.default_rng(start)
    count = (stop - start) * per_frame
    rows = np.zeros(count, LAT_GAUSS_DTYPE)
    rows["tIndex"] = np.repeat(np.arange(start, stop), per_frame)
    place = np.random.default_rng(0).uniform(500, 4000, (20, 2))[rng.integers(0, 20, count)]
    rows["fitResults"]["x0"] = place[:, 0] + 2.0 * rows["tIndex"] + rng.normal(0, 8, count)
    rows["fitResults"]["y0"] = place[:, 1] + rng.normal(0, 8, count)
    rows["fitResults"]["A"] = rng.uniform(50, 500, count)
    rows["fitResults"]["sigma"] = 130
    rows["fitError"]["x0"] = rows["fitError"]["y0"] = 8
    rows["resultCode"] = 1
    return rows


async def begun(hands: Any, result_body: ResultBody) -> tuple[str, str]:
    """A job of which two tasks are done, and the worker that did them."""
    job_id, worker = await hands.submitted(), await hands.register()
    for lease in await hands.lease(worker, 2):
        reply = await hands.commit(worker, lease, result_body(lease, rows=spread_rows(lease)))
        assert reply.status_code == 200, reply.text
    return job_id, worker


async def get(hands: Any, job_id: str, what: str, **query: Any) -> Any:
    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/{what}", params=query)
    assert reply.status_code == 200, reply.text
    return reply


async def test_histograms_grow_with_the_job(hands: Any, result_body: ResultBody) -> None:
    job_id, worker = await begun(hands, result_body)
    first = (await get(hands, job_id, "histograms")).json()
    await hands.work_off(worker)
    later = (await get(hands, job_id, "histograms", filters="photons=1000..", bins=10)).json()

    assert first["localisations"] == first["chosen"] == 60 * 40
    assert later["localisations"] > first["localisations"]
    assert 0 < later["chosen"] < first["localisations"]
    photons = next(one for one in later["histograms"] if one["name"] == "photons")
    assert len(photons["all"]) == 10
    assert sum(photons["all"]) == later["localisations"]


async def test_a_filter_leaves_its_rows_out_of_the_picture(hands: Any, result_body: ResultBody) -> None:
    job_id, _ = await begun(hands, result_body)
    asked = {"pixel_nm": 20, "style": "histogram"}

    whole = tifffile.imread(io.BytesIO((await get(hands, job_id, "render.tif", **asked)).content))
    some = tifffile.imread(
        io.BytesIO((await get(hands, job_id, "render.tif", **asked, filters="frame=..29")).content)
    )

    assert whole.sum() == 60 * 40
    assert some.sum() == 30 * 40


async def test_the_drift_is_found_and_taken_off_the_picture_alone(
    hands: Any, result_body: ResultBody
) -> None:
    job_id, _ = await begun(hands, result_body)
    before = (await hands.http.get(f"/api/v1/jobs/{job_id}/localisations")).content

    drift = (await get(hands, job_id, "drift")).json()
    asked = {"pixel_nm": 10, "style": "histogram"}
    blurred = tifffile.imread(io.BytesIO((await get(hands, job_id, "render.tif", **asked)).content))
    sharp = tifffile.imread(
        io.BytesIO((await get(hands, job_id, "render.tif", **asked, drift="correlation")).content)
    )

    assert drift["method"] == "correlation"
    slope, _ = np.polyfit(drift["frame"], drift["x_nm"], 1)
    assert slope == pytest.approx(2.0, abs=0.1)
    assert np.ptp(drift["y_nm"]) < 6
    # 2 nm a frame over 60 frames spread each place over 120 nm, beside the 8 nm of a localisation
    assert np.sort(sharp.ravel())[-20:].mean() > 2 * np.sort(blurred.ravel())[-20:].mean()
    assert sharp.sum() == blurred.sum()
    assert (await hands.http.get(f"/api/v1/jobs/{job_id}/localisations")).content == before


async def test_a_png_may_be_filtered_coloured_and_without_drift_at_once(
    hands: Any, result_body: ResultBody
) -> None:
    job_id, _ = await begun(hands, result_body)

    reply = await get(
        hands,
        job_id,
        "render.png",
        pixel_nm=20,
        colour_by="frame",
        filters="photons=..30000",
        drift="correlation",
    )

    assert np.asarray(Image.open(io.BytesIO(reply.content))).max() > 0


async def test_filters_that_leave_nothing_give_a_black_picture_and_no_error(
    hands: Any, result_body: ResultBody
) -> None:
    job_id, _ = await begun(hands, result_body)

    reply = await get(hands, job_id, "render.png", pixel_nm=50, colour_by="frame", filters="photons=..1")

    assert np.asarray(Image.open(io.BytesIO(reply.content)))[:20].max() <= 4  # the darkest colour there is


@pytest.mark.parametrize(
    ("what", "query", "status", "said"),
    [
        ("render.png", {"filters": "z_nm=0.."}, 400, "no z_nm"),
        ("render.png", {"filters": "mass=1..2"}, 400, "not NAME=LOW..HIGH"),
        ("render.tif", {"colour_by": "frame"}, 400, "leave colour_by out"),
        ("render.png", {"drift": "guess"}, 400, "drift"),
        ("histograms", {"filters": "photons=2..1"}, 400, "must not be smaller"),
        ("drift", {"method": "markers"}, 409, "once the job has ended"),
    ],
)
async def test_what_cannot_be_shown_is_said(
    hands: Any, result_body: ResultBody, what: str, query: dict[str, Any], status: int, said: str
) -> None:
    job_id, _ = await begun(hands, result_body)

    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/{what}", params=query)

    assert reply.status_code == status, reply.text
    assert said in reply.json()["detail"]


async def test_before_the_first_result_there_is_nothing_to_estimate_a_drift_from(hands: Any) -> None:
    job_id = await hands.submitted()

    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/drift")

    assert reply.status_code == 400
    assert "no localisations yet" in reply.json()["detail"]
    assert (await get(hands, job_id, "histograms")).json()["histograms"] == []


async def test_a_result_without_markers_says_how_to_track_them(hands: Any, result_body: ResultBody) -> None:
    job_id, worker = await begun(hands, result_body)
    await hands.work_off(worker)
    await hands.ended(job_id)

    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/drift", params={"method": "markers"})

    assert reply.status_code == 400, reply.text
    assert "track_fiducials" in reply.json()["detail"]
