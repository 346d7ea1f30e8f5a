"""The data servers of the cluster, and asking them about a series."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from pydantic import TypeAdapter

from cluster.addresses import address_of
from cluster.arrays import decode_frames
from cluster.errors import ClusterError, Conflict, Invalid, NotFound, TransientError, Unavailable
from cluster.protocol import (
    CalibrationFile,
    CalibrationOrder,
    CalibrationRun,
    CalibrationRuns,
    DataServerInfo,
    SeriesEvent,
    SeriesFacts,
)
from cluster.transport import CALIBRATION_BYTES, Link, calibration_route, linked, run_route, series_route

T = TypeVar("T")
_FORGET_S: Final = 3600.0
_TIMEOUT_S: Final = 30.0
_MAX_FRAMES_BYTES: Final = 272 << 20
_EVENTS: Final = TypeAdapter(list[SeriesEvent])


@dataclass(frozen=True)
class Located:
    """A series, and the data servers that have it."""

    facts: SeriesFacts
    servers: list[DataServerInfo]


class SeriesSource(Protocol):
    """What the scheduler asks about a series. Errors name the series."""

    async def locate(self, series: str, *, follow: bool = False) -> Located:
        """Return the facts of a series, with `follow` as one that may still grow; raises `NotFound`, `Invalid` or `Unavailable`."""
        ...

    async def frames(self, located: Located, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return frames [start, stop) as (n, h, w) ADU."""
        ...

    async def events(self, located: Located) -> list[SeriesEvent]:
        """Return the acquisition events of a series."""
        ...

    async def calibration(self, path: str) -> CalibrationFile:
        """Return a shift field or width curves; raises as `locate`."""
        ...

    async def calibrate(self, order: CalibrationOrder) -> CalibrationRun:
        """Have the data server that has the series make a calibration."""
        ...

    async def calibration_runs(self) -> list[CalibrationRun]:
        """Return the calibrations that data servers know of, newest first."""
        ...

    async def calibration_run(self, run_id: str) -> CalibrationRun:
        """Return one; raises `NotFound` or `Unavailable`."""
        ...

    async def cancel_calibration(self, run_id: str) -> CalibrationRun:
        """End one, unless it has ended; raises as `calibration_run`."""
        ...

    async def calibration_report(self, run_id: str) -> bytes:
        """Return the picture of one; raises as `calibration_run`, and `Conflict` while there is none."""
        ...


