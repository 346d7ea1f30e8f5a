"""Who may have a result opened on the screen of the page's machine, and the route that does it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from starlette.requests import HTTPConnection

from cluster.addresses import is_loopback
from cluster.errors import Conflict, Forbidden
from cluster.web.desktop import NAME, Desktop
from cluster.web.visitors import visitor_of

__all__ = ["at_this_machine", "desktop_of", "router"]

router = APIRouter(prefix="/data", include_in_schema=False)

_PASSED_ON: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def at_this_machine(connection: HTTPConnection) -> bool:
    """Return whether a browser on this very machine asks, as far as can be seen: by loopback, under its name, and through no proxy that says so."""
    client = connection.client
    if client is None or not is_loopback(client.host) or not is_loopback(connection.url.hostname or ""):
        return False
    return not any(name in connection.headers for name in _PASSED_ON)


def desktop_of(connection: HTTPConnection) -> Desktop | None:
    """Return the screen that this visitor may open a result on, None if there is none: the cluster's owner, at the page's machine."""
    visitor = visitor_of(connection.scope)
    return visitor.desktop if visitor.is_owner and at_this_machine(connection) else None


@router.post("/jobs/{job_id}/open", status_code=204)
async def open_result(job_id: str, request: Request) -> Response:
    """Open a job's result on this machine's screen; asked by our own page in a browser, which says so by its origin."""
    desktop = desktop_of(request)
    if desktop is None or "origin" not in request.headers:  # the doorway has looked whose origin it is
        raise Forbidden(f"{NAME} is opened for the owner of the cluster at the page's own machine alone")
    visitor = visitor_of(request.scope)
    job = await visitor.ask(visitor.client.job, job_id)
    if job.output is None:
        raise Conflict(f"job {job_id} is {job.state}: it has no result file yet", state=job.state)
    await to_thread.run_sync(desktop.show, Path(job.output))
    return Response(status_code=204)
