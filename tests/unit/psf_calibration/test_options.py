"""What a person may ask of the PSF calibration."""

from __future__ import annotations

from typing import Any

import pytest

from fitting.calibration.calibrate_psf import calibrate_psf, settings
from fitting.calibration.psf_options import resolve_psf_options
from fitting.errors import InvalidSettings

SIZES = {"pixel_nm": 100.0, "step_nm": 50.0}


def test_sizes_that_are_not_given_follow_from_the_pixel() -> None:
    options = resolve_psf_options(SIZES)

    assert (options["half_size"], options["width_half_size"], options["isolation_px"]) == (15, 8, 22.5)


def test_resolved_options_resolve_to_themselves() -> None:
    options = resolve_psf_options(SIZES | {"bead_diameter_nm": 100})

    assert resolve_psf_options(options) == options


def test_every_option_has_a_description_and_is_resolved() -> None:
    assert all(setting.description for setting in settings)
    assert set(resolve_psf_options(SIZES)) == {setting.name for setting in settings}


@pytest.mark.parametrize(
    ("given", "field", "text"),
    [
        ({"step_nm": 50}, "pixel_nm", "must be given"),
        ({"pixel_nm": 100}, "step_nm", "must be given"),
        (SIZES | {"pixel_nm": -1}, "pixel_nm", "out of range"),
        (SIZES | {"halfsize": 9}, "halfsize", "did you mean half_size"),
        (SIZES | {"half_size": 3.5}, "half_size", "whole number"),
        (SIZES | {"half_size": 6, "width_half_size": 7}, "width_half_size", "larger than half_size"),
        (SIZES | {"channel1": [0, 0, 9, 9]}, "channel0", "must be given too"),
        (SIZES | {"channel0": [0, 0, 9, 9], "channel1": [9, 0, 19, 9]}, "channel1", "one size"),
        (SIZES | {"astigmatism": "maybe"}, "astigmatism", "one of auto, yes, no"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(InvalidSettings, match=text) as caught:
        calibrate_psf([], given)

    assert caught.value.field == field
