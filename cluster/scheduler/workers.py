"""What workers ask: to register, for work, to be kept alive, and to hand in what they found."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from cluster.arrays import TaskResult, decode_result
from cluster.errors import ChecksumMismatch, ClusterError, Invalid, VersionMismatch
from cluster.protocol import (
    PROTOCOL_VERSION,
    Committed,
    FailedFrames,
    HeldTask,
    KeepAlive,
    KeptAlive,
    Lease,
    LeaseRequest,
    Leases,
    TaskFailure,
    Versions,
    Worker,
    WorkerLoad,
    WorkerRegistered,
    WorkerRegistration,
)
from cluster.scheduler.blobs import INLINE_BYTES, Blob, Blobs
from cluster.scheduler.core import Counts, Decided, TaskLease, WorkerOrder
from cluster.scheduler.entries import ResultRow, result_statement
from cluster.scheduler.journal import Statement
from cluster.scheduler.log_lines import FaultLines
from cluster.scheduler.metrics import CommitMetrics
from cluster.scheduler.sheets import Sheet
from cluster.scheduler.state import State
from fitting.localisations import LAT_GAUSS_DTYPE, FrameStatus

logger = logging.getLogger(__name__)

T = TypeVar("T")
Absent = Callable[[], Awaitable[bool]]
KEEP_ALIVES_PER_LEASE: Final = 3


async def _present() -> bool:
    return False


async def _beside(body: bytes, work: Callable[..., T], *arguments: Any) -> T:
    """Do work on a body in a thread, or here and now where the body is so small that changing threads would take longer."""
    if len(body) <= INLINE_BYTES:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)


class WorkerDesk:
    """Serves the workers. `previews` takes the results of previews, which no disk need hold."""

    def __init__(
        self,
        state: State,
        blobs: Blobs,
        metrics: CommitMetrics,
        *,
        versions: Versions,
        cluster_id: str,
        epoch: int,
    ) -> None:
        self._state = state
        self._blobs = blobs
        self._metrics = metrics
        self._versions = versions
        self._cluster_id = cluster_id
        self._epoch = epoch
        self._loads: dict[str, WorkerLoad] = {}
        self._faults = FaultLines()
        self.previews: dict[str, dict[int, TaskResult]] = {}

    async def register(self, card: WorkerRegistration) -> WorkerRegistered:
        """Take in a worker.

        Raises
        ------
        VersionMismatch
            If it would give other numbers, or speak another protocol; says the command that mends it.
        """
        self._check_versions(card)
        worker_id = self._new_id(card)
        self._state.cards[worker_id] = card
        order = WorkerOrder(worker_id, frozenset(card.fits))
        await self._state.settled(self._state.core.register(order, now=self._state.clocks.now()))
        logger.info("worker %s registered", worker_id)
        lease_s = self._state.core.rules.lease_s
        return WorkerRegistered(
            worker_id=worker_id,
            cluster_id=self._cluster_id,
            epoch=self._epoch,
            lease_s=lease_s,
            keep_alive_s=lease_s / KEEP_ALIVES_PER_LEASE,
        )

    async def leave(self, worker_id: str) -> None:
        """Let a worker go."""
        await self._state.settled(self._state.core.leave(worker_id, now=self._state.clocks.now()))
        self._loads.pop(worker_id, None)
        logger.info("worker %s left", worker_id)

    async def drain(self, worker_id: str) -> None:
        """Give a worker no more work; what it has begun it finishes. Raises `NotFound`."""
        await self._state.settled(self._state.core.drain(worker_id))
        logger.info("worker %s is drained", worker_id)

    async def undrain(self, worker_id: str) -> None:
        """Give a drained worker work again; it asks once it has heard of it, at its next keep-alive. Raises `NotFound`."""
        await self._state.settled(self._state.core.undrain(worker_id))
        self._state.signals.work.pulse()
        logger.info("worker %s is given work again", worker_id)

    async def keep_alive(self, worker_id: str, message: KeepAlive) -> KeptAlive:
        """Renew the leases a worker still works on."""
        held = [(task.job_id, task.task_id, task.attempt) for task in message.held]
        lost = self._state.posted(self._state.core.keep_alive(worker_id, held, now=self._state.clocks.now()))
        if message.load is not None:
            self._loads[worker_id] = message.load
        return KeptAlive(
            lost=[
                HeldTask(job_id=job_id, task_id=task_id, attempt=attempt) for job_id, task_id, attempt in lost
            ],
            drain=self._state.core.worker(worker_id).draining,
        )

    async def lease(self, worker_id: str, request: LeaseRequest, absent: Absent = _present) -> Leases:
        """Give a worker tasks; hold the request until there are some, `wait_s` at most, or it is gone."""
        now = self._state.clocks.now
        deadline = now() + request.wait_s
        while True:
            decided = self._state.core.lease(worker_id, request.count, now=now())
            remaining_s = deadline - now()
            if decided.value or remaining_s <= 0 or self._state.signals.closing:
                return Leases(leases=await self._granted(worker_id, decided))
            self._state.posted(decided)
            await self._state.signals.work.wait(remaining_s)
            if await absent():
                return Leases(leases=[])

    async def commit(
        self, worker_id: str, job_id: str, task_id: int, attempt: int, body: bytes, sha256: str, wanted: int
    ) -> Committed:
        """Keep a result, durably, and lease what the worker wants next.

        Raises
        ------
        ChecksumMismatch
            If the bytes are not those that were sent.
        Invalid
            If the result is not one of this task.
        Superseded, Gone, NotFound
            If it is not wanted.
        OutOfSpace
            If the disk is full; nothing of it was kept.
        """
        core, now = self._state.core, self._state.clocks.now
        core.worker(worker_id)
        if core.check(job_id, task_id, attempt) == "already":
            return await self._already(worker_id, wanted)
        began = now()
        sheet, bounds = self._state.job(job_id).sheet, core.job(job_id).bounds(task_id)
        result = await _beside(body, _received, body, sha256, sheet, bounds)
        blob = await self._stored(sheet, task_id, attempt, body)
        try:  # while the bytes went to the disk, another attempt may have come in, or the job may have ended
            decided = core.commit(worker_id, job_id, task_id, attempt, _counts(result), now=now())
        except ClusterError:
            if not self._is_committed(job_id, task_id, attempt):
                self._blobs.drop(blob)
            raise
        if decided.value == "already":
            return await self._already(worker_id, wanted)
        statements = self._note_result(worker_id, sheet, task_id, attempt, result, sha256, blob)
        more = core.lease(worker_id, wanted, now=now())
        both = Decided(more.value, (*decided.records, *more.records))
        leases = await self._granted(worker_id, both, statements)
        took_s, frames = now() - began, result.stop - result.start
        self._metrics.seconds.observe(took_s)
        self._metrics.accepted(frames, len(result.rows), len(body))
        logger.info(
            "task committed job=%s task=%s attempt=%s worker=%s start=%s frames=%s rows=%s bytes=%s fit_s=%.3f commit_s=%.3f",
            *(job_id, task_id, attempt, worker_id, result.start, frames, len(result.rows), len(body)),
            *(result.seconds, took_s),
        )
        return Committed(outcome="committed", next=leases)

    async def fail(self, worker_id: str, job_id: str, task_id: int, failure: TaskFailure) -> None:
        """Take back an attempt that came to nothing."""
        decided = self._state.core.fail(
            worker_id,
            job_id,
            task_id,
            failure.attempt,
            failure.kind,
            failure.message,
            now=self._state.clocks.now(),
        )
        faulty = failure.kind in {"error", "invalid", "changed"}
        logger.log(
            logging.WARNING if faulty else logging.INFO,
            "task %s job=%s task=%s attempt=%s worker=%s message=%r",
            *(failure.kind, job_id, task_id, failure.attempt, worker_id),
            self._faults.message(job_id, failure.message),
        )
        self._metrics.failed(failure.kind)
        await self._state.settled(decided)

    def all(self) -> list[Worker]:
        """Return the workers as everyone sees them."""
        since = self._state.clocks.wall() - self._state.clocks.now()
        return [
            Worker(
                id=worker.worker_id,
                host=card.host,
                pid=card.pid,
                version=card.versions.clusterofone,
                state=worker.state,
                job=next((job_id for job_id, _ in worker.held), None),
                frames=worker.frames,
                rate_frames_per_s=worker.frames / worker.seconds if worker.seconds > 0 else None,
                last_seen=since + worker.last_seen,
                excluded=worker.excluded,
                load=None if worker.lost else self._loads.get(worker.worker_id),
            )
            for worker in self._state.core.workers.values()
            if (card := self._state.cards.get(worker.worker_id)) is not None
        ]

    def _is_committed(self, job_id: str, task_id: int, attempt: int) -> bool:
        """Return whether this very attempt came in by another request: then its bytes, which have one place, stay."""
        try:
            return self._state.core.check(job_id, task_id, attempt) == "already"
        except ClusterError:
            return False

    async def _already(self, worker_id: str, wanted: int) -> Committed:
        """Answer a commit that was made before, once that is on the disk."""
        decided = self._state.core.lease(worker_id, wanted, now=self._state.clocks.now())
        return Committed(outcome="already", next=await self._granted(worker_id, decided))

    def _note_result(
        self,
        worker_id: str,
        sheet: Sheet,
        task_id: int,
        attempt: int,
        result: TaskResult,
        sha256: str,
        blob: Blob,
    ) -> list[Statement]:
        """Remember an accepted result, and return what must be journaled of it beside the core's records."""
        job_id, failures, cpu = sheet.job_id, _failures(result), self._state.cards[worker_id].cpu
        progress = self._state.job(job_id).progress
        progress.note_commit(self._state.clocks.now(), result.stop - result.start)
        progress.cpus.add(cpu)
        self._state.note_failures(job_id, failures)
        if sheet.kind == "preview":
            self.previews.setdefault(job_id, {})[task_id] = result
            return []
        row = ResultRow(
            job_id=job_id,
            task_id=task_id,
            attempt=attempt,
            sha256=sha256,
            first_row=self._state.core.job(job_id).tally.rows - len(result.rows),
            rows=len(result.rows),
            blob=blob,
            reasons=failures,
            cpu=cpu,
        )
        return [result_statement(row)]

    async def _granted(
        self, worker_id: str, decided: Decided[list[TaskLease]], also: Sequence[Statement] = ()
    ) -> list[Lease]:
        """Return the leases once they are durable; on a disk that refuses, the worker never had them."""
        try:
            leases = await self._state.settled(decided, also)
        except ClusterError:
            for lease in decided.value:
                self._hand_back(worker_id, lease)
            raise
        lease_s = self._state.core.rules.lease_s
        return [
            Lease(
                job_id=lease.job_id,
                task_id=lease.task_id,
                attempt=lease.attempt,
                start=lease.start,
                stop=lease.stop,
                lease_s=lease_s,
                series_frames=lease.series_frames,
            )
            for lease in leases
        ]

    def _hand_back(self, worker_id: str, lease: TaskLease) -> None:
        decided = self._state.core.fail(
            worker_id,
            lease.job_id,
            lease.task_id,
            lease.attempt,
            "handed_back",
            "",
            now=self._state.clocks.now(),
        )
        self._state.posted(decided)

    async def _stored(self, sheet: Sheet, task_id: int, attempt: int, body: bytes) -> Blob:
        if sheet.kind == "preview":
            return Blob(body=b"")
        return await _beside(body, self._blobs.store, sheet.job_id, task_id, attempt, body)

    def _new_id(self, card: WorkerRegistration) -> str:
        """Return a name that nobody has: thousands in containers may be of one host and one process id."""
        while (name := f"{_plain(card.host)}-{card.pid}-{secrets.token_hex(3)}") in self._state.cards:
            pass
        return name

    def _check_versions(self, card: WorkerRegistration) -> None:
        ours, theirs = self._versions, card.versions
        same = (ours.clusterofone, ours.numpy, ours.numba) == (
            theirs.clusterofone,
            theirs.numpy,
            theirs.numba,
        )
        if same and card.protocol == PROTOCOL_VERSION:
            return
        raise VersionMismatch(
            f"this worker runs clusterofone {theirs.clusterofone} (protocol {card.protocol}), numpy {theirs.numpy} and "
            f"numba {theirs.numba}; its results could differ from the others'. To mend it: "
            f"pip install clusterofone=={ours.clusterofone} numpy=={ours.numpy} numba=={ours.numba}"
        )


