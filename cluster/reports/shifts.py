"""A shift field as one picture: the vectors over the field, the field itself, what is left, and what each model would leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.reports.canvas import DARK_INK, FAINT_INK, MARKED_INK, X_INK, Y_INK, colour_bar, page
from fitting.calibration.shift_vectors import Box, ShiftFit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = 60
_ARROWS = 400
_BINS = 40


def shifts_report(fit: ShiftFit, title: str, box_nm: Box | None = None) -> bytes:
    """Return the report of a shift field as a PNG; `box_nm` (x0, y0, x1, y1) is the field of view."""
    return page(title, (13.0, 7.6), lambda part: _fill(part, fit, box_nm), fit.notes)


def _fill(part: Any, fit: ShiftFit, box_nm: Box | None) -> None:
    axes = part.subplots(2, 3)
    used = fit.beads.select(fit.kept)
    box = (used.x_nm.min(), used.x_nm.max(), used.y_nm.min(), used.y_nm.max())
    if box_nm is not None:
        box = (box_nm[0], box_nm[2], box_nm[1], box_nm[3])
    _vectors(axes[0, 0], fit, box)
    _field(part, axes[0, 1], fit, box, 0)
    _field(part, axes[0, 2], fit, box, 1)
    _residuals(axes[1, 0], fit, box)
    _histogram(axes[1, 1], fit)
    _models(axes[1, 2], fit)


def _frame(axis: Axes, box: tuple[float, ...]) -> None:
    x0, x1, y0, y1 = (edge / 1000 for edge in box)
    edge = 0.04 * max(x1 - x0, y1 - y0)
    axis.set_xlim(x0 - edge, x1 + edge)
    axis.set_ylim(y1 + edge, y0 - edge)
    axis.set_aspect("equal")
    axis.set_xlabel("x [µm]")
    axis.set_ylabel("y [µm]")


def _arrows(
    axis: Axes, x: Any, y: Any, dx: Any, dy: Any, colour: str, scale: float, width: float = 0.004
) -> Any:
    return axis.quiver(
        x / 1000, y / 1000, dx, dy,
        color=colour, angles="xy", scale_units="xy", scale=scale, width=width, zorder=3,
    )  # fmt: skip


def _scale(lengths: Any, box: tuple[float, ...]) -> tuple[float, float]:
    """How many nm each µm of an arrow stands for, and a round length for the key [nm]."""
    long = max(float(np.quantile(lengths, 0.95)), 1e-6)
    extent = max(box[1] - box[0], box[3] - box[2]) / 1000
    power = 10 ** np.floor(np.log10(long))
    key = float(power * max(step for step in (1, 2, 5) if step * power <= long * 1.0001))
    return long / (0.1 * extent), key


def _vectors(axis: Axes, fit: ShiftFit, box: tuple[float, ...]) -> None:
    beads, kept = fit.beads, fit.kept
    mean_x, mean_y = float(np.median(beads.dx_nm[kept])), float(np.median(beads.dy_nm[kept]))
    dx, dy = beads.dx_nm - mean_x, beads.dy_nm - mean_y
    scale, key = _scale(np.hypot(dx, dy)[kept], box)
    chosen = np.flatnonzero(kept)[:: max(1, int(kept.sum()) // _ARROWS)]
    arrows = _arrows(axis, beads.x_nm[chosen], beads.y_nm[chosen], dx[chosen], dy[chosen], X_INK, scale)
    out = ~kept
    axis.plot(
        beads.x_nm[out] / 1000, beads.y_nm[out] / 1000, "x", color=Y_INK, markersize=5,
        label=f"left out ({int(out.sum())})",
    )  # fmt: skip
    axis.quiverkey(arrows, 0.8, -0.17, key, f"{key:g} nm", labelpos="E", coordinates="axes")
    axis.set_title(f"shifts less their median ({mean_x:+.0f}, {mean_y:+.0f}) nm")
    _frame(axis, box)
    if out.any():
        axis.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.14), borderaxespad=0)


def _field(part: Any, axis: Axes, fit: ShiftFit, box: tuple[float, ...], which: int) -> None:
    x, y = np.linspace(box[0], box[1], _GRID), np.linspace(box[2], box[3], _GRID)
    grid_x, grid_y = np.meshgrid(x, y)
    values = fit.field.at(grid_x, grid_y)[which]
    shown = axis.imshow(
        values, extent=(box[0] / 1000, box[1] / 1000, box[3] / 1000, box[2] / 1000), cmap="cividis",
        origin="upper", interpolation="bilinear",
    )  # fmt: skip
    name = ("dx", "dy")[which]
    colour_bar(part, axis, shown, f"{name} [nm]")
    outside = fit.is_extrapolated(grid_x.ravel(), grid_y.ravel()).reshape(grid_x.shape)
    if outside.any() and not outside.all():
        axis.contour(
            x / 1000, y / 1000, outside, levels=[0.5], colors="white", linestyles=":", linewidths=1.2
        )
    kept = fit.kept
    axis.plot(fit.beads.x_nm[kept] / 1000, fit.beads.y_nm[kept] / 1000, ".", color="white", markersize=1.5)
    axis.set_title(f"field {name} ({fit.model}); dotted: beyond the beads")
    _frame(axis, box)


def _residuals(axis: Axes, fit: ShiftFit, box: tuple[float, ...]) -> None:
    beads, kept = fit.beads, fit.kept
    rx, ry = fit.residual_x_nm, fit.residual_y_nm
    scale, key = _scale(np.hypot(rx, ry)[kept], box)
    chosen = np.flatnonzero(kept)[:: max(1, int(kept.sum()) // _ARROWS)]
    arrows = _arrows(
        axis, beads.x_nm[chosen], beads.y_nm[chosen], rx[chosen], ry[chosen], DARK_INK, scale, 0.003
    )
    axis.quiverkey(arrows, 0.8, -0.17, key, f"{key:g} nm", labelpos="E", coordinates="axes")
    axis.set_title("what the field leaves: it should have no pattern")
    _frame(axis, box)


def _histogram(axis: Axes, fit: ShiftFit) -> None:
    rms = fit.rms_nm
    rest = [residual[fit.kept] for residual in (fit.residual_x_nm, fit.residual_y_nm)]
    reach = max(float(np.quantile(np.abs(np.concatenate(rest)), 0.995)), 1e-3)
    edges = np.linspace(-reach, reach, _BINS).tolist()
    for values, ink, name, line, wide in zip(rest, (X_INK, Y_INK), "xy", ("-", "--"), rms, strict=True):
        axis.hist(
            values, bins=edges, histtype="step", color=ink, linestyle=line, linewidth=1.6,
            label=f"{name}: {wide:.1f} nm rms",
        )  # fmt: skip
    axis.set_ylim(top=1.25 * axis.get_ylim()[1])
    axis.set_title(f"residuals of {int(fit.kept.sum())} beads")
    axis.set_xlabel("bead less field [nm]")
    axis.set_ylabel("beads")
    axis.legend(loc="upper right")


def _models(axis: Axes, fit: ShiftFit) -> None:
    names = list(fit.cross_validated_nm)
    values = [fit.cross_validated_nm[name] for name in names]
    inks = [X_INK if name == fit.model else FAINT_INK for name in names]
    axis.barh(range(len(names)), values, color=inks, height=0.6)
    for k, value in enumerate(values):
        axis.text(value, k, f" {value:.1f} nm", va="center")
    axis.axvline(_expected(fit), color=MARKED_INK, linestyle=":")
    axis.set_yticks(range(len(names)), labels=names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.25 * max([*values, _expected(fit)]))
    axis.set_title("beads that the fit has not seen")
    axis.set_xlabel("rms from the field along an axis [nm]; dotted: errors of the fits")


def _expected(fit: ShiftFit) -> float:
    used = fit.beads.select(fit.kept)
    return float(np.sqrt(np.mean(np.concatenate([used.dx_error_nm, used.dy_error_nm]) ** 2)))
