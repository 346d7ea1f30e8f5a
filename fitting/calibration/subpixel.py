r"""Shifts by fractions of a pixel: Fourier shift along each axis, of a signal continued by its mirror image.

A signal f of n samples is continued to 2n samples by its mirror image, so that it ends where it begins and does not ring at its ends, and

.. math::

    f(i - d) = \sum_j S_{ij}(d) \, f_j, \qquad S = P \, F^{-1} e^{-2 \pi \mathrm{i} k d} F \, E

with F the Fourier transform of 2n samples, k its frequencies, E the continuation and P the first n samples. For images of beads n is small, and a
shift of a volume is three matrix products.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def shift_matrix(n: int, d: float) -> FloatArray:
    """Give the (n, n) matrix that moves a signal by `d` samples towards higher indices."""
    k = np.fft.fftfreq(2 * n)
    return _folded(np.fft.ifft(np.exp(-2j * np.pi * k * d)).real, n)


def shift_derivative(n: int, d: float) -> FloatArray:
    """Give the derivative of `shift_matrix` with respect to `d`."""
    k = np.fft.fftfreq(2 * n)
    return _folded(np.fft.ifft(-2j * np.pi * k * np.exp(-2j * np.pi * k * d)).real, n)


def _folded(response: FloatArray, n: int) -> FloatArray:
    """The circular convolution with `response`, of a mirrored signal, as a matrix on the signal itself."""
    i = np.arange(n)[:, np.newaxis]
    j = np.arange(n)[np.newaxis, :]
    result: FloatArray = response[(i - j) % (2 * n)] + response[(i - (2 * n - 1 - j)) % (2 * n)]
    return result


def along_axes(volume: FloatArray, z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
    """Apply one matrix along each axis of a (z, y, x) volume."""
    planes = (z @ volume.reshape(len(volume), -1)).reshape(volume.shape)
    result: FloatArray = y @ planes @ x.T
    return result


def shifted(volume: FloatArray, dz: float, dy: float, dx: float) -> FloatArray:
    """Move a (z, y, x) volume by dz, dy, dx samples."""
    nz, ny, nx = volume.shape
    return along_axes(volume, shift_matrix(nz, dz), shift_matrix(ny, dy), shift_matrix(nx, dx))