class DataServers:
    """Who serves data, as far as they said so lately. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[DataServerInfo, float]] = {}

    def note(self, info: DataServerInfo, *, now: float) -> bool:
        """Note a data server; return whether what it says is new."""
        known = self._seen.get(info.id)
        self._seen[info.id] = (info, now)
        return known is None or known[0] != info

    def present(self) -> list[DataServerInfo]:
        """Return those that are there, the last heard of first."""
        return [info for info, _ in sorted(self._seen.values(), key=lambda entry: -entry[1])]

    def forget_silent(self, *, now: float) -> None:
        """Drop those not heard of for an hour."""
        self._seen = {key: entry for key, entry in self._seen.items() if now - entry[1] < _FORGET_S}


Connect = Callable[[str, str], AbstractAsyncContextManager[Link]]


def connected(url: str, token: str) -> AbstractAsyncContextManager[Link]:
    """Give a link to a data server for the length of a block."""
    return linked(url, token, timeout_s=_TIMEOUT_S)


class RemoteSeries:
    """`SeriesSource` over HTTP, with the scheduler's own token."""

    def __init__(self, servers: DataServers, token: str, connect: Connect = connected) -> None:
        self._servers = servers
        self._token = token
        self._connect = connect

    async def locate(self, series: str, *, follow: bool = False) -> Located:
        """Ask every data server; the first that has the series says what it is."""
        present = self._present()
        having: list[DataServerInfo] = []
        facts: SeriesFacts | None = None
        problems: list[ClusterError] = []
        for server in present:
            try:
                found = await self._facts(server, series, follow=follow)
            except ClusterError as error:
                problems.append(error)
                continue
            if facts is None or found.fingerprint == facts.fingerprint:
                facts = facts or found
                having.append(server)
        if facts is None:
            raise _worst(problems, series)
        return Located(facts, having)

    async def frames(self, located: Located, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Fetch frames from the first data server that answers."""
        params: dict[str, str | int | float] = {
            "start": start,
            "stop": stop,
            "fingerprint": located.facts.fingerprint,
        }
        route = series_route(located.facts.path, "/frames")

        async def fetch(link: Link) -> np.ndarray[Any, Any]:
            reply = await link.request("GET", route, params=params, limit_bytes=_MAX_FRAMES_BYTES)
            return decode_frames(reply.content).frames

        return await self._of_any(located.servers, fetch)

    async def events(self, located: Located) -> list[SeriesEvent]:
        """Fetch the events from the first data server that answers."""
        route = series_route(located.facts.path, "/events")
        params: dict[str, str | int | float] = {"fingerprint": located.facts.fingerprint}

        async def fetch(link: Link) -> list[SeriesEvent]:
            return _EVENTS.validate_json((await link.request("GET", route, params=params)).content)

        return await self._of_any(located.servers, fetch)

    async def calibration(self, path: str) -> CalibrationFile:
        """Ask every data server; the first that has the file says what it holds."""
        problems: list[ClusterError] = []

        async def fetch(link: Link) -> CalibrationFile:
            return await link.get(calibration_route(path), CalibrationFile, limit_bytes=CALIBRATION_BYTES)

        for server in self._servers.present():
            try:
                return await self._of_one(server, fetch)
            except ClusterError as error:
                problems.append(error)
        raise _worst(problems, path)

    async def calibrate(self, order: CalibrationOrder) -> CalibrationRun:
        """Ask one data server after the other; the first that has the series makes it."""

        async def start(link: Link) -> CalibrationRun:
            return await link.send(run_route(), order, CalibrationRun)

        return await self._of_who_knows(start)

    async def calibration_runs(self) -> list[CalibrationRun]:
        """Ask every data server; those that cannot be reached are passed over."""
        found: list[CalibrationRun] = []

        async def fetch(link: Link) -> CalibrationRuns:
            return await link.get(run_route(), CalibrationRuns)

        for server in self._servers.present():
            with suppress(TransientError):
                found += (await self._of_one(server, fetch)).calibrations
        return sorted(found, key=lambda run: -run.created)

    async def calibration_run(self, run_id: str) -> CalibrationRun:
        """Ask one data server after the other."""

        async def fetch(link: Link) -> CalibrationRun:
            return await link.get(run_route(run_id), CalibrationRun)

        return await self._of_who_knows(fetch)

    async def cancel_calibration(self, run_id: str) -> CalibrationRun:
        """Ask one data server after the other."""

        async def end(link: Link) -> CalibrationRun:
            return (await link.request("DELETE", run_route(run_id))).message(CalibrationRun)

        return await self._of_who_knows(end)

    async def calibration_report(self, run_id: str) -> bytes:
        """Ask one data server after the other."""

        async def fetch(link: Link) -> bytes:
            return (await link.request("GET", run_route(run_id, "/report.png"))).content

        return await self._of_who_knows(fetch)

    def _present(self) -> list[DataServerInfo]:
        present = self._servers.present()
        if not present:
            raise Unavailable("no data server is registered; start one: clusterofone dataserver")
        return present

    async def _of_who_knows(self, ask: Callable[[Link], Awaitable[T]]) -> T:
        """Return the answer of the first data server that has what is asked for; who cannot be asked might have it."""
        silent: TransientError | None = None
        unknown: NotFound | None = None
        for server in self._present():
            try:
                return await self._of_one(server, ask)
            except TransientError as error:
                silent = silent or error
            except NotFound as error:
                unknown = unknown or error
        raise silent or unknown or Unavailable("no data server answered")

    async def _facts(self, server: DataServerInfo, series: str, *, follow: bool) -> SeriesFacts:
        async def fetch(link: Link) -> SeriesFacts:
            params: dict[str, str | int | float] = {"follow": "true"} if follow else {}
            return await link.get(series_route(series), SeriesFacts, params=params)

        return await self._of_one(server, fetch)

    async def _of_any(self, servers: list[DataServerInfo], fetch: Callable[[Link], Awaitable[T]]) -> T:
        last: ClusterError = Unavailable("no data server is registered")
        for server in servers:
            try:
                return await self._of_one(server, fetch)
            except TransientError as error:
                last = error
        raise last

    async def _of_one(self, server: DataServerInfo, fetch: Callable[[Link], Awaitable[T]]) -> T:
        last: ClusterError = Unavailable(f"the data server at {server.host} gave no address")
        for address in server.addresses:
            try:
                async with self._connect(address_of(server, address), self._token) as link:
                    return await fetch(link)
            except TransientError as error:
                last = error
        raise last


def _worst(problems: list[ClusterError], series: str) -> ClusterError:
    """Return the error that says most: what is wrong with the file, else who could not be asked, else not found."""
    for kind in (Invalid, Conflict, TransientError):
        for problem in problems:
            if isinstance(problem, kind):
                problem.facts.setdefault("field", "series")
                return problem
    said = problems[0].detail if problems else "no data server has it"
    roots = [root for problem in problems for root in problem.facts.get("roots", [])]
    return NotFound(
        f"{series}: {said}" if series not in said else said, field="series", path=series, roots=roots
    )
