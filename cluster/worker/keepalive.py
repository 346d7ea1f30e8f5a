"""Keeping leases alive, from outside the fitting thread, for as long as the worker lives."""

from __future__ import annotations

from collections.abc import Callable

from cluster.backoff import Pace
from cluster.protocol import HeldTask, KeptAlive
from cluster.worker.session import Session


async def keep_alive(
    session: Session, held: Callable[[], list[HeldTask]], heard: Callable[[KeptAlive], None], pace: Pace
) -> None:
    """Report what is held whenever the scheduler wants to hear it, and pass on what it answers; never returns.

    `held` is asked anew for each attempt, so that a report that was delayed is not stale.
    """
    while True:
        await pace.sleep(session.keep_alive_s * pace.rng.uniform(0.85, 1.0))
        reply = await session.call(lambda worker_id: session.scheduler.keep_alive(worker_id, held()))
        heard(reply)
