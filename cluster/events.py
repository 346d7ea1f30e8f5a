"""Reading server-sent events (WHATWG HTML §9.2.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cluster.errors import TooLarge

_EVENT_CHARACTERS: Final = 4 << 20


@dataclass(frozen=True)
class ServerEvent:
    """One event: its name ("message" if it has none) and its data."""

    name: str
    data: str


def parsed_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Yield the events in a stream of lines; comments, which keep a connection open, yield nothing.

    An event that the stream breaks off is not an event.

    Raises
    ------
    TooLarge
        If one event goes on for ever.
    """
    name, data, size = "", list[str](), 0
    for line in lines:
        size += len(line)
        if size > _EVENT_CHARACTERS:
            raise TooLarge(f"an event of more than {_EVENT_CHARACTERS} characters arrived")
        if not line:
            if data:
                yield ServerEvent(name or "message", "\n".join(data))
            name, data, size = "", [], 0
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
