"""Letting machines in: who waits at the door, and who was let in before."""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import dataclass
from typing import Final

from cluster.config import JoinPolicy
from cluster.errors import Forbidden, NotFound, TooManyRequests
from cluster.protocol import JoinDecision, JoinReply, JoinRequest, PendingJoin, PendingJoins
from cluster.scheduler.entries import admitted_statement, load_admitted
from cluster.scheduler.journal import Journal
from cluster.scheduler.state import Clocks

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 100
_PATIENCE_S: Final = 120.0
_REFUSED_FOR_S: Final = 600.0


@dataclass
class _Waiting:
    pending: PendingJoin
    last_asked: float


class JoinDesk:
    """Answers machines that ask to be let in. A machine is known by the digest of its own secret."""

    def __init__(
        self,
        journal: Journal,
        policy: JoinPolicy,
        *,
        worker_token: str,
        cluster_id: str,
        name: str,
        clocks: Clocks,
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._token = worker_token
        self._cluster_id = cluster_id
        self._name = name
        self._clocks = clocks
        self._waiting: dict[str, _Waiting] = {}
        self._refused: dict[str, float] = {}
        self._admitted = journal.read_now(load_admitted)

    async def ask(self, request: JoinRequest, address: str) -> JoinReply:
        """Answer a machine; asking again with the same secret is the same request.

        Raises
        ------
        Forbidden
            If this cluster admits only those who bring a token.
        TooManyRequests
            If too many machines wait.
        """
        if self._policy == "token":
            raise Forbidden(
                f"the cluster {self._name} admits only workers that bring its token; "
                "ask its owner for the line that 'clusterofone token --role worker' prints"
            )
        now = self._clocks.now()
        self._forget_impatient(now)
        digest = hashlib.sha256(request.secret.encode()).hexdigest()
        if digest not in self._admitted and self._policy == "open":
            await self._admit(digest, request.host, address)
        if digest in self._admitted:
            return self._reply("approved")
        if digest in self._refused:
            return self._reply("refused")
        self._note(digest, request, address, now)
        return self._reply("waiting")

    def waiting(self) -> PendingJoins:
        """Return the machines that wait, first come first."""
        self._forget_impatient(self._clocks.now())
        return PendingJoins(waiting=[entry.pending for entry in self._waiting.values()])

    async def decide(self, join_id: str, decision: JoinDecision) -> None:
        """Let a machine in, or not; raises `NotFound` if nobody waits under that name."""
        digest = next((key for key, entry in self._waiting.items() if entry.pending.id == join_id), None)
        if digest is None:
            raise NotFound(f"nobody waits as {join_id}")
        pending = self._waiting[digest].pending
        if decision.approve:
            await self._admit(digest, pending.host, pending.address)
        else:
            self._refused[digest] = self._clocks.now()
            logger.info("machine %r (%s) was refused", pending.host, pending.address)
        self._waiting.pop(digest, None)

    async def _admit(self, digest: str, host: str, address: str) -> None:
        await self._journal.write([admitted_statement(digest, f"{host} ({address})")])
        self._admitted.add(digest)
        logger.info("machine %r (%s) was let in", host, address)

    def _note(self, digest: str, request: JoinRequest, address: str, now: float) -> None:
        known = self._waiting.get(digest)
        if known is not None:
            known.last_asked = now
            return
        if len(self._waiting) >= _MOST_WAITING:
            raise TooManyRequests(f"{_MOST_WAITING} machines wait to be let in already; try again later")
        pending = PendingJoin(
            id=secrets.token_hex(4),
            host=request.host,
            address=address,
            cores=request.cores,
            version=request.version,
            asked=self._clocks.wall(),
        )
        self._waiting[digest] = _Waiting(pending, now)
        logger.info("machine %r (%s, %s cores) asks to join", request.host, address, request.cores)

    def _forget_impatient(self, now: float) -> None:
        self._waiting = {
            key: entry for key, entry in self._waiting.items() if now - entry.last_asked < _PATIENCE_S
        }
        self._refused = {key: since for key, since in self._refused.items() if now - since < _REFUSED_FOR_S}

    def _reply(self, state: str) -> JoinReply:
        token = self._token if state == "approved" else None
        return JoinReply.model_validate(
            {"state": state, "token": token, "cluster_id": self._cluster_id, "name": self._name}
        )
