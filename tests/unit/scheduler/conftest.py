"""A cluster on paper: a core with two workers, and orders to give it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.scheduler.core import JobOrder, Rules, Scheduler, WorkerOrder

FIT = "LatGaussFitFR"


def an_order(
    job_id: str = "job", frames: int = 100, listed: tuple[int, ...] | None = None, **changes: object
) -> JobOrder:
    facts: dict[str, object] = {
        "job_id": job_id,
        "start": 0,
        "stop": frames,
        "total": frames,
        "frame_bytes": 131072,
        "fit": FIT,
        "frames": listed,
    }
    return JobOrder(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.fixture
def order() -> Callable[..., JobOrder]:
    return an_order


@pytest.fixture
def core() -> Scheduler:
    scheduler = Scheduler(Rules(task_frames=50, lease_s=30.0, max_attempts=3))
    for name in ("ann", "bob"):
        scheduler.register(WorkerOrder(name, frozenset({FIT})), now=0.0)
    return scheduler
