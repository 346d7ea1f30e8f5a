"""Running the page: bind, say the scheduler where it is, serve, stop cleanly. The one place here with a clock."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

from cluster.addresses import server_url
from cluster.backoff import Backoff
from cluster.certificates import of_this_machine
from cluster.client import Client
from cluster.config import Places, WebSettings
from cluster.errors import ClusterError
from cluster.http import Gate
from cluster.pinning import pin_in, with_pin
from cluster.protocol import PageRegistration
from cluster.serving import Server, bind, serve
from cluster.transport import Link, normalised_url
from cluster.web.app import create_app
from cluster.web.desktop import Desktop
from cluster.web.doorway import cookie_name
from cluster.web.visitors import Visitor, Visitors, role_said

logger = logging.getLogger(__name__)

_REFRESH_S: Final = 5.0


async def run(
    settings: WebSettings,
    *,
    places: Places,
    desktop: Desktop | None = None,
    stop: asyncio.Event,
    ready: Callable[[str], None],
) -> None:
    """Serve the page until `stop` is set; `ready` is called with its URL once it can be opened. Results can be opened on a `desktop`.

    Raises
    ------
    Conflict
        If the port is taken.
    """
    listener = bind("web", host=settings.host, port=settings.port)
    try:
        port = int(listener.getsockname()[1])
        pin = pin_in(settings.token)
        certificate = of_this_machine(places) if pin is not None else None
        url = server_url(settings.host, port, tls=certificate is not None)
        scheduler = normalised_url(settings.scheduler)
        app = create_app(
            Visitors(_admitting(scheduler, pin, settings.owner, desktop)),
            Gate({}, hosts=_host_names(settings), insecure=settings.insecure),
            cookie=cookie_name(port),
        )
        server = Server(app, on_ready=lambda: ready(url), certificate=certificate)
        registering = asyncio.create_task(_register(scheduler, settings.token, url))
        try:
            await serve(server, listener, stop)
        finally:
            registering.cancel()
    finally:
        listener.close()


def _admitting(
    scheduler: str, pin: str | None, owner: str | None, desktop: Desktop | None
) -> Callable[[str | None], Visitor]:
    """Let in who brings a token; of the scheduler we know the certificate, whatever theirs says."""

    def admit(token: str | None) -> Visitor:
        client = Client(scheduler, with_pin(token, pin) if token else "", backoff=Backoff(total_s=0.0))
        try:
            client.jobs()  # any token that may look may enter; the cluster itself says what it may do
        except ClusterError:
            client.close()
            raise
        return Visitor(client, role_said(token), time.time, owner=owner, desktop=desktop)

    return admit


async def _register(scheduler: str, token: str | None, url: str) -> None:
    """Say again and again where the page is: a scheduler that was started anew has forgotten it."""
    if token is None:
        return
    link = Link(scheduler, token)
    try:
        while True:
            try:
                await link.request("POST", "/api/v1/pages", PageRegistration(url=url))
            except ClusterError as error:
                logger.info("the scheduler was not told where the page is: %s", error.detail)
            await asyncio.sleep(_REFRESH_S)
    finally:
        await link.aclose()


def _host_names(settings: WebSettings) -> frozenset[str]:
    names = {name.lower() for name in settings.host_names}
    if settings.lan:
        host = socket.gethostname().lower()
        names |= {host, f"{host.partition('.')[0]}.local", socket.getfqdn().lower()}
    return frozenset(names)
