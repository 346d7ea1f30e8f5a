"""What a Test found, as it is drawn and counted; another threshold is applied to it without asking the cluster again.

A candidate's signal-to-noise ratio is what the threshold is compared with, so raising the threshold only takes candidates away. What a lower one
would add is not known: that needs another Test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cluster.protocol import ChannelBox, Preview, PreviewCandidate, PreviewFrame, PreviewRow
from cluster.web.models.wording import plural

# of the palette of Okabe and Ito, which nearly everybody tells apart; the shapes differ as well
ACCEPTED: Final = "#56b4e9"
REJECTED: Final = "#e69f00"
CROWDED: Final = "#cc79a7"
CHANNEL: Final = "#009e73"
_CIRCLE_PX: Final = 4.0
_SAME_PX: Final = 3.0
_CONVERGED: Final = range(1, 5)
_FAR_TOO_MANY_PER_PX: Final = 1 / 60
_FAR_TOO_MANY: Final = 40
_CHECK_OFFSET: Final = (
    "Check Camera.ADOffset first: a wrong offset makes the noise look wrong everywhere. Then the threshold."
)


@dataclass(frozen=True)
class FrameFindings:
    """What of a frame passes a threshold. `crowded` are candidates that gave way to a brighter one nearby."""

    frame: int
    accepted: tuple[PreviewRow, ...]
    rejected: tuple[PreviewRow, ...]
    crowded: tuple[PreviewCandidate, ...]
    candidates: int
    reason: str | None


@dataclass(frozen=True)
class Summary:
    """A Test in figures and words."""

    text: str
    advice: str
    photons: tuple[float, ...]
    sigma_px: tuple[float, ...]


def findings(frame: PreviewFrame, threshold: float) -> FrameFindings:
    """Return what of a frame's candidates, and of the fits that came of them, is left at a threshold."""
    kept = [candidate for candidate in frame.candidates if candidate.snr >= threshold]
    lost = [candidate for candidate in frame.candidates if candidate.snr < threshold]
    rows = [row for row in frame.rows if not _belongs_to(row, kept, lost)]
    return FrameFindings(
        frame=frame.frame,
        accepted=tuple(row for row in rows if row.status in _CONVERGED),
        rejected=tuple(row for row in rows if row.status not in _CONVERGED),
        crowded=tuple(candidate for candidate in kept if not candidate.fitted),
        candidates=len(kept),
        reason=frame.reason if frame.status != "localised" else None,
    )


def overlay(
    found: FrameFindings, channels: Sequence[ChannelBox] = (), *, radius_px: float = _CIRCLE_PX
) -> str:
    """Return SVG to lay over the frame, in its pixels: circles are localisations, crosses fits that failed, squares gave way.

    A pixel's centre has whole coordinates in the data, and half ones in a picture.
    """
    parts = [_circle(row, radius_px) for row in found.accepted]
    parts += [_cross(row.x_px + 0.5, row.y_px + 0.5, radius_px * 0.7) for row in found.rejected]
    parts += [_square(one.x_px + 0.5, one.y_px + 0.5, radius_px * 0.8) for one in found.crowded]
    parts += [
        f'<rect x="{box.left}" y="{box.top}" width="{box.right - box.left}" height="{box.bottom - box.top}" stroke="{CHANNEL}"/>'
        for box in channels
    ]
    return (
        f'<g fill="none" stroke-width="2" vector-effect="non-scaling-stroke">{"".join(map(_thin, parts))}</g>'
    )


def summary(preview: Preview, threshold: float, frame_px: int) -> Summary:
    """Return a Test in figures and words. `frame_px` is how many pixels a frame has."""
    found = [findings(frame, threshold) for frame in preview.frames]
    rows = [row for one in found for row in one.accepted]
    photons = tuple(row.photons for row in rows if row.photons is not None)
    sigma = tuple(row.sigma_px for row in rows if row.sigma_px is not None)
    errors = [row.error_x_nm for row in rows if row.error_x_nm is not None and math.isfinite(row.error_x_nm)]
    candidates = sum(one.candidates for one in found)
    parts = [
        f"{plural(len(rows), 'localisation')} of {plural(candidates, 'candidate')} in {plural(len(found), 'frame')}",
        f"{len(rows) / max(1, len(found)):.1f} a frame",
    ]
    if photons:
        parts.append(f"median {statistics.median(photons):.0f} photons")
    if errors:
        parts.append(f"±{statistics.median(errors):.1f} nm")
    rejected, crowded = sum(len(one.rejected) for one in found), sum(len(one.crowded) for one in found)
    if rejected:
        parts.append(f"{plural(rejected, 'fit')} did not converge")
    if crowded:
        parts.append(f"{crowded} too near a brighter one")
    parts.append(f"{preview.seconds:.1f} s")
    return Summary(" · ".join(parts), _advice(preview, found, frame_px), photons, sigma)


def redraws(tested: float, threshold: float) -> bool:
    """Return whether a Test at one threshold also says what another finds."""
    return threshold >= tested * (1 - 1e-9)


def _advice(preview: Preview, found: list[FrameFindings], frame_px: int) -> str:
    failed = [frame for frame in preview.frames if frame.status == "failed"]
    candidates = sum(one.candidates for one in found)
    if failed:
        return f"{plural(len(failed), 'frame')} could not be localised: {failed[0].reason}"
    if candidates == 0 and any(frame.candidates for frame in preview.frames):
        return "At this threshold nothing is left: lower it."
    if candidates == 0:
        return f"Nothing was found. {_CHECK_OFFSET}"
    per_frame = candidates / max(1, len(found))
    if per_frame > max(_FAR_TOO_MANY, frame_px * _FAR_TOO_MANY_PER_PX):
        return f"That is far too much to be molecules: {per_frame:.0f} candidates a frame. {_CHECK_OFFSET}"
    if not any(one.accepted for one in found):
        return f"Candidates were found, but no fit of them converged. {_CHECK_OFFSET}"
    return ""


def _belongs_to(row: PreviewRow, kept: list[PreviewCandidate], lost: list[PreviewCandidate]) -> bool:
    """Return whether a row came of a candidate that is below the threshold now."""
    nearest_lost = _nearest(row, lost)
    return nearest_lost < _SAME_PX and nearest_lost < _nearest(row, kept)


def _nearest(row: PreviewRow, candidates: list[PreviewCandidate]) -> float:
    return min((math.hypot(row.x_px - one.x_px, row.y_px - one.y_px) for one in candidates), default=math.inf)


def _circle(row: PreviewRow, radius: float) -> str:
    return (
        f'<circle cx="{row.x_px + 0.5:.2f}" cy="{row.y_px + 0.5:.2f}" r="{radius:.2f}" stroke="{ACCEPTED}"/>'
    )


def _cross(x: float, y: float, reach: float) -> str:
    return (
        f'<path d="M{x - reach:.2f} {y - reach:.2f}L{x + reach:.2f} {y + reach:.2f}'
        f'M{x - reach:.2f} {y + reach:.2f}L{x + reach:.2f} {y - reach:.2f}" stroke="{REJECTED}"/>'
    )


def _square(x: float, y: float, half: float) -> str:
    return f'<rect x="{x - half:.2f}" y="{y - half:.2f}" width="{2 * half:.2f}" height="{2 * half:.2f}" stroke="{CROWDED}"/>'


def _thin(shape: str) -> str:
    """The width of a line is that of the screen, however far one zooms."""
    return shape.replace("/>", ' vector-effect="non-scaling-stroke"/>')
