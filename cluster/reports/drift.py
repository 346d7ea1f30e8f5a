"""A drift curve as one picture: x and y against the frame with every marker faint behind, their error, and the path of the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.reports.canvas import FAINT_INK, X_INK, Y_INK, page
from fitting.calibration.drift import DriftCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 20_000


def drift_report(curve: DriftCurve, title: str) -> bytes:
    """Return the report of a drift curve as a PNG."""
    return page(title, (13.0, 7.2), lambda part: _fill(part, curve), curve.notes)


def _fill(part: Any, curve: DriftCurve) -> None:
    axes = part.subplot_mosaic(
        [["x", "path"], ["y", "path"], ["error", "counts"]],
        height_ratios=[2.2, 2.2, 1.4],
        width_ratios=[2.4, 1.0],
    )
    _axis(axes["x"], curve, "x", X_INK)
    _axis(axes["y"], curve, "y", Y_INK)
    _errors(axes["error"], curve)
    _path(part, axes["path"], curve)
    _counts(axes["counts"], curve)


def _axis(axis: Axes, curve: DriftCurve, name: str, ink: str) -> None:
    drift, error = getattr(curve, f"{name}_nm"), getattr(curve, f"{name}_error_nm")
    which = "xy".index(name)
    every = max(1, sum(len(track) for track in curve.tracks) // _MOST_POINTS)
    for k, track in enumerate(curve.tracks):
        own = getattr(track, f"{name}_nm") - curve.places_nm[k, which]
        axis.plot(
            track.frame[::every], own[::every], ".", color=FAINT_INK, alpha=0.5, markersize=3,
            markeredgewidth=0, rasterized=True,
        )  # fmt: skip
    axis.plot([], [], ".", color=FAINT_INK, label="single markers")
    axis.fill_between(curve.frame, drift - 2 * error, drift + 2 * error, color=ink, alpha=0.25, linewidth=0)
    axis.plot(curve.frame, drift, "-", color=ink, linewidth=1.4, label=f"drift in {name} ± 2 standard errors")
    low, high = float((drift - 2 * error).min()), float((drift + 2 * error).max())
    spread = max(0.15 * (high - low), 4 * _single(curve, name))
    axis.set_ylim(low - spread, high + spread)
    axis.set_ylabel(f"drift in {name} [nm]")
    axis.set_xlim(curve.frame[0], max(curve.frame[-1], 1))
    axis.legend(loc="best", markerscale=2)


def _single(curve: DriftCurve, name: str) -> float:
    """Typical error of a single marker [nm]."""
    return float(np.median(np.concatenate([getattr(track, f"{name}_error_nm") for track in curve.tracks])))


def _errors(axis: Axes, curve: DriftCurve) -> None:
    axis.plot(curve.frame, curve.x_error_nm, "-", color=X_INK, linewidth=1.2, label="x")
    axis.plot(curve.frame, curve.y_error_nm, "--", color=Y_INK, linewidth=1.2, label="y")
    axis.axhline(_single(curve, "x"), color=FAINT_INK, linestyle=":", label="a single fit of a marker, x")
    axis.set_ylim(bottom=0)
    axis.set_xlim(curve.frame[0], max(curve.frame[-1], 1))
    axis.set_xlabel("frame")
    axis.set_ylabel("error of the curve [nm]")
    axis.legend(loc="best", ncols=3)


def _path(part: Any, axis: Axes, curve: DriftCurve) -> None:
    step = max(1, len(curve.frame) // 5000)
    shown = axis.scatter(
        curve.x_nm[::step], curve.y_nm[::step], c=curve.frame[::step], cmap="viridis", s=5, linewidths=0,
    )  # fmt: skip
    axis.plot(curve.x_nm[0], curve.y_nm[0], "o", markerfacecolor="none", color="black", label="first frame")
    axis.set_aspect("equal", adjustable="datalim")
    axis.invert_yaxis()
    axis.set_title("path of the sample")
    axis.set_xlabel("x [nm]")
    axis.set_ylabel("y [nm]  (down, as in the image)")
    part.colorbar(shown, ax=axis, label="frame", shrink=0.7)
    axis.legend(loc="best")


def _counts(axis: Axes, curve: DriftCurve) -> None:
    axis.fill_between(curve.frame, 0, curve.markers, step="mid", color=FAINT_INK, linewidth=0)
    axis.set_xlim(curve.frame[0], max(curve.frame[-1], 1))
    axis.set_ylim(0, max(int(curve.markers.max()) + 1, 2))
    axis.locator_params(axis="y", integer=True, nbins=5)
    axis.set_xlabel("frame")
    axis.set_ylabel("markers seen")
