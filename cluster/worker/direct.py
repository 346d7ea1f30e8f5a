"""Frames read from the files themselves, where this machine has them too: no byte crosses a socket.

A worker beside the data server, or one that sees the same share (`[shares]` in `config.toml`), asks once where the
frames of a series lie, and from then on reads them with plain reads at offsets. The files must be those that the job
was pinned to, before and after every read. Where anything stands in the way (another user, another machine, a share
that is not mounted), frames come over HTTP as ever.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Self

import numpy as np

from cluster.arrays import FrameRange
from cluster.errors import Conflict
from cluster.fingerprint import fingerprint
from cluster.frame_runs import open_for_runs, read_runs
from cluster.protocol import JobSpec, SeriesPlace
from cluster.worker.memory import Memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """A folder as the data server names it, and where it is here."""

    there: str
    here: Path

    def local(self, path: str) -> Path | None:
        """Return where a file of the data server's is here, or None if it is not in this folder.

        Either may be of another system than ours: a drive there, a mount here.
        """
        kind = PureWindowsPath if "\\" in self.there or self.there[1:2] == ":" else PurePosixPath
        try:
            inside = kind(path).relative_to(kind(self.there))
        except ValueError:
            return None
        return self.here.joinpath(*inside.parts)


@dataclass(frozen=True)
class DirectSeries:
    """The open files of a series, and where its frames lie in them; `read` is for one thread."""

    place: SeriesPlace
    files: Sequence[Path]
    stamps: Sequence[tuple[int, int]]
    handles: Sequence[int] = field(repr=False)

    @classmethod
    def open(cls, place: SeriesPlace, pinned: str, *, near: bool, shares: Sequence[Share]) -> Self | None:
        """Return the series if its files are here and are those of the fingerprint `pinned`, else None.

        On the data server's machine (`near`) its paths are ours, and size and time of change are enough to know a
        file by; through a share the content is compared too.
        """
        if place.fingerprint != pinned:
            return None
        for files in _places(place, shares, near=near):
            try:
                stamps = [_stamp(file.stat()) for file in files]
                same = stamps == list(place.stamps) if near else fingerprint(files) == pinned
                if same:
                    return cls(place, files, stamps, [open_for_runs(file) for file in files])
            except OSError as error:
                logger.info("%s cannot be read from here: %s", files[0], error.strerror or error)
        return None

    def read(self, spec: JobSpec, start: int, stop: int, memory: Memory) -> FrameRange:
        """Return frames [start, stop); those that no file holds are zero and listed as missing.

        Raises
        ------
        Conflict
            If a file is no longer the one the job was pinned to.
        OSError
            If a file cannot be read.
        """
        frames = memory.array((stop - start, spec.height, spec.width), np.dtype(spec.dtype))
        there = read_runs(self.place.runs, self.handles, start, frames)
        self._check(spec)
        return FrameRange(start, frames, tuple(int(start + n) for n in np.flatnonzero(~there)))

    def close(self) -> None:
        """Let go of the files."""
        for handle in self.handles:
            os.close(handle)

    def _check(self, spec: JobSpec) -> None:
        try:
            now = [_stamp(file.stat()) for file in self.files]
        except FileNotFoundError:
            now = []
        if now != list(self.stamps):
            raise Conflict(
                f"the file changed: {spec.series} is not the series that this was asked of", path=spec.series
            )


def shares_of(written: Mapping[str, Path]) -> tuple[Share, ...]:
    """Return the shares of a configuration."""
    return tuple(Share(there, here) for there, here in written.items())


def _places(place: SeriesPlace, shares: Sequence[Share], *, near: bool) -> list[list[Path]]:
    """Return the paths to try: the data server's own on its machine, else those through a share."""
    found = [[Path(file) for file in place.files]] if near else []
    for share in shares:
        local = [path for file in place.files if (path := share.local(file)) is not None]
        if len(local) == len(place.files):
            found.append(local)
    return found


def _stamp(found: os.stat_result) -> tuple[int, int]:
    return (found.st_size, found.st_mtime_ns)
