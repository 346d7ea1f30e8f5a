"""The fits of several channels: SplitterFitFNR, SplitterShiftEstFR, LinkedGaussFitR.

All are the linked fit with one or the other parameter shared; what differs is the columns they fill.
"""

from __future__ import annotations

import numpy as np

from fitting.batch import Batch, Rows
from fitting.colour import assign
from fitting.columns import Column, Parameters, fill
from fitting.linked import AstigmaticPsf, GaussianPsf, Link, estimate_linked
from fitting.psf_kinds import Psf


def fit_colours(batch: Batch) -> Rows:
    """Rows of SplitterFitFNR."""
    psf, link = GaussianPsf(batch.width_px, batch.aspect), Link(2)
    data, extra = batch.lanes()
    found = estimate_linked(psf, link, data, extra, batch.number, batch.side, batch.shifts)
    parameters = Parameters(found, batch)
    columns = parameters.places() | _signals(parameters, ("Ag", "Ar"), ("bg", "br"))
    rows = fill(batch.empty_rows(), found, parameters, batch, columns)
    total = np.nansum(batch.images(), axis=(2, 3)) / batch.camera.photons_per_adu
    rows["sumIntensity"]["g"], rows["sumIntensity"]["r"] = total[:, 0], total[:, 1]
    assign(rows, parameters, batch, psf, link)
    return rows


def fit_shift(batch: Batch) -> Rows:
    """Rows of SplitterShiftEstFR."""
    data, extra = batch.lanes()
    psf, link = GaussianPsf(batch.width_px, batch.aspect), Link(2, free_shift=True)
    found = estimate_linked(psf, link, data, extra, batch.number, batch.side, batch.shifts)
    parameters = Parameters(found, batch)
    columns = parameters.places() | parameters.shift(1)
    columns |= _signals(parameters, ("Ag", "Ar"), ("background_g", "background_r"))
    return fill(batch.empty_rows(), found, parameters, batch, columns)


def _signals(
    parameters: Parameters, signals: tuple[str, ...], backgrounds: tuple[str, ...]
) -> dict[str, Column]:
    """Width, and peak and background of each channel, under the names that a fit has for them."""
    width = parameters.width("s")
    columns = {"sigma": width}
    for channel, (signal, background) in enumerate(zip(signals, backgrounds, strict=True)):
        columns[signal] = parameters.peak(f"N{channel}", width, width)
        columns[background] = parameters.adu(f"b{channel}")
    return columns


def fit_linked(batch: Batch) -> Rows:
    """Rows of LinkedGaussFitR. `A` is a peak where the width is one of the columns, else the whole signal; both in ADU."""
    curves = batch.calibrations.sigma_curves
    link = link_of(batch, with_z=curves is not None)
    psf: Psf = (
        GaussianPsf(batch.width_px, batch.aspect)
        if curves is None
        else AstigmaticPsf.from_curves(curves, batch.camera.voxel_x_nm, batch.aspect)
    )
    data, extra = batch.lanes()
    found = estimate_linked(psf, link, data, extra, number=batch.number, side=batch.side, shifts=batch.shifts)
    parameters = Parameters(found, batch)
    columns = parameters.places() | backgrounds(parameters, link)
    signals = signals_of(link)
    if curves is None:
        width = columns["sigma"] = parameters.width("s")
        columns |= {name: parameters.peak(signal, width, width) for name, signal in signals.items()}
    else:
        columns["z0"] = parameters.plain("z")
        columns |= {name: parameters.adu(signal) for name, signal in signals.items()}
    return fill(batch.empty_rows(), found, parameters, batch, columns)


def link_of(batch: Batch, *, with_z: bool) -> Link:
    """What the channels share, as the options of a fit of any number of channels say."""
    options = batch.settings["options"]
    ratios = options["ratios"]
    return Link(
        batch.channels,
        ratios=None if ratios is None else [share / sum(ratios) for share in ratios],
        axial_shift_nm=options["axial_shifts_nm"] if with_z else None,
    )


def signals_of(link: Link) -> dict[str, str]:
    """Columns of the signals, and the parameters they are made of."""
    return {"A": "N"} if link.ratios is not None else {f"A{c}": f"N{c}" for c in range(link.channels)}


def backgrounds(parameters: Parameters, link: Link) -> dict[str, Column]:
    """Columns of the backgrounds."""
    return {f"background{c}": parameters.adu(f"b{c}") for c in range(link.channels)}
