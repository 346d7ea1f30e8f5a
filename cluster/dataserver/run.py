"""Running a data server: bind, serve, register, and let go of idle files, until told to stop."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import random
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cluster.addresses import server_url
from cluster.certificates import of_this_machine
from cluster.config import DataServerSettings, Places
from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.metrics import CountedParsers, DataServerMetrics
from cluster.dataserver.registration import Registration, wait_or_stop
from cluster.dataserver.store import SeriesStore
from cluster.discovery import own_addresses
from cluster.errors import Invalid
from cluster.http import Gate
from cluster.machine import this_machine
from cluster.pinning import pin_in
from cluster.protocol import (
    PROTOCOL_VERSION,
    DataServerInfo,
    DataServerRegistered,
    DataServerRegistration,
    Identity,
    Role,
)
from cluster.serving import Server, bind, serve
from cluster.transport import Link

_READY_WITHOUT_SCHEDULER_S: Final = 15.0
_CLOSE_IDLE_EVERY_S: Final = 10.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_VERSION: Final = importlib.metadata.version("clusterofone")  # parses a file, which takes a millisecond
_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True)
class Membership:
    """The cluster that this data server belongs to, and what recognises its tokens."""

    cluster_id: str = ""
    name: str = ""
    verifiers: Mapping[Role, str] = field(default_factory=dict)


class _DataServer:
    """The parts of one running data server."""

    def __init__(
        self, settings: DataServerSettings, places: Places, port: int, membership: Membership | None
    ) -> None:
        self.settings = settings
        self.machine = this_machine(places.machine).id
        self.membership = membership or Membership()
        self.joined = asyncio.Event()
        # a cluster whose tokens name a certificate encrypts everywhere
        self.certificate = of_this_machine(places) if pin_in(settings.token) is not None else None
        metrics = DataServerMetrics()
        self.parsers = CountedParsers(metrics.parser_starts)
        self.store = SeriesStore(
            settings.roots, shelves=settings.shelves, now=time.monotonic, parsers=self.parsers
        )
        self.gate = Gate(
            verifiers=self.membership.verifiers,
            hosts=_own_names(lan=settings.lan) | {name.lower() for name in settings.host_names},
            insecure=settings.insecure,
        )
        records = places.state / "dataservers" / self._records(port) / "calibrations"
        self.calibrations = Calibrations(settings.roots, self.store, records=records)
        acquisitions = Acquisitions(settings.roots, allowed=not settings.read_only)
        self.app = create_app(
            self.store,
            self.calibrations,
            self.gate,
            self.identity,
            acquisitions=acquisitions,
            metrics=metrics,
        )

    def identity(self) -> Identity:
        """Return what anyone may know of this server."""
        return Identity(
            role="dataserver",
            cluster_id=self.membership.cluster_id,
            name=self.membership.name,
            machine=self.machine,
            version=_VERSION,
        )

    def accept(self, reply: DataServerRegistered) -> None:
        """Take over what the scheduler said."""
        self.membership = Membership(reply.cluster_id, reply.name, dict(reply.verifiers))
        self.gate.verifiers = self.membership.verifiers
        self.joined.set()

    @property
    def id(self) -> str:
        """Return this server's id, which outlives a restart, also on another port: jobs know it by this."""
        return _digest(f"{self.machine} {'|'.join(map(str, self.settings.roots))}")

    def _records(self, port: int) -> str:
        """Return the name of the folder of what this server notes; two that serve the same roots have one each."""
        return _digest(f"{self.machine} {port} {'|'.join(map(str, self.settings.roots))}")

    def info(self, port: int) -> DataServerInfo:
        """Return where this server can be reached."""
        host = self.settings.host
        return DataServerInfo(
            id=self.id,
            machine=self.machine,
            host=socket.gethostname(),
            port=port,
            addresses=list(self.settings.advertise) or advertised_addresses(host, lan=self.settings.lan),
            tls=self.certificate is not None,
            certificate=None if self.certificate is None else self.certificate.fingerprint,
        )


def _digest(named: str) -> str:
    return hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()[:16]


