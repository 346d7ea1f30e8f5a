"""A PSF calibration as one picture: the PSF in planes and sections, how far beads agree, widths, the precision to expect, and the findings."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cluster.reports.canvas import DARK_INK, X_INK, Y_INK, drawn
from fitting.calibration.calibrate_psf import PsfCalibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEVEL_COLOURS: Final = {"warning": "#B00020", "note": "#8A5A00", "good": "#2B6A4B"}
_LEVEL_WORDS: Final = {"warning": "warning", "note": "note", "good": "ok"}
_INCHES: Final = (13.5, 10.5)
_PLANES: Final = 7
_MOST_POINTS: Final = 6000


def psf_report(calibration: PsfCalibration, title: str) -> bytes:
    """Return the report of a calibration as a PNG."""
    return drawn(_INCHES, title, partial(_fill, calibration))


def _fill(calibration: PsfCalibration, figure: Any) -> None:
    parts: Any = figure.subfigures(4, 1, height_ratios=[1.7, 3.0, 3.2, 2.0])
    top, middle, bottom, words = parts
    _draw_planes(top, calibration)
    _draw_sections(middle, calibration)
    widths, place, precision = bottom.subplots(1, 3)
    _draw_widths(widths, calibration)
    _draw_place(place, calibration)
    _draw_precision(precision, calibration)
    _write_findings(words, calibration)


def _channels(calibration: PsfCalibration) -> list[Any]:
    psf = calibration.psf
    return np.split(psf.volume, psf.channels, axis=2)


def _draw_planes(part: Any, calibration: PsfCalibration) -> None:
    """Planes at even distances from the focus, each in its own scale."""
    psf = calibration.psf
    z = (np.arange(len(psf.volume)) - psf.focus_plane) * psf.step_nm
    reach = 0.92 * min(-z[0], z[-1])
    heights = _round_heights(reach) if reach > 0 else np.linspace(z[0], z[-1], _PLANES)
    axes = part.subplots(1, _PLANES)
    for k, (axis, height) in enumerate(zip(axes, heights, strict=True)):
        image = _plane_at(psf.volume, z, height)
        axis.imshow(image, cmap="gray", vmin=0, vmax=float(image.max()))
        axis.set_title(f"z = {height:+.0f} nm" if height else "z = 0", loc="center")
        axis.set_xticks([])
        axis.set_yticks([])
        if k == 0:
            _scale_bar(axis, psf.pixel_nm, psf.volume.shape[1])
    axes[0].set_ylabel("x →,  y ↓")


def _round_heights(reach_nm: float) -> Any:
    """Even, round distances from the focus that reach nearly as far as the planes."""
    step = reach_nm / (_PLANES // 2)
    unit = next((unit for unit in (50.0, 10.0, 1.0) if step >= unit), step)
    return np.arange(-(_PLANES // 2), _PLANES // 2 + 1) * (step // unit * unit)


def _plane_at(volume: Any, z_nm: Any, height_nm: float) -> Any:
    """The PSF at a height, between its two nearest planes in proportion."""
    position = float(np.clip(np.interp(height_nm, z_nm, np.arange(len(z_nm))), 0, len(z_nm) - 1))
    below = min(int(position), len(volume) - 2)
    share = position - below
    return (1 - share) * volume[below] + share * volume[below + 1]


def _scale_bar(axis: Axes, pixel_nm: float, height: int) -> None:
    length_px = 1000 / pixel_nm
    low = height - 2.0
    axis.plot([0.5, 0.5 + length_px], [low, low], color="white", linewidth=2.5, solid_capstyle="butt")
    axis.text(0.5 + length_px / 2, low - 1.0, "1 µm", color="white", ha="center", va="bottom", fontsize=8)


def _draw_sections(part: Any, calibration: PsfCalibration) -> None:
    """Sections through the middle, x-z and y-z, of each channel; and where beads differ."""
    psf = calibration.psf
    channels = _channels(calibration)
    axes = np.atleast_1d(part.subplots(1, 2 * len(channels) + 1))
    highest = max(float(volume.max()) for volume in channels)
    shown = None
    for c, volume in enumerate(channels):
        named = f", channel {c}" if len(channels) > 1 else ""
        middle_y, middle_x = volume.shape[1] // 2, volume.shape[2] // 2
        sections = (("x", volume[:, middle_y, :]), ("y", volume[:, :, middle_x]))
        for axis, (direction, section) in zip(axes[2 * c : 2 * c + 2], sections, strict=True):
            shown = _section(axis, section, calibration, "magma", 0, highest, gamma=0.5)
            axis.axhline(0, color="white", linewidth=0.8, linestyle=(0, (4, 4)))
            axis.set_title(f"{direction}–z section{named}")
            axis.set_xlabel(f"{direction} [nm]")
    axes[0].set_ylabel("z [nm]  (dashed: focus)")
    bar = part.colorbar(
        shown, ax=axes[-2], label="share of the light in a pixel [%]\n(square-root scale)", shrink=0.85
    )
    ticks = [share * highest for share in (0, 0.05, 0.2, 0.5, 1)]
    bar.set_ticks(ticks, labels=[f"{100 * tick:.2g}" for tick in ticks])
    _draw_spread(part, axes[-1], calibration, psf.volume.shape[0])


def _draw_spread(part: Any, axis: Axes, calibration: PsfCalibration, planes: int) -> None:
    report = calibration.report
    axis.set_title("how much beads differ, x–z")
    axis.set_xlabel("x [nm]")
    if report.quality.beads_used < 2:
        axis.text(
            0.5, 0.5, "one bead:\nnothing to compare", ha="center", va="center", transform=axis.transAxes
        )
        axis.set_axis_off()
        return
    section = 100 * report.spread[:planes, report.spread.shape[1] // 2, :] / report.mean.max()
    shown = _section(axis, section, calibration, "cividis", 0, max(float(section.max()), 0.1))
    part.colorbar(
        shown, ax=axis, label="standard deviation between beads\n[% of the PSF's peak]", shrink=0.85
    )


def _section(
    axis: Axes,
    section: Any,
    calibration: PsfCalibration,
    colours: str,
    low: float,
    high: float,
    gamma: float = 1.0,
) -> Any:
    from matplotlib.colors import PowerNorm

    psf = calibration.psf
    half_nm = section.shape[1] / 2 * psf.pixel_nm
    first = (-0.5 - psf.focus_plane) * psf.step_nm
    last = (len(section) - 0.5 - psf.focus_plane) * psf.step_nm
    axis.locator_params(axis="x", nbins=3)
    norm = PowerNorm(gamma, vmin=low, vmax=high, clip=True)
    return axis.imshow(
        section,
        extent=(-half_nm, half_nm, first, last),
        origin="lower",
        cmap=colours,
        norm=norm,
        aspect="auto",
    )


def _chosen(calibration: PsfCalibration) -> tuple[Any, Any]:
    """Which points to draw, and their z."""
    z = calibration.report.z_nm()
    low, high = calibration.report.quality.z_range_nm
    chosen = np.flatnonzero(calibration.report.points.good & (z >= low) & (z <= high))
    return chosen[:: max(1, len(chosen) // _MOST_POINTS)], z


def _draw_widths(axis: Axes, calibration: PsfCalibration) -> None:
    points = calibration.report.points
    chosen, z = _chosen(calibration)
    axis.set_title("width of each plane of each bead" + (", and curves" if calibration.curves else ""))
    axis.plot(
        z[chosen], points.sigma_x_nm[chosen], ".", color=X_INK, markersize=3.5, alpha=0.4, markeredgewidth=0
    )
    axis.plot(
        z[chosen], points.sigma_y_nm[chosen], ".", color=Y_INK, markersize=3.5, alpha=0.4, markeredgewidth=0
    )
    if calibration.curves is not None:
        curves = calibration.curves
        axis.plot(curves.z_nm, curves.sigma_x_nm, "-", color=X_INK, linewidth=1.8, label="σx")
        axis.plot(curves.z_nm, curves.sigma_y_nm, "--", color=Y_INK, linewidth=1.8, label="σy")
        low, high = calibration.report.quality.fitted_range_nm
        axis.axvspan(low, high, color="0.93", zorder=0)
        axis.text((low + high) / 2, 10, "here the widths tell z", ha="center", va="bottom", color="0.4")
    else:
        axis.plot([], [], ".", color=X_INK, label="σx")
        axis.plot([], [], ".", color=Y_INK, label="σy")
    if len(chosen):
        highest = np.percentile(np.maximum(points.sigma_x_nm[chosen], points.sigma_y_nm[chosen]), 99)
        axis.set_ylim(0, 1.1 * float(highest))
    axis.set_xlabel("z [nm]")
    axis.set_ylabel("standard deviation of the Gaussian [nm]")
    axis.legend(loc="upper center", ncols=3)


def _draw_place(axis: Axes, calibration: PsfCalibration) -> None:
    points = calibration.report.points
    chosen, z = _chosen(calibration)
    axis.set_title("where the light is along z")
    for values, colour, name in ((points.x_nm, X_INK, "x"), (points.y_nm, Y_INK, "y")):
        axis.plot(z[chosen], values[chosen], ".", color=colour, markersize=3.5, alpha=0.4, markeredgewidth=0)
        axis.plot([], [], ".", color=colour, markersize=7, label=name)
    axis.axhline(0, color="0.6", linewidth=0.8)
    if len(chosen):
        reach = np.percentile(np.abs(np.concatenate([points.x_nm[chosen], points.y_nm[chosen]])), 98)
        axis.set_ylim(-1.4 * float(reach) - 5, 1.4 * float(reach) + 5)
    axis.set_xlabel("z [nm]")
    axis.set_ylabel("from the bead's middle [nm]")
    axis.legend(loc="upper center", ncols=2)


def _draw_precision(axis: Axes, calibration: PsfCalibration) -> None:
    precision = calibration.report.precision
    each = " in each channel" if calibration.psf.channels > 1 else ""
    axis.set_title(
        f"least error of a molecule of {precision.photons:.0f} photons{each},\n"
        f"background {precision.background_photons:g} photons/px (Cramér–Rao bound)"
    )
    axis.plot(precision.at_z_nm, precision.x_nm, "-", color=X_INK, linewidth=1.6, label="x")
    axis.plot(precision.at_z_nm, precision.y_nm, "--", color=Y_INK, linewidth=1.6, label="y")
    axis.plot(precision.at_z_nm, precision.z_nm, "-.", color=DARK_INK, linewidth=1.6, label="z")
    inner = np.abs(precision.at_z_nm) < 0.8 * np.abs(precision.at_z_nm).max()
    axis.set_ylim(0, 1.6 * float(np.percentile(precision.z_nm[inner], 90)))
    axis.set_xlabel("z [nm]")
    axis.set_ylabel("standard error [nm]")
    axis.grid(axis="y", color="0.9")
    axis.legend(loc="upper center", ncols=3)


def _write_findings(part: Any, calibration: PsfCalibration) -> None:
    axis = part.subplots()
    axis.set_axis_off()
    lines: list[tuple[str, str, str]] = []
    for finding in calibration.report.findings:
        colour = _LEVEL_COLOURS[finding.level]
        wrapped = textwrap.wrap(finding.text, 165)
        lines.append((_LEVEL_WORDS[finding.level], wrapped[0], colour))
        lines.extend(("", more, colour) for more in wrapped[1:])
    height = 1 / max(len(lines), 10)
    for k, (word, text, colour) in enumerate(lines):
        axis.text(
            0.008,
            1 - (k + 0.5) * height,
            word,
            color=colour,
            fontweight="bold",
            va="center",
            transform=axis.transAxes,
        )
        axis.text(0.065, 1 - (k + 0.5) * height, text, va="center", transform=axis.transAxes)
