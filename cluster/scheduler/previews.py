"""The Test button: a job of single frames that goes before all others and leaves nothing behind."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from cluster.arrays import TaskResult
from cluster.errors import Unavailable
from cluster.protocol import ChannelBox, Preview, PreviewCandidate, PreviewFrame, PreviewRequest, PreviewRow
from cluster.results.quantities import Calibration, quantities, status_of
from cluster.scheduler.core.tasks import Failed
from cluster.scheduler.jobs import Submissions
from cluster.scheduler.sheets import Sheet
from cluster.scheduler.state import Known, State
from cluster.scheduler.workers import WorkerDesk
from fitting.geometry import chip_origin, place, rectangles
from fitting.localisations import FrameStatus

LONGEST_S: Final = 60.0
NO_WORKER_S: Final = 5.0
_NAMES: Final = {
    FrameStatus.LOCALISED: "localised",
    FrameStatus.SKIPPED: "skipped",
    FrameStatus.FAILED: "failed",
}


class PreviewDesk:
    """Runs previews to their end."""

    def __init__(
        self,
        state: State,
        submissions: Submissions,
        workers: WorkerDesk,
        *,
        longest_s: float = LONGEST_S,
        no_worker_s: float = NO_WORKER_S,
    ) -> None:
        self._state = state
        self._submissions = submissions
        self._workers = workers
        self._longest_s = longest_s
        self._no_worker_s = no_worker_s

    async def run(self, request: PreviewRequest) -> Preview:
        """Localise a few frames and return what was found.

        Raises
        ------
        Unavailable
            If no worker is there, or they do not get to it in time.
        ClusterError
            As a submit.
        """
        sheet = await self._submissions.preview(request)
        job_id = sheet.job_id
        began = self._state.clocks.now()
        self._state.known[job_id] = Known(sheet.brief, sheet)
        try:
            self._state.posted(self._state.core.submit(sheet.order()))
            await self._wait(job_id, began)
            frames = self._frames(sheet, self._workers.previews.get(job_id, {}))
        finally:
            self._workers.previews.pop(job_id, None)
            self._state.posted(self._state.core.forget(job_id))
        return Preview(
            job_id=job_id,
            series=sheet.series,
            fit=sheet.fit,
            analysis=sheet.analysis,
            seconds=self._state.clocks.now() - began,
            frames=frames,
            channels=channel_boxes(sheet),
            notes=sheet.notes,
        )

    async def _wait(self, job_id: str, began: float) -> None:
        signal, core, now = self._state.signals.job(job_id), self._state.core, self._state.clocks.now
        while core.job(job_id).is_open:
            waited_s = now() - began
            if waited_s >= self._longest_s or self._state.signals.closing:
                raise Unavailable(f"the workers did not get to the test within {self._longest_s:.0f} s")
            if waited_s >= self._no_worker_s and not self._anyone_could(job_id):
                said = core.job(job_id).last_refusal
                raise Unavailable(
                    f"no worker could take it: {said}"
                    if said
                    else "no worker is there; start one: clusterofone worker"
                )
            await signal.wait(min(self._longest_s - waited_s, max(0.05, self._no_worker_s - waited_s), 1.0))

    def _anyone_could(self, job_id: str) -> bool:
        """Return whether a worker holds some of it, or could take it."""
        job, now = self._state.core.job(job_id), self._state.clocks.now()
        return bool(job.leased) or any(
            worker.may_work and job.order.fit in worker.order.fits and not worker.refuses(job_id, now)
            for worker in self._state.core.workers.values()
        )

    def _frames(self, sheet: Sheet, results: dict[int, TaskResult]) -> list[PreviewFrame]:
        job = self._state.core.job(sheet.job_id)
        frames = []
        for task_id in range(job.tasks):
            frame, state = job.bounds(task_id)[0], job.state(task_id)
            if isinstance(state, Failed):
                frames.append(PreviewFrame(frame=frame, status="failed", reason=state.reason))
            else:
                frames.append(preview_frame(sheet, frame, results[task_id]))
        return sorted(frames, key=lambda seen: seen.frame)


def channel_boxes(sheet: Sheet) -> list[ChannelBox]:
    """Return where the channels of a beam splitter lie in the frames."""
    fit, shape = sheet.fit_type, (sheet.facts.height, sheet.facts.width)
    if fit.channels == 1:
        return []
    placed = place(
        rectangles(fit, sheet.analysis, sheet.values, shape),
        shape,
        chip_origin(sheet.values),
        sheet.analysis["roi"],
    )
    return [
        ChannelBox(top=top, bottom=bottom, left=left, right=right, flipped=sign < 0)
        for (top, bottom, left, right), sign in zip(
            placed.bounds.tolist(), placed.sign[:, 0].tolist(), strict=True
        )
    ]


def preview_frame(sheet: Sheet, frame: int, result: TaskResult) -> PreviewFrame:
    """Return what was found in a frame, in pixels and photons."""
    status = FrameStatus(int(result.frame_status[0]))
    candidates = result.candidates if result.candidates is not None else np.empty(0)
    return PreviewFrame.model_validate(
        {
            "frame": frame,
            "status": _NAMES[status],
            "reason": result.reasons.get(frame),
            "candidates": [_candidate(one) for one in candidates],
            "rows": _rows(sheet, result.rows),
        }
    )


def _candidate(one: Any) -> PreviewCandidate:
    return PreviewCandidate(
        x_px=float(one["x_px"]),
        y_px=float(one["y_px"]),
        snr=_finite(one["snr"]) or 0.0,
        fitted=bool(one["fitted"]),
    )


def _rows(sheet: Sheet, rows: np.ndarray[Any, Any]) -> list[PreviewRow]:
    calibration = Calibration.from_metadata(sheet.values)
    found, status = quantities(rows, calibration), status_of(rows)
    return [
        PreviewRow(
            x_px=float(found.x_nm[at] / calibration.pixel_x_nm),
            y_px=float(found.y_nm[at] / calibration.pixel_y_nm),
            sigma_px=_of(found.sigma_nm, at, calibration.pixel_x_nm),
            photons=_finite(found.photons[at]),
            error_x_nm=_of(found.x_err_nm, at),
            z_nm=_of(found.z_nm, at),
            status=int(status[at]),
        )
        for at in np.flatnonzero(np.isfinite(found.x_nm) & np.isfinite(found.y_nm)).tolist()
    ]


def _of(column: np.ndarray[Any, Any] | None, at: int, unit: float = 1.0) -> float | None:
    return None if column is None else _finite(column[at] / unit)


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
