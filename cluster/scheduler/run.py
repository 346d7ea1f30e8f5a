"""Running a scheduler: bind, take the state folder, announce, serve, stop cleanly. The one place with a clock."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import platform
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from cluster.addresses import server_url
from cluster.allocator import share_heaps
from cluster.awake import awake_while
from cluster.certificates import Certificate, of_this_machine
from cluster.config import Places, SchedulerSettings, write_private
from cluster.errors import ClusterError
from cluster.http import Gate
from cluster.machine import this_machine
from cluster.protocol import Versions
from cluster.scheduler.app import create_app
from cluster.scheduler.blobs import Blobs
from cluster.scheduler.core import Rules
from cluster.scheduler.dataservers import DataServers, RemoteSeries, SeriesSource
from cluster.scheduler.journal import Journal
from cluster.scheduler.on_done import Command
from cluster.scheduler.service import Cluster, Service
from cluster.scheduler.state import Clocks
from cluster.serving import Server, bind, serve
from cluster.trust import PIN_FILE, load_or_create_secret, own_token, verifiers
from cluster.web.status_page import install_status_page

logger = logging.getLogger(__name__)

_CLOCKS: Final = Clocks(now=time.monotonic, wall=time.time)


async def run(settings: SchedulerSettings, *, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
    """Serve until `stop` is set; `ready` is called with the URL once requests are answered.

    Raises
    ------
    Conflict
        If the port is taken, or another scheduler keeps its state in the same folder.
    """
    share_heaps()
    listener = bind("scheduler", host=settings.host, port=settings.port)
    try:
        port = int(listener.getsockname()[1])
        certificate = _certificate(settings)
        journal = Journal(settings.state)
        try:
            service = _service(settings, journal)
            gate = _gate(settings)
            app = create_app(service, gate)
            install_status_page(app)
            url = server_url(settings.host, port, tls=settings.tls)
            server = Server(app, on_ready=lambda: ready(url), certificate=certificate)
            waker = asyncio.create_task(_wake_when_stopped(service, stop))
            busy = None if settings.let_sleep else service.state.has_running_jobs
            async with awake_while(busy), _announced(settings, service, port):
                await serve(server, listener, stop)
            waker.cancel()
        finally:
            journal.close()
    finally:
        listener.close()


def own_versions() -> Versions:
    """Return the versions that a worker must have too."""
    version = importlib.metadata.version
    return Versions(
        clusterofone=version("clusterofone"),
        numpy=version("numpy"),
        numba=version("numba"),
        python=platform.python_version(),
    )


def load_or_create_cluster_id(path: Path) -> str:
    """Return the cluster's id, made at its first start."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        write_private(path, secrets.token_hex(8))
        return path.read_text(encoding="utf-8").strip()


def _certificate(settings: SchedulerSettings) -> Certificate | None:
    """Return what this scheduler shows, noted where tokens are made; with no certificate they must name none."""
    pin_file = settings.state / PIN_FILE
    if not settings.tls:
        pin_file.unlink(missing_ok=True)
        return None
    certificate = of_this_machine(_places(settings))
    write_private(pin_file, certificate.fingerprint)
    return certificate


def _service(settings: SchedulerSettings, journal: Journal) -> Service:
    secret = load_or_create_secret(settings.state / "secret")
    cluster = Cluster(
        cluster_id=load_or_create_cluster_id(settings.state / "cluster_id"),
        name=settings.name,
        machine=this_machine(_places(settings).machine).id,
        versions=own_versions(),
        worker_token=own_token(settings.state, "worker"),
        verifiers=verifiers(secret),
        join=settings.join,
        roots=settings.roots,
        results_root=settings.results_root,
        lab=settings.lab,
        keep_blobs=settings.keep_blobs,
        tick_s=min(1.0, settings.lease_s / 10),  # well below what would count as sleep
    )
    rules = Rules(
        lease_s=settings.lease_s,
        max_attempts=settings.max_attempts,
        task_frames=settings.task_frames,
        asleep_s=settings.lease_s / 2,
    )
    owner_token = own_token(settings.state, "owner")

    def source(servers: DataServers) -> SeriesSource:
        return RemoteSeries(servers, owner_token)

    command = Command(settings.on_done, dict(os.environ)) if settings.on_done else None
    blobs = Blobs(settings.state / "results")
    return Service(cluster, rules, journal, blobs, source, _CLOCKS, on_done=command)


def _places(settings: SchedulerSettings) -> Places:
    """Return the user's folders: a cluster's state is `clusters/<name>` in them, this machine's id is theirs."""
    state = settings.state.parent.parent
    return Places(config=state, state=state, cache=state)


def _gate(settings: SchedulerSettings) -> Gate:
    secret = load_or_create_secret(settings.state / "secret")
    names = {name.lower() for name in settings.host_names}
    if settings.lan:
        host = socket.gethostname().lower()
        names |= {host, f"{host.partition('.')[0]}.local", socket.getfqdn().lower()}
    return Gate(verifiers(secret), hosts=frozenset(names), insecure=settings.insecure)


async def _wake_when_stopped(service: Service, stop: asyncio.Event) -> None:
    """End the long polls and streams at once, so that the server need not wait for them."""
    await stop.wait()
    service.state.signals.close()


@asynccontextmanager
async def _announced(settings: SchedulerSettings, service: Service, port: int) -> AsyncIterator[None]:
    if not settings.lan:
        yield
        return
    from cluster.discovery import announce

    announcement = announce(service.identity(), port, tls=settings.tls)
    try:
        name = await announcement.__aenter__()
    except ClusterError as error:
        logger.warning("not announced: %s", error)
        yield
        return
    logger.info("announced as %s", name)
    try:
        yield
    finally:
        await announcement.__aexit__(None, None, None)
