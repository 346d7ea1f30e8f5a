"""The scheduler's figures for Prometheus. What has a state is read from it when somebody asks; what passes is counted."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.metrics import gauge_by, new_registry
from cluster.results.publish import free_bytes
from cluster.scheduler.blobs import size_of
from cluster.scheduler.progress import state_of

if TYPE_CHECKING:
    from cluster.scheduler.service import Service

_COMMIT_S: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_JOB_STATES: Final = ("waiting", "queued", "running", "done", "done_with_errors", "cancelled", "failed")
_WORKER_STATES: Final = ("idle", "working", "lost", "excluded", "draining")


class CommitMetrics:
    """What workers hand in, counted as it comes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "clusterofone_commit_duration_seconds",
            "From a result's last byte to its being on the disk.",
            registry=registry,
            buckets=_COMMIT_S,
        )
        self._frames = Counter(
            "clusterofone_committed_frames", "Frames whose result was accepted.", registry=registry
        )
        self._rows = Counter(
            "clusterofone_committed_localisations", "Localisations accepted.", registry=registry
        )
        self._bytes = Counter(
            "clusterofone_committed_bytes", "Bytes of the results accepted.", registry=registry
        )
        self._failures = Counter(
            "clusterofone_task_failures", "Attempts that came to nothing.", ["kind"], registry=registry
        )

    def accepted(self, frames: int, rows: int, size: int) -> None:
        """Count a result."""
        self._frames.inc(frames)
        self._rows.inc(rows)
        self._bytes.inc(size)

    def failed(self, kind: str) -> None:
        """Count an attempt that came to nothing."""
        self._failures.labels(kind).inc()


class SchedulerMetrics:
    """The registry of a scheduler's app, and what is counted into it."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.commits = CommitMetrics(self.registry)

    def watch(self, service: Service) -> None:
        """Read the rest from a scheduler when it is asked for. Ask on the loop that owns it."""
        self.registry.register(_State(service))


class _State(Collector):
    """What the scheduler's state says now."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        """Name nothing before there is something to look at."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all of it."""
        yield from self._jobs()
        yield from self._workers()
        yield from self._disk()

    def _jobs(self) -> Iterator[Metric]:
        shown = [
            job
            for job_id, job in self._service.state.core.jobs.items()
            if (known := self._service.state.known.get(job_id)) and known.brief.kind == "localise"
        ]
        states = dict.fromkeys(_JOB_STATES, 0) | Tally(state_of(job) for job in shown)
        yield gauge_by("clusterofone_jobs", "Jobs known, by state.", "state", states.items())
        tallies = [job.tally for job in shown]
        frames = {
            "localised": sum(tally.localised for tally in tallies),
            "skipped": sum(tally.skipped for tally in tallies),
            "failed": sum(tally.failed for tally in tallies),
            "remaining": sum(job.total - job.tally.frames for job in shown),
        }
        yield gauge_by(
            "clusterofone_frames",
            "Frames of all jobs, by what became of them; their sum is all there are.",
            "state",
            frames.items(),
        )
        tasks = {
            "pending": sum(sum(1 for _ in job.waiting()) for job in shown),
            "leased": sum(len(job.leased) for job in shown),
            "committed": sum(tally.tasks_done for tally in tallies),
            "failed": sum(len(job.failed) for job in shown),
        }
        yield gauge_by("clusterofone_tasks", "Tasks cut so far, by state.", "state", tasks.items())
        leases = sum(len(leased.grants) for job in shown for _, leased in job.live())
        yield GaugeMetricFamily("clusterofone_leases", "Leases held; a slow task may have two.", value=leases)
        retries = sum(tally.retries for tally in tallies)
        yield CounterMetricFamily(
            "clusterofone_retries", "Tasks handed out again, over the jobs known.", value=retries
        )
        rows = sum(tally.rows for tally in tallies)
        yield GaugeMetricFamily("clusterofone_localisations", "Localisations of all jobs.", value=rows)

    def _workers(self) -> Iterator[Metric]:
        workers = self._service.state.core.workers.values()
        states = dict.fromkeys(_WORKER_STATES, 0) | Tally(worker.state for worker in workers)
        yield gauge_by("clusterofone_workers", "Workers, by state.", "state", states.items())
        servers = len(self._service.dataservers.present())
        yield GaugeMetricFamily("clusterofone_dataservers", "Data servers registered.", value=servers)

    def _disk(self) -> Iterator[Metric]:
        folder = self._service.state.journal.folder
        size = sum(size_of(folder / f"journal.sqlite{suffix}") for suffix in ("", "-wal"))
        yield GaugeMetricFamily("clusterofone_journal_bytes", "The journal on the disk.", value=size)
        yield GaugeMetricFamily(
            "clusterofone_result_blob_bytes",
            "Results of tasks kept as files, until no result file needs them.",
            value=self._service.blobs.size_bytes,
        )
        yield GaugeMetricFamily(
            "clusterofone_state_free_bytes", "Room on the disk of the state.", value=free_bytes(folder)
        )
