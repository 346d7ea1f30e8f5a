"""The scheduler as one object: everything a route may ask, over the one state."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from cluster.config import JoinPolicy, LabFolders
from cluster.errors import ClusterError, Conflict, Unavailable
from cluster.lab import Lab
from cluster.protocol import (
    DataServerRegistered,
    DataServerRegistration,
    Identity,
    Job,
    JobCheck,
    JobRequest,
    JobSpec,
    PresetInfo,
    ProfileListing,
    Role,
    Versions,
)
from cluster.results.publish import free_bytes
from cluster.scheduler.blobs import Blobs
from cluster.scheduler.calibrations import CalibrationDesk
from cluster.scheduler.core import Rules
from cluster.scheduler.dataservers import DataServers, SeriesSource
from cluster.scheduler.entries import (
    dataserver_statement,
    load_dataservers,
    load_epoch,
    load_result_files,
    start_statement,
)
from cluster.scheduler.following import Follower, Pauses
from cluster.scheduler.foreign_fits import ForeignFit, foreign_fits
from cluster.scheduler.jobs import Submissions
from cluster.scheduler.joins import JoinDesk
from cluster.scheduler.journal import Journal
from cluster.scheduler.lab import LabDesk
from cluster.scheduler.log_lines import LogLines
from cluster.scheduler.looks import Looks
from cluster.scheduler.merging import Merger
from cluster.scheduler.metrics import SchedulerMetrics
from cluster.scheduler.on_done import Command, OnDone
from cluster.scheduler.outputs import Outputs
from cluster.scheduler.previews import PreviewDesk
from cluster.scheduler.progress import TERMINAL
from cluster.scheduler.pruning import Pruner
from cluster.scheduler.results import Results
from cluster.scheduler.room import Room
from cluster.scheduler.shelf import LEAST_ROWS, Shelf, Shelver
from cluster.scheduler.signals import Signal
from cluster.scheduler.state import Clocks, Known, State
from cluster.scheduler.workers import WorkerDesk

logger = logging.getLogger(__name__)

REFRESH_S: Final = 5.0
_KEEP_STREAM_S: Final = 15.0
_JOBS_A_PAGE: Final = 100


@dataclass(frozen=True)
class Cluster:
    """Which cluster this is, and what it lets whom do."""

    cluster_id: str
    name: str
    machine: str
    versions: Versions
    worker_token: str
    verifiers: dict[Role, str]
    join: JoinPolicy = "approve"
    roots: tuple[Path, ...] = ()
    results_root: Path | None = None
    lab: LabFolders = field(default_factory=LabFolders)
    tick_s: float = 1.0
    event_gap_s: float = 0.25
    cancel_wait_s: float = 30.0
    follow: Pauses = field(default_factory=Pauses)
    keep_blobs: bool = False
    shelve_rows: int = LEAST_ROWS  # from so many on, what people look at of a job is kept as a file


class Service:
    """A scheduler. `start` it on the loop that owns it, `close` it there."""

    def __init__(
        self,
        cluster: Cluster,
        rules: Rules,
        journal: Journal,
        blobs: Blobs,
        source: Callable[[DataServers], SeriesSource],
        clocks: Clocks,
        *,
        on_done: Command | None = None,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.cluster = cluster
        self.state = State(rules, journal, clocks)
        self.dataservers = DataServers()
        self.metrics = SchedulerMetrics()
        self.page_url: str | None = None
        self.log = LogLines()
        self.results = Results(journal, blobs)
        self.epoch = journal.read_now(load_epoch) + 1
        outputs = Outputs(cluster.roots, cluster.results_root)
        series = source(self.dataservers)
        self._series = series
        self._lab = LabDesk(Lab(cluster.lab, cluster.roots))
        self._room = Room(journal.folder, free)
        self._submissions = Submissions(series, outputs, clocks.wall, self.foreign_fits, self._lab)
        self.calibrations = CalibrationDesk(series)
        self.workers = WorkerDesk(
            self.state,
            blobs,
            self.metrics.commits,
            versions=cluster.versions,
            cluster_id=cluster.cluster_id,
            epoch=self.epoch,
        )
        self.previews = PreviewDesk(self.state, self._submissions, self.workers)
        self.joins = JoinDesk(
            journal,
            cluster.join,
            worker_token=cluster.worker_token,
            cluster_id=cluster.cluster_id,
            name=cluster.name,
            clocks=clocks,
        )
        self.blobs = blobs
        self._shelf = Shelf(journal.folder / "columns", self.results)
        self._shelver = Shelver(self.state, self._shelf, least_rows=cluster.shelve_rows)
        self.looks = Looks(self.state, self.results, self._shelf)
        self._pruner = Pruner(self.state, self.results, blobs, keep=cluster.keep_blobs)
        self._merger = Merger(self.state, self.results, self._merged)
        self._on_done = OnDone(self.state, on_done)
        self._follower = Follower(self.state, series, cluster.follow)
        self._submitting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._ticker: asyncio.Task[None] | None = None
        self.metrics.watch(self)

    async def start(self) -> None:
        """Take up what the journal holds."""
        journal, clocks = self.state.journal, self.state.clocks
        logging.getLogger().addHandler(self.log)
        await journal.write([start_statement(self.epoch, clocks.wall())])
        self.state.on_settled = self._merger.start
        self.state.on_ended = self._on_done.start
        for info in await journal.read(load_dataservers):
            self.dataservers.note(info, now=clocks.now())
        self.state.restore()
        swept = self.blobs.sweep(await journal.read(load_result_files))
        logger.info(
            "start %s: %s jobs, %s left-over results removed", self.epoch, len(self.state.known), swept
        )
        for job_id in self.state.known:
            self._follower.start(job_id)
        self._ticker = asyncio.create_task(self._tick())
        self._shelf.sweep()
        await self._pruner.start_all()

    def _merged(self, job_id: str) -> None:
        self._shelver.start(job_id)
        self._pruner.start(job_id)

    async def close(self) -> None:
        """Stop: wake whoever waits, finish the file that is being written, and write down everything."""
        self.state.signals.close()
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        await self._follower.close()
        await self._merger.finish()
        await self._shelver.close()
        await self._pruner.close()
        await self._on_done.close()
        self._lab.close()
        self.state.journal.close()
        logging.getLogger().removeHandler(self.log)

    # --- jobs --------------------------------------------------------------------------------------------------

    async def submit(self, request: JobRequest, idempotency_key: str | None) -> tuple[Job, bool]:
        """Queue a job and return it, and whether it is new: the same request under the same key is the same job.

        Raises
        ------
        Conflict
            If the key was used for another request.
        ClusterError
            If the request is refused, or the disk refuses.
        """
        if idempotency_key is None:
            return await self._submitted(request, None, None), True
        digest = hashlib.sha256(
            json.dumps(request.model_dump(mode="json"), sort_keys=True).encode()
        ).hexdigest()
        lock = self._submitting.setdefault(idempotency_key, asyncio.Lock())
        async with lock:
            known = self._of_key(idempotency_key)
            if known is None:
                return await self._submitted(request, idempotency_key, digest), True
            if known.digest != digest:
                raise Conflict("this Idempotency-Key was used for another job", field="Idempotency-Key")
            await self.state.journal.write([])
            return self.state.view(known.brief.job_id), False

    async def check(self, request: JobRequest) -> JobCheck:
        """Return what a job would be; raises as `Submissions.check`."""
        return await self._submissions.check(request, self._taken_outputs)

    def jobs(self) -> Iterator[list[Job]]:
        """Yield the jobs, newest first, so many at a time; previews are nobody's business."""
        shown = [job_id for job_id, known in self.state.known.items() if known.brief.kind == "localise"]
        shown.reverse()
        for at in range(0, len(shown), _JOBS_A_PAGE):
            page = shown[at : at + _JOBS_A_PAGE]
            yield [self.state.view(job_id) for job_id in page if job_id in self.state.known]

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job; returns when the file of its finished frames is in place, if that is soon."""
        self.state.job(job_id)
        await self.state.settled(self.state.core.cancel(job_id, now=self.state.clocks.now()))
        deadline = self.state.clocks.now() + self.cluster.cancel_wait_s
        signal = self.state.signals.job(job_id)
        while not self.state.has_ended(job_id) and (left_s := deadline - self.state.clocks.now()) > 0:
            if self.state.signals.closing:
                break
            await signal.wait(left_s)
        return self.state.view(job_id)

    async def retry(self, job_id: str) -> Job:
        """Put the failed tasks of a job back to work."""
        sheet = await self.state.sheet(job_id)
        decided = self.state.core.retry(job_id, now=self.state.clocks.now())
        self.state.job(job_id).held = sheet
        await self.state.settled(decided)
        return self.state.view(job_id)

    def foreign_fits(self) -> dict[str, ForeignFit]:
        """Return the fits that only workers have, by what they declare of them."""
        return foreign_fits(self.state.cards.values())

    async def presets(self) -> list[PresetInfo]:
        """Return the presets, built-in and the lab's own; raises `Unavailable`."""
        return await self._lab.presets({name: one.fit for name, one in self.foreign_fits().items()})

    async def profiles(self, series: str | None) -> ProfileListing:
        """Return the microscope profiles, and what a series would get of them; raises as `SeriesSource.locate` does."""
        if series is None:
            return await self._lab.profiles()
        facts = (await self._series.locate(series)).facts
        return await self._lab.profiles(facts.path, facts.metadata)

    async def spec(self, job_id: str) -> JobSpec:
        """Return what a worker must know of a job; raises `NotFound`, and `Unavailable` if the journal cannot be read."""
        return (await self.state.sheet(job_id)).spec(self.dataservers.present())

    async def events(self, job_id: str) -> AsyncIterator[Job | None]:
        """Yield a job at each change, not too often, until it ends; None keeps the stream alive."""
        signal = self.state.signals.job(job_id)
        last: Job | None = None
        while job_id in self.state.known:
            pulses = signal.pulses
            seen = self.state.view(job_id)
            yield seen if seen != last else None
            last = seen
            if seen.state in TERMINAL or self.state.signals.closing:
                return
            # one who reads slowly may have missed the last change there will be
            if signal.pulses != pulses or await signal.wait(_KEEP_STREAM_S):
                await self._pause(job_id, signal)

    async def _pause(self, job_id: str, signal: Signal) -> None:
        """Let changes gather for a moment, but not the last: it is what everyone waits for."""
        clock = asyncio.get_running_loop().time
        due = clock() + self.cluster.event_gap_s
        while job_id in self.state.known and not self.state.has_ended(job_id) and (left := due - clock()) > 0:
            await signal.wait(left)

    # --- who is there ------------------------------------------------------------------------------------------

    async def register_dataserver(self, registration: DataServerRegistration) -> DataServerRegistered:
        """Note where a data server is, and tell it how to recognise this cluster's tokens."""
        if self.dataservers.note(registration.info, now=self.state.clocks.now()):
            await self.state.journal.write([dataserver_statement(registration.info)])
            logger.info("data server at %s:%s registered", registration.info.host, registration.info.port)
        return DataServerRegistered(
            cluster_id=self.cluster.cluster_id,
            name=self.cluster.name,
            verifiers=self.cluster.verifiers,
            refresh_s=REFRESH_S,
        )

    def identity(self) -> Identity:
        """Return what anyone may know."""
        return Identity(
            role="scheduler",
            cluster_id=self.cluster.cluster_id,
            name=self.cluster.name,
            machine=self.cluster.machine,
            version=self.cluster.versions.clusterofone,
            join=self.cluster.join,
            dataservers=self.dataservers.present(),
            web=self.page_url,
        )

    # --- inside ------------------------------------------------------------------------------------------------

    async def _submitted(self, request: JobRequest, key: str | None, digest: str | None) -> Job:
        sheet = self._room.noted(await self._submissions.job(request, self._taken_outputs))
        if self.state.signals.closing:
            raise Unavailable("the scheduler is stopping")
        self.state.known[sheet.job_id] = Known(sheet.brief, sheet, idempotency_key=key, digest=digest)
        try:
            await self.state.settled(self.state.core.submit(sheet.order()))
        except ClusterError:
            self.state.posted(self.state.core.forget(sheet.job_id))
            raise
        self._follower.start(sheet.job_id)
        return self.state.view(sheet.job_id)

    def _taken_outputs(self) -> set[str]:
        """Return the files that jobs under way will write."""
        return {
            known.brief.output
            for job_id, known in self.state.known.items()
            if known.brief.output is not None and not self.state.has_ended(job_id)
        }

    def _of_key(self, key: str) -> Known | None:
        return next((known for known in self.state.known.values() if known.idempotency_key == key), None)

    async def _tick(self) -> None:
        """Let time pass for the core: leases run out, stragglers become old enough, workers fall silent."""
        while True:
            await asyncio.sleep(self.cluster.tick_s)
            try:
                now = self.state.clocks.now()
                self.state.posted(self.state.core.tick(now=now))
                self.dataservers.forget_silent(now=now)
                self.state.signals.work.pulse()
            except Exception:
                logger.exception("time could not pass for the scheduler; it will be tried again")
