"""A folder of `.pzf` frames, as PYME's cluster stores a series (`.pcs`): frame number by name, metadata and events as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster.dataserver.readers.frame_files import FrameFiles, read_frame_file
from cluster.dataserver.readers.interface import Frames, SeriesShape, values_from
from cluster.dataserver.readers.numbered import NumberedFiles, form_of, number_files, plain_files
from cluster.dataserver.readers.pixels import served_dtype
from cluster.dataserver.readers.pzf import PzfFault, decode_pzf
from cluster.dataserver.readers.text import read_text
from cluster.dataserver.sidecars import parse_sidecar
from cluster.errors import Invalid
from cluster.protocol import MetadataValue, SeriesEvent

METADATA_NAMES: Final = ("metadata.json", "final_metadata.json")
_EVENTS: Final = "events.json"
_MAX_EVENTS: Final = 1_000_000


def is_pcs_folder(folder: Path) -> bool:
    """Return whether a folder is a series of PZF frames."""
    names = plain_files(folder, (".pzf",))
    return folder.suffix.lower() == ".pcs" or len({form_of(name) for name in names}) == 1


def open_pcs(folder: Path) -> FrameFiles:
    """Open a folder of PZF frames.

    Raises
    ------
    Invalid
        If no frame in it can be read, or what describes it is no JSON.
    """
    names = plain_files(folder, (".pzf",))
    if not names:
        raise Invalid(f"{folder.name} holds no frames (.pzf)")
    numbered = number_files(folder, names, first=0)
    pixels = _first_whole(numbered)
    companions = [folder / name for name in (*METADATA_NAMES, _EVENTS) if (folder / name).is_file()]
    events = _events(folder / _EVENTS)
    shape = SeriesShape(
        format="pyme-pzf",
        height=pixels.shape[0],
        width=pixels.shape[1],
        dtype=served_dtype(pixels.dtype, folder.name),
        frames=len(numbered.names),
        missing=numbered.missing,
        metadata=_metadata(companions),
        events=len(events),
    )
    ended = (folder / _EVENTS).is_file()  # PYME writes it last
    return FrameFiles(
        folder, numbered, shape, decode_pzf, companions=companions, events=events, end_mark=ended
    )


def _first_whole(numbered: NumberedFiles) -> Frames:
    fault = ""
    for frame in range(len(numbered.names)):
        path = numbered.path(frame)
        if path is None:
            continue
        try:
            return decode_pzf(read_frame_file(path))
        except PzfFault as error:
            fault = fault or f"; {path.name}: {error}"
    raise Invalid(f"{numbered.folder.name} holds not one whole frame{fault}")


def _metadata(companions: Sequence[Path]) -> dict[str, MetadataValue]:
    """What PYME writes at the end of an acquisition overrides what it wrote at its beginning."""
    found: dict[str, MetadataValue] = {}
    for path in companions:
        if path.name in METADATA_NAMES:
            found |= values_from("file", parse_sidecar(path.name, read_text(path)))
    return found


def _events(path: Path) -> list[SeriesEvent]:
    if not path.is_file():
        return []
    try:
        rows = json.loads(read_text(path, limit_bytes=256 << 20))
        return [event_of(row) for row in rows[:_MAX_EVENTS]]
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        raise Invalid(f"{path.name} is no list of [name, description, time]: {error}") from error


def event_of(row: Sequence[object]) -> SeriesEvent:
    """Return one event of [name, description, time]."""
    name, description, time = row[:3]
    return SeriesEvent(name=str(name), description=str(description), time=float(str(time)))
