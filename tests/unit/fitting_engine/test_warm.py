"""Getting ready for a job: calibrations are known by their path only, and no molecule has been seen."""

from __future__ import annotations

import pytest

from fitting.fits import FITS, resolve
from fitting.warm import kernels_of, warm_up

METADATA: dict[str, object] = {"voxelsize.x": 0.1, "voxelsize.y": 0.1}


def settings_of(name: str, **given: object) -> dict[str, object]:
    fit = FITS[name]
    needs = dict.fromkeys(fit.needs, "psf.tif")
    used = {"sigma_curves": "curves.json", "shifts": "shifts.json"}
    used = {key: path for key, path in used.items() if key not in fit.unused}
    return resolve({"fit": name, **needs, **used, **given}, METADATA)


@pytest.mark.parametrize("name", FITS)
def test_a_worker_gets_ready_for_any_fit(name: str) -> None:
    warm_up(settings_of(name), "uint16")


def test_analyses_that_run_other_kernels_are_told_apart() -> None:
    analyses = [
        resolve({}, METADATA),
        resolve({"estimator": "wls"}, METADATA),
        resolve({"background_percentile": None}, METADATA),
        settings_of("AstigGaussFitFR"),
        settings_of("SplitterFitFNR"),
        settings_of("InterpFitR"),
    ]

    kinds = {kernels_of(settings, "uint16") for settings in analyses}

    assert len(kinds) == len(analyses)
    assert kernels_of(analyses[0], "float32") not in kinds
    assert kernels_of(settings_of("InterpFitR", threshold=3.0), "uint16") in kinds
