"""The public Python client: `Client().submit("cells/series_A.tif")`. Speaks the REST interface and nothing else."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from cluster.arrays import MAX_FRAMES_BYTES, FrameRange, decode_frames
from cluster.backoff import Attempts, Backoff, Pace, persist_now
from cluster.calibration_client import API as _API
from cluster.calibration_client import POLL_S as _POLL_S
from cluster.calibration_client import CalibrationCalls, listed
from cluster.config import Places
from cluster.data_link import data_link
from cluster.errors import Internal, NotAllowed, NotFound, TransientError
from cluster.events import parsed_events
from cluster.faults import invalid_message
from cluster.locate import Located, Locator, Wanted
from cluster.protocol import (
    FitInfo,
    Identity,
    Job,
    JobCheck,
    JobDetail,
    JobList,
    JobRequest,
    JoinDecision,
    LogTail,
    Message,
    PendingJoin,
    PendingJoins,
    PresetInfo,
    Preview,
    PreviewRequest,
    ProfileListing,
    RootSpace,
    SeriesFacts,
    SeriesListing,
    UploadedFile,
    Worker,
)
from cluster.result_client import ResultCalls, job_route
from cluster.series_writer import SeriesWriter, split_options
from cluster.transport import BlockingLink, Reply, normalised_url, series_route

T = TypeVar("T")
B = TypeVar("B", bound=BaseModel)

ENDED: Final = frozenset({"done", "done_with_errors", "cancelled", "failed"})
_QUIET_S: Final = 30.0
_PREVIEW_S: Final = 90.0
_ROWS_LIMIT_BYTES: Final = 2 << 30
_PICTURE_LIMIT_BYTES: Final = 1 << 30
_DRIFT_S: Final = 150.0
_UPLOAD_S: Final = 120.0
_PIECE_BYTES: Final = 1 << 20
_ROOTS: Final = TypeAdapter(list[RootSpace])
_WORKERS: Final = TypeAdapter(list[Worker])
_FITS: Final = TypeAdapter(list[FitInfo])
_PRESETS: Final = TypeAdapter(list[PresetInfo])
_ANY_JOB: Final[TypeAdapter[Job | JobDetail]] = TypeAdapter(Job | JobDetail)


class Client(CalibrationCalls, ResultCalls):
    """A cluster, as a script sees it. Every method raises the errors of `cluster.errors`.

    Without `url` the cluster is looked for: CLUSTEROFONE_SCHEDULER, the configuration file, this user's cluster on
    this machine, and, with `allow_discovery`, mDNS. Without `token`: CLUSTEROFONE_TOKEN, the configuration file, or this
    user's own. Calls that are safe to repeat are repeated while the cluster is away, for as long as `backoff` says.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        name: str | None = None,
        allow_discovery: bool = True,
        environ: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        backoff: Backoff | None = None,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if url is None or (token is None and transport is None):
            # A script's client is the entry point, so the environment is read here, unless the caller has done so.
            surroundings = os.environ if environ is None else environ
            located = _located(url, token, name, surroundings, allow_discovery=allow_discovery)
            url, token = located.url, located.token
        self._transport = transport
        self._link = BlockingLink(normalised_url(url), token, transport=transport)
        self._data: BlockingLink | None = None
        self._backoff = backoff or Backoff(total_s=30.0)
        self._pace = pace or Pace(rng=random.Random())  # noqa: S311 -- jitter, not a secret
        self._sleep = sleep

    @property
    def url(self) -> str:
        """Where the scheduler is."""
        return self._link.url

    def __enter__(self) -> Self:
        """Use the client for the length of a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._link.close()
        if self._data is not None:
            self._data.close()

    # --- jobs ---

    def submit(
        self,
        series: str,
        *,
        analysis: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Job:
        """Submit a job; `others` are the further fields of `cluster.protocol.JobRequest` (output, name, priority …).

        Raises
        ------
        Invalid
            If a setting or metadata key is missing, unknown or out of range; names it.
        NotFound
            If there is no such series.
        """
        try:
            request = JobRequest(
                series=series, analysis=dict(analysis or {}), metadata=dict(metadata or {}), **others
            )
        except ValidationError as error:
            raise invalid_message(error) from error
        return self.submit_request(request)

    def submit_request(self, request: JobRequest, *, idempotency_key: str | None = None) -> Job:
        """Submit a job that has been put together; sent twice under one key it is one job."""
        headers = {"idempotency-key": idempotency_key or secrets.token_hex(16)}
        return _job(self._again("POST", "/jobs", request, headers=headers))

    def check(self, request: JobRequest) -> JobCheck:
        """Return what a job would be if it were submitted, and what is wrong with it; nothing is queued."""
        return self._again("POST", "/jobs/check", request).message(JobCheck)

    def jobs(self) -> list[Job]:
        """Return all jobs, newest first."""
        return self._again("GET", "/jobs").message(JobList).jobs

    def job(self, job_id: str) -> JobDetail:
        """Return a job with everything that decides its result; raises `NotFound`."""
        return self._again("GET", job_route(job_id)).message(JobDetail)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; the frames that are finished are kept as a partial result."""
        return _job(self._again("DELETE", job_route(job_id)))

    def retry(self, job_id: str) -> Job:
        """Queue a job's failed frames again."""
        return _job(self._again("POST", job_route(job_id, "/retry")))

    def watch(self, job_id: str, *, poll_s: float = _POLL_S) -> Iterator[Job]:
        """Yield a job at each change, and last in the state in which it ended.

        Survives a scheduler that restarts: the stream is opened anew, and where there are no streams the job is polled.

        Raises
        ------
        NotFound
            If there is no such job.
        Unavailable
            If the scheduler stays away for longer than the client's back-off allows.
        """
        last: Job | None = None
        attempts = self._attempts()
        while last is None or last.state not in ENDED:
            try:
                for job in self._changes(job_id, poll_s):
                    attempts = self._attempts()
                    if job != last:
                        last = job
                        yield job
            except TransientError as error:
                self._sleep(attempts.pause_s(error))
            else:
                if last is None or last.state not in ENDED:
                    self._sleep(poll_s)

    def preview(
        self,
        series: str,
        *,
        analysis: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        frames: int | Sequence[int] = 12,
    ) -> Preview:
        """Localise a few frames spread through a series, or those given, and return what was found in each."""
        request = PreviewRequest(
            series=series,
            analysis=dict(analysis or {}),
            metadata=dict(metadata or {}),
            frames=frames if isinstance(frames, int) else list(frames),
        )
        return self._link.request("POST", f"{_API}/preview", request, timeout_s=_PREVIEW_S).message(Preview)

    # --- the cluster ---

    def identity(self) -> Identity:
        """Return which cluster this is."""
        return self._again("GET", "/identity").message(Identity)

    def fits(self) -> list[FitInfo]:
        """Return every type of fit with the schema of its settings."""
        return listed(_FITS, self._again("GET", "/fits"))

    def presets(self) -> list[PresetInfo]:
        """Return the presets, built-in and the lab's own."""
        return listed(_PRESETS, self._again("GET", "/presets"))

    def profiles(self, series: str | None = None) -> ProfileListing:
        """Return the microscope profiles, and which are for a series."""
        params = {} if series is None else {"series": series}
        return self._again("GET", "/profiles", params=params).message(ProfileListing)

    def workers(self) -> list[Worker]:
        """Return the workers."""
        return listed(_WORKERS, self._again("GET", "/workers"))

    def drain(self, worker_id: str) -> None:
        """Give a worker no more work; it finishes what it has begun."""
        self._again("POST", f"/workers/{quote(worker_id, safe='')}/drain")

    def undrain(self, worker_id: str) -> None:
        """Give a drained worker work again."""
        self._again("DELETE", f"/workers/{quote(worker_id, safe='')}/drain")

    def log(self, lines: int = 200) -> list[str]:
        """Return the last lines that the scheduler logged, oldest first."""
        return self._again("GET", "/log", params={"lines": lines}).message(LogTail).lines

    def roots(self, dataserver_id: str) -> list[RootSpace]:
        """Return the folders of a data server with the room on their disks; raises `Unavailable` if it does not answer."""
        link = data_link(self._link, only=dataserver_id, transport=self._transport)
        try:
            return listed(_ROOTS, link.request("GET", f"{_API}/roots"))
        finally:
            link.close()

    def pending_joins(self) -> list[PendingJoin]:
        """Return the machines that wait to be let in."""
        return self._again("GET", "/join").message(PendingJoins).waiting

    def decide_join(self, join_id: str, *, approve: bool) -> None:
        """Let a waiting machine in, or not."""
        self._again("POST", f"/join/{quote(join_id, safe='')}", JoinDecision(approve=approve))

    def approve(self, join_id: str) -> None:
        """Let a waiting machine in."""
        self.decide_join(join_id, approve=True)

    # --- series ---

    def series(self, under: str = "", *, calibrations: bool = False) -> SeriesListing:
        """Return the folders and series that lie under a folder of the data server; also shift fields and width curves, if asked."""
        params = {"under": under} | ({"calibrations": "true"} if calibrations else {})
        return self._from_data(f"{_API}/series", params=params).message(SeriesListing)

    def facts(self, path: str, *, follow: bool = False) -> SeriesFacts:
        """Return what a series is: shape, frames, metadata; with `follow` as one that another program may still write."""
        params = {"follow": "true"} if follow else None
        return self._from_data(series_route(path), params=params).message(SeriesFacts)

    def frames(self, path: str, start: int, stop: int) -> FrameRange:
        """Return frames [start, stop) of a series."""
        reply = self._from_data(
            series_route(path, "/frames"),
            params={"start": start, "stop": stop, "codec": "blosc-lz4"},
            limit_bytes=MAX_FRAMES_BYTES,
        )
        return decode_frames(reply.content)

    def upload(self, path: str, content: Path | Iterator[bytes], *, size: int | None = None) -> UploadedFile:
        """Put a file under the data server's roots: whole or not at all, and over nothing.

        `content` is a file, or its bytes piece by piece, and then `size` says how many there are, if that is known.

        Raises
        ------
        Conflict
            If there is something of this name already.
        Invalid, Forbidden, OutOfSpace
            If the name is none under a root, nothing may be written, or the disk is nearly full.
        """
        if isinstance(content, Path):
            with content.open("rb") as file:
                pieces = iter(partial(file.read, _PIECE_BYTES), b"")
                return self.upload(path, pieces, size=content.stat().st_size)
        headers = {} if size is None else {"content-length": str(size)}
        route = f"{_API}/files/{quote(path)}"
        reply = self._data_link().request("PUT", route, content, headers=headers, timeout_s=_UPLOAD_S)
        return reply.message(UploadedFile)

    def series_writer(
        self, path: str, *, height: int, width: int, dtype: str = "uint16", **others: Any
    ) -> SeriesWriter:
        """Return a writer that makes a series of the frames it is given; to be used by `with`.

        `others` are the further fields of `cluster.protocol.NewSeries` (metadata, frames, lossy …) and options of
        `cluster.series_writer.SeriesWriter` (queue_bytes, when_full …).
        """
        new, options = split_options({"height": height, "width": width, "dtype": dtype, **others})
        return SeriesWriter(partial(data_link, self._link, transport=self._transport), path, new, **options)

    # --- how it is done ---

    def _again(self, method: str, path: str, body: Message | None = None, **options: Any) -> Reply:
        return self._persist(lambda: self._link.request(method, f"{_API}{path}", body, **options))

    def _persist(self, call: Callable[[], T]) -> T:
        return persist_now(call, self._backoff, sleep=self._sleep, pace=self._pace)

    def _attempts(self) -> Attempts:
        return Attempts(self._backoff, clock=self._pace.clock, rng=self._pace.rng)

    def _changes(self, job_id: str, poll_s: float) -> Iterator[Job]:
        route = f"{_API}{job_route(job_id, '/events')}"
        try:
            with self._link.stream("GET", route, timeout_s=_QUIET_S) as response:
                for event in parsed_events(response.iter_lines()):
                    if event.name == "job":
                        yield _as_job(event.data, route)
        except (NotAllowed, NotFound):
            job = _plain(self.job(job_id))  # raises NotFound if it is the job that is not there
            yield job
            if job.state not in ENDED:
                self._sleep(poll_s)

    def _from_data(self, path: str, **options: Any) -> Reply:
        return self._persist(lambda: self._data_link().request("GET", path, **options))

    def _data_link(self) -> BlockingLink:
        if self._data is None:
            self._data = data_link(self._link, transport=self._transport)
        return self._data


def _located(
    url: str | None, token: str | None, name: str | None, environ: Mapping[str, str], *, allow_discovery: bool
) -> Located:
    wanted = Wanted(
        url=url,
        token=token,
        environ_url=environ.get("CLUSTEROFONE_SCHEDULER"),
        environ_token=environ.get("CLUSTEROFONE_TOKEN"),
        name=name,
        discover=allow_discovery,
    )
    locator = Locator(Places.of_user(environ), role="owner")
    with ThreadPoolExecutor(1) as aside:  # a notebook's own thread has a running loop already
        return aside.submit(lambda: asyncio.run(locator.locate(wanted))).result()


def _job(reply: Reply) -> Job:
    return _as_job(reply.content, reply.url)


def _as_job(content: str | bytes, url: str) -> Job:
    """Read a job; one with its details is a job too."""
    try:
        return _plain(_ANY_JOB.validate_json(content))
    except ValidationError as error:
        raise Internal(f"{url} did not answer with a job that this version understands") from error


def _plain(job: Job) -> Job:
    return Job.model_validate(job.model_dump(include=set(Job.model_fields)))
