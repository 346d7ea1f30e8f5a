"""A job while it is put together, and what was drawn over a frame."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import Invalid, NotFound
from cluster.protocol import FitInfo, JobDetail, PresetInfo
from cluster.web.models.draft import Draft, rectangle_px
from fitting.fits import known_fits
from fitting.schema import json_schema

FITS = [
    FitInfo(
        name=fit.name,
        aliases=list(fit.aliases),
        title=fit.title,
        description="",
        settings=dict(json_schema(fit)),
    )
    for fit in known_fits().values()
]


def draft() -> Draft:
    return Draft.begin(["a.tif", "b.tif"], FITS)


def test_a_draft_asks_for_its_fit_and_what_differs() -> None:
    begun = draft()
    begun.values["threshold"] = 2.0
    begun.edit("Camera.ADOffset", 100.0)

    request = begun.request("b.tif", "ada")

    assert request.analysis == {"fit": "LatGaussFitFR", "threshold": 2.0}
    assert request.metadata == {"Camera.ADOffset": 100.0}
    assert (request.series, request.owner, request.priority) == ("b.tif", "ada", 0)
    begun.priority = 10
    assert begun.request("b.tif").priority == 10
    assert begun.preview([3]).frames == [3]
    assert begun.preview(12).series == "a.tif"


def test_another_fit_keeps_what_both_know() -> None:
    begun = draft()
    begun.values |= {"threshold": 2.0, "roi": [0, 0, 32, 32]}

    begun.choose_fit("InterpFitR")

    assert begun.analysis == {"fit": "InterpFitR", "threshold": 2.0, "roi": [0, 0, 32, 32]}
    assert begun.roi == (0, 0, 32, 32)
    with pytest.raises(NotFound, match="LatGaussFitFR"):
        begun.choose_fit("NoSuchFit")


def test_presets_are_taken_over_with_their_fit_and_the_rest_stays() -> None:
    begun = draft()
    begun.values["debounce_radius"] = 6.0
    settings = {"fit": "AstigGaussFitFR", "threshold": 2.0, "background": "0:0", "microscope": "left"}

    begun.choose_preset(PresetInfo(name="ours", title="ours", settings=settings, source="ours.toml"))

    assert begun.fit == "AstigGaussFitFR"
    assert begun.analysis == {
        "fit": "AstigGaussFitFR",
        "threshold": 2.0,
        "background": "0:0",
        "debounce_radius": 6.0,
        "microscope": "left",
    }


def test_a_profile_is_saved_loaded_and_left_out_when_none_is_chosen() -> None:
    begun, again = draft(), draft()
    begun.microscope = "left"

    again.load(dict(begun.saved()))
    fresh = draft()
    fresh.microscope = "left"
    fresh.load({"analysis": {"fit": "LatGaussFitFR"}})

    assert again.analysis == {"fit": "LatGaussFitFR", "microscope": "left"}
    assert again.request("a.tif").analysis["microscope"] == "left"
    assert fresh.microscope is None
    assert "microscope" not in fresh.analysis


def test_a_typed_value_can_be_taken_back() -> None:
    begun = draft()
    begun.edit("Camera.ReadNoise", 1.6)
    begun.edit("Camera.ReadNoise", None)
    begun.edit("Sample.Name", None)

    assert begun.edits == {}


def test_what_is_saved_is_loaded_again() -> None:
    begun, other = draft(), draft()
    begun.choose_fit("AstigGaussFitFR")
    begun.values["threshold"] = 1.5
    begun.edit("Sample.Name", "tubulin")

    other.load(begun.saved())

    assert (other.fit, other.analysis, other.edits) == (begun.fit, begun.analysis, begun.edits)


@pytest.mark.parametrize(
    "saved", [[], {"metadata": {}}, {"analysis": {"threshhold": 1}}, {"analysis": {}, "metadata": 3}]
)
def test_what_is_no_file_of_settings_changes_nothing(saved: Any) -> None:
    begun = draft()

    with pytest.raises(Invalid):
        begun.load(saved)

    assert begun.analysis == {"fit": "LatGaussFitFR"}


def test_like_a_job_takes_its_settings_and_what_was_typed_for_it() -> None:
    info = next(one for one in FITS if one.name == "LatGaussFitFR")
    analysis = {name: one["default"] for name, one in info.settings["properties"].items()} | {
        "threshold": 1.4
    }
    facts = {
        "path": "c.tif",
        "height": 8,
        "width": 8,
        "dtype": "uint16",
        "frames": 9,
        "fingerprint": "f",
        "bytes": 1,
        "format": "tiff",
    }
    told = {
        "Camera.ADOffset": {"value": 90, "source": "job"},
        "voxelsize.x": {"value": 0.1, "source": "file"},
    }
    job = JobDetail.model_validate(
        {
            "id": "j", "name": "c", "owner": "o", "machine": "m", "kind": "localise", "state": "done", "series": "c.tif", "priority": 0,
            "fit": "LatGaussFitFR", "frames": {"total": 9, "localised": 9, "skipped": 0, "failed": 0}, "tasks_running": 0, "retries": 0,
            "localisations": 1, "rate_frames_per_s": None, "eta_s": None, "output": None, "error": None, "created": 0.0, "started": None,
            "finished": None, "analysis": analysis, "metadata": told, "facts": facts,
        }
    )  # fmt: skip

    again = Draft.like(job, FITS)

    assert again.series == ["c.tif"]
    assert again.analysis == {"fit": "LatGaussFitFR", "threshold": 1.4}
    assert again.edits == {"Camera.ADOffset": 90}


def test_a_rectangle_is_whole_pixels_within_the_frame_however_it_was_drawn() -> None:
    drawn = {"x0": 0.9, "y0": -0.2, "x1": 0.25, "y1": 0.5}

    assert rectangle_px(drawn, height=100, width=200) == (50, 0, 180, 50)
    assert rectangle_px({"x0": 0.5, "y0": 0.5, "x1": 0.52, "y1": 0.9}, 100, 200) is None


def test_what_cannot_be_taken_is_kept_from_starting_anything_until_it_is_put_right() -> None:
    begun = draft()
    threshold = next(one for one in begun.fields if one.name == "threshold")

    assert begun.set(threshold, "-1")
    assert begun.mistake == "Threshold must lie from 0.01 to 1000"
    assert begun.threshold == 1.0
    assert begun.set(threshold, "1")  # the value is what it was, the mistake is gone
    assert begun.mistakes == {}
    assert not begun.set(threshold, "1")

    begun.set(threshold, "abc")
    begun.reset()
    assert begun.mistakes == {}
