"""A job's sheet: everything that was decided when it was submitted, and never changes after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.protocol import (
    DataServerInfo,
    FitDeclaration,
    FitInfo,
    JobKind,
    JobSpec,
    Message,
    MetadataValue,
    SeriesEvent,
    SeriesFacts,
)
from cluster.scheduler.core import Growth, JobOrder
from cluster.scheduler.foreign_fits import fit_of
from fitting import fits


@dataclass(frozen=True, slots=True)
class Brief:
    """What lists show of a job's sheet: all of it that is kept in memory once the job has ended."""

    job_id: str
    name: str
    owner: str
    machine: str
    kind: JobKind
    priority: int
    series: str
    fit: str
    output: str | None
    notes: tuple[str, ...]
    created: float


class Sheet(Message):
    """What a job is: the series as it was found, the complete settings, where each metadata value came from.

    [start, stop) are the frames to analyse; `frames` lists the single frames of a preview instead. `maps` holds the
    fingerprint of each camera map and calibration, by the name of its setting, and the scale of its PSF. `declared` is the fit as a
    worker declared it, if it is not installed here.
    """

    job_id: str
    name: str
    owner: str
    machine: str
    kind: JobKind
    priority: int
    series: str
    fit: str
    analysis: dict[str, Any]
    metadata: dict[str, MetadataValue]
    facts: SeriesFacts
    events: list[SeriesEvent]
    maps: dict[str, str]
    dataservers: list[DataServerInfo]
    start: int
    stop: int
    frames: list[int] | None
    output: str | None
    follow: bool = False
    notes: list[str]
    created: float
    declared: FitDeclaration | None = None

    @property
    def brief(self) -> Brief:
        """Return what lists show of it."""
        return Brief(
            job_id=self.job_id,
            name=self.name,
            owner=self.owner,
            machine=self.machine,
            kind=self.kind,
            priority=self.priority,
            series=self.series,
            fit=self.fit,
            output=self.output,
            notes=tuple(self.notes),
            created=self.created,
        )

    @property
    def values(self) -> dict[str, Any]:
        """Return the metadata without their sources."""
        return {key: entry.value for key, entry in self.metadata.items()}

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Return the layout of a row of its results."""
        return self.fit_type.layout(self.analysis)

    @property
    def fit_type(self) -> fits.Fit:
        """Return its type of fit."""
        return fits.find(self.fit) if self.declared is None else fit_of(self.declared)

    def analysed(self, frames: int) -> tuple[int, int]:
        """Return which frames of a series of so many are to be analysed."""
        if self.follow:
            return fits.analysed_range(self.analysis, self.values, frames)
        return self.start, self.stop

    def as_ended(self, growth: Growth | None) -> Sheet:
        """Return what its result file says of it: a series that grew is the one that it became."""
        if growth is None or not growth.fingerprint:
            return self
        events = [SeriesEvent(name=name, description=about, time=time) for name, about, time in growth.events]
        facts = self.facts.model_copy(update={"fingerprint": growth.fingerprint})
        notes = [*self.notes, growth.note] if growth.note else self.notes
        return self.model_copy(update={"facts": facts, "events": events, "notes": notes})

    def order(self) -> JobOrder:
        """Return what the core must know."""
        frame_bytes = self.facts.height * self.facts.width * np.dtype(self.facts.dtype).itemsize
        return JobOrder(
            job_id=self.job_id,
            start=self.start,
            stop=self.stop,
            total=0 if self.follow else self.facts.frames,
            growing=self.follow,
            frame_bytes=frame_bytes,
            fit=fits.identity(self.fit) if self.declared is None else self.declared.identity,
            owner=self.owner,
            machine=self.machine,
            priority=self.priority,
            kind=self.kind,
            frames=None if self.frames is None else tuple(self.frames),
            context_frames=self._context_frames(),
        )

    def _context_frames(self) -> int:
        """Return how many frames beside its own a task in the middle of the series needs."""
        if self.frames is not None or self.follow or self.start >= self.stop:
            return 0
        frame = (self.start + self.stop) // 2
        a, b = fits.context_range(self.analysis, self.values, (0, self.facts.frames), frame, frame + 1)
        return b - a - 1

    def spec(self, dataservers: list[DataServerInfo]) -> JobSpec:
        """Return what a worker must know. `dataservers` are those registered now: one may have moved."""
        known = {server.id for server in self.dataservers}
        facts = self.facts
        return JobSpec(
            job_id=self.job_id,
            kind=self.kind,
            series=facts.path,
            fingerprint=facts.fingerprint,
            height=facts.height,
            width=facts.width,
            dtype=facts.dtype,
            frames=facts.frames,
            missing=[]
            if self.follow
            else facts.missing,  # a gap may be filled; each range says what it lacks
            fit=self.fit,
            analysis=self.analysis,
            metadata=self.values,
            maps=self.maps,
            dataservers=[server for server in dataservers if server.id in known] or self.dataservers,
        )


def _fit_info(fit: fits.Fit) -> FitInfo:
    return FitInfo(
        name=fit.name,
        aliases=list(fit.aliases),
        title=fit.title,
        description=fit.description,
        settings=fits.json_schema(fit),
    )


def fit_infos(elsewhere: Iterable[fits.Fit] = ()) -> list[FitInfo]:
    """Return the fits that jobs may ask for here, those of other packages included, also those that only workers have."""
    return [_fit_info(fit) for fit in (*fits.known_fits().values(), *elsewhere)]
