"""PSF, width curves, shift fields and channels of a job: found, pinned, or refused by name when it is submitted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.job_calibrations import digest

pytestmark = pytest.mark.anyio

CURVES = {
    "z_nm": [-100.0, 0.0, 100.0, 200.0],
    "sigma_x_nm": [1.0, 2.0, 3.0, 4.0],
    "sigma_y_nm": [4.0, 3.0, 2.0, 1.0],
}
FIELD = {
    "kind": "polynomial",
    "centre_nm": [0.0, 0.0],
    "scale_nm": 1000.0,
    "dx_nm": [[5.0]],
    "dy_nm": [[1.0]],
}
PITCHES = {"pixel_nm": 100.0, "step_nm": 50.0}


def psf_facts(facts: Any, **changes: Any) -> Any:
    pitches = changes.pop("pitches", PITCHES)
    metadata = {name: {"value": value, "source": "sidecar psf.json"} for name, value in pitches.items()}
    values = {
        "path": "day 1/psf.tif",
        "frames": 21,
        "width": 25,
        "height": 25,
        "dtype": "float32",
        "metadata": metadata,
    }
    return facts(**{**values, **changes})


@pytest.fixture
def calibrated(source: Any, facts: Any) -> Any:
    """A data server that has calibrations beside the series and in the root."""
    source.calibrations |= {"day 1/curves.json": CURVES, "shifts.json": FIELD}
    source.series["day 1/psf.tif"] = psf_facts(facts)
    return source


async def spec_of(hands: Any, job_id: str) -> Any:
    return (await hands.http.get(f"/api/v1/jobs/{job_id}/spec")).json()


async def test_calibrations_are_named_by_their_path_and_pinned(hands: Any, calibrated: Any) -> None:
    astigmatic = await hands.submitted(analysis={"fit": "astigmatic", "sigma_curves": "curves.json"})
    two = await hands.submitted(
        analysis={"fit": "SplitterFitInterpNR", "psf": "psf.tif", "shifts": "shifts.json"}
    )

    first, second = await spec_of(hands, astigmatic), await spec_of(hands, two)
    assert first["analysis"]["sigma_curves"] == "day 1/curves.json"
    assert first["maps"] == {"sigma_curves": digest(CURVES)}
    assert second["maps"]["shifts"] == digest(FIELD)
    assert second["maps"]["psf"] == "print of day 1/psf.tif"
    assert json.loads(second["maps"]["psf_scale"]) == {**PITCHES, "focus_plane": 10.0, "channels": 1}


@pytest.mark.parametrize(
    ("analysis", "status", "field", "said"),
    [
        ({"fit": "astigmatic", "sigma_curves": "no.json"}, 404, "sigma_curves", "no.json"),
        (
            {"fit": "astigmatic", "sigma_curves": "shifts.json"},
            400,
            "analysis.sigma_curves",
            "holds a shift field",
        ),
        ({"fit": "two-colour", "shifts": "curves.json"}, 400, "analysis.shifts", "holds width curves"),
        ({"fit": "two-colour", "shifts": "old.sf"}, 400, "analysis.shifts", "is a Python pickle"),
        ({"fit": "spline"}, 400, "analysis.psf", "InterpFitR needs it"),
        ({"fit": "spline", "psf": "no.tif"}, 404, "psf", "no.tif"),
        ({"fit": "spline", "psf": "old.psf"}, 400, "analysis.psf", "save it as .tif"),
        (
            {"fit": "spline", "psf": "psf.tif", "interpolator": "septic"},
            400,
            "analysis.interpolator",
            "cubic, linear",
        ),
        ({"fit": "gaussian", "psf": "psf.tif"}, 400, "analysis.psf", "does not use it"),
        ({"fit": "astigmatic", "estimator": "wls"}, 400, "analysis.estimator", "cannot use wls"),
        ({"fit": "two-colour", "channel0_roi": [0, 0, 48, 20]}, 400, "analysis.channel1_roi", "one size"),
        ({"fit": "two-colour", "roi": [0, 40, 48, 64]}, 400, "analysis.channel1_roi", "no common part"),
        ({"fit": "linked", "options": {"views": 99}}, 400, "analysis.options.views", "out of range"),
        ({"fit": "linked", "options": {"ratios": [1.0]}}, 400, "analysis.options.ratios", "one for each"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_names_the_setting(
    hands: Any, calibrated: Any, analysis: dict[str, Any], status: int, field: str, said: str
) -> None:
    reply = await hands.submit(analysis=analysis)

    problem = reply.json()
    assert (reply.status_code, problem["field"]) == (status, field), problem
    assert said in problem["detail"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames": 1}, "is no PSF"),
        ({"pitches": {"pixel_nm": 100.0}}, '"step_nm": …'),
        ({"pitches": {"pixel_nm": 65.0, "step_nm": 50.0}}, "the data of 100 nm"),
        (
            {"width": 50, "pitches": {"pixel_nm": 100.0, "step_nm": 50.0, "channels": 2}},
            "holds 2 channels side by side, and InterpFitR fits 1",
        ),
    ],
)
async def test_a_stack_that_is_no_psf_of_these_data_is_refused(
    hands: Any, calibrated: Any, facts: Any, changes: dict[str, Any], said: str
) -> None:
    calibrated.series["day 1/psf.tif"] = psf_facts(facts, **changes)

    reply = await hands.submit(analysis={"fit": "spline", "psf": "psf.tif"})

    assert reply.status_code == 400
    assert reply.json()["field"] == "analysis.psf"
    assert said in reply.json()["detail"]


async def test_a_stack_of_imagej_says_its_pitches_in_pymes_keys(
    hands: Any, calibrated: Any, facts: Any
) -> None:
    pitches = {"voxelsize.x": 0.1, "voxelsize.z": 0.05, "focus_plane": 7}
    calibrated.series["day 1/psf.tif"] = psf_facts(facts, pitches=pitches, width=50)

    job_id = await hands.submitted(analysis={"fit": "SplitterFitInterpBNR", "psf": "psf.tif"})

    scale = json.loads((await spec_of(hands, job_id))["maps"]["psf_scale"])
    assert scale == {"pixel_nm": 100.0, "step_nm": 50.0, "focus_plane": 7.0, "channels": 2.0}


async def test_a_job_says_what_nobody_said_of_its_channels(hands: Any, calibrated: Any) -> None:
    async def notes(**analysis: Any) -> str:
        return "\n".join((await hands.job(await hands.submitted(analysis=analysis)))["notes"])

    bare = await notes(fit="two-colour")
    said = await notes(
        fit="two-colour", shifts="shifts.json", channel0_roi=[0, 0, 20, 10], channel1_roi=[0, 10, 20, 10]
    )

    assert "the upper and the lower half, the lower one upside down" in bare
    assert "shifts is not given" in bare
    assert said == ""
    assert "shifts" not in await notes(fit="SplitterShiftEstFR")


async def test_every_fit_publishes_a_schema(hands: Any) -> None:
    published = (await hands.http.get("/api/v1/fits")).json()

    by_name = {fit["name"]: fit["settings"] for fit in published}
    assert {"LatGaussFitFR", "AstigGaussFitFR", "InterpFitR", "SplitterFitFNR", "LinkedGaussFitR"} <= set(
        by_name
    )
    assert by_name["AstigGaussFitFR"]["properties"]["options"]["properties"]["z"]["enum"] == [
        "direct",
        "lookup",
        "none",
    ]
    assert by_name["SplitterShiftEstFR"]["properties"]["threshold"]["default"] == 2.0
    assert by_name["InterpFitR"]["x-needs"] == ["psf"]
