"""What workers ask all the time is answered by a short way; nobody can tell it from the long one, which the routes are."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio
QUICK = {"content-type": "application/json"}
LONG = {"content-type": "application/json; charset=utf-8"}  # which no worker of ours sends


def _seen(reply: httpx.Response) -> tuple[int, dict[str, str], Any]:
    return reply.status_code, dict(reply.headers), reply.json()


@pytest.mark.parametrize("worker", ["known", "unknown"])
@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("tasks", '{"count": 1}'),
        ("tasks", '{"count": 0}'),
        ("tasks", '{"count": 1, "colour": "red"}'),
        ("tasks", "no JSON"),
        ("tasks", ""),
        ("keepalive", '{"held": [{"job_id": "j", "task_id": 1, "attempt": 1}]}'),
        ("keepalive", '{"held": 3}'),
    ],
)
async def test_both_ways_give_one_answer(hands: Any, worker: str, what: str, body: str) -> None:
    worker_id = await hands.register() if worker == "known" else "nobody"
    route = f"/api/v1/workers/{worker_id}/{what}"

    replies = [await hands.http.post(route, content=body, headers=headers) for headers in (QUICK, LONG)]

    assert _seen(replies[0]) == _seen(replies[1])


@pytest.mark.parametrize("token", ["Bearer nonsense", "Basic abc", ""])
async def test_a_stranger_is_refused_either_way(hands: Any, token: str) -> None:
    worker_id = await hands.register()
    route = f"/api/v1/workers/{worker_id}/tasks"

    for headers in (QUICK, LONG):
        reply = await hands.http.post(route, json={}, headers={**headers, "authorization": token})
        assert (reply.status_code, reply.json()["code"]) == (401, "unauthorised")


@pytest.mark.parametrize(
    "query", ["attempt=1&next=1", "next=1&attempt=1", "attempt=0&next=1", "attempt=1&next=65"]
)
async def test_a_damaged_result_is_refused_either_way(hands: Any, query: str) -> None:
    await hands.submitted()
    worker = await hands.register()
    (lease,) = await hands.lease(worker)
    route = f"/api/v1/workers/{worker}/tasks/{lease['job_id']}/{lease['task_id']}/result?{query}"

    reply = await hands.http.post(
        route, content=b"other bytes", headers={"x-content-sha256": hashlib.sha256(b"bytes").hexdigest()}
    )

    assert reply.status_code in {400, 422}
    assert reply.headers["content-type"] == "application/problem+json"


async def test_both_ways_are_counted_as_the_same_route(hands: Any) -> None:
    worker = await hands.register()

    for headers in (QUICK, LONG):
        await hands.http.post(f"/api/v1/workers/{worker}/keepalive", content='{"held": []}', headers=headers)

    figures = (await hands.http.get("/metrics")).text
    route = 'method="POST",route="/api/v1/workers/{worker_id}/keepalive",status="200"'
    assert f"clusterofone_http_requests_total{{{route}}} 2.0" in figures


async def test_no_two_workers_have_one_name(hands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(drawn))

    first, second = await hands.register(), await hands.register()

    assert first.endswith("aaaaaa")
    assert second.endswith("bbbbbb")
