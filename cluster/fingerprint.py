"""Whether a series is still the one that a job began with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SAMPLE_BYTES: Final = 1 << 16
GROWS: Final = "growing-"  # begins the fingerprint of a series that was asked for as one that grows


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a series' files: cheap enough to ask at every request."""

    files: tuple[tuple[str, int, int], ...]  # name, bytes, modified_ns

    @property
    def bytes(self) -> int:
        """Return the size of all files together."""
        return sum(size for _, size, _ in self.files)


def stamp(files: Sequence[Path]) -> Stamp:
    """Return the present stamp; a file that is gone has size -1."""
    return Stamp(tuple(_stamp_one(file) for file in files))


def _stamp_one(file: Path) -> tuple[str, int, int]:
    try:
        found = file.stat()
    except OSError:
        return (file.name, -1, -1)
    return (file.name, found.st_size, found.st_mtime_ns)


def fingerprint(files: Sequence[Path]) -> str:
    """Return a digest of each file's size, time of change, beginning and end."""
    digest = hashlib.sha256()
    for file in files:
        _, size, modified_ns = _stamp_one(file)
        digest.update(f"{size} {modified_ns} ".encode())
        if file.is_dir():
            continue  # a folder changes when files in it come or go
        with file.open("rb") as opened:
            digest.update(opened.read(_SAMPLE_BYTES))
            opened.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(opened.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:32]
