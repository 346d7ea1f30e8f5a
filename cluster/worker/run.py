"""One worker process: find the cluster, be let in, fit until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from cluster.addresses import Place
from cluster.awake import awake_while
from cluster.backoff import Backoff, Pace
from cluster.config import Places, WorkerSettings
from cluster.discovery import Identify, browse, identity_at
from cluster.errors import ClusterError, Unauthorised, Unavailable
from cluster.join import ask_to_join
from cluster.locate import Ask, Browse, Located, Locator, Wanted, read_config
from cluster.machine import KnownCluster, KnownClusters, Machine, core_count, host_name, this_machine
from cluster.protocol import PROTOCOL_VERSION, JoinReply, JoinRequest, WorkerRegistration
from cluster.threads import DaemonThread
from cluster.transport import Link
from cluster.worker.dataservers import DataServers
from cluster.worker.direct import shares_of
from cluster.worker.engine import Abilities, Engine, Fitting, versions
from cluster.worker.frames import FrameSource
from cluster.worker.load import LoadMeter
from cluster.worker.loop import GOODBYE_S, Loop
from cluster.worker.scheduler import SchedulerRoutes
from cluster.worker.session import Dismissed, Session

logger = logging.getLogger(__name__)

T = TypeVar("T")
Say = Callable[[str], None]
_LOOK_AGAIN_S: Final = 3.0
_SAY_AGAIN_S: Final = 60.0
_DATA_PATIENCE: Final = Backoff(first_s=0.25, longest_s=5.0, total_s=30.0)


@dataclass(frozen=True)
class Network:
    """How the outside is reached; tests bring their own."""

    connect: Callable[[str, str | None], Link] = Link
    identify: Identify = identity_at
    browse: Browse = browse

    def locator(self, settings: WorkerSettings, ask: Ask | None = None) -> Locator:
        """Return what looks for schedulers."""
        return Locator(
            places_of(settings), role="worker", identify=self.identify, browse=self.browse, ask=ask
        )


@dataclass(frozen=True)
class Admission:
    """A cluster that lets this machine work for it."""

    url: str
    name: str
    cluster_id: str
    scheduler_machine: str
    token: str = field(repr=False)


async def find_cluster(
    settings: WorkerSettings,
    *,
    say: Say = logger.info,
    ask: Ask | None = None,
    pace: Pace | None = None,
    give_up_s: float = float("inf"),
    network: Network | None = None,
) -> Admission:
    """Return the cluster to work for, once there is one and it has let this machine in.

    Looks for as long as it takes, so that machines may be switched on in any order, and says what it waits for; `ask`
    is called with the names of several clusters and returns the number of the one that is meant.

    Raises
    ------
    Unavailable
        If there is none after `give_up_s`; says what was tried.
    Conflict
        If there are several and nobody to ask.
    Forbidden
        If the cluster refuses this machine.
    """
    pace = pace or Pace()
    network = network or Network()
    located = await _located(settings, network.locator(settings, ask), say, pace, give_up_s)
    token = located.token or await _joined(settings, located, network, say, pace)
    return Admission(located.url, located.name, located.cluster_id, located.identity.machine, token)


async def run(
    settings: WorkerSettings,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    say: Say = logger.info,
    ask: Ask | None = None,
    engine: Fitting | None = None,
    pace: Pace | None = None,
    network: Network | None = None,
) -> None:
    """Work for a cluster until `stop` is set; `ready` is called with the scheduler's URL once work can begin.

    Raises
    ------
    VersionMismatch
        If this worker's versions would give other numbers; the message holds the command that mends it.
    ClusterError
        As `find_cluster` does, or if the token is not the cluster's.
    """
    pace = pace or Pace()
    engine = engine or Engine()
    network = network or Network()
    thread = DaemonThread("warm-up")
    warming = asyncio.ensure_future(thread.call(lambda: engine.warm_up(settings.cache)))
    warming.add_done_callback(lambda _: thread.close())
    try:
        while not stop.is_set():
            admission = await _unless(
                stop, find_cluster(settings, say=say, ask=ask, pace=pace, network=network)
            )
            if admission is None or await _unless(stop, _true_after(warming)) is None:
                return
            try:
                await _work(settings, admission, engine, stop, ready, pace, network)
            except Dismissed as error:
                if not isinstance(error.reason, Unauthorised) or not _forgotten(settings, admission):
                    raise error.reason from error
                say(f"the cluster {admission.name} has a new secret; asking to join it anew")
                settings = settings.model_copy(update={"token": None})
    finally:
        warming.cancel()


def places_of(settings: WorkerSettings) -> Places:
    """Return the folders that a worker's settings name."""
    config = settings.config or settings.state / "config"
    return Places(config=config, state=settings.state, cache=settings.cache)


