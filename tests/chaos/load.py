"""What a lab does meanwhile: jobs on finished series, jobs that are cancelled, files that are replaced and put back, series
that are acquired and followed, files that are uploaded."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile

from cluster.backoff import Backoff
from cluster.protocol import NewSeries
from cluster.series_writer import SeriesWriter
from cluster.transport import BlockingLink
from tests.chaos.cluster import TERMINAL, ChaosCluster
from tests.chaos.tables import Tables

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"threshold": 1.4},
    {"background_percentile": 0},
    {"estimator": "wls"},
    {"track_fiducials": True, "fiducial_threshold": 1.0},  # drift is known from these
)
AT_ONCE = 3
PATIENT = Backoff(first_s=0.1, longest_s=1.0, total_s=600.0)


def put_marker(series: Path) -> None:
    """Add a bead to every frame of a series, which goes slowly to the right."""
    stack = tifffile.imread(series)
    frame, y, x = np.ogrid[: len(stack), : stack.shape[1], : stack.shape[2]]
    bead = 600.0 * np.exp(-((y - 32.0) ** 2 + (x - 30.0 - 0.004 * frame) ** 2) / (2 * 3.0**2))
    tifffile.imwrite(series, (stack + bead).astype(stack.dtype))


@dataclass(frozen=True)
class Ended:
    """A job that has ended."""

    series: str
    what: str
    state: str
    frames: dict[str, int]
    same_table: bool
    retried: int


@dataclass
class Load:
    """Keeps jobs coming until told to stop. `references` are the tables of an undisturbed run, by series and settings."""

    cluster: ChaosCluster
    chance: Random
    count: Callable[[str], None]
    series: dict[str, int]
    references: dict[tuple[str, int], Tables] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    submitted: int = 0
    broken: list[str] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=itertools.count)

    async def note_references(self) -> None:
        """Localise every series with all settings while nothing goes wrong."""
        for series in self.series:
            put_marker(self.cluster.root / series)
            for number, settings in enumerate(SETTINGS):
                job = await self.cluster.ended(
                    await self._submit(series, settings, f"reference {series} {number}")
                )
                assert job["state"] == "done", job
                tables = self.references[series, number] = Tables.of(job["output"])
                assert len(tables.localisations), f"{series} has no localisations"
                assert len(tables.markers) or not settings.get("track_fiducials"), f"{series} has no markers"

    async def go_on(self, stop: asyncio.Event) -> None:
        """Do one thing after the other, a few at once, until `stop`; return when all that was begun has ended."""
        await asyncio.gather(*(self._one_after_the_other(stop) for _ in range(AT_ONCE)))

    async def _one_after_the_other(self, stop: asyncio.Event) -> None:
        kinds = [self._job, self._job, self._cancelled, self._replaced, self._acquisition, self._upload]
        while not stop.is_set():
            await self.chance.choice(kinds)()

    async def _job(self) -> None:
        series, number = self._any()
        what = "with markers" if "track_fiducials" in SETTINGS[number] else "plain"
        await self._watched(series, what, series, number, through_proxy=True)

    async def _cancelled(self) -> None:
        """Cancel a job once it has begun: what is finished by then is kept, and is as it would have been."""
        series, number = self._any()
        job_id = await self._submit(
            series, SETTINGS[number], f"cancelled {self.submitted}", through_proxy=True
        )
        await self._begun(job_id)
        await self.cluster.answered("DELETE", f"{self.cluster.url}/api/v1/jobs/{job_id}")
        job, whole = await self.cluster.ended(job_id), self.references[series, number]
        if job["output"] is None:
            good = job["state"] == "cancelled" and job["frames"]["localised"] == 0
        else:
            tables = Tables.of(job["output"])
            good = len(tables.localisations) == job["localisations"] and (
                whole.holds(tables) if job["state"] == "cancelled" else whole.same(tables)
            )
        self._note(series, "cancelled", job, good, 0)

    async def _replaced(self) -> None:
        """Put another file in the place of a series while its job runs, then the first one back, and have the rest done."""
        source, other = self.chance.sample(sorted(self.series), 2)
        path = f"replaced {next(self._names)}.tif"
        file, kept, new = (self.cluster.root / f"{path}{suffix}" for suffix in ("", ".kept", ".new"))
        shutil.copy(self.cluster.root / source.replace(".tif", ".json"), file.with_suffix(".json"))
        shutil.copy(self.cluster.root / source, file)
        shutil.copy(self.cluster.root / other, new)
        job_id = await self._submit(path, SETTINGS[0], f"replaced {self.submitted}")
        await self._begun(job_id)
        kept.hardlink_to(file)
        new.replace(file)
        self.count("series replaced")
        await self.cluster.ended(job_id)
        kept.replace(file)
        await self._finished(job_id, path, "replaced", self.references[source, 0])

    def _any(self) -> tuple[str, int]:
        """Draw a series, and the number of some settings."""
        return self.chance.choice(sorted(self.series)), self.chance.randrange(len(SETTINGS))

    async def _begun(self, job_id: str) -> None:
        """Wait until a job has localised something, or has ended."""
        while (job := await self.cluster.job(job_id))["frames"]["localised"] == 0:
            if job["state"] in TERMINAL:
                return
            await asyncio.sleep(0.05)

    async def _acquisition(self) -> None:
        """Send a series frame by frame, and follow it."""
        source = self.chance.choice(sorted(self.series))
        path = f"acquired {next(self._names)}.zarr"
        stack = tifffile.imread(self.cluster.root / source)
        metadata = self.cluster.root / source.replace(".tif", ".json")
        sending = asyncio.create_task(
            asyncio.to_thread(self._send, path, stack, metadata, self.chance.random())
        )
        await self._there(path)
        await self._watched(path, "acquisition", source, 0, follow=True)
        await sending

    def _send(self, path: str, stack: np.ndarray[Any, Any], metadata: Path, seed: float) -> None:
        chance = Random(seed)
        new = NewSeries(
            height=stack.shape[1], width=stack.shape[2], chunk_frames=16,
            metadata=json.loads(metadata.read_text(encoding="utf-8")),
        )  # fmt: skip

        def link() -> BlockingLink:
            return BlockingLink(self.cluster.proxies[1].url, token=self.cluster.token)

        with SeriesWriter(link, path, new, flush_s=0.2, backoff=PATIENT) as writer:
            at = 0
            while at < len(stack):
                stop = min(len(stack), at + chance.randint(1, 24))
                writer.append(stack[at:stop], start=at)
                if chance.random() < 0.1:
                    self.count("frames sent twice")
                    writer.append(stack[at:stop], start=at)
                at = stop

    async def _there(self, path: str) -> None:
        while (
            await self.cluster.answered("GET", f"{self.cluster.data_url}/api/v1/series/{path}")
        ).status_code != 200:
            await asyncio.sleep(0.1)

    async def _upload(self) -> None:
        """Send a file, torn in the middle a few times, then whole; localise it."""
        source, path = self.chance.choice(sorted(self.series)), f"uploaded {next(self._names)}.tif"
        body = (self.cluster.root / source).read_bytes()
        url = f"{self.cluster.data_url}/api/v1/files/{path}"
        for _ in range(self.chance.randint(0, 2)):
            await asyncio.to_thread(self._tear, path, body)
            self.count("upload torn")
            if (
                await self.cluster.answered("GET", f"{self.cluster.data_url}/api/v1/series/{path}")
            ).status_code == 200:
                self.broken.append(f"a torn upload of {path} is shown as a series")
        sidecar = path.replace(".tif", ".json")
        await self._put(
            f"{self.cluster.data_url}/api/v1/files/{sidecar}",
            (self.cluster.root / source.replace(".tif", ".json")).read_bytes(),
        )
        await self._put(url, body)
        await self._watched(path, "upload", source, 0)

    async def _put(self, url: str, body: bytes) -> None:
        reply = await self.cluster.answered("PUT", url, content=body)
        if reply.status_code not in {200, 201, 409}:  # 409: it arrived the first time
            self.broken.append(f"PUT {url}: {reply.text}")

    def _tear(self, path: str, body: bytes) -> None:
        host, port = "127.0.0.1", int(self.cluster.data_url.rpartition(":")[2])
        head = (
            f"PUT /api/v1/files/{path.replace(' ', '%20')} HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {self.cluster.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            with socket.create_connection((host, port), timeout=5.0) as connection:
                connection.sendall(head.encode() + body[: self.chance.randrange(len(body))])
        except OSError:
            return

    async def _watched(
        self,
        series: str,
        what: str,
        source: str,
        number: int,
        *,
        follow: bool = False,
        through_proxy: bool = False,
    ) -> None:
        """Submit a job and see it through."""
        job_id = await self._submit(
            series, SETTINGS[number], f"{what} {self.submitted}", follow=follow, through_proxy=through_proxy
        )
        await self._finished(job_id, series, what, self.references[source, number])

    async def _finished(self, job_id: str, series: str, what: str, whole: Tables) -> None:
        """Wait for the end of a job, have its failed tasks tried again as a person would, and look at its tables."""
        job, retried = await self.cluster.ended(job_id), 0
        while job["state"] in {"done_with_errors", "failed"} and retried < 20:
            if job["state"] == "failed" or job["frames"]["failed"]:
                await asyncio.sleep(1.0)
                await self.cluster.answered("POST", f"{self.cluster.url}/api/v1/jobs/{job_id}/retry")
                retried += 1
            else:
                break
            job = await self.cluster.ended(job_id)
        self._note(
            series, what, job, job["state"] == "done" and whole.same(Tables.of(job["output"])), retried
        )

    def _note(self, series: str, what: str, job: dict[str, Any], same: bool, retried: int) -> None:
        self.ended.append(Ended(series, what, job["state"], job["frames"], same, retried))
        if not same:
            self.broken.append(
                f"{what} on {series}: {job['state']}, {job['frames']}, {job['error'] or 'another table'}; {job['failed_frames'][:3]}"
            )

    async def _submit(
        self,
        series: str,
        settings: dict[str, Any],
        key: str,
        *,
        follow: bool = False,
        through_proxy: bool = False,
    ) -> str:
        self.submitted += 1
        url = self.cluster.proxies[0].url if through_proxy else self.cluster.url
        asked = {"series": series, "analysis": settings, "follow": follow}
        while True:
            reply = await self.cluster.answered(
                "POST", f"{url}/api/v1/jobs", json=asked, headers={"Idempotency-Key": key}
            )
            if reply.status_code in {200, 201}:
                return str(reply.json()["id"])
            if reply.status_code != 404:  # it is there, but its data server may just have come back
                raise RuntimeError(reply.text)
            await asyncio.sleep(0.2)
