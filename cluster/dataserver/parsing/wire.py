"""What goes between the data server and its parser: lines of JSON over the parser's pipes. Frames go through shared memory."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.dataserver.readers.interface import Grows, LiesInFiles, Progress, Run, SeriesReader, SeriesShape
from cluster.errors import ClusterError, Invalid, from_problem
from cluster.protocol import MetadataValue, SeriesEvent

Message = dict[str, Any]


@dataclass(frozen=True)
class Opened:
    """What a parser found out about a series; `runs` where its frames lie in `files` as they are served.

    `grows`: it may still be written, and its reader can tell how far it has come.
    """

    shape: SeriesShape
    files: tuple[Path, ...]
    runs: tuple[Run, ...] | None
    grows: bool = False


def line(told: Mapping[str, Any]) -> bytes:
    """Return a message as a line. Names that are not Unicode survive: their surrogates are escaped."""
    return json.dumps(told, ensure_ascii=True).encode("ascii") + b"\n"


def message(said: bytes) -> Message:
    """Return the message of a line; raises `ValueError` if it is none."""
    found = json.loads(said)
    if not isinstance(found, dict):
        raise ValueError("a message is an object")  # noqa: TRY004 -- of a line that is no message
    return found


def opened(reader: SeriesReader, *, written: bool = False) -> Message:
    """Return what the server has to know of an open series. The frames of one that is `written` may change their place."""
    shape = reader.shape
    placed = isinstance(reader, LiesInFiles) and shape.complete and not written
    runs = reader.runs() if placed and isinstance(reader, LiesInFiles) else None
    return {
        "shape": {
            "format": shape.format,
            "height": int(shape.height),
            "width": int(shape.width),
            "dtype": shape.dtype.name,
            "frames": int(shape.frames),
            "missing": [[int(start), int(stop)] for start, stop in shape.missing],
            "metadata": metadata(shape.metadata),
            "events": int(shape.events),
            "complete": bool(shape.complete),
            "identity": shape.identity,
            "stored_bytes": shape.stored_bytes,
        },
        "files": [str(file) for file in reader.files],
        "runs": None if runs is None else [{key: int(n) for key, n in asdict(run).items()} for run in runs],
        "grows": written and isinstance(reader, Grows),
    }


def as_opened(told: Message) -> Opened:
    """Return what `opened` told."""
    said = told["shape"]
    shape = SeriesShape(
        **{
            **said,
            "dtype": np.dtype(said["dtype"]),
            "missing": tuple((start, stop) for start, stop in said["missing"]),
            "metadata": as_metadata(said["metadata"]),
        }
    )
    runs = told["runs"]
    return Opened(
        shape,
        tuple(Path(file) for file in told["files"]),
        None if runs is None else tuple(Run(**run) for run in runs),
        told["grows"],
    )


def progress(found: Progress) -> Message:
    """Return how far a series has come as plain values."""
    return {
        "whole": int(found.whole),
        "promised": None if found.promised is None else int(found.promised),
        "torn": bool(found.torn),
        "marked": bool(found.marked),
        "ended": bool(found.ended),
    }


def as_progress(told: Message) -> Progress:
    """Return what `progress` told."""
    return Progress(**told)


def metadata(values: Mapping[str, MetadataValue]) -> Message:
    """Return metadata as plain values."""
    return {key: [value.value, value.source] for key, value in values.items()}


def as_metadata(told: Message) -> dict[str, MetadataValue]:
    """Return what `metadata` told."""
    return {key: MetadataValue(value=value, source=source) for key, (value, source) in told.items()}


def events(found: Sequence[SeriesEvent]) -> list[Message]:
    """Return events as plain values."""
    return [event.model_dump(mode="json") for event in found]


def as_events(told: Sequence[Message]) -> list[SeriesEvent]:
    """Return what `events` told."""
    return [SeriesEvent.model_validate(event) for event in told]


def failure(error: BaseException, about: str) -> Message:
    """Return an error as a message.

    What no reader means to raise is a fault of a parser at a file that it does not understand: it is told as `Invalid`.
    """
    match error:
        case ClusterError():
            return {"error": error.problem()}
        case MemoryError():
            return {"out_of_memory": True}
        case OSError():
            return {
                "os_error": [
                    error.errno or errno.EIO,
                    error.strerror or str(error),
                    error.filename and str(error.filename),
                ]
            }
        case _:
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            return {"error": Invalid(f"{about} cannot be read: its parser failed with {reason}").problem()}


def raise_failure(told: Message) -> None:
    """Raise the error that a message tells, if it tells one."""
    if "error" in told:
        raise from_problem(int(told["error"]["status"]), told["error"])
    if "os_error" in told:
        number, reason, name = told["os_error"]
        raise OSError(number, reason, name)
