"""A folder of the data server as lines, and a series in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cluster.protocol import SeriesEntry, SeriesFacts, SeriesListing
from cluster.web.models.wording import ago, plural, size

_BESIDE_A_SERIES: Final = (
    ".json", ".md", ".yaml", ".yml", ".inf", ".xml", ".toml", ".ini", "metadata.txt"
)  # fmt: skip
_CALIBRATIONS: Final = frozenset({"shifts", "sigma_curves"})


@dataclass(frozen=True)
class SeriesLine:
    """A folder or a series in a listing."""

    path: str
    name: str
    is_folder: bool
    size: str
    changed: str


def lines_of(listing: SeriesListing, now: float, wanted: str = "") -> list[SeriesLine]:
    """Return a folder's lines, folders first, by name; only those whose name has `wanted` in it."""
    found = [_line(entry, now) for entry in listing.entries]
    kept = [line for line in found if wanted.lower() in line.name.lower()]
    return sorted(kept, key=lambda line: (not line.is_folder, line.name.lower()))


def files_for(listing: SeriesListing, setting: str, now: float, wanted: str = "") -> list[SeriesLine]:
    """Return the folders, and the files that a setting may name: calibrations for `shifts` and `sigma_curves`, else what holds frames."""
    kind = "calibration" if setting in _CALIBRATIONS else "series"
    kept = [entry for entry in listing.entries if entry.kind in {"folder", kind}]
    return lines_of(SeriesListing(under=listing.under, entries=kept), now, wanted)


def trail(under: str) -> list[tuple[str, str]]:
    """Return the folders that lead to one, as (name, path), the root first."""
    steps = [("data", "")]
    parts = [part for part in under.split("/") if part]
    steps += [(part, "/".join(parts[: at + 1])) for at, part in enumerate(parts)]
    return steps


def parent_of(path: str) -> str:
    """Return the folder that a series lies in."""
    return path.rpartition("/")[0]


def sentence(facts: SeriesFacts) -> str:
    """Return what a series is, in a line."""
    lost = sum(stop - start for start, stop in facts.missing)
    parts = [
        plural(facts.frames, "frame"),
        f"{facts.width} × {facts.height} px",
        facts.dtype,
        facts.format,
        size(facts.bytes),
    ]
    if not facts.complete:
        parts.append("still growing")
    if lost:
        parts.append(f"{plural(lost, 'frame')} cannot be read")
    return " · ".join(parts)


def is_of_no_use(name: str, listing: SeriesListing) -> bool:
    """Return whether a file that came is neither listed nor called as the files that say something of a series are."""
    listed = {entry.path.rpartition("/")[2] for entry in listing.entries}
    return name not in listed and not name.lower().endswith(_BESIDE_A_SERIES)


def _line(entry: SeriesEntry, now: float) -> SeriesLine:
    return SeriesLine(
        path=entry.path,
        name=entry.path.rpartition("/")[2],
        is_folder=entry.kind == "folder",
        size=size(entry.bytes) if entry.bytes is not None else "",
        changed="" if entry.modified is None else ago(entry.modified, now),
    )
