"""The rows of every fit are PYME's, field by field; what is appended comes last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fitting import fits
from fitting.calibrated import SigmaCurves
from fitting.errors import InvalidSettings
from fitting.fits import FITS, resolve, row_dtype

METADATA = {"voxelsize.x": 0.1, "voxelsize.y": 0.1}
S = [("start", "<i4"), ("stop", "<i4"), ("step", "<i4")]
XYZ = ("slicesUsed", [("x", S), ("y", S), ("z", S)])
FOUR = ("slicesUsed", [("x", S), ("y", S), ("x2", S), ("y2", S)])
BOTH = [("g", "<f4"), ("r", "<f4")]
CURVES = SigmaCurves.from_defocus(np.linspace(-500, 500, 21), (130, 250, 400, 0, 0), (130, -250, 400, 0, 0))


def p(names: str) -> list[tuple[str, str]]:
    return [(name, "<f4") for name in names.split(",")]


ASTIGMATIC, GPU = p("A,x0,y0,sigmax,sigmay,background,bx,by"), p("y0,x0,A,background,sigmay,sigmax")
INTERP, SPLITTER = p("A,x0,y0,z0,background"), p("Ag,Ar,x0,y0,sigma,bg,br")
INTERP_2, BIPLANE = p("Ag,Ar,x0,y0,z0,bg,br,dx,dy"), p("A,x0,y0,z0,bg,br,dx,dy")
SHIFTS, CENTROID = (
    p("Ag,Ar,x0,y0,sigma,background_g,background_r,dx,dy"),
    p("A,x0,y0,sigxl,sigxr,sigyu,sigyd"),
)

PYMES: dict[str, list[Any]] = {
    "AstigGaussFitFR": [
        ("tIndex", "<i4"), ("fitResults", ASTIGMATIC), ("fitError", ASTIGMATIC), ("startParams", ASTIGMATIC),
        ("resultCode", "<i4"), XYZ, ("subtractedBackground", "<f4"),
    ],
    "AstigGaussGPUFitFR": [
        ("tIndex", "<i4"), ("fitResults", GPU), ("fitError", GPU), ("resultCode", "<i4"), ("LLH", "<f4"), ("nFit", "<i4"),
    ],
    "InterpFitR": [
        ("tIndex", "<i4"), ("fitResults", INTERP), ("fitError", INTERP), ("resultCode", "<i4"), XYZ, ("startParams", INTERP),
        ("nchi2", "<f4"), ("subtractedBackground", "<f4"),
    ],
    "SplitterFitFNR": [
        ("tIndex", "<i4"), ("fitResults", SPLITTER), ("fitError", SPLITTER), ("startParams", SPLITTER),
        ("subtractedBackground", BOTH), ("sumIntensity", BOTH), ("nchi2", "<f4"), ("resultCode", "<i4"),
        ("slicesUsed", [("x", S), ("y", S)]),
    ],
    "SplitterFitInterpNR": [
        ("tIndex", "<i4"), ("fitResults", INTERP_2), ("fitError", INTERP_2), ("startParams", INTERP_2), ("resultCode", "<i4"),
        FOUR, ("subtractedBackground", BOTH), ("nchi2", "<f4"),
    ],
    "SplitterFitInterpBNR": [
        ("tIndex", "<i4"), ("fitResults", BIPLANE), ("fitError", BIPLANE), ("startParams", BIPLANE), ("resultCode", "<i4"),
        FOUR, ("subtractedBackground", BOTH), ("ratio", "<f4"), ("nchi2", "<f4"),
    ],
    "SplitterShiftEstFR": [
        ("tIndex", "<i4"), ("fitResults", SHIFTS), ("fitError", SHIFTS), ("resultCode", "<i4"), XYZ,
    ],
    "LatFitCOIR": [("tIndex", "<i4"), ("fitResults", CENTROID), XYZ],
}  # fmt: skip


def settings_of(name: str, **given: Any) -> dict[str, object]:
    needs = {"psf": "psf.tif"} if "psf" in FITS[name].needs else {}
    return resolve({"fit": name, **needs, **given}, METADATA)


@pytest.mark.parametrize("name", PYMES)
def test_a_row_is_pymes(name: str) -> None:
    assert row_dtype(settings_of(name)) == np.dtype(PYMES[name])


@pytest.mark.parametrize("name", ["AstigGaussFitFR", "AstigGaussGPUFitFR"])
@pytest.mark.parametrize("z", ["direct", "lookup"])
def test_z_is_appended_to_both_groups_where_it_is_fitted(name: str, z: str) -> None:
    without, row = (
        row_dtype(settings_of(name, sigma_curves=CURVES, options={"z": how})) for how in ("none", z)
    )

    assert without == np.dtype(PYMES[name])
    assert row.names == without.names
    for group in ("fitResults", "fitError"):
        assert row[group].names == (*without[group].names, "z0")


def test_species_come_after_pymes_columns() -> None:
    plain, coloured = (
        row_dtype(settings_of("SplitterFitFNR", options=options)) for options in ({}, {"species": [0.2, 0.8]})
    )

    assert coloured.names == (*plain.names, "species", "speciesMargin", "gFraction", "gFractionError")


def test_a_linked_fit_has_a_signal_for_each_channel_or_one_for_all() -> None:
    each = row_dtype(settings_of("LinkedGaussFitR", options={"views": 3}))
    one = row_dtype(settings_of("LinkedGaussFitR", sigma_curves=CURVES, options={"ratios": [0.6, 0.4]}))

    assert each["fitResults"].names[:5] == ("A0", "A1", "A2", "x0", "y0")
    assert one["fitResults"].names == ("A", "x0", "y0", "z0", "background0", "background1")


@pytest.mark.parametrize("name", FITS)
def test_the_layout_depends_on_settings_that_survive_a_job(name: str) -> None:
    """Scheduler and workers know calibrations by path, and must agree on the rows with whoever holds the objects."""
    used = {"sigma_curves"} - FITS[name].unused
    by_path = settings_of(name, **dict.fromkeys(used, "curves.json"))
    by_object = settings_of(name, **dict.fromkeys(used, CURVES))

    assert row_dtype(by_path) == row_dtype(by_object)


@pytest.mark.parametrize("name", FITS)
def test_every_alias_leads_to_its_fit_alone(name: str) -> None:
    fit = FITS[name]

    assert all(fits.find(alias.upper()) is fit for alias in (fit.name, *fit.aliases))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"fit": "spline"}, "psf"),
        ({"fit": "astigmatic", "estimator": "wls"}, "estimator"),
        ({"fit": "astigmatic", "shifts": "s.json"}, "shifts"),
        ({"fit": "two-colour", "sigma_curves": "c.json"}, "sigma_curves"),
        ({"fit": "centroid", "estimator": "wls"}, "estimator"),
        ({"fit": "astigmatic", "options": {"z": "guess"}}, "options.z"),
        ({"fit": "two-colour", "options": {"species": [0.5, 1.5]}}, "options.species"),
        ({"fit": "two-colour", "channel0_roi": [0, 0, 5]}, "channel0_roi"),
        ({"fit": "linked", "options": {"channels": [[0, 0, 5, 5]]}}, "options.channels"),
        ({"fit": "linked", "options": {"channels": [[0, 0, 5, 5], [5, 0, 6, 5]]}}, "options.channels"),
        ({"fit": "linked", "options": {"flips": [True]}}, "options.flips"),
        ({"fit": "linked", "options": {"views": 3}, "shifts": [{"centre_nm": [0, 0], "scale_nm": 1, "dx_nm": [[0]], "dy_nm": [[0]]}]}, "shifts"),
        ({"fit": "astigmatic", "sigma_curves": {"z_nm": [1, 2]}}, "sigma_curves"),
        ({"fit": "two-colour", "shifts": {"dx_nm": [[1]]}}, "shifts"),
    ],
)  # fmt: skip
def test_what_a_fit_cannot_use_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        resolve(given, METADATA)

    assert caught.value.field == field


def test_pymes_keys_reach_the_settings_and_the_options_of_a_fit() -> None:
    metadata = METADATA | {
        "Splitter.Channel0ROI": [0, 0, 64, 32],
        "Splitter.Channel1ROI": (0, 32, 64, 32),
        "Splitter.Flip": 0,
        "Analysis.AxialShift": -270,
        "chroma.ChannelRatios": [0.5, 0.7],
        "Analysis.InterpModule": "LinearInterpolator",
        "PSFFile": "psf.tif",
    }

    settings = resolve({"fit": "SplitterFitInterpBNR"}, metadata)

    assert (settings["channel1_roi"], settings["flip"]) == ([0, 32, 64, 32], False)
    assert (settings["interpolator"], settings["psf"]) == ("linear", "psf.tif")
    assert settings["options"] == {
        "axial_shift_nm": -270.0, "fit_shifts": False, "ratios": [0.5, 0.7], "refractive_index_factor": 1.0,
    }  # fmt: skip


def test_a_fits_own_setting_may_be_given_by_its_pyme_key() -> None:
    settings = resolve(
        {"fit": "biplane", "psf": "p.tif", "Analysis.AxialShift": -270, "options": {"fit_shifts": 1}},
        METADATA,
    )

    assert (settings["options"]["axial_shift_nm"], settings["options"]["fit_shifts"]) == (-270.0, True)  # type: ignore[index]
    for analysis in (
        {"fit": "gaussian", "Analysis.AxialShift": -270},
        {"fit": "biplane", "psf": "p.tif", "Analysis.AxialShift": 1, "options": {"axial_shift_nm": 2}},
    ):
        with pytest.raises(InvalidSettings) as caught:
            resolve(analysis, METADATA)
        assert caught.value.field == "options.axial_shift_nm"


def test_the_shift_fit_starts_from_frames_as_they_are_unless_told_otherwise() -> None:
    settings = resolve({"fit": "SplitterShiftEstFR"}, METADATA)
    given = resolve(
        {"fit": "SplitterShiftEstFR", "threshold": 1.5}, METADATA | {"Analysis.BGRange": [-10, 0]}
    )

    assert (settings["background"], settings["threshold"]) == (None, 2.0)
    assert (given["background"], given["threshold"]) == ("-10:0", 1.5)


def test_inline_calibrations_have_one_form_that_json_keeps() -> None:
    settings = resolve({"fit": "astigmatic", "sigma_curves": CURVES.to_dict() | {"note": "mine"}}, METADATA)

    assert settings["sigma_curves"] == CURVES.to_dict()
    assert resolve(settings, METADATA) == settings
