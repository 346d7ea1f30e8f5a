"""The frames of a task and their context, fetched in bounded pieces and never twice for neighbouring ranges."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np

from cluster import job_calibrations
from cluster.arrays import FrameRange
from cluster.errors import Conflict, Invalid
from cluster.job_calibrations import PSF_SCALE
from cluster.protocol import CalibrationFile, DataServerInfo, JobSpec, SeriesFacts, SeriesPlace
from cluster.threads import DaemonThread
from cluster.worker.direct import DirectSeries, Share
from cluster.worker.memory import Memory
from fitting.calibrated import MeasuredPsf

logger = logging.getLogger(__name__)

_REQUEST_BYTES: Final = 128 << 20
_MAPS: Final = ("variance_map", "dark_map", "flatfield_map")
_TABLES: Final = ("sigma_curves", "shifts")
_JOBS_KEPT: Final = 4


class Servers(Protocol):
    """What this module needs of the data servers."""

    async def frames(
        self, servers: Sequence[DataServerInfo], path: str, start: int, stop: int, fingerprint: str
    ) -> FrameRange:
        """Return frames [start, stop) of a series."""
        ...

    async def place(
        self, servers: Sequence[DataServerInfo], path: str, fingerprint: str
    ) -> tuple[SeriesPlace, bool] | None:
        """Return in which files the frames lie, and whether that is this machine; None if they do not lie in any."""
        ...

    async def facts(self, servers: Sequence[DataServerInfo], path: str) -> SeriesFacts:
        """Return what a series is."""
        ...

    async def calibration(self, servers: Sequence[DataServerInfo], path: str) -> CalibrationFile:
        """Return a shift field or width curves."""
        ...


class FrameSource:
    """Frames of jobs, from the files themselves where these are here, else from a data server.

    Of what was fetched the last range is kept: the next one often begins with its end. `thread` reads files.
    """

    def __init__(self, servers: Servers, thread: DaemonThread, shares: Sequence[Share] = ()) -> None:
        self._servers = servers
        self._thread = thread
        self._shares = shares
        self._memory = Memory()
        self._direct: OrderedDict[str, DirectSeries | None] = OrderedDict()
        self._last: tuple[str, FrameRange] | None = None
        self._maps: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def range(self, spec: JobSpec, start: int, stop: int) -> FrameRange:
        """Return frames [start, stop) of a job's series; `missing` holds those that do not exist.

        Raises
        ------
        Unavailable
            If no data server answers in time.
        CallerError
            If the series is not what the job began with, or not there.
        """
        direct = await self._files_of(spec)
        if direct is not None:
            try:
                return _with_missing(
                    await self._thread.call(lambda: direct.read(spec, start, stop, self._memory)), spec
                )
            except OSError as error:
                logger.warning("%s cannot be read from here any more: %s", spec.series, error)
                self._direct[spec.job_id] = None
        known = self._last[1] if self._last is not None and self._last[0] == spec.job_id else None
        parts: list[FrameRange] = []
        for a, b, kept in pieces(start, stop, known, _frames_a_request(spec)):
            if kept and known is not None:
                parts.append(_cut(known, a, b))
            else:
                fetched = await self._servers.frames(spec.dataservers, spec.series, a, b, spec.fingerprint)
                parts.append(_checked(fetched, spec, a, b))
        whole = joined(parts, spec)
        self._last = (spec.job_id, whole)
        return whole

    async def _files_of(self, spec: JobSpec) -> DirectSeries | None:
        """Return the open files of a job's series, or None where frames come from a data server; asked once a job."""
        if spec.job_id not in self._direct:
            found = await self._servers.place(spec.dataservers, spec.series, spec.fingerprint)
            self._direct[spec.job_id] = found and DirectSeries.open(
                found[0], spec.fingerprint, near=found[1], shares=self._shares
            )
            while len(self._direct) > _JOBS_KEPT:
                _, old = self._direct.popitem(last=False)
                if old is not None:
                    old.close()
        return self._direct[spec.job_id]

    async def maps(self, spec: JobSpec) -> dict[str, Any]:
        """Return the camera maps and calibrations of a job as arrays and objects, each fetched once a job.

        Raises
        ------
        Invalid
            If a map's file holds no image.
        Conflict
            If a file is no longer the one that the job was submitted with.
        ClusterError
            As `range` does.
        """
        maps = self._maps.get(spec.job_id)
        if maps is None:
            maps = {
                name: await self._map(spec, name, path)
                for name in _MAPS
                if isinstance(path := spec.analysis.get(name), str)
            }
            maps |= {
                name: await self._table(spec, name, path)
                for name in _TABLES
                if isinstance(path := spec.analysis.get(name), str)
            }
            if isinstance(path := spec.analysis.get("psf"), str):
                maps["psf"] = await self._psf(spec, path)
            self._maps[spec.job_id] = maps
            while len(self._maps) > _JOBS_KEPT:
                self._maps.popitem(last=False)
        return maps

    async def _map(self, spec: JobSpec, name: str, path: str) -> np.ndarray[Any, Any]:
        facts = await self._servers.facts(spec.dataservers, path)
        if facts.frames < 1:
            raise Invalid(f"{name}: {path} holds no image", field=name)
        pinned = spec.maps.get(name, facts.fingerprint)
        fetched = await self._servers.frames(spec.dataservers, path, 0, 1, pinned)
        image: np.ndarray[Any, Any] = fetched.frames[0].astype(np.float32)
        return image

    async def _table(self, spec: JobSpec, name: str, path: str) -> Any:
        found = await self._servers.calibration(spec.dataservers, path)
        if job_calibrations.digest(found.value) != spec.maps.get(name, found.digest):
            raise Conflict(f"{name}: {path} is no longer the file that the job was submitted with", path=path)
        return found.value

    async def _psf(self, spec: JobSpec, path: str) -> MeasuredPsf:
        facts = await self._servers.facts(spec.dataservers, path)
        if PSF_SCALE not in spec.maps:
            raise Invalid(f"psf: the job does not say the pitches of {path}", field="psf")
        fetched = await self._servers.frames(spec.dataservers, path, 0, facts.frames, spec.maps["psf"])
        return job_calibrations.measured_psf(fetched.frames, json.loads(spec.maps[PSF_SCALE]))


