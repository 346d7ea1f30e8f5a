"""The PSF calibration as one function: stacks of beads and options in, a PSF, its width curves and a report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.calibration.beads import Bead, Stack, channel_views, find_beads, tally
from fitting.calibration.measure_psf import (
    MeanBead,
    Progress,
    cut_bead,
    finished,
    mean_of_beads,
    sharpest_plane,
)
from fitting.calibration.psf_options import PSF_SETTINGS, resolve_psf_options
from fitting.calibration.psf_quality import (
    Finding,
    Precision,
    Quality,
    crlb_against_z,
    findings,
    measure_quality,
)
from fitting.calibration.width_curves import (
    WidthFit,
    WidthPoints,
    defocus_parameters,
    fit_widths,
    measure_widths,
    sigma_curves,
)
from fitting.errors import InvalidFrames

FloatArray = npt.NDArray[np.float64]

settings = PSF_SETTINGS

_LEAST_PLANES = 5


@dataclass(frozen=True)
class PsfReport:
    """How a PSF was made and what it is worth.

    Attributes
    ----------
    options : mapping
        All options, resolved.
    beads : tuple of Bead
        Every bead found, those dropped with the reason.
    quality : Quality
    findings : tuple of Finding
        Warnings first.
    precision : Precision
        Cramér-Rao bound against z.
    points : WidthPoints
        Widths of every plane of every bead, channel 0; `z_nm` gives their z.
    defocus : mapping or None
        w, c, d, A, B for x and y, where astigmatic.
    mean : (z, y, x) array
        Channel 0 before blurring.
    spread : (z, y, x) array
        Standard deviation between the beads, in the same units.
    """

    options: Mapping[str, Any]
    beads: tuple[Bead, ...]
    quality: Quality
    findings: tuple[Finding, ...]
    precision: Precision
    points: WidthPoints
    defocus: Mapping[str, Mapping[str, float]] | None
    mean: FloatArray
    spread: FloatArray
    focus_plane: float

    def z_nm(self) -> FloatArray:
        """Give the z of each of the points [nm]."""
        result: FloatArray = (self.points.plane - self.focus_plane) * self.options["step_nm"]
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; what is not known is null."""
        precision = {
            name: getattr(self.precision, name).round(3).tolist()
            for name in ("at_z_nm", "x_nm", "y_nm", "z_nm")
        }
        return {
            "options": dict(self.options),
            "quality": {name: _plain(value) for name, value in asdict(self.quality).items()},
            "findings": [asdict(finding) for finding in self.findings],
            "beads": [asdict(bead) for bead in self.beads],
            "precision": precision
            | {"photons": self.precision.photons, "background_photons": self.precision.background_photons},
            "defocus": self.defocus,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


@dataclass(frozen=True)
class PsfCalibration:
    """A measured PSF, its width curves (None where the widths do not tell z), and the report."""

    psf: MeasuredPsf
    curves: SigmaCurves | None
    report: PsfReport


def calibrate_psf(
    stacks: Sequence[Stack], options: Mapping[str, object], progress: Progress | None = None
) -> PsfCalibration:
    """Make a PSF from stacks of beads.

    Parameters
    ----------
    stacks : sequence of (plane, y, x) arrays
        Any number type [ADU]; one or several fields of view, all with the same planes.
    options : mapping
        By the names of `settings`; `pixel_nm` and `step_nm` must be there.
    progress : callable, optional
        Hears what is being done, and how many of how many.

    Raises
    ------
    InvalidSettings
        If an option is unknown or wrong.
    InvalidFrames
        If the stacks are no stacks, or hold no bead that can be used; the message says what was found and dropped, and why.
    """
    chosen = resolve_psf_options(options)
    tell = progress or (lambda *_: None)
    planes = [_planes(stack, chosen) for stack in _checked(stacks)]
    depths = sorted({len(stack) for stack in planes}, reverse=True)
    if len(depths) > 1:
        raise InvalidFrames(
            f"the stacks have {' and '.join(map(str, depths))} planes; they must have as many"
        )
    views = [channel_views(stack, chosen) for stack in planes]
    tell("finding beads", 0, len(views))
    found = find_beads(views, chosen)
    used = [bead for bead in found if not bead.dropped]
    if not used:
        raise InvalidFrames(_no_beads(found, planes, chosen))
    cuts = np.stack([cut_bead(views[bead.stack], bead, chosen["half_size"]) for bead in used])
    mean = mean_of_beads(cuts, used, chosen["step_nm"], bleaching=chosen["bleaching"], progress=tell)
    tell("fitting widths", 0, len(mean.beads))
    points = measure_widths(mean, chosen)
    widths = fit_widths(points, mean.volume.shape[1], chosen)
    focus = widths.focus_plane if widths is not None else float(sharpest_plane(mean.volume[0]))
    psf = finished(mean, focus, chosen)
    curves = sigma_curves(widths, chosen["step_nm"]) if widths is not None and widths.astigmatic else None
    beads = _with_dropped(found, mean)
    return PsfCalibration(psf, curves, _report(psf, mean, points, widths, curves, beads, chosen))


def _report(
    psf: MeasuredPsf,
    mean: MeanBead,
    points: WidthPoints,
    widths: WidthFit | None,
    curves: SigmaCurves | None,
    beads: tuple[Bead, ...],
    options: Mapping[str, Any],
) -> PsfReport:
    quality = measure_quality(psf, mean, points, widths, curves, len(beads))
    dropped = [bead for bead in beads if bead.dropped]
    return PsfReport(
        options=options,
        beads=beads,
        quality=quality,
        findings=findings(quality, dropped, curves, bleaching=options["bleaching"]),
        precision=crlb_against_z(
            psf, options["photons"], options["background_photons"], options["width_half_size"]
        ),
        points=points,
        defocus=_defocus(curves),
        mean=mean.volume[0],
        spread=mean.spread,
        focus_plane=psf.focus_plane,
    )


def _defocus(curves: SigmaCurves | None) -> dict[str, dict[str, float]] | None:
    if curves is None:
        return None
    return {
        "x": defocus_parameters(curves.z_nm, curves.sigma_x_nm),
        "y": defocus_parameters(curves.z_nm, curves.sigma_y_nm),
    }


def _checked(stacks: Sequence[Stack]) -> Sequence[Stack]:
    if not stacks:
        raise InvalidFrames("no stack of beads was given")
    for stack in stacks:
        if np.ndim(stack) != 3:
            raise InvalidFrames(f"a stack of beads is (plane, y, x), not of shape {np.shape(stack)}")
        if np.asarray(stack).dtype.kind not in "uif":
            raise InvalidFrames(f"a stack of beads holds numbers, not {np.asarray(stack).dtype}")
        if np.asarray(stack).dtype.kind == "f" and not np.isfinite(stack).all():
            raise InvalidFrames("a stack of beads holds NaN or infinite values")
    return stacks


def _planes(stack: Stack, options: Mapping[str, Any]) -> Stack:
    """Average the frames of each plane, and order planes by rising z."""
    each = options["frames_per_plane"]
    if len(stack) % each:
        raise InvalidFrames(f"{len(stack)} frames are not a whole number of planes of {each} frames each")
    if len(stack) // each < _LEAST_PLANES:
        raise InvalidFrames(
            f"a stack of {len(stack) // each} planes is too short: {_LEAST_PLANES} are needed, at a step that resolves the focus"
        )
    if each > 1:
        stack = stack.reshape(-1, each, *stack.shape[1:]).mean(axis=1)
    return stack[::-1] if options["reversed"] else stack


def _no_beads(found: Sequence[Bead], stacks: Sequence[Stack], options: Mapping[str, Any]) -> str:
    sizes = ", ".join("{2} × {1} px × {0} planes".format(*stack.shape) for stack in stacks)
    if not found:
        return (
            f"no beads found in {sizes}: nothing in the maximum projection is brighter than {options['threshold']:g} times its noise; "
            "lower threshold if there are beads"
        )
    return (
        f"none of {len(found)} beads in {sizes} can be used: {tally(found)}. With half_size {options['half_size']} px, isolation_px "
        f"{options['isolation_px']:g}, threshold {options['threshold']:g}, least_brightness {options['least_brightness']:g}"
    )


def _with_dropped(found: Sequence[Bead], mean: MeanBead) -> tuple[Bead, ...]:
    later = {(bead.stack, bead.places): bead for bead in mean.dropped}
    return tuple(later.get((bead.stack, bead.places), bead) for bead in found)
