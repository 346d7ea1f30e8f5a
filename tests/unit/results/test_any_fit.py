"""Whatever the fit, its rows are written, read, drawn and exported; what the fit does not know is left out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tables

from cluster.errors import Invalid
from cluster.results.csv import csv_lines
from cluster.results.h5r import Writer, read
from cluster.results.metadata_tree import merged_metadata
from cluster.results.picasso import locs
from cluster.results.provenance import Provenance
from cluster.results.quantities import Calibration, quantities, worth_showing
from cluster.results.render import field_of, render
from fitting.fits import FITS, resolve, row_dtype

MakeRows = Callable[..., np.ndarray]
SIGMA_NM, A, BACKGROUND = 130.0, 100.0, 4.0
PHOTONS_OF_PEAK = 2 * np.pi * A * (SIGMA_NM / 100) ** 2 * 0.5


def settings_of(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    fit = FITS[name]
    given: dict[str, Any] = {"fit": name, **dict.fromkeys(fit.needs, "psf.tif")}
    if "sigma_curves" not in fit.unused:
        given["sigma_curves"] = "curves.json"
    return resolve(given, metadata)


def rows_of(name: str, metadata: dict[str, Any], count: int = 30) -> np.ndarray:
    rows = np.zeros(count, row_dtype(settings_of(name, metadata)))
    rng = np.random.default_rng(2)
    values = {"x0": rng.uniform(100, 6000, count), "y0": rng.uniform(100, 4500, count), "z0": -50.0}
    for column in rows.dtype["fitResults"].names:
        if column.startswith("sig"):
            value = SIGMA_NM
        elif column.startswith("b"):
            value = BACKGROUND
        else:
            value = values.get(column, A)
        rows["fitResults"][column] = value
        if "fitError" in rows.dtype.names:
            rows["fitError"][column] = 7.0
    rows["tIndex"] = np.arange(count) // 3
    if "resultCode" in rows.dtype.names:
        rows["resultCode"] = 1
    return rows


@pytest.mark.parametrize("name", FITS)
def test_a_results_file_of_any_fit_opens_in_pytables_and_here(
    name: str, tmp_path: Path, metadata: dict[str, Any], make_provenance: Callable[..., Provenance]
) -> None:
    rows = rows_of(name, metadata)
    merged = merged_metadata(metadata, settings_of(name, metadata), (48, 64))
    with Writer(tmp_path / "s.h5r", rows.dtype, merged) as writer:
        writer.append(rows)
        path = writer.finish(make_provenance())

    with tables.open_file(str(path)) as file:
        assert file.root.FitResults[:].tobytes() == rows.tobytes()
        assert file.root.MetaData.Analysis._v_attrs.FitModule == name
    found = read(path)
    assert found.rows.dtype == rows.dtype
    assert render([found.rows], field_of(found.metadata), pixel_nm=50.0).shown == len(rows)


@pytest.mark.parametrize("name", FITS)
def test_the_csv_of_any_fit_has_numbers_only_and_no_column_that_is_unknown(
    name: str, metadata: dict[str, Any]
) -> None:
    rows = rows_of(name, metadata)

    table = list(csv.reader(io.StringIO("".join(csv_lines([rows[:10], rows[10:]], metadata)))))

    header, *body = table
    values = np.array(body, float)
    assert values.shape == (len(rows), len(header))
    assert np.isfinite(values).all()
    assert ("z [nm]" in header) == ("z0" in rows.dtype["fitResults"].names)
    assert ("uncertainty_xy [nm]" in header) == ("fitError" in rows.dtype.names)


@pytest.mark.parametrize(
    ("name", "photons", "background"),
    [
        ("LatGaussFitFR", PHOTONS_OF_PEAK, 2.0),
        ("AstigGaussFitFR", PHOTONS_OF_PEAK, 2.0),
        ("AstigGaussGPUFitFR", A, BACKGROUND),
        ("InterpFitR", A * 0.5, 2.0),
        ("SplitterFitFNR", 2 * PHOTONS_OF_PEAK, 4.0),
        ("SplitterFitInterpNR", A, 4.0),
        ("SplitterFitInterpBNR", A * 0.5, 4.0),
    ],
)
def test_photons_are_worked_out_in_the_terms_of_the_fit(
    name: str, photons: float, background: float, metadata: dict[str, Any]
) -> None:
    some = quantities(rows_of(name, metadata), Calibration.from_metadata(metadata))

    assert some.photons == pytest.approx(photons)
    assert some.background == pytest.approx(background)


def test_the_signals_of_channels_are_kept_apart_too(metadata: dict[str, Any]) -> None:
    rows = rows_of("SplitterFitFNR", metadata)
    rows["fitResults"]["Ar"] = 3 * A

    some = quantities(rows, Calibration.from_metadata(metadata))

    assert some.extra["intensity g [photon]"] == pytest.approx(PHOTONS_OF_PEAK)
    assert some.extra["intensity r [photon]"] == pytest.approx(3 * PHOTONS_OF_PEAK)
    assert some.photons == pytest.approx(4 * PHOTONS_OF_PEAK)


def test_picasso_gets_z_and_two_widths_and_keeps_what_lies_below_the_focus(metadata: dict[str, Any]) -> None:
    rows = rows_of("AstigGaussFitFR", metadata)
    rows["fitResults"]["sigmay"] = 2 * SIGMA_NM

    table = locs(rows, Calibration.from_metadata(metadata), (48, 64))

    assert len(table) == len(rows)
    assert table["z"] == pytest.approx(-50)
    assert (table["sx"], table["sy"]) == (pytest.approx(1.3), pytest.approx(2.6))
    assert table["ellipticity"] == pytest.approx(0.5)


def test_picasso_is_not_given_what_it_cannot_open(metadata: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="no errors"):
        locs(rows_of("LatFitCOIR", metadata), Calibration.from_metadata(metadata), (48, 64))


def test_pymes_gpu_rows_converged_with_code_zero_and_ours_with_one(metadata: dict[str, Any]) -> None:
    rows = rows_of("AstigGaussGPUFitFR", metadata)
    rows["resultCode"][:5] = 0
    rows["resultCode"][5:8] = 5

    assert worth_showing(rows).tolist() == [True] * 5 + [False] * 3 + [True] * (len(rows) - 8)


def test_a_file_names_only_what_its_fit_read(metadata: dict[str, Any]) -> None:
    one = merged_metadata(metadata, settings_of("LatGaussFitFR", metadata))
    two = merged_metadata(metadata, settings_of("SplitterFitFNR", metadata) | {"shifts": "day/shifts.json"})

    assert not any(key.startswith("Splitter.") for key in one)
    assert two["Splitter.Flip"] is True
    assert merged_metadata(metadata, settings_of("SplitterFitInterpBNR", metadata))[
        "chroma.ChannelRatios"
    ] == [0.7]
    assert two["chroma.ShiftFilename"] == "day/shifts.json"
