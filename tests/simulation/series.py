"""Series that exist only as a rule: what each frame holds, what localising it gives, and how far it has come."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.arrays import FrameRange, TaskResult
from cluster.errors import NotFound, Unavailable
from cluster.protocol import DataServerInfo, MetadataValue, SeriesEvent, SeriesFacts
from cluster.scheduler.dataservers import Located
from fitting.localisations import LAT_GAUSS_DTYPE, FrameStatus

SERVER = DataServerInfo(id="ds", machine="m", host="h", port=15440, addresses=["127.0.0.1"])
METADATA: dict[str, Any] = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ADOffset": 100.0,
    "Camera.ReadNoise": 1.2,
}
_VALUES = {key: MetadataValue(value=value, source="file") for key, value in METADATA.items()}


@dataclass(frozen=True)
class Series:
    """`poison` is a frame at which every fit dies; a series that grows gains `frames_per_s` from `begun_s` on."""

    path: str
    frames: int
    poison: int | None = None
    frames_per_s: float | None = None
    begun_s: float = 0.0

    def come_by(self, now_s: float) -> int:
        """Return how many frames there are at a time."""
        if self.frames_per_s is None:
            return self.frames
        return max(0, min(self.frames, int((now_s - self.begun_s) * self.frames_per_s)))

    def pixels(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return frames [start, stop), each of one pixel that follows from its number."""
        seed = zlib.crc32(self.path.encode())
        numbers = np.arange(start, stop, dtype=np.uint64)
        mixed = (numbers * np.uint64(2654435761) + np.uint64(seed)) % np.uint64(65521)
        return mixed.astype(np.uint16).reshape(-1, 1, 1)

    def facts(self, now_s: float) -> SeriesFacts:
        """Return what a data server would say of it."""
        frames = self.come_by(now_s)
        return SeriesFacts(
            path=self.path,
            height=64,
            width=48,
            dtype="uint16",
            frames=frames,
            fingerprint=f"print of {self.path}",
            bytes=frames * 64 * 48 * 2,
            format="TIFF",
            metadata=_VALUES,
            complete=frames == self.frames,
        )


def localised(frames: FrameRange, start: int, stop: int) -> TaskResult:
    """Return what a fit finds: rows, and here and there a frame that is skipped or cannot be fitted."""
    pixels = frames.frames[start - frames.start : stop - frames.start, 0, 0].astype(np.int64)
    status = np.full(stop - start, FrameStatus.LOCALISED, np.uint8)
    status[pixels % 31 == 5] = FrameStatus.SKIPPED
    status[pixels % 211 == 7] = FrameStatus.FAILED
    counts = np.where(status == FrameStatus.LOCALISED, pixels % 4, 0)
    rows = np.zeros(int(counts.sum()), LAT_GAUSS_DTYPE)
    rows["tIndex"] = np.repeat(np.arange(start, stop), counts)
    rows["fitResults"]["A"] = np.repeat(pixels, counts)
    rows["fitResults"]["x0"] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    reasons = {start + int(i): "no light" for i in np.flatnonzero(status == FrameStatus.FAILED)}
    return TaskResult(start, stop, rows, status, reasons=reasons, seconds=0.002 * (stop - start))


def undisturbed(series: Series) -> TaskResult:
    """Return what one worker finds in the whole series if nothing goes wrong."""
    return localised(FrameRange(0, series.pixels(0, series.frames)), 0, series.frames)


class DescribedSeries:
    """A data server as the scheduler knows it; it may be out of reach."""

    def __init__(self, series: dict[str, Series], now: Callable[[], float]) -> None:
        self.series = series
        self.away = False
        self._now = now

    async def locate(self, path: str, *, follow: bool = False) -> Located:
        if self.away:
            raise Unavailable("the data server is away")
        if path not in self.series:
            raise NotFound(f"there is no series {path}")
        return Located(self.series[path].facts(self._now()), [SERVER])

    async def events(self, located: Located) -> list[SeriesEvent]:
        return []
