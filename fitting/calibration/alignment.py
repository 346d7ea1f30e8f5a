r"""Where a bead is, to a fraction of a pixel and of a plane, against the mean of others.

With M the mean, in channel c

.. math::

    D_c(z, y, x) \approx a_c \, M_c(z - \zeta, y - \eta_c, x - \xi_c) + b_c

is solved for :math:`\zeta` (one in all channels), :math:`\eta_c, \xi_c, a_c, b_c` by Gauss-Newton least squares; M is shifted by Fourier shift
(`fitting.calibration.subpixel`), with exact derivatives. x and y are free in each channel, because the channels' registration is the
shift field's matter; z is not, so that a second channel keeps its focus relative to the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fitting.calibration.subpixel import FloatArray, along_axes, shift_derivative, shift_matrix

_ITERATIONS = 40
_ARRIVED_PX = 3e-4
_ARRIVED_NM = 0.05
_LATERAL_MARGIN = 2
_AXIAL_MARGIN = 2
_LARGEST_STEP_PX = 1.0
_LARGEST_STEP_NM = 100.0


@dataclass(frozen=True)
class Offset:
    """Where a bead is relative to the mean; one value of y, x, scale and background a channel.

    Attributes
    ----------
    z : float
        [planes]
    y, x : (c,) arrays
        [px]
    scale : (c,) array
        Brightness relative to the mean's.
    background : (c,) array
        [ADU]
    """

    z: float
    y: FloatArray
    x: FloatArray
    scale: FloatArray
    background: FloatArray

    @classmethod
    def none(cls, channels: int) -> Offset:
        """A bead that is the mean."""
        zero, one = np.zeros(channels), np.ones(channels)
        return cls(0.0, zero, zero, one, zero)


def align(mean: FloatArray, bead: FloatArray, start: Offset, step_nm: float) -> Offset:
    """Find the offset of a bead from the mean.

    Parameters
    ----------
    mean, bead : (c, z, y, x) arrays
    start : Offset
        Where to begin; within a pixel in x and y, and within the depth of focus in z.
    step_nm : float
        Distance of planes.

    Returns
    -------
    Offset
    """
    channels = len(mean)
    theta = np.concatenate(
        [[start.z], np.stack([start.y, start.x, start.scale, start.background], 1).ravel()]
    )
    lateral = [1 + 4 * c + axis for c in range(channels) for axis in (0, 1)]
    cut = 0
    for _ in range(_ITERATIONS):
        cut = max(
            cut, _beyond(mean.shape[1], theta[0])
        )  # never fewer: a cut that came and went would not settle
        step = _step(mean, bead, theta, cut)
        step[lateral] = np.clip(step[lateral], -_LARGEST_STEP_PX, _LARGEST_STEP_PX)
        largest_z = _LARGEST_STEP_NM / step_nm
        step[0] = np.clip(step[0], -largest_z, largest_z)
        theta += step
        theta[0] = np.clip(theta[0], -0.4 * mean.shape[1], 0.4 * mean.shape[1])
        theta[lateral] = np.clip(theta[lateral], -0.3 * mean.shape[2], 0.3 * mean.shape[2])
        if abs(step[0]) * step_nm < _ARRIVED_NM and np.abs(step[lateral]).max() < _ARRIVED_PX:
            break
    y, x, scale, background = theta[1:].reshape(channels, 4).T
    return Offset(float(theta[0]), y.copy(), x.copy(), scale.copy(), background.copy())


def _step(mean: FloatArray, bead: FloatArray, theta: FloatArray, cut: int) -> FloatArray:
    channels = len(mean)
    fisher = np.zeros((len(theta), len(theta)))
    gradient = np.zeros(len(theta))
    edge = slice(_LATERAL_MARGIN, -_LATERAL_MARGIN)
    inside = (slice(cut, mean.shape[1] - cut), edge, edge)
    for c in range(channels):
        own = slice(1 + 4 * c, 5 + 4 * c)
        model, columns = _model(mean[c], theta[0], theta[own], inside)
        residual = bead[c][inside].ravel() - model
        index = [0, *range(own.start, own.stop)]
        fisher[np.ix_(index, index)] += columns @ columns.T
        gradient[index] += columns @ residual
    scale = np.sqrt(np.maximum(np.diag(fisher), 1e-300))
    normal = fisher / np.outer(scale, scale) + 1e-9 * np.eye(len(theta))
    result: FloatArray = np.linalg.solve(normal, gradient / scale) / scale
    return result


def _beyond(planes: int, z: float) -> int:
    """How many planes at each end a shift by z fills from beyond the ends."""
    cut = math.ceil(abs(z)) + _AXIAL_MARGIN if abs(z) > 1e-6 else 0
    return min(cut, (planes - 4) // 2)


def _model(
    mean: FloatArray, z: float, own: FloatArray, inside: tuple[slice, slice, slice]
) -> tuple[FloatArray, FloatArray]:
    """Give the model and its derivatives by z, y, x, scale and background, of one channel, in the pixels inside."""
    y, x, scale, background = own
    nz, ny, nx = mean.shape
    sz, sy, sx = (
        shift_matrix(nz, z)[inside[0]],
        shift_matrix(ny, y)[inside[1]],
        shift_matrix(nx, x)[inside[2]],
    )
    gz = shift_derivative(nz, z)[inside[0]]
    gy, gx = shift_derivative(ny, y)[inside[1]], shift_derivative(nx, x)[inside[2]]
    in_z = _rows(sz, mean)
    image = sy @ in_z @ sx.T
    columns = np.stack(
        [
            (scale * (sy @ _rows(gz, mean) @ sx.T)).ravel(),
            (scale * (gy @ in_z @ sx.T)).ravel(),
            (scale * (sy @ in_z @ gx.T)).ravel(),
            image.ravel(),
            np.ones(image.size),
        ]
    )
    return scale * columns[3] + background, columns


def _rows(matrix: FloatArray, volume: FloatArray) -> FloatArray:
    result: FloatArray = (matrix @ volume.reshape(len(volume), -1)).reshape(len(matrix), *volume.shape[1:])
    return result


def straightened(bead: FloatArray, offset: Offset) -> FloatArray:
    """Move a (c, z, y, x) bead onto the mean and give it the mean's brightness, without its background."""
    moved = []
    for c, volume in enumerate(bead):
        nz, ny, nx = volume.shape
        back = (
            shift_matrix(nz, -offset.z),
            shift_matrix(ny, -offset.y[c]),
            shift_matrix(nx, -offset.x[c]),
        )
        moved.append(along_axes((volume - offset.background[c]) / offset.scale[c], *back))
    return np.stack(moved)