async def _located(
    settings: WorkerSettings, looker: Locator, say: Say, pace: Pace, give_up_s: float
) -> Located:
    wanted = Wanted(url=settings.scheduler, token=settings.token, name=settings.cluster_name)
    began, said_at = pace.clock(), -float("inf")
    while True:
        try:
            return await looker.locate(wanted)
        except Unavailable as error:
            now = pace.clock()
            if now - began > give_up_s:
                raise
            if now - said_at >= _SAY_AGAIN_S:
                say(f"{error.detail}. Still looking; Ctrl-C stops.")
                said_at = now
        await pace.sleep(_LOOK_AGAIN_S * pace.rng.uniform(0.5, 1.0))


async def _joined(settings: WorkerSettings, located: Located, network: Network, say: Say, pace: Pace) -> str:
    places = places_of(settings)
    machine, host = this_machine(places.machine), host_name()
    request = JoinRequest(
        machine=machine.id,
        host=host,
        cores=core_count(),
        version=versions().clusterofone,
        secret=machine.secret,
    )

    def waiting(reply: JoinReply) -> None:
        say(
            f"asked to join the cluster {reply.name} at {located.url}; there, let it in: clusterofone approve {host}"
        )

    link = network.connect(located.url, None)
    try:
        reply = await ask_to_join(link, request, pace=pace, waiting=waiting)
    finally:
        await link.aclose()
    assert reply.token is not None
    known = KnownCluster(name=located.name, token=reply.token, url=located.url)
    KnownClusters(places.known_clusters).remember(located.cluster_id, known)
    say(f"joined the cluster {located.name}")
    return reply.token


def _forgotten(settings: WorkerSettings, admission: Admission) -> bool:
    """Forget a token that a cluster gave and does not honour any more; false if it was not one of those."""
    clusters = KnownClusters(places_of(settings).known_clusters)
    known = clusters.all().get(admission.cluster_id)
    if known is None or known.token != admission.token:
        return False
    clusters.remember(admission.cluster_id, known.model_copy(update={"token": None}))
    return True


async def _work(
    settings: WorkerSettings,
    admission: Admission,
    engine: Fitting,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    pace: Pace,
    network: Network,
) -> None:
    places = places_of(settings)
    machine = this_machine(places.machine)
    locator = network.locator(settings)
    joined = admission.cluster_id in KnownClusters(places.known_clusters).all()
    may_discover = settings.scheduler is None or joined

    def connect(url: str) -> Link:
        return network.connect(url, admission.token or None)

    routes = SchedulerRoutes(
        connect(admission.url), connect, cluster_id=admission.cluster_id, load=LoadMeter()
    )
    session = Session(
        routes,
        _registration(machine, engine.abilities()),
        cluster_id=admission.cluster_id,
        relocate=lambda: locator.again(admission.cluster_id, discover=may_discover),
        pace=pace,
    )
    place = Place(machine.id, admission.cluster_id, admission.scheduler_machine, admission.url)
    decoder = DaemonThread("decode")
    servers = DataServers(
        lambda: replace(place, scheduler_url=routes.url),
        connect,
        pace=pace,
        backoff=_DATA_PATIENCE,
        decoder=decoder,
    )
    try:
        if await _unless(stop, _true_after(session.begin())) is None:
            with suppress(ClusterError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await session.leave()
            return
        ready(admission.url)
        shares = shares_of(read_config(places.config).shares)
        loop = Loop(session, FrameSource(servers, decoder, shares), engine.localise, pace=pace)
        async with awake_while(None if settings.let_sleep else loop.holds_leases):
            await loop.run(stop)
    finally:
        decoder.close()
        await servers.aclose()
        await routes.aclose()


def _registration(machine: Machine, able: Abilities) -> WorkerRegistration:
    return WorkerRegistration(
        machine=machine.id,
        host=host_name(),
        pid=os.getpid(),
        cores=1,
        protocol=PROTOCOL_VERSION,
        versions=able.versions,
        cpu=able.cpu,
        fits=list(able.fits),
        declared=list(able.declared),
    )


async def _true_after(awaitable: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> bool:
    await awaitable
    return True


async def _unless(stop: asyncio.Event, coroutine: Coroutine[Any, Any, T]) -> T | None:
    """Return what a coroutine returns, or None if told to stop before."""
    working = asyncio.create_task(coroutine)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
