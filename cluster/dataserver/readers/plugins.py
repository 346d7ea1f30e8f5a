"""Readers of other packages: whoever is installed and has an entry point in the group `clusterofone.readers`.

The entry point's name is a suffix without its dot; it names a function that opens a file of that suffix and returns a
`SeriesReader`. A suffix that is read here already is not given away.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

from cluster.dataserver.readers.interface import SeriesReader
from cluster.errors import Invalid

GROUP: Final = "clusterofone.readers"
Opener = Callable[[Path], SeriesReader]


def suffixes() -> frozenset[str]:
    """Return the suffixes, with their dots, that other packages read."""
    return frozenset(_by_suffix(tuple(sys.path)))


def opener_of(suffix: str) -> Opener | None:
    """Return how another package opens files of this suffix, if one does.

    The function raises `Invalid` where that package cannot be loaded, or what it opens is no series.
    """
    entry = _by_suffix(tuple(sys.path)).get(suffix.lower())
    return None if entry is None else lambda path: _open(entry, path)


@lru_cache(maxsize=4)
def _by_suffix(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    found = sorted(entry_points(group=GROUP), key=lambda one: (one.name, one.value), reverse=True)
    return {f".{entry.name.lower().lstrip('.')}": entry for entry in found}


def _open(entry: EntryPoint, path: Path) -> SeriesReader:
    try:
        reader: SeriesReader = entry.load()(path)
        shape, files = reader.shape, reader.files
    except (Invalid, OSError):
        raise
    except Exception as error:  # whatever a stranger's module raises
        raise Invalid(
            f"{path.name}: the reader {entry.value} failed: {type(error).__name__}: {error}"
        ) from error
    if shape.frames < 1 or shape.dtype.name not in {"uint8", "uint16", "float32"} or not files:
        reader.close()
        raise Invalid(f"{path.name}: the reader {entry.value} promises no frames of uint8, uint16 or float32")
    return reader
