"""What people look at of a job's localisations: pictures, histograms, drift. Everything here runs in a thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from cluster.protocol import DriftMethod, JobHistograms, PictureQuery
from cluster.results.filters import Filters
from cluster.results.histograms import histograms
from cluster.results.picture_files import png
from cluster.results.render import Picture
from cluster.scheduler.columns import ColumnCache
from cluster.scheduler.drift import DriftDesk, Estimate
from cluster.scheduler.pictures import Shown, look_of, picture_of, tiff_of
from cluster.scheduler.results import Results
from cluster.scheduler.shelf import Shelf
from cluster.scheduler.state import State

T = TypeVar("T")
_SHARED_S: Final = 1.0
_MOST_KEPT: Final = 32


@dataclass
class _Answer:
    """What was answered to one look: when, how many localisations there were, and whether more could come."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    at: float = float("-inf")
    localisations: int = -1
    final: bool = False
    found: Any = None


class Looks:
    """Answers from columns that are held. Many who look at the same thing within a second are shown the same."""

    def __init__(self, state: State, results: Results, shelf: Shelf) -> None:
        self._state = state
        self._columns = ColumnCache(results, shelf)
        self._drift = DriftDesk()
        self._books = threading.Lock()
        self._answers: OrderedDict[tuple[str, ...], _Answer] = OrderedDict()

    def png(self, job_id: str, query: PictureQuery) -> bytes:
        """Draw the localisations so far; raises `NotFound`, and `Invalid` where a picture cannot be like that."""
        look = look_of(query)
        name = ("png", job_id, query.model_dump_json())
        return self._shared(name, lambda: png(self._picture(job_id, query), look.tones))

    def tiff(self, job_id: str, query: PictureQuery) -> bytes:
        """Draw them as grey values; raises as `png` does."""
        return tiff_of(self._picture(job_id, query))

    def histograms(self, job_id: str, filters: str | None, bins: int) -> JobHistograms:
        """Count the localisations so far; raises `NotFound`, `Invalid`."""
        sheet, chosen = self._state.sheet_now(job_id), Filters.parse(filters)
        name = ("histograms", job_id, filters or "", str(bins))
        return self._shared(name, lambda: histograms(self._columns.of(sheet), chosen, bins=bins))

    def _picture(self, job_id: str, query: PictureQuery) -> Picture:
        sheet = self._state.sheet_now(job_id)
        drift = None if query.drift is None else self.drift(job_id, query.drift)
        shown = Shown(self._columns.of(sheet), Filters.parse(query.filters), drift)
        return picture_of(sheet, shown, look_of(query))

    def _shared(self, name: tuple[str, ...], make: Callable[[], T]) -> T:
        """Return what is made, or what was made a moment ago, or of as many localisations; those who ask meanwhile wait for it."""
        with self._books:
            answer = self._answers.setdefault(name, _Answer())
            self._answers.move_to_end(name)
            while len(self._answers) > _MOST_KEPT:
                self._answers.popitem(last=False)
        with answer.turn:
            ended = self._state.has_ended(name[1])
            number, now = self._state.core.job(name[1]).tally.rows, self._state.clocks.now()
            same = (
                answer.localisations == number and answer.final == ended
            )  # the last rows may not have been on the disk yet
            if answer.found is None or not (same or (now - answer.at < _SHARED_S and not ended)):
                answer.found = make()
                answer.localisations, answer.final, answer.at = number, ended, now
            found: T = answer.found
            return found

    def drift(self, job_id: str, method: DriftMethod) -> Estimate:
        """Estimate the drift.

        Raises
        ------
        NotFound
            If there is no such job.
        Invalid, Conflict
            If there is not enough to estimate it from, or nothing yet.
        """
        job = self._state.view(job_id)
        if method == "markers":
            return self._drift.of_markers(job_id, None if job.output is None else Path(job.output))
        columns = self._columns.of(self._state.sheet_now(job_id))
        return self._drift.by_correlation(job_id, columns, ended=self._state.has_ended(job_id))