def pieces(start: int, stop: int, known: FrameRange | None, longest: int) -> list[tuple[int, int, bool]]:
    """Cut [start, stop) into pieces (a, b, kept): those that `known` covers, and requests of at most `longest`."""
    if known is None or known.stop <= start or known.start >= stop:
        return _requests(start, stop, longest)
    a, b = max(start, known.start), min(stop, known.stop)
    return [*_requests(start, a, longest), (a, b, True), *_requests(b, stop, longest)]


def joined(parts: Sequence[FrameRange], spec: JobSpec) -> FrameRange:
    """Return consecutive parts as one range, with what the job says is missing.

    Frames that came over the wire are copied: they are read-only, and the kernels would be compiled once more for
    arrays of that kind.
    """
    frames = np.concatenate([part.frames for part in parts])
    missing = tuple(frame for part in parts for frame in part.missing)
    return _with_missing(FrameRange(parts[0].start, frames, missing), spec)


def _with_missing(found: FrameRange, spec: JobSpec) -> FrameRange:
    missing = set(found.missing)
    for first, after in spec.missing:
        missing.update(range(max(first, found.start), min(after, found.stop)))
    return replace(found, missing=tuple(sorted(missing)))


def _requests(start: int, stop: int, longest: int) -> list[tuple[int, int, bool]]:
    return [(a, min(a + longest, stop), False) for a in range(start, stop, longest)]


def _frames_a_request(spec: JobSpec) -> int:
    return max(1, _REQUEST_BYTES // max(1, spec.height * spec.width * np.dtype(spec.dtype).itemsize))


def _cut(known: FrameRange, start: int, stop: int) -> FrameRange:
    frames = known.frames[start - known.start : stop - known.start]
    return FrameRange(start, frames, tuple(frame for frame in known.missing if start <= frame < stop))


def _checked(fetched: FrameRange, spec: JobSpec, start: int, stop: int) -> FrameRange:
    expected = (stop - start, spec.height, spec.width)
    if fetched.start != start or fetched.frames.shape != expected or fetched.frames.dtype.name != spec.dtype:
        raise Invalid(
            f"frames {start} to {stop} of {spec.series} came as {fetched.frames.dtype} {fetched.frames.shape} "
            f"from frame {fetched.start}, not as {spec.dtype} {expected}",
            field="frames",
        )
    return fetched
