"""The events of an acquired series: a line of JSON each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from cluster.dataserver.live.layout import EVENTS
from cluster.protocol import SeriesEvent

_MAX_BYTES: Final = 64 << 20


def read_events(folder: Path) -> list[SeriesEvent]:
    """Return the events in the order in which they came; a line that was cut short is left out."""
    try:
        with (folder / EVENTS).open("rb") as file:
            lines = file.read(_MAX_BYTES).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found = (_event(line) for line in lines)
    return [event for event in found if event is not None]


def _event(line: bytes) -> SeriesEvent | None:
    try:
        return SeriesEvent.model_validate_json(line)
    except ValidationError:
        return None
