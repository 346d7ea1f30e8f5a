from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fitting import fit_rois
from fitting.calibrated import SigmaCurves
from fitting.errors import InvalidSettings
from fitting.estimators import ASTIGMATIC_DTYPE, ELLIPTIC_DTYPE, FIT_DTYPE
from fitting.localisations import ResultCode
from fitting.psf import pixel_integrated

CURVES = SigmaCurves.from_defocus(np.linspace(-700, 700, 71), (130, 200, 400, 0, 0), (130, -200, 400, 0, 0))


def _roi(x: float, y: float, sx: float, sy: float, photons: float = 3000, background: float = 8) -> Any:
    """Two widths from two round spots: the model is a product of its axes."""
    along_x = pixel_integrated(np.array([x, 7.0, 1.0, 0.0, sx]), 15)[0].sum(axis=0)
    along_y = pixel_integrated(np.array([7.0, y, 1.0, 0.0, sy]), 15)[0].sum(axis=1)
    return photons * np.outer(along_y, along_x) + background


def test_two_widths_are_named_after_their_axes() -> None:
    found = fit_rois(_roi(6.7, 7.4, 1.2, 1.8)[np.newaxis], model="elliptic", sigma_px=1.4)[0]

    assert found["status"] == ResultCode.CONVERGED
    assert (found["x_px"], found["y_px"]) == (pytest.approx(6.7, abs=1e-3), pytest.approx(7.4, abs=1e-3))
    assert (found["sigma_px"], found["sigma_y_px"]) == (
        pytest.approx(1.2, rel=1e-3),
        pytest.approx(1.8, rel=1e-3),
    )
    assert (found["photons"], found["background"]) == (
        pytest.approx(3000, rel=2e-3),
        pytest.approx(8, rel=1e-2),
    )


def test_z_comes_with_the_widths_that_belong_to_it() -> None:
    sx, sy = (1.3 * np.sqrt(1 + ((150 + at) / 400) ** 2) for at in (-200, 200))

    found = fit_rois(_roi(6.7, 7.4, sx, sy)[np.newaxis], model="astigmatic", curves=CURVES, pixel_nm=100.0)[0]

    assert found["status"] == ResultCode.CONVERGED
    assert found["z_nm"] == pytest.approx(150, abs=0.5)
    assert (found["sigma_px"], found["sigma_y_px"]) == (
        pytest.approx(sx, rel=1e-3),
        pytest.approx(sy, rel=1e-3),
    )
    slope = 1.3 * (350 / 400**2) / np.sqrt(1 + (350 / 400) ** 2)
    assert found["sigma_y_px_err"] == pytest.approx(slope * found["z_nm_err"], rel=0.01)


def test_a_model_adds_its_columns_to_those_of_the_round_one() -> None:
    assert set(ELLIPTIC_DTYPE.names or ()) - set(FIT_DTYPE.names or ()) == {"sigma_y_px", "sigma_y_px_err"}
    assert set(ASTIGMATIC_DTYPE.names or ()) - set(ELLIPTIC_DTYPE.names or ()) == {"z_nm", "z_nm_err"}
    assert FIT_DTYPE.itemsize == 52


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": "elliptic", "estimator": "wls"}, "estimator"),
        ({"model": "elliptic", "curves": CURVES}, "curves"),
        ({"model": "astigmatic"}, "curves"),
        ({"model": "astigmatic", "curves": CURVES}, "pixel_nm"),
        ({"model": "astigmatic", "curves": CURVES, "pixel_nm": float("nan")}, "pixel_nm"),
        ({"model": "astigmatic", "curves": CURVES, "pixel_nm": 100.0, "sigma_px": 1.3}, "sigma_px"),
        ({"curves": CURVES}, "curves"),
    ],
)
def test_an_option_that_does_not_belong_to_the_model_is_refused_by_name(
    options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        fit_rois(np.ones((1, 7, 7)), **options)

    assert caught.value.field == field
