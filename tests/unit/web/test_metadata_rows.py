"""Metadata with their sources, what is missing first; and offsets that cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.protocol import JobCheck, ProfileInfo, ProfileListing
from cluster.web.models.metadata_rows import offset_doubt, profile_choices, rows_of, typed


def check(**changes: Any) -> JobCheck:
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
    said = {
        "facts": facts,
        "analysis": {},
        "metadata": {
            "Sample.Name": {"value": "tubulin", "source": "file"},
            "voxelsize.x": {"value": 0.1, "source": "sidecar c.json"},
            "Camera.ADOffset": {"value": 100.0, "source": "job"},
        },
        "required": {
            "voxelsize.x": "size of a pixel, µm",
            "Camera.ReadNoise": "read noise, rms, e⁻",
            "Camera.ADOffset": "reading",
        },
        "missing": ["Camera.ReadNoise"],
        "fault": {"detail": "the metadata lack Camera.ReadNoise", "keys": ["Camera.ReadNoise"]},
    }
    return JobCheck.model_validate({**said, **changes})


def test_what_is_missing_comes_first_then_what_the_fit_needs_then_the_rest() -> None:
    rows = rows_of(check(), {"Camera.ADOffset": 100.0})

    assert [row.key for row in rows] == ["Camera.ReadNoise", "Camera.ADOffset", "voxelsize.x", "Sample.Name"]
    assert [row.urgent for row in rows] == [True, False, False, False]
    assert [row.source for row in rows] == ["nobody says", "typed here", "sidecar c.json", "file"]
    assert rows[0].meaning == "read noise, rms, e⁻"
    assert (rows[1].value, rows[1].edited) == ("100.0", True)
    assert (rows[3].value, rows[3].required) == ("tubulin", False)


def test_a_misspelt_key_that_was_typed_is_urgent() -> None:
    fault = {"detail": "metadata: Camera.ADOfset is unknown", "field": "Camera.ADOfset"}
    metadata = {"Camera.ADOfset": {"value": 3, "source": "job"}}

    rows = rows_of(check(metadata=metadata, missing=[], required={}, fault=fault), {"Camera.ADOfset": 3})

    assert [(row.key, row.urgent) for row in rows] == [("Camera.ADOfset", True)]


def test_a_doubtful_value_comes_before_what_is_sure() -> None:
    rows = rows_of(check(missing=[], fault=None), {}, {"voxelsize.x": "odd"})

    assert (rows[0].key, rows[0].doubt) == ("voxelsize.x", "odd")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("0,1", 0.1),
        (" 100 ", 100),
        ("", None),
        ("  ", None),
        ("tubulin", "tubulin"),
        ("[1, 2]", [1, 2]),
        ("true", True),
        ("a, b", "a, b"),
    ],
)
def test_what_is_typed_becomes_a_value(text: str, value: Any) -> None:
    assert typed(text) == value


@pytest.mark.parametrize(
    ("offset", "doubtful"),
    [(100.0, False), (98, False), (130.0, True), (0.0, True), (None, False), ("odd", False), (True, False)],
)
def test_an_offset_that_cannot_be_this_cameras_is_doubted(offset: Any, doubtful: bool) -> None:
    frame = np.random.default_rng(1).normal(104, 3, (64, 64)).astype(np.float32)

    assert bool(offset_doubt(frame, offset, 3.0)) == doubtful


def test_profiles_are_offered_by_name_and_broken_ones_are_not() -> None:
    profiles = [
        ProfileInfo(name="left", file="left.toml", title="sCMOS, left port", matches=True),
        ProfileInfo(name="right", file="right.toml", matches=False),
        ProfileInfo(name="torn", file="torn.toml", matches=True, problem="torn.toml: no TOML"),
    ]

    choices = profile_choices(ProfileListing(folder="/p", profiles=profiles))
    none_fits = profile_choices(ProfileListing(folder="/p", profiles=profiles[1:2]))

    assert choices == {
        "": "by itself: left",
        "left": "left: sCMOS, left port",
        "right": "right",
        "none": "none",
    }
    assert none_fits[""] == "by itself: none is for this camera"
