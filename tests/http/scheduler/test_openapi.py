"""Whatever is asked of a scheduler, by whom ever: no fault of ours, and the reply is one that its document names."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI

from cluster.http import Gate
from cluster.protocol import Role
from cluster.scheduler.app import create_app
from cluster.trust import ROLES, verifiers
from tests.openapi.fuzz import Served, body_of, is_number, served

REQUESTS = 10  # to each operation, and as many that its document forbids
SECRET = bytes(32)
PUBLIC = {"/healthz", "/api/v1/identity", "/api/v1/join"}


@pytest.fixture
def scheduler(make_service: Any) -> Iterator[Served]:
    @asynccontextmanager
    async def app() -> AsyncIterator[FastAPI]:
        service = make_service(cancel_wait_s=1.0)
        service.previews._longest_s = service.previews._no_worker_s = 0.0  # no worker fits here
        made = create_app(service, Gate(verifiers(SECRET)))
        await service.start()
        yield made
        await service.close()

    with served(app, SECRET) as made:
        yield made


@pytest.fixture
def known(scheduler: Served, card: Any, result_body: Any) -> dict[str, Any]:
    """Names of things that are there: a worker, and a job that is done."""
    job = scheduler.ask("owner", "POST", "/api/v1/jobs", json={"series": "day 1/cells.tif"}).json()["id"]
    worker = scheduler.ask("owner", "POST", "/api/v1/workers", json=card()).json()["worker_id"]
    leases = scheduler.ask("owner", "POST", f"/api/v1/workers/{worker}/tasks", json={"count": 4}).json()[
        "leases"
    ]
    for lease in leases:
        body = result_body(lease)
        reply = scheduler.ask(
            "owner", "POST", f"/api/v1/workers/{worker}/tasks/{job}/{lease['task_id']}/result",
            params={"attempt": 1}, content=body, headers={"x-content-sha256": hashlib.sha256(body).hexdigest()},
        )  # fmt: skip
        assert reply.status_code == 200, reply.text
    scheduler.ask("owner", "GET", f"/api/v1/jobs/{job}/events")
    return {"job_id": job, "worker_id": worker, "task_id": 0}


def prepare(case: schemathesis.Case) -> None:
    """Have nobody wait: what waits is tested elsewhere."""
    body = body_of(case)
    if is_number(body.get("wait_s")):
        body["wait_s"] = min(body["wait_s"], 0.0)


def test_whatever_the_owner_asks_is_answered_as_documented(scheduler: Served, known: dict[str, Any]) -> None:
    checked = scheduler.check("owner", known, REQUESTS, prepare)

    assert not checked.broken, "\n\n".join(checked.broken)
    assert 401 not in set().union(*checked.statuses.values())
    assert scheduler.ask("owner", "GET", "/healthz").status_code == 200


@pytest.mark.parametrize("role", [None, *(role for role in ROLES if role != "owner")])
def test_whatever_anyone_else_asks_is_answered_as_documented(
    scheduler: Served, known: dict[str, Any], role: Role | None
) -> None:
    before = scheduler.ask("owner", "GET", "/api/v1/jobs").json()

    checked = scheduler.check(role, known, 3, prepare)

    assert not checked.broken, "\n\n".join(checked.broken)
    if role is None:
        closed = {
            label: set(counts) for label, counts in checked.statuses.items() if label.split()[1] not in PUBLIC
        }
        assert set().union(*closed.values()) == {401}
    if role in {None, "viewer"}:
        assert scheduler.ask("owner", "GET", "/api/v1/jobs").json() == before
