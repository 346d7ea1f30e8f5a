"""The short way for what workers ask all the time: for tasks, to be kept alive, to hand in a result.

To take such a request apart, find its route and put the reply together costs FastAPI and Starlette as much as all the rest of a task costs the
scheduler. What a worker of ours sends is recognised here and answered by the same methods of the service. Whatever is not quite like
that goes on to the routes in `app`, which are complete, and which the documentation is made of: they alone say what is wrong with a request.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.errors import ClusterError
from cluster.http import Gate, problem_response, replayed
from cluster.protocol import KeepAlive, LeaseRequest, Message
from cluster.scheduler.service import Service

_PREFIX: Final = "/api/v1/workers/"
_ROUTE: Final = re.compile(
    r"/api/v1/workers/(?P<worker>[^/]+)/"
    r"(?:(?P<tasks>tasks)|(?P<alive>keepalive)|tasks/(?P<job>[^/]+)/(?P<task>[0-9]{1,15})/result)"
)
_COMMIT_QUERY: Final = re.compile(rb"attempt=([1-9][0-9]{0,8})&next=([0-9]|[1-5][0-9]|6[0-4])")
_SHA256: Final = re.compile(rb"[0-9a-fA-F]{64}")

Answer = Callable[[], Awaitable[Message]]


@dataclass(frozen=True)
class _Template:
    """What the figures of requests are counted under: as of a route of FastAPI's."""

    path_format: str


_TASKS: Final = _Template("/api/v1/workers/{worker_id}/tasks")
_ALIVE: Final = _Template("/api/v1/workers/{worker_id}/keepalive")
_RESULT: Final = _Template("/api/v1/workers/{worker_id}/tasks/{job_id}/{task_id}/result")


class Shortcut:
    """Answers what it recognises, and hands everything else to the app behind it. It lies inside the gate."""

    def __init__(self, app: ASGIApp, gate: Gate, service: Service) -> None:
        self._app = app
        self._gate = gate
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(_PREFIX):
            await self._app(scope, receive, send)
            return
        found = _ROUTE.fullmatch(scope["path"])
        if found is None:
            await self._app(scope, receive, send)
            return
        first = await receive()  # the gate has read the body whole
        body = first.get("body", b"")
        request = Request(scope, receive)
        answered = self._recognised(found, request, body)
        if answered is None:
            await self._app(scope, replayed(body, receive), send)
            return
        scope["route"], answer = answered
        try:
            self._gate.admit(request, ("worker",))
            reply = Response((await answer()).model_dump_json(), media_type="application/json")
        except ClusterError as error:
            reply = problem_response(error)
        await reply(scope, receive, send)

    def _recognised(
        self, found: re.Match[str], request: Request, body: bytes
    ) -> tuple[_Template, Answer] | None:
        desk, worker_id = self._service.workers, found["worker"]
        query: bytes = request.scope["query_string"]
        if found["task"] is not None:
            return self._commit(found, request, body)
        if query or request.headers.get("content-type") != "application/json":
            return None
        try:
            if found["alive"]:
                alive = KeepAlive.model_validate_json(body)
                return _ALIVE, lambda: desk.keep_alive(worker_id, alive)
            ask = LeaseRequest.model_validate_json(body)
        except ValidationError:
            return None
        return _TASKS, lambda: desk.lease(worker_id, ask, request.is_disconnected)

    def _commit(self, found: re.Match[str], request: Request, body: bytes) -> tuple[_Template, Answer] | None:
        desk, worker_id, job_id, task_id = self._service.workers, found["worker"], found["job"], found["task"]
        asked = _COMMIT_QUERY.fullmatch(request.scope["query_string"])
        sha256 = request.headers.get("x-content-sha256", "")
        if asked is None or _SHA256.fullmatch(sha256.encode()) is None:
            return None
        attempt, wanted = int(asked[1]), int(asked[2])
        return _RESULT, lambda: desk.commit(worker_id, job_id, int(task_id), attempt, body, sha256, wanted)
