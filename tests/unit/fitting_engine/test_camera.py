from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fitting.camera import Camera
from fitting.errors import InvalidMetadata, InvalidSettings

MAP = np.arange(600, dtype=np.float32).reshape(20, 30)


def _settings(**maps: Any) -> dict[str, object]:
    return {"dark_map": None, "variance_map": None, "flatfield_map": None, **maps}


def test_numbers_come_from_the_metadata(metadata: dict[str, object]) -> None:
    camera = Camera.from_metadata({**metadata, "voxelsize.y": 0.12}, _settings(), (20, 30))

    assert (camera.voxel_x_nm, camera.voxel_y_nm) == (100, pytest.approx(120))
    assert (camera.offset_adu, camera.electrons_per_adu, camera.variance_e2) == (
        100,
        0.5,
        pytest.approx(2.56),
    )
    assert (camera.em_gain, camera.noise_factor, camera.photons_per_adu) == (1, 1, 0.5)


def test_an_em_gain_brings_its_excess_noise(metadata: dict[str, object]) -> None:
    camera = Camera.from_metadata({**metadata, "Camera.TrueEMGain": 150.0}, _settings(), (20, 30))

    assert camera.noise_factor == pytest.approx(np.sqrt(2))
    assert camera.photons_per_adu == pytest.approx(0.5 / 150)


@pytest.mark.parametrize(
    ("keys", "x", "y"),
    [
        ({}, 0, 0),
        ({"Camera.ROIOriginX": 3, "Camera.ROIOriginY": 5}, 3, 5),
        ({"Camera.ROIPosX": 4, "Camera.ROIPosY": 6}, 3, 5),
    ],
)
def test_a_map_is_cropped_with_the_camera_region(
    keys: dict[str, object], x: int, y: int, metadata: dict[str, object]
) -> None:
    camera = Camera.from_metadata({**metadata, **keys}, _settings(dark_map=MAP), (10, 12))

    np.testing.assert_array_equal(camera.offset_adu, MAP[y : y + 10, x : x + 12])


def test_a_map_that_does_not_cover_the_frame_is_refused(metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings, match="30 × 20 px") as caught:
        Camera.from_metadata(metadata, _settings(variance_map=MAP), (40, 40))

    assert caught.value.field == "variance_map"


def test_a_map_that_is_still_a_path_is_refused(metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings, match="array"):
        Camera.from_metadata(metadata, _settings(dark_map="dark.tif"), (20, 30))


def test_missing_metadata_are_named(metadata: dict[str, object]) -> None:
    del metadata["Camera.ElectronsPerCount"]

    with pytest.raises(InvalidMetadata) as caught:
        Camera.from_metadata(metadata, _settings(), (20, 30))

    assert caught.value.keys == ("Camera.ElectronsPerCount",)


def test_detection_noise_is_pymes_for_a_uniform_camera(metadata: dict[str, object]) -> None:
    camera = Camera.from_metadata(
        {**metadata, "Camera.TrueEMGain": 4.0, "Camera.NoiseFactor": 1.41}, _settings(), (5, 6)
    )

    law = camera.pixel_law(1.0, 65535, (5, 6))

    d = 250.0
    expected = (1.6**2 + 1.41**2 * (0.5 * 4 * d + 16)) / 0.5**2
    assert law.floor[0, 0] + law.slope * d == pytest.approx(expected, rel=1e-6)


def test_a_negative_or_infinite_variance_marks_a_dead_pixel(metadata: dict[str, object]) -> None:
    variance = np.full((5, 6), 2.0)
    variance[1, 2], variance[3, 3] = -1, np.nan

    camera = Camera.from_metadata(metadata, _settings(variance_map=variance), (5, 6))

    assert np.isinf(camera.variance_e2[[1, 3], [2, 3]]).all()
    assert np.isfinite(camera.pixel_law(1.0, 65535, (5, 6)).floor).all()
