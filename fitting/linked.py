"""One molecule in several channels, or of a PSF with more than one width: the linked fit for ROIs that have been cut out.

The channels share x, y and the shape of the PSF; each has photons and a background of its own. `fitting.linked_kernel` fits,
`fitting.psf_kinds` says what a kind of PSF provides, `fitting.gaussian_kinds` holds the Gaussian ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fitting.errors import InvalidFrames, InvalidSettings
from fitting.gaussian_kinds import AstigmaticPsf, EllipticPsf, GaussianPsf
from fitting.lanes import LANES
from fitting.linked_kernel import fit_linked
from fitting.poisson import QUALITY, UNKNOWN
from fitting.psf_kinds import Psf, Views
from fitting.rois import fill_blanks
from fitting.slots import make_slots

__all__ = [
    "AstigmaticPsf",
    "EllipticPsf",
    "GaussianPsf",
    "Link",
    "LinkedEstimates",
    "estimate_linked",
    "parameter_names",
]

FloatArray = npt.NDArray[np.float32]
_MOST_CHANNELS = 16


class Link(NamedTuple):
    """What the channels have in common.

    x, y and the shape parameters of the PSF are always shared; N and b belong to each channel, unless:

    Attributes
    ----------
    channels : int
    free_shift : bool
        dx, dy [px] of all channels but the first are fitted too, beyond the given shifts.
    ratios : sequence of float, optional
        Share of all photons that each channel gets, one in sum; there is then one N, that of all channels.
    axial_shift_nm : sequence of float, optional
        What is added to z in each channel [nm]; for a PSF with z only.
    free_background : bool
        Fit b; else it is what `extra` says.
    """

    channels: int = 1
    free_shift: bool = False
    ratios: Sequence[float] | None = None
    axial_shift_nm: Sequence[float] | None = None
    free_background: bool = True


class LinkedEstimates(NamedTuple):
    """What the fit found.

    Attributes
    ----------
    names : tuple of str
        Of the parameters, in their order; see `parameter_names`.
    theta : (k, p) float32 array
        x, y, dx, dy [px], x and y from the middle of channel 0's ROI; widths [px of x]; z [nm]; N [e⁻], b [e⁻/px].
    covariance : (k, p, p) float32 array
        Cramér-Rao bound; NaN where the fit left the ROI or its pixels do not determine the parameters.
    quality : (k, 4) float32 array
        Deviance, deviance over its expectation, iterations, result code; see `fitting.mle`. A z that ends at an end
        of what the PSF covers has left its range, code `LEFT_ROI`.
    """

    names: tuple[str, ...]
    theta: FloatArray
    covariance: FloatArray
    quality: FloatArray


def parameter_names(psf: Psf, link: Link) -> tuple[str, ...]:
    """x, y, the shape, N0, N1, … (or N), b0, b1, …, dx1, dy1, …"""
    channels = range(link.channels)
    photons = ["N"] if link.ratios is not None else [f"N{c}" for c in channels]
    background = [f"b{c}" for c in channels] if link.free_background else []
    moves = [f"{axis}{c}" for c in channels[1:] for axis in ("dx", "dy")] if link.free_shift else []
    return ("x", "y", *psf.shape_names, *photons, *background, *moves)


def estimate_linked(
    psf: Psf,
    link: Link,
    data: FloatArray,
    extra: FloatArray,
    number: int,
    side: int,
    shifts: npt.ArrayLike,
    start: npt.ArrayLike | None = None,
) -> LinkedEstimates:
    """Fit the first `number` molecules of a buffer for each channel (see `fitting.rois`).

    Parameters
    ----------
    psf : GaussianPsf, EllipticPsf, AstigmaticPsf, or another kind
    link : Link
    data, extra : (channels, 16 blocks side²) float32 arrays
        C-contiguous; the lanes after the last molecule are overwritten.
    shifts : (number, channels, 2) array
        dx, dy [px]: a molecule at (x, y) of channel 0's ROI appears at (x + dx, y + dy) of the channel's.
    start : (number, p) array, optional
        Where to begin; NaN for a parameter that the fit shall find a start for.

    Raises
    ------
    InvalidSettings
        If the link does not fit the PSF or the number of channels.
    InvalidFrames
        If the arrays have not the shapes that follow from it.
    """
    _check_channels(psf, link)
    names = parameter_names(psf, link)
    size = len(names)
    offsets = _offsets(psf, link)
    slots = make_slots(
        len(psf.shape_names), size, link.channels, _ratios(link), link.free_background, link.free_shift
    )
    _check_shapes(link.channels, number, side, data, extra)
    for c in range(link.channels):
        fill_blanks(data[c], extra[c], number, side, UNKNOWN)
    places = _in_lanes(_table(shifts, "shifts", number, 2 * link.channels))
    views = Views(data.reshape(-1), extra.reshape(-1), data.shape[1], side, link.channels, places, offsets)
    given = np.empty((0, size), np.float32) if start is None else _table(start, "start", number, size)
    theta, covariance, quality = (
        np.empty((number, columns), np.float32) for columns in (size, size * size, QUALITY)
    )
    fit_linked(psf.for_kernel(), slots, views, given, theta, covariance, quality)
    return LinkedEstimates(names, theta, covariance.reshape(number, size, size), quality)


def _check_shapes(channels: int, number: int, side: int, *buffers: FloatArray) -> None:
    """Kernels do not check where they read."""
    least = -(-number // LANES) * LANES * side**2
    for buffer in buffers:
        fits = buffer.ndim == 2 and buffer.shape[0] == channels and buffer.shape[1] >= least
        if not fits or buffer.dtype != np.float32 or not buffer.flags.c_contiguous:
            raise InvalidFrames(
                f"{number} molecules in {channels} channels need C-contiguous float32 buffers of shape "
                f"({channels}, {least}) or longer, not {buffer.shape}, {buffer.dtype}"
            )


def _table(values: npt.ArrayLike, name: str, number: int, columns: int) -> FloatArray:
    table = np.array(values, np.float32, order="C")
    if table.size != number * columns:
        raise InvalidFrames(f"{name} must be {number} rows of {columns} numbers, not of shape {table.shape}")
    return table.reshape(number, columns)


def _ratios(link: Link) -> tuple[float, ...] | None:
    if not 1 <= link.channels <= _MOST_CHANNELS:
        raise InvalidSettings("channels", f"must be from 1 to {_MOST_CHANNELS}, not {link.channels}")
    if link.ratios is None:
        return None
    ratios = tuple(float(ratio) for ratio in link.ratios)
    if len(ratios) != link.channels or not (min(ratios) >= 0 and abs(sum(ratios) - 1) < 1e-3):
        raise InvalidSettings("ratios", f"must be {link.channels} shares of all photons, one in sum")
    return ratios


def _check_channels(psf: Psf, link: Link) -> None:
    if psf.channels not in (1, link.channels):
        raise InvalidSettings(
            "psf", f"holds {psf.channels} channels side by side, but the fit has {link.channels}"
        )


def _offsets(psf: Psf, link: Link) -> FloatArray:
    offsets = np.asarray(
        np.zeros(link.channels) if link.axial_shift_nm is None else link.axial_shift_nm, np.float32
    )
    if offsets.shape != (link.channels,) or not np.isfinite(offsets).all():
        raise InvalidSettings("axial_shift_nm", f"must be {link.channels} lengths")
    if offsets.any() and psf.shape_names != ("z",):
        raise InvalidSettings("axial_shift_nm", "needs a PSF that depends on z")
    return offsets


def _in_lanes(rows: FloatArray) -> FloatArray:
    """(number, columns) → flat [block, column, lane], zeros after the last row."""
    number, columns = rows.shape
    blocks = -(-number // LANES)
    padded = np.zeros((blocks * LANES, columns), np.float32)
    padded[:number] = rows
    return np.ascontiguousarray(padded.reshape(blocks, LANES, columns).transpose(0, 2, 1)).reshape(-1)
