"""The metadata of a job to be: every key with its value and where that is from; what is missing or wrong comes first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cluster.protocol import JobCheck, ProfileListing

OFFSET_KEY: Final = "Camera.ADOffset"
BY_ITSELF: Final = ""
_LONGEST: Final = 120


@dataclass(frozen=True)
class MetadataRow:
    """One key. `urgent`: nothing starts before it is put right."""

    key: str
    value: str
    source: str
    meaning: str = ""
    urgent: bool = False
    required: bool = False
    edited: bool = False
    doubt: str = ""


def rows_of(
    check: JobCheck, edits: Mapping[str, Any], doubts: Mapping[str, str] | None = None
) -> list[MetadataRow]:
    """Return the rows: those that keep the job from starting, then those the fit needs, then the rest, each by name.

    `edits` are the values that were typed here; `doubts` say of a key why it looks wrong.
    """
    doubts = doubts or {}
    faulty = set(check.fault.keys) if check.fault is not None else set()
    if check.fault is not None and check.fault.field in {*check.metadata, *edits}:
        faulty.add(str(check.fault.field))
    keys = {*check.metadata, *check.required, *faulty}
    rows = [
        MetadataRow(
            key=key,
            value=_shown(check.metadata[key].value) if key in check.metadata else "",
            source=_source(key, check, edits),
            meaning=check.required.get(key, ""),
            urgent=key in faulty or key in check.missing,
            required=key in check.required,
            edited=key in edits,
            doubt=doubts.get(key, ""),
        )
        for key in keys
    ]
    return sorted(rows, key=lambda row: (not row.urgent, not row.doubt, not row.required, row.key))


def profile_choices(listing: ProfileListing) -> dict[str, str]:
    """Return the microscope profiles to choose from, by name: those that are for the series by themselves come first, broken ones not at all."""
    fitting = [one.name for one in listing.profiles if one.matches and one.problem is None]
    by_itself = f"by itself: {', '.join(fitting)}" if fitting else "by itself: none is for this camera"
    named = {
        one.name: f"{one.name}: {one.title}" if one.title else one.name
        for one in listing.profiles
        if one.problem is None
    }
    return {BY_ITSELF: by_itself, **named, "none": "none"}


def typed(text: str) -> Any:
    """Return what somebody typed as a value: JSON if it is JSON, a number with a decimal comma too, else text; None for nothing."""
    given = text.strip()
    if not given:
        return None
    for candidate in (given, given.replace(",", ".", 1)):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return given


def offset_doubt(frame: np.ndarray[Any, Any], offset_adu: Any, read_noise_adu: float = 0.0) -> str:
    """Return why an offset [ADU] cannot be that of the camera that took an (h, w) frame; empty if it may be.

    Nearly no pixel reads less than the offset by more than the read noise; and where the darkest pixels are far above it, it was probably
    never measured.
    """
    if isinstance(offset_adu, bool) or not isinstance(offset_adu, int | float):
        return ""
    darkest, dim, middle = (float(value) for value in np.percentile(frame, (0.5, 10, 50)))
    slack = max(2.0, 3 * read_noise_adu)
    if dim < offset_adu - slack:
        return (
            f"a tenth of this frame's pixels are darker than {offset_adu:g} ADU (they read {dim:.0f} or less)"
        )
    if offset_adu <= 1 and darkest > 20 and darkest > 0.5 * middle:
        return f"no pixel of this frame reads less than {darkest:.0f} ADU: was the camera's offset never measured?"
    return ""


def _source(key: str, check: JobCheck, edits: Mapping[str, Any]) -> str:
    if key in edits:
        return "typed here"
    if key not in check.metadata:
        return "nobody says"
    source = check.metadata[key].source
    return "typed here" if source == "job" else source


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
