r"""A measured PSF between its samples: B-spline coefficients, and the weights with which they are summed.

With cardinal B-splines :math:`\beta`, coefficients :math:`c` and everything counted in samples of the volume,

.. math::

    p(u, v, w) = \sum_{klm} c_{klm}\, \beta(w - k)\, \beta(v - l)\, \beta(u - m),

which passes through every sample [1]_. Cubic splines have two continuous derivatives. Four
coefficients count along each axis, and because the pitch of the volume is that of the pixels, their weights are the same for all pixels of a ROI.

Degree one is trilinear, but not through the samples: between two of them a chord lies on one side of a bell, which makes the PSF wider and z wrong. Its
coefficients are those for which it comes nearest to the cubic spline, in the mean square over the volume: with inner products of B-splines, which are
B-splines of higher degree [1]_, along each axis :math:`c = (\beta^3)^{-1} \beta^5 c_{cubic}`. Its own slope jumps at every sample, between
whose two values scoring would go to and fro; its derivative is taken to be its difference over one sample around the place, which is continuous.

Beyond its edges the PSF is 0 along x and y, to where the spline falls smoothly. Along z it ends: the first and last plane are where
the second derivative is 0 (a mirror there, the usual choice, would make the slope 0, and a fit blind to z).

References
----------
.. [1] M. Unser, IEEE Signal Processing Magazine 16 (6), 22 (1999), https://doi.org/10.1109/79.799930.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_banded
from scipy.ndimage import correlate1d, spline_filter1d

from fitting.calibrated import MeasuredPsf
from fitting.errors import InvalidSettings

FloatArray = npt.NDArray[np.float64]

DEGREES = {"cubic": 3, "linear": 1}
"""Interpolators by name, and the degree of their splines."""
TAPS = 4
WINDOW = 16
"""Columns of coefficients that a kernel reads at once, its lanes."""
PAD_Z = 1
"""Planes before the first sample; behind the last there is one more."""
_RING = 6  # samples beyond the edge to which the coefficients of a cubic spline reach, to 4e-4 of what stands at the edge
PAD_Y = _RING + 1
"""Rows before the first sample, of which the outermost is 0; as many behind the last."""
PAD_X = _RING + WINDOW
"""Columns likewise, of which a whole window is 0."""
_BETA_5 = np.array([1, 26, 66, 26, 1]) / 120  # a B-spline of degree 5 at -2 … 2
_NOTHING = 1e-12  # of the largest coefficient; products of smaller ones are denormal numbers, on which processors are slow
_PITCH_TOLERANCE = 0.02
_SCAN_NM = 150.0  # about half a depth of focus
_MOST_SCANNED = 32


class SplinePsf(NamedTuple):
    """A measured PSF, ready to be fitted.

    Attributes
    ----------
    coefficients : (channels, planes + 3, rows + 2 PAD_Y, columns + 2 PAD_X) float32 array
        Of a PSF that sums to 1 over the focus plane, in each channel.
    pitch_nm : float
        Step between planes [nm], in units of the sample's z.
    focus_plane : float
        Plane of z = 0, counted from the first sample.
    degree : int
        3 or 1.
    """

    coefficients: npt.NDArray[np.float32]
    pitch_nm: float
    focus_plane: float
    degree: int = 3

    @property
    def channels(self) -> int:
        """How many channels were measured; one serves all."""
        return len(self.coefficients)

    @property
    def shape_names(self) -> tuple[str, ...]:
        """The height z [nm]."""
        return ("z",)

    def for_kernel(self) -> tuple[Any, ...]:
        """As kernels see it."""
        from fitting.spline_kind import Splines  # the rest of this module is used where no kernel is loaded

        channels, planes, rows, columns = self.coefficients.shape
        steps = planes - TAPS
        return Splines(
            self.coefficients.reshape(-1), channels, planes, rows, columns, steps,
            np.float32(-self.focus_plane * self.pitch_nm), np.float32(self.pitch_nm), self.degree,
            int(np.clip(round(steps * self.pitch_nm / _SCAN_NM), 5, _MOST_SCANNED)),
        )  # fmt: skip


def spline_psf(
    measured: MeasuredPsf,
    *,
    pixel_nm: float | tuple[float, float],
    interpolator: str = "cubic",
    refractive_index_factor: float = 1.0,
) -> SplinePsf:
    """Make the splines of a measured PSF.

    Parameters
    ----------
    measured : MeasuredPsf
        Its middle, (n - 1)/2 of each axis, is where the molecule is.
    pixel_nm : float or (float, float)
        Pixel of the data, or its width and height [nm].
    interpolator : {"cubic", "linear"}
    refractive_index_factor : float
        By how much the focus moves in the sample for a step of the stage [1]; scales z.

    Raises
    ------
    InvalidSettings
        If there is no such interpolator, the factor is not positive, the pitch of the PSF is not that of the data (to 2 %), or the focus plane is
        outside the stack or dark.
    """
    if interpolator not in DEGREES:
        raise InvalidSettings(
            "interpolator", f"there is no interpolator {interpolator!r}; there are {', '.join(DEGREES)}"
        )
    if not 0.1 <= refractive_index_factor <= 10:
        raise InvalidSettings(
            "refractive_index_factor", f"must be from 0.1 to 10, not {refractive_index_factor}"
        )
    _check_pitch(measured, pixel_nm)
    degree = DEGREES[interpolator]
    pitch_nm = measured.step_nm * refractive_index_factor
    coefficients = np.stack([_coefficients(channel, degree) for channel in _normalised(measured)])
    coefficients[abs(coefficients) < _NOTHING * abs(coefficients).max()] = 0.0
    return SplinePsf(
        np.ascontiguousarray(coefficients, np.float32),
        float(pitch_nm),
        float(measured.focus_plane),
        degree,
    )


def _check_pitch(measured: MeasuredPsf, pixel_nm: float | tuple[float, float]) -> None:
    for pixel in np.atleast_1d(pixel_nm):
        if not abs(measured.pixel_nm - pixel) <= _PITCH_TOLERANCE * pixel:
            raise InvalidSettings(
                "psf",
                f"has pixels of {measured.pixel_nm:g} nm, the data have {pixel:g} nm: measure it with the camera and magnification of the data",
            )


def _normalised(measured: MeasuredPsf) -> list[FloatArray]:
    volume = np.asarray(measured.volume, np.float64)
    focus = measured.focus_plane
    if not 0 <= focus <= len(volume) - 1:
        raise InvalidSettings("psf", f"has its focus at plane {focus:g}, outside its {len(volume)} planes")
    channels = np.split(volume, measured.channels, axis=2)
    sums = [float(np.interp(focus, np.arange(len(volume)), c.sum(axis=(1, 2)))) for c in channels]
    if not min(sums) > 0:
        raise InvalidSettings("psf", f"is dark at its focus, plane {focus:g}")
    return [channel / total for channel, total in zip(channels, sums, strict=True)]


def _coefficients(channel: FloatArray, degree: int) -> FloatArray:
    ring = ((0, 0), (_RING, _RING), (_RING, _RING))
    padded = np.pad(channel, ring)
    for axis in (1, 2):
        padded = spline_filter1d(padded, 3, axis=axis, mode="mirror")
    padded = _filter_z(padded)
    if degree == 1:
        padded = _nearest_linear(padded)
    ends = 2 * padded[:1] - padded[1:2], 2 * padded[-1:] - padded[-2:-1]
    along_z = np.concatenate([ends[0], padded, ends[1], np.zeros_like(ends[1])])
    return np.pad(along_z, ((0, 0), (PAD_Y - _RING,) * 2, (PAD_X - _RING,) * 2))


def _nearest_linear(cubic: FloatArray) -> FloatArray:
    """Samples of the trilinear function that is nearest to a cubic spline with these coefficients."""
    result = cubic
    for axis in (1, 2):
        seen = correlate1d(result, _BETA_5, axis=axis, mode="mirror")
        result = spline_filter1d(seen, 3, axis=axis, mode="mirror")
    # along z a spline goes on straight, where its second derivative is 0
    beyond = min(_RING, len(result) - 1)
    longer = np.pad(result, ((beyond, beyond), (0, 0), (0, 0)), mode="reflect", reflect_type="odd")
    nearest = _filter_z(correlate1d(longer, _BETA_5, axis=0, mode="nearest"))
    return nearest[beyond : len(nearest) - beyond]


def _filter_z(volume: FloatArray) -> FloatArray:
    """Coefficients along z of a cubic spline that passes through the planes, its second derivative 0 at the first and last."""
    planes = len(volume)
    bands = np.tile([[1 / 6], [4 / 6], [1 / 6]], (1, planes))
    bands[1, [0, -1]] = 1.0
    bands[0, 1] = bands[2, -2] = 0.0
    solved: FloatArray = solve_banded((1, 1), bands, volume.reshape(planes, -1))
    return solved.reshape(volume.shape)
