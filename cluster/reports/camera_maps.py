"""Camera maps as one picture: each map, how its values are spread, the photon-transfer curve, and the level of each dark frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.reports.canvas import (
    DARK_INK,
    FAINT_INK,
    MARKED_INK,
    X_INK,
    Y_INK,
    few_decades,
    page,
    show_histogram,
    show_map,
)
from fitting.calibration.camera_maps import CameraMaps
from fitting.calibration.pixel_sums import PixelStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = {"e-^2": "e⁻²", "ADU^2": "ADU²"}


def camera_report(maps: CameraMaps, dark: PixelStatistics, title: str) -> bytes:
    """Return the report of camera maps as a PNG."""
    notes = (*maps.warnings, *maps.notes) or ("Nothing to remark on.",)
    rows = 3 if maps.gains is not None else 2
    return page(
        title, (15.0 if rows == 3 else 13.0, 3.1 * rows), lambda part: _fill(part, maps, dark, rows), notes
    )


def _fill(part: Any, maps: CameraMaps, dark: PixelStatistics, rows: int) -> None:
    unit = _UNITS[maps.variance_unit]
    shown: list[tuple[Any, str, str, str, bool]] = [
        (maps.dark_adu, "offset", "ADU", "cividis", False),
        (maps.variance, "read-noise variance", unit, "magma", True),
    ]
    if maps.gain_adu_per_e is not None and maps.flatfield is not None:
        shown += [
            (maps.gain_adu_per_e, "gain", "ADU/e⁻", "cividis", False),
            (maps.flatfield, "flat field (factor)", "1", "cividis", False),
        ]
    columns = len(shown) if rows == 3 else 3
    axes = part.subplots(rows, columns)
    for column, (values, name, values_unit, colours, logarithmic) in enumerate(shown):
        show_map(part, axes[0, column], values, name, f"{name} [{values_unit}]", colours)
        show_histogram(axes[1, column], values, name, f"{name} [{values_unit}]", logarithmic=logarithmic)
    if rows == 2:
        _levels(axes[0, 2], dark)
        axes[1, 2].set_axis_off()
        return
    _transfer(axes[2, 0], maps)
    _residual(axes[2, 1], maps)
    _gain_errors(axes[2, 2], maps)
    _levels(axes[2, 3], dark)


def _levels(axis: Axes, dark: PixelStatistics) -> None:
    frames = np.arange(len(dark.levels_adu))
    counted = np.delete(frames, dark.left_out)
    size = 2 if len(frames) > 500 else 5
    axis.plot(counted, dark.levels_adu[counted], ".", color=X_INK, markersize=size, markeredgewidth=0)
    if dark.left_out:
        out = list(dark.left_out)
        axis.plot(out, dark.levels_adu[out], "x", color=Y_INK, markersize=5, label="left out")
        axis.legend(loc="best")
    axis.set_title("level of each dark frame")
    axis.set_xlabel("frame")
    axis.set_ylabel("mean of the frame [ADU]")
    axis.ticklabel_format(useOffset=False)


def _transfer(axis: Axes, maps: CameraMaps) -> None:
    assert maps.gains is not None
    found = maps.gains
    line = np.array([0.7 * found.curve_adu.min(), 1.4 * found.curve_adu.max()])
    axis.plot(
        line,
        found.camera_adu_per_e * line,
        "-",
        color=FAINT_INK,
    )
    axis.plot(found.curve_adu, found.curve_adu2, "o", color=X_INK)
    few_decades(axis)
    axis.set_yscale("log")
    axis.set_title(f"photon transfer: {found.camera_adu_per_e:.4g} ADU/e⁻")
    axis.set_xlabel("mean signal over the dark [ADU]")
    axis.set_ylabel("variance over the dark's [ADU²]")


def _residual(axis: Axes, maps: CameraMaps) -> None:
    assert maps.gains is not None
    found = maps.gains
    off = 100 * (found.curve_adu2 / (found.camera_adu_per_e * found.curve_adu) - 1)
    axis.axhline(0, color=FAINT_INK)
    axis.plot(found.curve_adu, off, "o-", color=X_INK)
    reach = max(2.0, 1.3 * float(np.abs(off).max()))
    axis.set_ylim(-reach, reach)
    few_decades(axis)
    axis.set_title("how far levels are from the line")
    axis.set_xlabel("mean signal over the dark [ADU]")
    axis.set_ylabel("variance over the line's − 1 [%]")


def _gain_errors(axis: Axes, maps: CameraMaps) -> None:
    assert maps.gains is not None
    found = maps.gains
    known = np.isfinite(found.pixel_adu_per_e)
    gain, error = found.pixel_adu_per_e[known], found.error_adu_per_e[known]
    reach = 5 * float(np.median(error)) + 3 * float(
        np.std(gain[np.abs(gain - np.median(gain)) < found.camera_adu_per_e])
    )
    middle = found.camera_adu_per_e
    edges = np.linspace(middle - reach, middle + reach, 100)
    axis.hist(np.clip(gain, edges[0], edges[-1]), bins=edges.tolist(), color=X_INK, label="measured")
    law = np.exp(-0.5 * ((edges - middle) / np.median(error)) ** 2)
    law *= len(gain) * (edges[1] - edges[0]) / (np.sqrt(2 * np.pi) * np.median(error))
    axis.plot(edges, law, "--", color=DARK_INK, linewidth=1.2, label="if all were alike")
    replaced = maps.replaced & np.isfinite(found.pixel_adu_per_e)
    if replaced.any():
        axis.plot([], [], "s", color=MARKED_INK, label=f"{int(maps.replaced.sum())} replaced")
        bad = np.clip(found.pixel_adu_per_e[replaced], edges[0], edges[-1])
        axis.hist(bad, bins=edges.tolist(), color=MARKED_INK)
    axis.set_yscale("log")
    axis.set_ylim(0.5, 200 * float(law.max()))
    axis.set_title(f"gain as measured, error {np.median(error):.2g}")
    axis.set_xlabel("gain [ADU/e⁻], ends: all beyond")
    axis.set_ylabel("pixels")
    axis.legend(loc="upper left")