async def run(
    settings: DataServerSettings,
    *,
    places: Places,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    membership: Membership | None = None,
) -> None:
    """Serve the roots until `stop`; call `ready` with the URL once the scheduler knows of us.

    Without an answer from the scheduler `ready` is called all the same after a while: it may be started later.
    `membership` is for a server that is told its cluster instead of learning it.

    Raises
    ------
    Invalid
        If there is no scheduler to learn the cluster's tokens from.
    Conflict
        If the port is taken.
    """
    if settings.scheduler is None and membership is None and not settings.insecure:
        raise Invalid("a data server needs its cluster: give --scheduler URL and a token")
    listener = bind("dataserver", host=settings.host, port=settings.port)
    port = int(listener.getsockname()[1])
    serving = asyncio.Event()
    server = _DataServer(settings, places, port, membership)
    web = Server(server.app, on_ready=serving.set, certificate=server.certificate)
    url = server_url(settings.host, port, tls=server.certificate is not None)
    beside = [
        asyncio.create_task(_close_idle(server.store, stop)),
        asyncio.create_task(_register(server, port, serving, stop)),
        asyncio.create_task(_announce_ready(server, partial(ready, url), serving, stop)),
    ]
    for task in beside:
        task.add_done_callback(partial(_stop_if_failed, stop))
    try:
        await serve(web, listener, stop)
    finally:
        stop.set()
        await asyncio.gather(*beside, return_exceptions=True)
        server.store.close()
        await asyncio.to_thread(server.parsers.close)
    for task in beside:
        task.result()


def _stop_if_failed(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    """A fault beside the server must not go unnoticed until the end."""
    if not task.cancelled() and task.exception() is not None:
        stop.set()


async def _register(server: _DataServer, port: int, serving: asyncio.Event, stop: asyncio.Event) -> None:
    if server.settings.scheduler is None:
        server.joined.set()
        return
    await _first_of(serving, stop)
    link = Link(server.settings.scheduler, server.settings.token)
    message = DataServerRegistration(info=server.info(port), protocol=PROTOCOL_VERSION, version=_VERSION)
    registration = Registration(
        link,
        message,
        on_registered=server.accept,
        wait=partial(wait_or_stop, stop),
        rng=random.Random(),  # noqa: S311 - jitter
    )
    registering = asyncio.create_task(registration.run())
    try:
        await _first_of(stop, registering)
    finally:
        registering.cancel()
        await link.aclose()


async def _announce_ready(
    server: _DataServer, ready: Callable[[], None], serving: asyncio.Event, stop: asyncio.Event
) -> None:
    await _first_of(serving, stop)
    if not stop.is_set():
        await _first_of(server.joined, stop, timeout_s=_READY_WITHOUT_SCHEDULER_S)
    if not stop.is_set():
        ready()


async def _close_idle(store: SeriesStore, stop: asyncio.Event) -> None:
    while not await wait_or_stop(stop, _CLOSE_IDLE_EVERY_S):
        await asyncio.to_thread(store.close_idle)


async def _first_of(*wanted: asyncio.Event | asyncio.Task[None], timeout_s: float | None = None) -> None:
    """Wait until one of these events is set, or one of these tasks is done."""
    waiting = [
        asyncio.create_task(item.wait()) if isinstance(item, asyncio.Event) else item for item in wanted
    ]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for item, task in zip(wanted, waiting, strict=True):
        if item is not task:
            task.cancel()


def advertised_addresses(host: str, *, lan: bool) -> list[str]:
    """Return the addresses at which a server that listens on `host` can be reached: loopback alone, unless `lan`."""
    if not lan:
        return [host if host not in _EVERYWHERE else _LOOPBACK[0]]
    return (own_addresses() if host in _EVERYWHERE else [host])[:32] or [_LOOPBACK[0]]


def _own_names(*, lan: bool) -> frozenset[str]:
    """Return the host names by which this machine may be asked; addresses are always allowed."""
    if not lan:
        return frozenset()
    name = socket.gethostname().lower()
    return frozenset({name, f"{name.partition('.')[0]}.local"})
