r"""AstigGaussFitFR and AstigGaussGPUFitFR: a Gaussian of two widths, and z where width curves are given.

z is a parameter of the fit ("direct"), or is looked up afterwards: the fitted widths are compared with the curves,

.. math:: \hat z = \arg\min_z \sum_{c \in \{x, y\}} \left(\frac{\sigma_c - S_c(z)}{\varepsilon_c}\right)^2

with :math:`\varepsilon_c` the errors of the widths, and the error of z from the curvature at the minimum. Directly fitted, z has the smaller
error, because two widths that no z explains are not among the models.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fitting.batch import Batch, Rows
from fitting.calibrated import SigmaCurves
from fitting.columns import Column, Parameters, Widths, constant, fill
from fitting.layouts import fits_z
from fitting.linked import AstigmaticPsf, EllipticPsf, Link, estimate_linked

Array = npt.NDArray[np.float64]
_STEP_NM = 2.0  # of the search for z; a parabola goes between
_TOGETHER = 512  # molecules compared with the curves at a time


def fit(batch: Batch) -> Rows:
    """Rows of AstigGaussFitFR, or of AstigGaussGPUFitFR."""
    curves = batch.calibrations.sigma_curves
    direct = fits_z(batch.settings) and batch.settings["options"]["z"] == "direct"
    psf = (
        AstigmaticPsf.from_curves(curves, batch.camera.voxel_x_nm, batch.aspect)
        if direct and curves is not None
        else EllipticPsf(batch.width_px, batch.aspect)
    )
    data, extra = batch.lanes()
    found = estimate_linked(psf, Link(), data, extra, batch.number, batch.side, batch.shifts)
    parameters = Parameters(found, batch)
    columns = _shape(parameters, curves if fits_z(batch.settings) else None)
    rows = batch.empty_rows()
    columns |= parameters.places()
    columns["bx"] = columns["by"] = constant(0.0, len(rows))
    if batch.settings["fit"] == "AstigGaussGPUFitFR":
        columns |= {"A": parameters.plain("N0"), "background": parameters.plain("b0")}
    else:
        columns["A"] = parameters.peak("N0", columns["sigmax"], columns["sigmay"])
        columns["background"] = parameters.adu("b0")
    rows = fill(rows, found, parameters, batch, columns)
    if "z0" in columns and not direct and curves is not None:
        _look_up(rows, curves)
    return rows


def _shape(parameters: Parameters, curves: SigmaCurves | None) -> dict[str, Column]:
    """Widths, and z where it is fitted or will be looked up."""
    if "z" in parameters and curves is not None:
        widths, z = Widths(curves), parameters.plain("z")
        return {"z0": z, "sigmax": widths.at("x", z), "sigmay": widths.at("y", z)}
    columns = {"sigmax": parameters.width("sx"), "sigmay": parameters.width("sy")}
    if curves is not None:
        columns["z0"] = constant(np.nan, len(columns["sigmax"].value))
    return columns


def _look_up(rows: Rows, curves: SigmaCurves) -> None:
    widths = Widths(curves)
    steps = max(4, round((widths.highest_nm - widths.lowest_nm) / _STEP_NM))
    z = np.linspace(widths.lowest_nm, widths.highest_nm, steps + 1)
    expected = [widths.at(axis, Column(z, None)).value for axis in "xy"]
    slopes = [np.gradient(values, z) for values in expected]
    for first in range(0, len(rows), _TOGETHER):
        part = rows[first : first + _TOGETHER]
        measured = [part["fitResults"][name].astype(np.float64) for name in ("sigmax", "sigmay")]
        errors = [part["fitError"][name].astype(np.float64) for name in ("sigmax", "sigmay")]
        found, error = look_up_z(z, expected, slopes, measured, errors)
        part["fitResults"]["z0"], part["fitError"]["z0"] = found, error
        if "startParams" in (rows.dtype.names or ()):
            part["startParams"]["z0"] = found


def look_up_z(
    z: Array, expected: list[Array], slopes: list[Array], measured: list[Array], errors: list[Array]
) -> tuple[Array, Array]:
    """Heights whose widths are nearest to those measured, and their errors; NaN where the widths have none.

    Parameters
    ----------
    z : (n,) array
        Heights to choose from, in equal steps [nm].
    expected, slopes : two (n,) arrays
        Width along x and y at these heights, and their derivatives [nm, 1].
    measured, errors : two (k,) arrays
        Widths of the molecules, and their errors [nm].
    """
    misfit = sum(
        ((m[:, None] - e[None]) / s[:, None]) ** 2 for m, e, s in zip(measured, expected, errors, strict=True)
    )
    misfit = np.asarray(misfit)
    known = np.isfinite(misfit).all(axis=1)
    best = np.where(known, np.argmin(np.nan_to_num(misfit, nan=0.0), axis=1), 1)
    at = np.clip(best, 1, len(z) - 2)
    row = np.arange(len(misfit))
    before, here, after = (misfit[row, at + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = np.where(bend > 0, np.clip(0.5 * (before - after) / bend, -1, 1), 0)
        information = sum((g[best] / s) ** 2 for g, s in zip(slopes, errors, strict=True))
        error = np.where(known & (information > 0), 1 / np.sqrt(information), np.nan)
    inside = best == at
    found = np.where(known, z[best] + np.where(inside, beyond, 0) * (z[1] - z[0]), np.nan)
    return found, error
