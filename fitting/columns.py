"""From parameters of a linked fit to columns of a result row, each with its error.

A column is a value and its gradient with respect to the parameters, so that its error follows from the whole covariance, whatever it is made
of. Pixels and photo-electrons become nm and ADU here, in PYME's terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fitting.batch import Batch, Rows
from fitting.calibrated import SigmaCurves
from fitting.linked import LinkedEstimates
from fitting.widths import widths_at

Array = npt.NDArray[np.float64]


class Column(NamedTuple):
    """k values, and their derivatives (k, p); None where there is no error to speak of."""

    value: Array
    gradient: Array | None

    def times(self, factor: float) -> Column:
        """In another unit."""
        return Column(self.value * factor, None if self.gradient is None else self.gradient * factor)


class Parameters:
    """What a linked fit found, as columns in the units of results.

    Parameters
    ----------
    found : LinkedEstimates
    batch : Batch
        What it was found in.
    """

    def __init__(self, found: LinkedEstimates, batch: Batch) -> None:
        self._batch = batch
        self._index = {name: at for at, name in enumerate(found.names)}
        self._theta = found.theta.astype(np.float64)
        self._covariance = found.covariance.astype(np.float64) * batch.camera.noise_factor**2

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def plain(self, name: str) -> Column:
        """A parameter as the fit has it."""
        gradient = np.zeros(self._theta.shape)
        gradient[:, self._index[name]] = 1.0
        return Column(self._theta[:, self._index[name]], gradient)

    def places(self) -> dict[str, Column]:
        """x0, y0 [nm] of the frame."""
        x, y = self.plain("x"), self.plain("y")
        camera, batch = self._batch.camera, self._batch
        return {
            "x0": x.times(camera.voxel_x_nm)._replace(value=batch.x_nm(x.value)),
            "y0": y.times(camera.voxel_y_nm)._replace(value=batch.y_nm(y.value)),
        }

    def adu(self, name: str) -> Column:
        """Photo-electrons as ADU."""
        return self.plain(name).times(1 / self._batch.camera.photons_per_adu)

    def width(self, name: str) -> Column:
        """A width [nm]."""
        return self.plain(name).times(self._batch.camera.voxel_x_nm)

    def peak(self, signal: str, width_x: Column, width_y: Column) -> Column:
        """Height [ADU] of the point-sampled peak from which PYME computes as many photons: N / (2π σx σy)."""
        n, pitch = self.adu(signal), self._batch.camera.voxel_x_nm
        area = 2 * math.pi * width_x.value * width_y.value / pitch**2
        height = n.value / area
        assert n.gradient is not None
        gradient = n.gradient / area[:, None]
        for width in (width_x, width_y):
            if width.gradient is not None:
                gradient = gradient - (height / width.value)[:, None] * width.gradient
        return Column(height, gradient)

    def share(self, one: str, other: str) -> Column:
        """One / (one + other)."""
        a, b = self.plain(one), self.plain(other)
        total = a.value + b.value
        assert a.gradient is not None
        assert b.gradient is not None
        gradient = (b.value[:, None] * a.gradient - a.value[:, None] * b.gradient) / (total**2)[:, None]
        return Column(a.value / total, gradient)

    def shift(self, channel: int) -> dict[str, Column]:
        """dx, dy [nm] by which channel 0's image lies beyond the channel's: the field's, plus what was fitted beyond it."""
        camera, shifts = self._batch.camera, self._batch.whole_shifts(channel)
        columns = {}
        for axis, name, pitch in ((0, "dx", camera.voxel_x_nm), (1, "dy", camera.voxel_y_nm)):
            used = Column(0.0 - shifts[:, axis], None)
            fitted = f"{name}{channel}"
            if fitted in self:
                beyond = self.plain(fitted)
                used = Column(used.value - beyond.value, beyond.gradient)
            columns[name] = used.times(pitch)
        return columns

    def error(self, column: Column) -> Array:
        """Standard errors of a column; NaN where they are unknown."""
        if column.gradient is None:
            return np.full(len(column.value), np.nan)
        variance = np.einsum("ki,kij,kj->k", column.gradient, self._covariance, column.gradient)
        return np.sqrt(np.where(variance > 0, variance, np.nan))


def widths_of(curves: SigmaCurves, z: Column) -> tuple[Column, Column]:
    """Widths along x and y [nm] at heights z [nm], which end where the curves do."""
    along_x, along_y = widths_at(np.clip(z.value, curves.z_nm[0], curves.z_nm[-1]), curves)
    assert z.gradient is not None
    return Column(along_x[0], along_x[1][:, None] * z.gradient), Column(
        along_y[0], along_y[1][:, None] * z.gradient
    )


def constant(value: float, number: int) -> Column:
    """The same for all, known without error or not at all."""
    return Column(np.full(number, value), None)


def fill(
    rows: Rows, found: LinkedEstimates, parameters: Parameters, batch: Batch, columns: Mapping[str, Column]
) -> Rows:
    """Put columns, their errors and what the fit says of itself where the rows have room for them.

    The start of a fit is found within it, so `startParams` repeat the result.
    """
    names = rows.dtype.names or ()
    for column in rows.dtype["fitResults"].names or ():
        rows["fitResults"][column] = columns[column].value
        if "fitError" in names:
            rows["fitError"][column] = parameters.error(columns[column])
    if "startParams" in names:
        rows["startParams"] = rows["fitResults"]
    if "nchi2" in names:
        rows["nchi2"] = found.quality[:, 1] / batch.camera.noise_factor**2
    if "LLH" in names:
        rows["LLH"] = -0.5 * found.quality[:, 0]
    if "nFit" in names:
        rows["nFit"] = 1
    rows["resultCode"] = found.quality[:, 3]
    _fill_background(rows, batch)
    return rows


def _fill_background(rows: Rows, batch: Batch) -> None:
    names = rows.dtype.names or ()
    if "subtractedBackground" not in names:
        return
    level = batch.level()
    columns = rows.dtype["subtractedBackground"].names
    if columns is None:
        rows["subtractedBackground"] = level[:, 0]
        return
    for channel, column in enumerate(columns):
        rows["subtractedBackground"][column] = level[:, channel]