def coarse_z(mean: FloatArray, bead: FloatArray) -> int:
    """By how many planes a bead lies above the mean, from the best correlation of overlapping planes."""
    planes = mean.shape[1]
    ours, theirs = (
        np.moveaxis(v - v.mean(axis=(1, 2, 3), keepdims=True), 1, 0).reshape(planes, -1) for v in (mean, bead)
    )
    products = theirs @ ours.T  # of each plane of the bead with each of the mean
    our_power, their_power = (ours**2).sum(axis=1), (theirs**2).sum(axis=1)
    reach: int = max(1, planes // 3)
    scores: list[float] = []
    for d in range(-reach, reach + 1):
        power = (
            our_power[max(0, -d) : planes - max(0, d)].sum()
            * their_power[max(0, d) : planes + min(0, d)].sum()
        )
        scores.append(float(np.trace(products, offset=-d) / np.sqrt(max(power, 1e-300))))
    best: int = scores.index(max(scores))
    return best - reach


def noise_variance(volume: npt.NDArray[np.floating]) -> float:
    """Mean variance of noise that differs from plane to plane, from fourth differences along z of a (z, y, x) volume.

    What changes smoothly along z over five planes does not count. NaN for fewer than five planes.
    """
    if len(volume) < 5:
        return float("nan")
    fourth = np.diff(volume, n=4, axis=0)
    return float((fourth**2).mean() / 70)  # 1² + 4² + 6² + 4² + 1²
