"""By how much the sample of a job moved, estimated when somebody asks, and kept while that holds."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.errors import Conflict, Invalid, Unavailable
from cluster.interpreter import RUN_MODULE
from cluster.protocol import DriftMethod, JobDrift
from cluster.results.columns import Columns
from fitting.calibration.cross_correlation import drift_by_correlation
from fitting.errors import InvalidCalibration

FloatArray = npt.NDArray[np.float64]

_MOST_LOCALISATIONS: Final = 2_000_000  # more say nothing new
_GROWN: Final = 1.25  # by how much there must be more before the drift of a job under way is estimated anew
_MOST_POINTS: Final = 500
_MARKERS_S: Final = 120.0
_MOST_KEPT: Final = 64


@dataclass(frozen=True)
class Estimate:
    """A drift [nm] at frames; between them it is interpolated, beyond them that of the ends."""

    method: DriftMethod
    frame: FloatArray
    x_nm: FloatArray
    y_nm: FloatArray
    error_nm: float | None
    notes: tuple[str, ...] = ()
    localisations: int = 0
    final: bool = True

    def tables(self, frames: int) -> tuple[FloatArray, FloatArray]:
        """Return the drift along x and y in each of so many frames."""
        every = np.arange(frames)
        x, y = (np.interp(every, self.frame, column) for column in (self.x_nm, self.y_nm))
        return np.asarray(x, np.float64), np.asarray(y, np.float64)

    def message(self) -> JobDrift:
        """Return it as it is sent, at some hundred frames at most."""
        step = -(-len(self.frame) // _MOST_POINTS)
        return JobDrift(
            method=self.method,
            frame=self.frame[::step].tolist(),
            x_nm=self.x_nm[::step].round(3).tolist(),
            y_nm=self.y_nm[::step].round(3).tolist(),
            error_nm=self.error_nm,
            notes=list(self.notes),
        )


class DriftDesk:
    """Estimates drifts, one at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._kept: dict[tuple[str, DriftMethod], Estimate] = {}
        self._stamps: dict[
            str, int
        ] = {}  # of the result files that markers were read from: a retry writes them anew

    def by_correlation(self, job_id: str, blocks: Sequence[Columns], *, ended: bool) -> Estimate:
        """Estimate it from the localisations; raises `Invalid` if they are too few."""
        number = sum(map(len, blocks))
        with self._turn:
            kept = self._kept.get((job_id, "correlation"))
            if kept is not None and (kept.final or not ended) and number < _GROWN * kept.localisations:
                return kept
            found = _correlated(blocks, number, ended=ended)
            self._keep(job_id, found)
            return found

    def of_markers(self, job_id: str, result: Path | None) -> Estimate:
        """Estimate it from the fits of fiducial markers in a result file.

        Raises
        ------
        Conflict
            If there is no file yet.
        Invalid
            If no marker is in it.
        """
        if result is None:
            raise Conflict("the drift of markers is known once the job has ended")
        with self._turn:
            try:
                stamp = result.stat().st_mtime_ns
            except OSError:
                raise Conflict(f"{result} is not where the job put it") from None
            kept = self._kept.get((job_id, "markers"))
            if kept is None or self._stamps.get(job_id) != stamp:
                kept = _of_markers(result)
                self._stamps[job_id] = stamp
                self._keep(job_id, kept)
            return kept

    def _keep(self, job_id: str, found: Estimate) -> None:
        self._kept[job_id, found.method] = found
        while len(self._kept) > _MOST_KEPT:
            oldest, method = next(iter(self._kept))
            del self._kept[oldest, method]
            if method == "markers":
                del self._stamps[oldest]


def _correlated(blocks: Sequence[Columns], number: int, *, ended: bool) -> Estimate:
    step = max(1, -(-number // _MOST_LOCALISATIONS))
    parts = [block.for_picture().every(step) for block in blocks]
    if not parts:
        raise Invalid("there are no localisations yet to estimate a drift from")
    looked = Columns.joined(parts)
    try:
        curve = drift_by_correlation(looked.x_nm, looked.y_nm, looked.frame)
    except InvalidCalibration as error:
        raise Invalid(str(error)) from error
    points = np.linspace(looked.frame.min(), looked.frame.max(), _MOST_POINTS)
    x_nm, y_nm = curve.at(points)
    said = f"Estimated from {curve.pairs} pairs of {len(curve.frame)} stretches of the series, by how their pictures lie over each other."
    return Estimate("correlation", points, x_nm, y_nm, curve.error_nm, (said,), number, ended)


def _of_markers(result: Path) -> Estimate:
    """Have the command do it in a process of its own: it needs the kernels, which this process is spared."""
    with tempfile.TemporaryDirectory(prefix="clusterofone-drift-") as folder:
        out = Path(folder) / "drift.csv"
        said = _run([*RUN_MODULE, "clusterofone", "drift", str(result), "-o", str(out), "--json"])
        table = np.loadtxt(out, delimiter=",", skiprows=1, ndmin=2)
    errors = said.get("error_nm") or {}
    error_nm = max((float(value) for value in errors.values()), default=None)
    notes = tuple(str(note) for note in said.get("notes", ()))
    return Estimate("markers", table[:, 0], table[:, 1], table[:, 2], error_nm, notes)


def _run(command: Sequence[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=_MARKERS_S,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the drift was not known after {_MARKERS_S:g} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["clusterofone drift failed without a word"]
        raise Invalid(lines[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
