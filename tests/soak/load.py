"""A lab's day: jobs with several fits, Tests, jobs that are cancelled, series that are acquired, pictures and tables."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import tifffile

from cluster.backoff import Backoff
from cluster.protocol import NewSeries
from cluster.series_writer import SeriesWriter
from cluster.transport import BlockingLink
from tests.chaos.cluster import ChaosCluster

AT_ONCE = 3
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"estimator": "wls"},
    {"threshold": 1.4, "background_percentile": 0},
    {"fit": "GaussMultifitSR"},
    {"fit": "LatFitCOIR"},
)
PATIENT = Backoff(first_s=0.1, longest_s=1.0, total_s=600.0)


@dataclass
class Day:
    """Keeps people busy until told to stop."""

    cluster: ChaosCluster
    chance: Random
    series: tuple[str, ...]
    ended: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    jobs: int = 0
    _names: Iterator[int] = field(default_factory=itertools.count)

    async def go_on(self, stop: asyncio.Event) -> None:
        """Do one thing after the other, a few at once, until `stop`; return when all that was begun has ended."""
        await asyncio.gather(*(self._person(stop) for _ in range(AT_ONCE)))

    async def _person(self, stop: asyncio.Event) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [
            *(self._job, self._job, self._test, self._cancelled, self._acquisition, self._look),
        ]
        while not stop.is_set():
            await self.chance.choice(kinds)()

    async def _job(self) -> None:
        job = await self.cluster.ended(await self._submit(self.chance.choice(self.series)))
        self._expect("job", job, {"done"})
        for kind in ("csv", "h5r"):
            reply = await self._get(f"jobs/{job['id']}/results.{kind}")
            if reply.status_code != 200:
                self.broken.append(f"results.{kind} of {job['id']}: {reply.text}")

    async def _test(self) -> None:
        asked = {
            "series": self.chance.choice(self.series),
            "analysis": self.chance.choice(SETTINGS),
            "frames": 4,
        }
        reply = await self.cluster.http.post(f"{self.cluster.url}/api/v1/preview", json=asked, timeout=120.0)
        self.ended["Test"] += 1
        if reply.status_code != 200:
            self.broken.append(f"Test: {reply.text}")

    async def _cancelled(self) -> None:
        job_id = await self._submit("long.tif")
        await asyncio.sleep(self.chance.uniform(0.0, 2.0))
        await self.cluster.http.delete(f"{self.cluster.url}/api/v1/jobs/{job_id}", timeout=60.0)
        self._expect("cancelled job", await self.cluster.ended(job_id), {"cancelled", "done"})

    async def _acquisition(self) -> None:
        """Send a series while it is followed."""
        path = f"acquired {next(self._names)}.zarr"
        sending = asyncio.create_task(asyncio.to_thread(self._send, path))
        url = f"{self.cluster.data_url}/api/v1/series/{path}"
        while (await self.cluster.answered("GET", url)).status_code != 200:
            await asyncio.sleep(0.1)
        job = await self.cluster.ended(await self._submit(path, follow=True))
        await sending
        self._expect("acquisition", job, {"done"})

    async def _look(self) -> None:
        """Look at the list, a picture, rows and figures, and follow a job's events as a page does."""
        jobs = (await self._get("jobs")).json()["jobs"]
        self.ended["look"] += 1
        if not jobs:
            return
        job = self.chance.choice(jobs[:20])
        for what in ("render.png", "localisations", "events"):
            reply = await self._get(f"jobs/{job['id']}/{what}")
            if reply.status_code not in {200, 409}:  # 409: cancelled before it had a file
                self.broken.append(f"{what} of {job['id']}: {reply.text}")
        for url in (self.cluster.url, self.cluster.data_url):
            await self.cluster.answered("GET", f"{url}/metrics")

    def _send(self, path: str) -> None:
        stack = tifffile.imread(self.cluster.root / "short.tif")
        sidecar = (self.cluster.root / "short.json").read_text(encoding="utf-8")
        new = NewSeries.model_validate(
            {
                "height": stack.shape[1],
                "width": stack.shape[2],
                "chunk_frames": 16,
                "metadata": json.loads(sidecar),
            }
        )

        def link() -> BlockingLink:
            return BlockingLink(self.cluster.data_url, token=self.cluster.token)

        with SeriesWriter(link, path, new, flush_s=0.2, backoff=PATIENT) as writer:
            for at in range(0, len(stack), 10):
                writer.append(stack[at : at + 10], start=at)

    async def _submit(self, series: str, *, follow: bool = False) -> str:
        settings = {} if follow else self.chance.choice(SETTINGS)
        asked = {"series": series, "analysis": settings, "follow": follow}
        reply = await self.cluster.http.post(f"{self.cluster.url}/api/v1/jobs", json=asked, timeout=60.0)
        if reply.status_code != 201:
            raise RuntimeError(reply.text)
        self.jobs += 1
        return str(reply.json()["id"])

    async def _get(self, route: str) -> Any:
        return await self.cluster.http.get(f"{self.cluster.url}/api/v1/{route}", timeout=120.0)

    def _expect(self, what: str, job: dict[str, Any], states: set[str]) -> None:
        self.ended[what] += 1
        if job["state"] not in states:
            self.broken.append(f"{what} {job['id']} of {job['series']}: {job['state']}, {job['error']}")
