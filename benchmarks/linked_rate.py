"""How fast are the linked fits beside the 2-D fit, on one core, and how close to the bound?

    python benchmarks/linked_rate.py [--rois N] [--repeats N] [--quick]

Every fit and the 2-D one take turns on ROIs of the same side in the same run, in processor time; a figure is a median, a ratio the median of
the ratios of single turns. From packed ROIs to parameters with their covariance. Prints one JSON line: for each ROI side
the 2-D fit's rate and, for each linked fit, rate, ratio to it, and RMSE over the Cramér–Rao bound of x (and z).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from scipy.special import erf
from surroundings import surroundings

from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.estimators import Estimates, estimate
from fitting.linked import AstigmaticPsf, EllipticPsf, GaussianPsf, Link, LinkedEstimates, estimate_linked
from fitting.rois import pack
from fitting.spline import SplinePsf, spline_psf

SIDES = (7, 11, 13, 15)
PIXEL_NM = 100.0
PHOTONS, BACKGROUND = 1000.0, 20.0
TOGETHER = 2048  # ROIs in one buffer, as in the pipeline
CURVES = SigmaCurves.from_defocus(np.linspace(-700, 700, 71), (130, 200, 400, 0, 0), (130, -200, 400, 0, 0))


class Scene(NamedTuple):
    """Packed ROIs of all channels, with their truth: columns x, y and, where it has any, z."""

    data: Any
    extra: Any
    shifts: Any
    truth: Any


class Fit(NamedTuple):
    """A fit and what it is shown."""

    run: Callable[[Scene, int], Estimates | LinkedEstimates]
    scene: Callable[[int, int], Scene]


def main() -> None:
    arguments = _arguments()
    count, repeats = (512, 3) if arguments.quick else (arguments.rois, arguments.repeats)
    result: dict[str, Any] = {"benchmark": "linked_rate", "rois": count, "repeats": repeats}
    for side in SIDES:
        result[f"{side}x{side}"] = _measure(side, count, repeats)
    print(json.dumps(result | surroundings()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rois", type=int, default=TOGETHER, help="ROIs in one run")
    parser.add_argument("--repeats", type=int, default=51, help="turns of which the median counts")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


def _plain(scene: Scene, side: int) -> Estimates:
    return estimate("mle", scene.data[0], scene.extra[0], len(scene.truth), side, 1.3)


def _linked(psf: Any, link: Link) -> Callable[[Scene, int], LinkedEstimates]:
    return lambda scene, side: estimate_linked(
        psf, link, scene.data, scene.extra, len(scene.truth), side, scene.shifts
    )


def _round(channels: int) -> Callable[[int, int], Scene]:
    return lambda count, side: _scene(count, side, channels, by_z=False)


def _by_z(channels: int) -> Callable[[int, int], Scene]:
    return lambda count, side: _scene(count, side, channels, by_z=True)


def _measured() -> SplinePsf:
    """The astigmatic Gaussian as somebody would have measured it: 29 planes of 31 × 31 px."""
    z = np.linspace(-700, 700, 29)
    along_x, along_y = (_share(np.zeros(29), s, 31) for s in _widths(z))
    volume = (along_y[:, :, np.newaxis] * along_x[:, np.newaxis]).astype(np.float32)
    return spline_psf(MeasuredPsf(volume, PIXEL_NM, 50.0, 14.0), pixel_nm=PIXEL_NM)


def fits() -> dict[str, Fit]:
    """The fits by name; the first is the one that the others are measured against."""
    return {
        "gaussian_2d": Fit(_plain, _round(1)),
        "elliptic": Fit(_linked(EllipticPsf(1.3), Link()), _by_z(1)),
        "astigmatic_z": Fit(_linked(AstigmaticPsf.from_curves(CURVES, PIXEL_NM), Link()), _by_z(1)),
        "spline": Fit(_linked(_measured(), Link()), _by_z(1)),
        "spline_two_channels": Fit(_linked(_measured(), Link(2)), _by_z(2)),
        "two_channels": Fit(_linked(GaussianPsf(1.3), Link(2)), _round(2)),
        "three_channels": Fit(_linked(GaussianPsf(1.3), Link(3)), _round(3)),
        "two_channels_free_shift": Fit(_linked(GaussianPsf(1.3), Link(2, free_shift=True)), _round(2)),
    }


def _measure(side: int, count: int, repeats: int) -> dict[str, Any]:
    all_fits = fits()
    scenes = {name: fit.scene(count, side) for name, fit in all_fits.items()}
    found = {name: fit.run(scenes[name], side) for name, fit in all_fits.items()}
    times: dict[str, list[float]] = {name: [] for name in all_fits}
    for _ in range(repeats):
        for name, fit in all_fits.items():
            start = time.process_time()
            fit.run(scenes[name], side)
            times[name].append(time.process_time() - start)
    own = times["gaussian_2d"]
    return {
        name: {
            "fits_per_s": round(count / median(times[name])),
            "ratio_to_2d": round(median(a / b for a, b in zip(own, times[name], strict=True)), 3),
            **_quality(scenes[name], found[name]),
        }
        for name in all_fits
    }


def _quality(scene: Scene, found: Estimates | LinkedEstimates) -> dict[str, float]:
    good = found.quality[:, 3] == 1
    variances = found.covariance
    if isinstance(found, LinkedEstimates):
        variances = np.diagonal(found.covariance, axis1=1, axis2=2)
    columns = {"x": 0} | ({"z": 2} if "z" in getattr(found, "names", ()) else {})
    return {
        "converged": round(float(good.mean()), 4),
        "iterations": round(float(found.quality[:, 2].mean()), 2),
        **{
            f"rmse_over_crlb_{name}": round(
                float(
                    np.sqrt(((found.theta[good, k] - scene.truth[good, k]) ** 2 / variances[good, k]).mean())
                ),
                3,
            )
            for name, k in columns.items()
        },
    }


def _scene(count: int, side: int, channels: int, *, by_z: bool) -> Scene:
    rng = np.random.default_rng((20261126, side, channels, int(by_z)))
    x, y = rng.uniform(-0.5, 0.5, (2, count))
    z = rng.uniform(-400, 400, count)
    widths = _widths(z) if by_z else (np.full(count, 1.3), np.full(count, 1.3))
    shifts = np.zeros((count, channels, 2))
    shifts[:, 1:] = rng.uniform(-0.5, 0.5, (count, channels - 1, 2))
    data, extra = np.empty((2, channels, -(-count // 16) * 16 * side**2), np.float32)
    none = np.zeros((1, 1, 1), np.float32)
    for c in range(channels):
        along_x = _share(x + shifts[:, c, 0], widths[0], side)
        along_y = _share(y + shifts[:, c, 1], widths[1], side)
        expected = PHOTONS / channels * along_y[:, :, np.newaxis] * along_x[:, np.newaxis] + BACKGROUND
        pack(rng.poisson(expected).astype(np.float32), none, none, False, 0, count, data[c], extra[c])
    return Scene(data, extra, shifts, np.column_stack([x, y, z]))


def _widths(z: Any) -> tuple[Any, Any]:
    return 1.3 * np.sqrt(1 + ((z - 200) / 400) ** 2), 1.3 * np.sqrt(1 + ((z + 200) / 400) ** 2)


def _share(centre: Any, s: Any, side: int) -> Any:
    edges = (np.arange(side + 1) - side / 2 - centre[:, np.newaxis]) / (np.sqrt(2) * s[:, np.newaxis])
    return np.diff(0.5 * erf(edges))


if __name__ == "__main__":
    main()
