"""Who looks at the page: each visitor is a browser that came with a token, and may do what that token may."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

import anyio
from anyio import to_thread

from cluster.client import Client
from cluster.errors import ClusterError, Unauthorised
from cluster.protocol import Identity, Job, PendingJoin, Worker
from cluster.web.desktop import Desktop
from cluster.web.frame_cache import FrameCache

P = ParamSpec("P")
T = TypeVar("T")
_MOST_VISITORS: Final = 256
_FRESH_S: Final = 0.9
_LOOK_S: Final = 5.0
_CALLS_AT_ONCE: Final = 8


@dataclass(frozen=True)
class Overview:
    """What the cluster was at a moment (Unix seconds)."""

    identity: Identity
    jobs: list[Job]
    workers: list[Worker]
    joins: list[PendingJoin]
    seen: float


class Visitor:
    """One browser's way to the cluster. `wall` is the wall clock, in Unix seconds."""

    def __init__(
        self,
        client: Client,
        role: str,
        wall: Callable[[], float],
        *,
        owner: str | None = None,
        desktop: Desktop | None = None,
    ) -> None:
        self.client = client
        self.owner = owner
        self.desktop = desktop
        self.role = role
        self.wall = wall
        self.dark: bool | None = None
        self.frames = FrameCache(client)
        self.overview: Overview | None = None
        self.trouble: str | None = None
        self.gone = False  # logged out, while pages may still be open
        self._looking = asyncio.Lock()
        self._looked = 0.0
        self._threads = anyio.CapacityLimiter(_CALLS_AT_ONCE)

    @property
    def may_submit(self) -> bool:
        """Whether jobs may be made and cancelled."""
        return self.role in {"submitter", "owner"}

    @property
    def is_owner(self) -> bool:
        """Whether machines may be let in."""
        return self.role == "owner"

    async def ask(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Return what a call that waits returns; raises what it raises, and `Unauthorised` after the log-out."""
        if self.gone:
            raise Unauthorised("you have logged out; open the link that clusterofone printed")
        return await to_thread.run_sync(partial(call, *arguments, **named), limiter=self._threads)

    async def look(self) -> Overview | None:
        """Return the cluster as it is now, or as it last was: then `trouble` says why.

        However many pages one visitor has open, the cluster is asked once in a while.
        """
        async with self._looking:
            if self.wall() - self._looked >= _FRESH_S:
                try:
                    self.overview = await self._seen_in_time()
                    self.trouble = None
                except ClusterError as error:
                    self.trouble = error.detail
                except TimeoutError:
                    self.trouble = f"{self.client.url} does not answer"
                self._looked = self.wall()
        return self.overview

    async def _seen_in_time(self) -> Overview:
        """Return the cluster as it is; one that hangs is said to be away long before its sockets say so."""
        if self.gone:
            raise Unauthorised("you have logged out; open the link that clusterofone printed")
        with anyio.fail_after(_LOOK_S):
            return await to_thread.run_sync(self._overview, limiter=self._threads, abandon_on_cancel=True)

    def _overview(self) -> Overview:
        client = self.client
        return Overview(
            identity=client.identity(),
            jobs=client.jobs(),
            workers=client.workers(),
            joins=client.pending_joins() if self.is_owner else [],
            seen=self.wall(),
        )


class Visitors:
    """Everyone who is logged in, by the secret in their cookie; the longest unseen goes first when there are too many."""

    def __init__(self, admit: Callable[[str | None], Visitor]) -> None:
        self._admit = admit
        self._known: OrderedDict[str, Visitor] = OrderedDict()

    def enter(self, token: str | None) -> str:
        """Log somebody in and return the secret for the cookie; raises what the cluster says to the token."""
        visitor = self._admit(token)
        key = secrets.token_urlsafe(32)
        self._known[key] = visitor
        while len(self._known) > _MOST_VISITORS:
            self._known.popitem(last=False)[1].gone = True
        return key

    def of(self, key: str | None) -> Visitor | None:
        """Return who has this secret, None if nobody does."""
        if key is None or key not in self._known:
            return None
        self._known.move_to_end(key)
        return self._known[key]

    def leave(self, key: str | None) -> None:
        """Forget a visitor."""
        if key is not None and (visitor := self._known.pop(key, None)) is not None:
            visitor.gone = True


def role_said(token: str | None) -> str:
    """Return the role that a token says of itself; the cluster decides what it is worth."""
    parts = (token or "").split(".")
    return parts[1] if len(parts) in {3, 4} else "owner"


def visitor_of(value: Any) -> Visitor:
    """Return the visitor that the doorway put into a connection's scope."""
    visitor = value["visitor"]
    assert isinstance(visitor, Visitor)
    return visitor
