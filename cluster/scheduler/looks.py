"""What people look at of a job's localisations: pictures, histograms, drift. Everything here runs in a thread."""

from __future__ import annotations

from pathlib import Path

from cluster.protocol import DriftMethod, JobHistograms, PictureQuery
from cluster.results.filters import Filters
from cluster.results.histograms import histograms
from cluster.results.picture_files import Look
from cluster.results.render import Picture
from cluster.scheduler.columns import ColumnCache
from cluster.scheduler.drift import DriftDesk, Estimate
from cluster.scheduler.pictures import Shown, picture_of
from cluster.scheduler.results import Results
from cluster.scheduler.state import State


class Looks:
    """Answers from columns that are held."""

    def __init__(self, state: State, results: Results) -> None:
        self._state = state
        self._columns = ColumnCache(results)
        self._drift = DriftDesk()

    def picture(self, job_id: str, query: PictureQuery, look: Look) -> Picture:
        """Draw the localisations so far; raises `NotFound`, and `Invalid` where a picture cannot be like that."""
        sheet = self._state.job(job_id).sheet
        drift = None if query.drift is None else self.drift(job_id, query.drift)
        shown = Shown(self._columns.of(sheet), Filters.parse(query.filters), drift)
        return picture_of(sheet, shown, look)

    def histograms(self, job_id: str, filters: str | None, bins: int) -> JobHistograms:
        """Count the localisations so far; raises `NotFound`, `Invalid`."""
        sheet = self._state.job(job_id).sheet
        return histograms(self._columns.of(sheet), Filters.parse(filters), bins=bins)

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
        columns = self._columns.of(self._state.job(job_id).sheet)
        return self._drift.by_correlation(job_id, columns, ended=self._state.has_ended(job_id))
