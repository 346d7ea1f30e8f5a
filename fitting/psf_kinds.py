"""What a kind of PSF has to provide to be fitted, in any number of channels, by `fitting.linked_kernel`.

A kind is a NamedTuple of numbers and arrays, as the kernel sees it, and for each operation below a function that is registered for it with
`fitting.kernel.provides`; numba chooses among them by the type of the NamedTuple when it compiles the kernel, once for each kind, so
no kind pays for another::

    @provides(equations, MyPsf)
    def _my_equations(psf, views, channel, first, local, gradient, fisher, work): ...

In Python its public face needs three attributes: `shape_names`, the names of its shape parameters (``("z",)``), `channels`, usually 1, and `for_kernel()`, which gives the
NamedTuple for the kernel (itself, if it likes). Its module must have been imported before the kernel is compiled, which is so for whoever holds one.

The functions must not allocate: what they need is in `work`, a flat float32 array of `scratch` numbers, the same one in every call (slices of it are free).

All numbers are sixteen lanes each (`fitting.lanes`), and arrays of them flat float32 arrays, number k at offset ``k * LANES``.
With S shape parameters, a channel's own parameters `local` are x, y [px from the middle of the channel's ROI], the shape, N [e⁻], b [e⁻/px]: 4 + S numbers.
The model is μ = N h(x, y, shape) + b + extra, and h, the share of the photons that falls on each pixel, is what the kind is about.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from fitting.kernel import only_in_kernels


class Views(NamedTuple):
    """The ROIs of all channels, as kernels see them.

    Attributes
    ----------
    data, extra : flat float32 arrays
        See `fitting.rois`; channel c begins at ``c * stride``.
    stride, side, channels : int
    shifts : flat float32 array
        dx, dy [px], indexed [block, channel, dx or dy, lane].
    offsets : (channels,) float32 array
        What is added to the shape parameters in each channel: the axial shift [nm], else 0.
    """

    data: Any
    extra: Any
    stride: int
    side: int
    channels: int
    shifts: Any
    offsets: Any


class Psf(Protocol):
    """The public face of a kind."""

    @property
    def shape_names(self) -> tuple[str, ...]:
        """Names of the shape parameters."""
        ...

    @property
    def channels(self) -> int:
        """Of how many channels the PSF is known, each by itself; one serves all."""
        ...

    def for_kernel(self) -> tuple[Any, ...]:
        """The NamedTuple that operations are registered for."""
        ...


def scratch(psf: Any, views: Views) -> int:
    """How many float32 numbers `work` has to hold; it is the same array in all calls for a block and the blocks after it."""
    only_in_kernels(psf, views)


def trials(psf: Any) -> int:
    """How many starts are tried; the fit with the highest likelihood is kept, lane by lane."""
    only_in_kernels(psf)


def begin(psf: Any, trial: int, views: Views, block: int, theta: Any, slots: Any, work: Any) -> Any:
    """Write the start of trial number `trial` into `theta`, the parameters of the fit (all channels); gives the lanes that this trial is for.

    On entry x, y, N and b of every channel are there, from moments; the shape parameters, numbers 2 to 1 + S, are not, and must be
    written. The others may be improved: `slots` (a `fitting.slots.Slots`) says where they are.
    """
    only_in_kernels(psf, trial, views, block, theta, slots, work)


def equations(
    psf: Any, views: Views, channel: int, first: int, local: Any, gradient: Any, fisher: Any, work: Any
) -> None:
    r"""Write what a channel says: gradient and Fisher matrix of its log-likelihood in its own parameters.

    With h' the derivative of h by x, y, shape, h itself for N, and 1 for b (no factor N, which the kernel multiplies by):
    gradient_k = Σ (data/μ - 1) h'_k, fisher_kl = Σ h'_k h'_l/μ. μ is at least `fitting.poisson.LEAST_MEAN`.

    Parameters
    ----------
    first : int
        Where the channel's ROI begins in `views.data` and `views.extra`; its pixels are [y, x, lane] from there.
    local : (16 (4 + S),) float32 array
    gradient : (16 (4 + S),) float32 array
        Out.
    fisher : (16 (4 + S)²,) float32 array
        Out, indexed [k, l]; the upper triangle, k ≤ l, is enough.
    work : (scratch,) float32 array
    """
    only_in_kernels(psf, views, channel, first, local, gradient, fisher, work)


def image(psf: Any, views: Views, channel: int, local: Any, share: Any, work: Any) -> None:
    """Write h of every pixel to `share` (16 side²), indexed [y, x, lane]."""
    only_in_kernels(psf, views, channel, local, share, work)


def limits(psf: Any, shape: int, side: int) -> tuple[Any, Any, Any]:
    """Lowest and highest value of a shape parameter, counted from 0, and the result code of a fit that ends on one of them; float32."""
    only_in_kernels(psf, shape, side)


def longest_step(psf: Any, theta: Any, parameter: int) -> Any:
    """How far a parameter may move in a step, lanes; `parameter` is 0 for every position [px], 2 and on for the shape."""
    only_in_kernels(psf, theta, parameter)
