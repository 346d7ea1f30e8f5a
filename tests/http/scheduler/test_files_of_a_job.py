"""Files that a job names: refused at the submit, by setting, path and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.protocol import MetadataValue, SeriesFacts

pytestmark = pytest.mark.anyio

Facts = Callable[..., SeriesFacts]
SPLINE = {"fit": "spline"}


async def refused(hands: Any, analysis: dict[str, Any], status: int = 400, **request: Any) -> str:
    reply = await hands.submit(analysis=analysis, **request)
    assert reply.status_code == status, reply.text
    return str(reply.json()["detail"])


@pytest.mark.parametrize(
    "path",
    [
        "/home/me/file.tif",
        "C:\\calib\\file.tif",
        "C:/calib/file.tif",
        "\\\\nas\\lab\\file.tif",
        "calib\\file.tif",
        "../file.tif",
    ],
)
@pytest.mark.parametrize("setting", ["psf", "shifts", "sigma_curves", "dark_map"])
async def test_a_path_that_is_no_name_under_a_root_is_refused_with_what_to_do(
    hands: Any, setting: str, path: str
) -> None:
    fits = {
        "psf": "spline",
        "shifts": "two-colour",
        "sigma_curves": "astigmatic",
        "dark_map": "LatGaussFitFR",
    }

    said = await refused(hands, {"fit": fits[setting], setting: path})

    assert said.startswith(f"{setting}: {path!r}")
    assert "copy it" in said
    assert "--root" in said


async def test_a_missing_psf_is_called_a_file_and_not_a_series(hands: Any) -> None:
    said = await refused(hands, SPLINE | {"psf": "calib/psf.tif"}, 404)

    assert said.startswith("psf: there is no file 'calib/psf.tif'")
    assert "copy it beside the series" in said
    assert "no series" not in said


@pytest.mark.parametrize(
    ("height", "width", "metadata"),
    [
        (32, 32, {}),
        (512, 512, {"Camera.ROIOriginX": 500, "Camera.ROIOriginY": 0}),
        (256, 256, {"Camera.SensorHeight": 512, "Camera.SensorWidth": 512}),
    ],
)
async def test_a_map_of_another_size_is_refused_with_both_sizes(
    hands: Any, source: Any, facts: Facts, height: int, width: int, metadata: dict[str, Any]
) -> None:
    source.series["dark.tif"] = facts("dark.tif", frames=1, height=height, width=width)
    reply = await hands.submit(analysis={"dark_map": "dark.tif"}, metadata=metadata)

    said = reply.json()["detail"]
    assert reply.status_code == 400, said
    assert f"dark_map: dark.tif is {width} × {height} px" in said
    assert "frames of 48 × 64 px" in said
    assert ("which is 512 × 512 px" in said) == ("Camera.SensorWidth" in metadata)


async def test_a_map_of_the_sensor_is_cropped_and_one_of_unknown_place_is_noted(
    hands: Any, source: Any, facts: Facts
) -> None:
    source.series["dark.tif"] = facts("dark.tif", frames=1, height=512, width=512)

    unsaid = await hands.submitted(analysis={"dark_map": "dark.tif"})
    said = await hands.submitted(
        analysis={"dark_map": "dark.tif"}, metadata={"Camera.ROIOriginX": 464, "Camera.ROIOriginY": 0}
    )

    assert "Camera.ROIOriginX" in " ".join((await hands.job(unsaid))["notes"])
    assert (await hands.job(said))["notes"] == []


async def test_a_map_of_the_frames_own_part_of_the_sensor_is_taken(
    hands: Any, source: Any, facts: Facts
) -> None:
    source.series["dark.tif"] = facts("dark.tif", frames=1)
    part = {"Camera.SensorHeight": 512, "Camera.SensorWidth": 512, "Camera.ROIOriginX": 464}

    job = await hands.submitted(analysis={"dark_map": "dark.tif"}, metadata=part)

    assert (await hands.job(job))["notes"] == []


async def test_a_series_given_as_a_map_is_refused(hands: Any, source: Any, facts: Facts) -> None:
    source.series["dark.tif"] = facts("dark.tif", frames=1000)

    said = await refused(hands, {"dark_map": "dark.tif"})

    assert "dark_map: dark.tif holds 1000 images" in said
    assert "cameramaps" in said


async def test_a_variance_in_adu_is_refused_with_how_to_convert_it(
    hands: Any, source: Any, facts: Facts
) -> None:
    source.series["day 1/variance_adu2.tif"] = facts("day 1/variance_adu2.tif", frames=1)

    said = await refused(hands, {"variance_map": "variance_adu2.tif"})

    assert said.startswith("variance_map: day 1/variance_adu2.tif is in ADU²")
    assert "--electrons-per-adu 0.5" in said


@pytest.mark.parametrize(
    ("changes", "said_of_it"),
    [
        ({"frames": 3}, "3 planes of 32 × 32 px"),
        ({"width": 3}, "is 3 × 32 px; each of its 1 channels needs 4 × 4"),
        ({"said": {"channels": 3}}, "does not hold 3 channels"),
        ({"said": {"focus_plane": 40}}, "focus_plane at 40, outside its 21 planes"),
    ],
)
async def test_a_stack_that_can_be_no_psf_is_refused_at_the_submit(
    hands: Any, source: Any, facts: Facts, changes: dict[str, Any], said_of_it: str
) -> None:
    values = {"pixel_nm": 100, "step_nm": 50, **changes.pop("said", {})}
    metadata = {key: MetadataValue(value=value, source="sidecar") for key, value in values.items()}
    shape = {"frames": 21, "height": 32, "width": 32, **changes}
    source.series["psf.tif"] = facts("psf.tif", metadata=metadata, **shape)

    said = await refused(hands, SPLINE | {"psf": "psf.tif"})

    assert said.startswith("psf: psf.tif")
    assert said_of_it in said
