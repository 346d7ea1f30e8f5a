r"""The fits of a measured PSF: InterpFitR, SplitterFitInterpNR, SplitterFitInterpBNR, LinkedInterpFitR.

`A` is the whole signal in focus [ADU]. A biplane is fitted once for every ratio that is given, and the fit of the highest likelihood kept: the
number of parameters is the same, so nothing else need be weighed.
"""

from __future__ import annotations

import numpy as np

from fitting.batch import Batch, Rows
from fitting.calibrated import MeasuredPsf
from fitting.colour import assign
from fitting.columns import Column, Parameters, fill
from fitting.errors import InvalidSettings
from fitting.linked import Link, LinkedEstimates, estimate_linked
from fitting.spline import SplinePsf, spline_psf
from fitting.splitter_fit import backgrounds, link_of, signals_of


def fit(batch: Batch) -> Rows:
    """Rows of InterpFitR."""
    found = _estimate(batch, Link())
    parameters = Parameters(found, batch)
    columns = _place(parameters) | {"A": parameters.adu("N0"), "background": parameters.adu("b0")}
    return fill(batch.empty_rows(), found, parameters, batch, columns)


def fit_colours(batch: Batch) -> Rows:
    """Rows of SplitterFitInterpNR."""
    link = _two_channels(batch)
    found = _estimate(batch, link)
    parameters = Parameters(found, batch)
    columns = _place(parameters) | parameters.shift(1)
    columns |= {"Ag": parameters.adu("N0"), "Ar": parameters.adu("N1")}
    columns |= {"bg": parameters.adu("b0"), "br": parameters.adu("b1")}
    rows = fill(batch.empty_rows(), found, parameters, batch, columns)
    assign(rows, parameters, batch, _splines(batch), link)
    return rows


def fit_biplane(batch: Batch) -> Rows:
    """Rows of SplitterFitInterpBNR."""
    tables, deviances = [], []
    for share in batch.settings["options"]["ratios"]:
        found = _estimate(batch, _two_channels(batch)._replace(ratios=(share, 1 - share)))
        parameters = Parameters(found, batch)
        columns = _place(parameters) | parameters.shift(1) | {"A": parameters.adu("N")}
        columns |= {"bg": parameters.adu("b0"), "br": parameters.adu("b1")}
        rows = fill(batch.empty_rows(), found, parameters, batch, columns)
        rows["ratio"] = share
        tables.append(rows)
        deviances.append(np.nan_to_num(found.quality[:, 0], nan=np.inf))
    best = np.argmin(np.stack(deviances), axis=0)
    kept: Rows = np.stack(tables)[best, np.arange(batch.number)]
    return kept


def fit_linked(batch: Batch) -> Rows:
    """Rows of LinkedInterpFitR."""
    link = link_of(batch, with_z=True)
    found = _estimate(batch, link)
    parameters = Parameters(found, batch)
    columns = _place(parameters) | backgrounds(parameters, link)
    columns |= {name: parameters.adu(signal) for name, signal in signals_of(link).items()}
    return fill(batch.empty_rows(), found, parameters, batch, columns)


def _two_channels(batch: Batch) -> Link:
    options = batch.settings["options"]
    return Link(2, free_shift=options["fit_shifts"], axial_shift_nm=(0.0, options["axial_shift_nm"]))


def _place(parameters: Parameters) -> dict[str, Column]:
    return parameters.places() | {"z0": parameters.plain("z")}


def _estimate(batch: Batch, link: Link) -> LinkedEstimates:
    data, extra = batch.lanes()
    return estimate_linked(_splines(batch), link, data, extra, batch.number, batch.side, batch.shifts)


def _splines(batch: Batch) -> SplinePsf:
    psf, settings = batch.calibrations.psf, batch.settings
    if psf is None:
        raise InvalidSettings("psf", f"{settings['fit']} needs it, as a MeasuredPsf")
    if psf.channels not in (1, batch.channels):
        raise InvalidSettings(
            "psf", f"has {psf.channels} channels side by side, and {settings['fit']} fits {batch.channels}"
        )
    camera = batch.camera
    pixel_nm = camera.voxel_x_nm, camera.voxel_y_nm
    factor = settings["options"]["refractive_index_factor"]
    return _last(psf, pixel_nm, settings["interpolator"] or "cubic", factor)


class _Last:
    """The splines made last: the same PSF serves batch after batch, and making them takes as long as fitting hundreds of molecules."""

    def __init__(self) -> None:
        self._made: tuple[MeasuredPsf, tuple[object, ...], SplinePsf] | None = None

    def __call__(
        self, psf: MeasuredPsf, pixel_nm: tuple[float, float], interpolator: str, factor: float
    ) -> SplinePsf:
        made, how = self._made, (pixel_nm, interpolator, factor)
        if made is not None and made[0] is psf and made[1] == how:
            return made[2]
        splines = spline_psf(
            psf, pixel_nm=pixel_nm, interpolator=interpolator, refractive_index_factor=factor
        )
        self._made = psf, how, splines
        return splines


_last = _Last()