def _plain(host: str) -> str:
    """Return a host's name as it may stand in an address and in a log."""
    return re.sub(r"[^\w.-]", "-", host, flags=re.ASCII)[:40] or "worker"


def _received(body: bytes, sha256: str, sheet: Sheet, bounds: tuple[int, int]) -> TaskResult:
    """Return a result that has arrived whole and belongs to its task."""
    if hashlib.sha256(body).hexdigest() != sha256.lower():
        raise ChecksumMismatch("the bytes that arrived are not the bytes that were sent")
    result = decode_result(body)
    start, stop = bounds
    if (result.start, result.stop) != bounds:
        raise Invalid(
            f"the result covers frames {result.start} to {result.stop}, its task {start} to {stop}",
            field="start",
        )
    if result.rows.dtype != sheet.dtype or result.rows.ndim != 1:
        raise Invalid(f"the rows are not those of {sheet.fit}", field="rows")
    markers = result.fiducials
    if markers is not None and (markers.dtype != LAT_GAUSS_DTYPE or markers.ndim != 1):
        raise Invalid("the rows of fiducials are not those of LatGaussFitFR", field="fiducials")
    frames = result.rows["tIndex"]
    if len(frames) and (frames.min() < start or frames.max() >= stop):
        raise Invalid("a row lies outside the frames of its task", field="rows")
    counts = _counts(result)
    if counts.localised + counts.skipped + counts.failed != stop - start:
        raise Invalid("a frame of the task has no status", field="frame_status")
    return result


def _counts(result: TaskResult) -> Counts:
    by_status = np.bincount(result.frame_status, minlength=4)
    return Counts(
        localised=int(by_status[FrameStatus.LOCALISED]),
        skipped=int(by_status[FrameStatus.SKIPPED]),
        failed=int(by_status[FrameStatus.FAILED]),
        rows=len(result.rows),
        seconds=result.seconds,
    )


def _failures(result: TaskResult) -> list[FailedFrames]:
    """Return the runs of failed frames of a result, with their reasons."""
    runs: list[FailedFrames] = []
    for index in np.flatnonzero(result.frame_status == FrameStatus.FAILED):
        frame = result.start + int(index)
        reason = result.reasons.get(frame, "failed without a reason")
        if runs and runs[-1].stop == frame and runs[-1].reason == reason:
            runs[-1] = runs[-1].model_copy(update={"stop": frame + 1})
        else:
            runs.append(FailedFrames(start=frame, stop=frame + 1, reason=reason))
    return runs
