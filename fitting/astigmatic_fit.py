r"""AstigGaussFitFR and AstigGaussGPUFitFR: a Gaussian of two widths, and z where width curves are given.

z is a parameter of the fit ("direct"), or is looked up afterwards from the fitted widths (`fitting.widths`). Directly fitted, z has the smaller error, because
two widths that no z explains are not among the models.
"""

from __future__ import annotations

import numpy as np

from fitting.batch import Batch, Rows
from fitting.calibrated import SigmaCurves
from fitting.columns import Column, Parameters, constant, fill, widths_of
from fitting.layouts import fits_z
from fitting.linked import AstigmaticPsf, EllipticPsf, Link, estimate_linked
from fitting.widths import z_from_widths


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
        z = parameters.plain("z")
        sigmax, sigmay = widths_of(curves, z)
        return {"z0": z, "sigmax": sigmax, "sigmay": sigmay}
    columns = {"sigmax": parameters.width("sx"), "sigmay": parameters.width("sy")}
    if curves is not None:
        columns["z0"] = constant(np.nan, len(columns["sigmax"].value))
    return columns


def _look_up(rows: Rows, curves: SigmaCurves) -> None:
    fitted, errors = rows["fitResults"], rows["fitError"]
    z, z_err = z_from_widths(fitted["sigmax"], errors["sigmax"], fitted["sigmay"], errors["sigmay"], curves)
    fitted["z0"], errors["z0"] = z, z_err
    if "startParams" in (rows.dtype.names or ()):
        rows["startParams"]["z0"] = z
