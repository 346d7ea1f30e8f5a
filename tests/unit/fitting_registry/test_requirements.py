"""Metadata without which nothing can be localised are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.errors import InvalidMetadata
from fitting.fits import check_metadata, missing_metadata, required_metadata, resolve


def test_complete_metadata_are_accepted(metadata: dict[str, object]) -> None:
    check_metadata(resolve({}, metadata), metadata)


def test_every_missing_key_is_named_at_once() -> None:
    with pytest.raises(InvalidMetadata) as caught:
        check_metadata(resolve({}, {}), {"voxelsize.x": 0.1})

    assert caught.value.keys == (
        "voxelsize.y",
        "Camera.ElectronsPerCount",
        "Camera.ADOffset",
        "Camera.ReadNoise",
    )
    assert all(key in str(caught.value) for key in caught.value.keys)


def test_maps_take_the_place_of_the_scalars() -> None:
    settings = resolve({"dark_map": "dark.tif", "variance_map": np.ones((2, 2))}, {})

    assert required_metadata(settings) == ("voxelsize.x", "voxelsize.y", "Camera.ElectronsPerCount")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("voxelsize.x", 0),
        ("voxelsize.y", 100),
        ("voxelsize.x", "0.1"),
        ("Camera.ElectronsPerCount", -0.5),
        ("Camera.ElectronsPerCount", float("nan")),
        ("Camera.ADOffset", float("inf")),
        ("Camera.ReadNoise", -1),
        ("Camera.TrueEMGain", 0),
        ("Camera.NoiseFactor", 0.5),
        ("Camera.ReadNoise", True),
    ],
)
def test_a_value_out_of_range_is_named(metadata: dict[str, object], key: str, value: object) -> None:
    metadata[key] = value

    with pytest.raises(InvalidMetadata, match=key) as caught:
        check_metadata(resolve({}, {}), metadata)
    assert caught.value.keys == (key,)


def test_numpy_numbers_are_numbers(metadata: dict[str, object]) -> None:
    metadata |= {"voxelsize.x": np.float32(0.1), "Camera.ADOffset": np.int64(100)}

    check_metadata(resolve({}, metadata), metadata)


def test_a_camera_with_its_em_register_on_must_say_its_true_gain(metadata: dict[str, object]) -> None:
    metadata["Camera.EMGain"] = 150
    assert missing_metadata(resolve({}, metadata), metadata) == ("Camera.TrueEMGain",)

    metadata["Camera.TrueEMGain"] = 40.0
    assert missing_metadata(resolve({}, metadata), metadata) == ()


def test_a_range_is_told_with_its_unit(metadata: dict[str, object]) -> None:
    metadata["voxelsize.x"] = 100

    with pytest.raises(InvalidMetadata) as caught:
        check_metadata(resolve({}, {}), metadata)
    assert str(caught.value) == "voxelsize.x is 100: it must be over 0 and at most 10 µm"
