"""Asking to be let in, once: the person at the scheduler approves, and this machine joins by itself ever after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cluster.backoff import Backoff, Pace, persist
from cluster.errors import CallerError, Forbidden, Internal
from cluster.protocol import JoinReply, JoinRequest
from cluster.transport import Link

_POLL_S: Final = 2.0
_PATIENT: Final = Backoff(total_s=float("inf"))


async def ask_to_join(
    link: Link, request: JoinRequest, *, pace: Pace, waiting: Callable[[JoinReply], None]
) -> JoinReply:
    """Ask until a person has decided, and return the approval with its token.

    The same machine with the same secret is one request however often it asks, so asking again is how one waits; the
    scheduler may restart meanwhile. `waiting` is called once, when it turns out that a person must decide.

    Raises
    ------
    Forbidden
        If the machine was refused, or the cluster admits only those who bring a token.
    """
    told = False
    while True:
        reply = await persist(lambda: _ask(link, request), _PATIENT, pace)
        if reply.state == "approved":
            if not reply.token:
                raise Internal(f"the cluster {reply.name} approved this machine but sent no token")
            return reply
        if reply.state == "refused":
            raise Forbidden(f"the cluster {reply.name} refused this machine")
        if not told:
            waiting(reply)
            told = True
        await pace.sleep(_POLL_S * pace.rng.uniform(0.75, 1.25))


async def _ask(link: Link, request: JoinRequest) -> JoinReply:
    try:
        return await link.send("/api/v1/join", request, JoinReply)
    except CallerError as error:
        if error.facts.get("state") != "refused":
            raise
        name = error.facts.get("name", "")
        raise Forbidden(f"the cluster {name} refused this machine", **error.facts) from error
