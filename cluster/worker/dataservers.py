"""Where the frames are: the addresses of the data servers in the order to try them, and the one that worked."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from cluster.addresses import Candidate, Place, candidates
from cluster.arrays import MAX_FRAMES_BYTES, FrameRange
from cluster.backoff import Attempts, Backoff, Pace
from cluster.errors import ChecksumMismatch, ClusterError, NotFound, TransientError, Unauthorised, Unavailable
from cluster.protocol import CalibrationFile, DataServerInfo, Identity, SeriesFacts, SeriesPlace
from cluster.stored_frames import decode
from cluster.threads import DaemonThread
from cluster.transport import CALIBRATION_BYTES, PLACE_BYTES, Link, calibration_route, series_route

logger = logging.getLogger(__name__)

T = TypeVar("T")
_FRAMES_TIMEOUT_S: Final = 60.0
_DAMAGED_TWICE: Final = 3


class DataServers:
    """Speaks to whichever data server has a series, and remembers the address that answered.

    An address counts once `/api/v1/identity` there names our cluster, so that no token goes to a stranger who
    happens to have the port.
    """

    def __init__(
        self,
        place: Callable[[], Place],
        connect: Callable[[str], Link],
        *,
        pace: Pace,
        backoff: Backoff,
        decoder: DaemonThread,
    ) -> None:
        self._place = place
        self._connect = connect
        self._pace = pace
        self._backoff = backoff
        self._decoder = decoder
        self._links: dict[str, Link] = {}
        self._answered: list[str] = []

    async def frames(
        self, servers: Sequence[DataServerInfo], path: str, start: int, stop: int, fingerprint: str
    ) -> FrameRange:
        """Return frames [start, stop) of a series.

        Raises
        ------
        Unavailable
            If no data server answers in time.
        CallerError
            If none has the series, the range cannot be had, or the file is not the one the job began with.
        """

        async def fetch(link: Link, near: bool) -> FrameRange:
            params: dict[str, str | int | float] = {"start": start, "stop": stop}
            params |= {"codec": "none" if near else "blosc-lz4", "stored": 1}
            if fingerprint:
                params["fingerprint"] = fingerprint
            reply = await link.request(
                "GET",
                series_route(path, "/frames"),
                params=params,
                timeout_s=_FRAMES_TIMEOUT_S,
                limit_bytes=MAX_FRAMES_BYTES,
            )
            return await self._decoder.call(lambda: decode(reply.content))

        return await self._patiently(servers, fetch)

    async def place(
        self, servers: Sequence[DataServerInfo], path: str, fingerprint: str
    ) -> tuple[SeriesPlace, bool] | None:
        """Return in which files the frames lie, and whether that is this machine; None if they do not lie in any.

        Raises as `frames` does.
        """
        params: dict[str, str | int | float] = {"fingerprint": fingerprint} if fingerprint else {}

        async def fetch(link: Link, near: bool) -> tuple[SeriesPlace, bool]:
            route = series_route(path, "/place")
            return await link.get(route, SeriesPlace, params=params, limit_bytes=PLACE_BYTES), near

        try:
            return await self._patiently(servers, fetch)
        except NotFound:
            return None

    async def facts(self, servers: Sequence[DataServerInfo], path: str) -> SeriesFacts:
        """Return what a series is; raises as `frames` does."""

        async def fetch(link: Link, near: bool) -> SeriesFacts:
            del near
            return await link.get(series_route(path), SeriesFacts)

        return await self._patiently(servers, fetch)

    async def calibration(self, servers: Sequence[DataServerInfo], path: str) -> CalibrationFile:
        """Return a shift field or width curves; raises as `frames` does."""

        async def fetch(link: Link, near: bool) -> CalibrationFile:
            del near
            return await link.get(calibration_route(path), CalibrationFile, limit_bytes=CALIBRATION_BYTES)

        return await self._patiently(servers, fetch)

    async def aclose(self) -> None:
        """Close the connections."""
        for link in self._links.values():
            await link.aclose()

    async def _patiently(
        self, servers: Sequence[DataServerInfo], fetch: Callable[[Link, bool], Awaitable[T]]
    ) -> T:
        attempts = Attempts(self._backoff, clock=self._pace.clock, rng=self._pace.rng)
        damaged = 0
        while True:
            try:
                return await self._once(servers, fetch)
            except TransientError as error:
                pause = attempts.pause_s(error)
            except ChecksumMismatch:
                damaged += 1
                if damaged >= _DAMAGED_TWICE:
                    raise
                pause = 0.0
            await self._pace.sleep(pause)

    async def _once(
        self, servers: Sequence[DataServerInfo], fetch: Callable[[Link, bool], Awaitable[T]]
    ) -> T:
        tried: list[str] = []
        absent: NotFound | None = None
        for candidate in self._in_order(candidates(servers, self._place())):
            try:
                link = await self._link(candidate)
                fetched = await fetch(link, candidate.near)
            except NotFound as error:
                absent = error
            except (TransientError, Unauthorised) as error:  # one that has just started knows no token yet
                self._failed(candidate)
                tried.append(error.detail)
            else:
                self._worked(candidate)
                return fetched
        if absent is not None and not tried:
            raise absent
        why = "; ".join(tried) if tried else "the scheduler knows of none that this machine could reach"
        raise Unavailable(f"no data server can be reached: {why}")

    def _in_order(self, found: list[Candidate]) -> list[Candidate]:
        """Put the addresses that answered before first, the latest of them foremost; the sort is stable."""
        rank = {url: -number for number, url in enumerate(self._answered, start=1)}
        return sorted(found, key=lambda candidate: rank.get(candidate.url, 0))

    async def _link(self, candidate: Candidate) -> Link:
        link = self._links.get(candidate.url)
        if link is None:
            link = None
            try:
                link = self._connect(candidate.url)
                await self._confirm(link)
            except ClusterError as error:
                if link is not None:
                    await link.aclose()
                if isinstance(error, TransientError):
                    raise
                raise Unavailable(error.detail) from error
            self._links[candidate.url] = link
        return link

    async def _confirm(self, link: Link) -> None:
        identity = await link.get("/api/v1/identity", Identity, timeout_s=3.0, anonymous=True)
        if identity.role != "dataserver" or identity.cluster_id != self._place().cluster_id:
            raise Unavailable(f"{link.url} is not a data server of this cluster")

    def _worked(self, candidate: Candidate) -> None:
        if not self._answered or self._answered[-1] != candidate.url:
            self._answered = [url for url in self._answered if url != candidate.url] + [candidate.url]
            logger.info("frames come from %s", candidate.url)

    def _failed(self, candidate: Candidate) -> None:
        self._answered = [url for url in self._answered if url != candidate.url]
