"""What became of each frame of a job: the account that must balance before anything is called done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid
from fitting.localisations import FrameStatus


@dataclass(frozen=True)
class FrameCounts:
    """How many frames are in each state."""

    total: int
    localised: int
    skipped: int
    failed: int
    not_analysed: int

    @property
    def balanced(self) -> bool:
        """Whether every frame is localised, skipped or failed."""
        return self.total == self.localised + self.skipped + self.failed


@dataclass(frozen=True)
class Ledger:
    """Status and number of localisations of each frame, and why frames failed.

    `status` (n,) uint8 holds `FrameStatus`, `localisations` (n,) uint32; `reasons` says by frame number what was wrong.
    """

    status: npt.NDArray[np.uint8]
    localisations: npt.NDArray[np.uint32]
    reasons: dict[int, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, frames: int) -> Ledger:
        """Return the ledger of a series of which no frame has been looked at."""
        return cls(np.zeros(frames, np.uint8), np.zeros(frames, np.uint32))

    def record(
        self,
        start: int,
        status: npt.NDArray[np.uint8],
        rows: npt.NDArray[np.void],
        reasons: Mapping[int, str] | None = None,
    ) -> None:
        """Enter the result of one task.

        Parameters
        ----------
        start
            Its first frame.
        status
            `FrameStatus` of its frames.
        rows
            Its localisations; `tIndex` is the frame.
        reasons
            Why frames failed, by frame number.

        Raises
        ------
        Invalid
            If frames or rows lie outside the series or the task, or a frame that was not localised has rows.
        """
        stop = start + len(status)
        if start < 0 or stop > len(self.status):
            raise Invalid(f"frames {start} to {stop} are not in a series of {len(self.status)} frames")
        frames = rows["tIndex"].astype(np.int64) - start
        if len(frames) and (frames.min() < 0 or frames.max() >= len(status)):
            raise Invalid(f"a localisation lies outside frames {start} to {stop}, the frames of its task")
        per_frame = np.bincount(frames, minlength=len(status))
        if (per_frame[status != FrameStatus.LOCALISED] > 0).any():
            raise Invalid(f"frames {start} to {stop}: a frame that was not localised has localisations")
        self.status[start:stop] = status
        self.localisations[start:stop] = per_frame
        self.reasons.update(reasons or {})

    def fail(self, start: int, stop: int, reason: str) -> None:
        """Enter frames that nobody could localise."""
        self.status[start:stop] = FrameStatus.FAILED
        self.localisations[start:stop] = 0
        self.reasons.update(dict.fromkeys(range(start, min(stop, len(self.status))), reason))

    @property
    def counts(self) -> FrameCounts:
        """How many frames are in each state."""
        by_status = np.bincount(self.status, minlength=4)
        return FrameCounts(
            total=len(self.status),
            localised=int(by_status[FrameStatus.LOCALISED]),
            skipped=int(by_status[FrameStatus.SKIPPED]),
            failed=int(by_status[FrameStatus.FAILED]),
            not_analysed=int(by_status[FrameStatus.NOT_ANALYSED]),
        )

    def failed_ranges(self) -> Iterator[tuple[int, int, str]]:
        """Yield (first, after last, reason) of the runs of frames that failed for one reason."""
        frames = np.flatnonzero(self.status == FrameStatus.FAILED).tolist()
        yield from _runs([(frame, self.reasons.get(frame, "")) for frame in frames])


def _runs(failures: list[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    start = 0
    for at, (frame, reason) in enumerate(failures):
        following = failures[at + 1] if at + 1 < len(failures) else None
        if following != (frame + 1, reason):
            yield failures[start][0], frame + 1, reason
            start = at + 1
