"""A scheduler on a real port of this machine: it says where it is, serves, stops, and refuses to be two."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.config import SchedulerSettings
from cluster.errors import Conflict
from cluster.scheduler.run import own_versions, run
from cluster.trust import load_or_create_secret, token

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path: Path) -> SchedulerSettings:
    return SchedulerSettings(
        name="lab", state=tmp_path / "state" / "clusters" / "lab", roots=(tmp_path,), port=0
    )


async def started(settings: SchedulerSettings, stop: asyncio.Event) -> tuple[asyncio.Task[None], str]:
    serving: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run(settings, stop=stop, ready=serving.set_result))
    await asyncio.wait({task, serving}, return_when=asyncio.FIRST_COMPLETED, timeout=60.0)
    return task, await asyncio.wait_for(serving, 1.0)


async def test_it_serves_until_it_is_told_to_stop_even_while_a_worker_waits(
    settings: SchedulerSettings, card: Any
) -> None:
    stop = asyncio.Event()
    task, url = await started(settings, stop)
    secret = load_or_create_secret(settings.state / "secret")
    headers = {"authorization": f"Bearer {token(secret, 'owner')}"}

    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=60.0) as http:
        identity = (await http.get("/api/v1/identity")).json()
        ours = card(versions=own_versions().model_dump())
        worker = (await http.post("/api/v1/workers", json=ours)).json()["worker_id"]
        ask = {"count": 1, "wait_s": 60.0}
        polling = asyncio.create_task(http.post(f"/api/v1/workers/{worker}/tasks", json=ask))
        await http.get("/api/v1/workers")  # a round trip after the poll was sent
        stop.set()
        reply = await asyncio.wait_for(polling, 30.0)
        await asyncio.wait_for(task, 30.0)

    assert url.startswith("http://127.0.0.1:")
    assert reply.json() == {"leases": []}
    assert identity["cluster_id"] == (settings.state / "cluster_id").read_text(encoding="utf-8")
    assert (settings.state.parent.parent / "machine.json").exists()


async def test_its_id_and_secret_are_the_same_at_the_next_start(settings: SchedulerSettings) -> None:
    identities = []
    for _ in range(2):
        stop = asyncio.Event()
        task, url = await started(settings, stop)
        async with httpx.AsyncClient(trust_env=False) as http:
            identities.append((await http.get(f"{url}/api/v1/identity")).json())
        stop.set()
        await asyncio.wait_for(task, 30.0)

    assert identities[0] == identities[1]


async def test_a_second_one_on_the_same_state_is_refused(settings: SchedulerSettings) -> None:
    stop = asyncio.Event()
    task, _ = await started(settings, stop)

    with pytest.raises(Conflict, match="another scheduler"):
        await run(settings, stop=stop, ready=lambda _: None)

    stop.set()
    await asyncio.wait_for(task, 30.0)


async def test_a_taken_port_is_named(settings: SchedulerSettings) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]

        with pytest.raises(Conflict, match=str(port)):
            await run(settings.model_copy(update={"port": port}), stop=asyncio.Event(), ready=lambda _: None)


@pytest.mark.parametrize("insecure", [False, True])
async def test_without_tokens_it_serves_the_network_only_where_that_was_said_and_says_so_itself(
    settings: SchedulerSettings, caplog: pytest.LogCaptureFixture, insecure: bool
) -> None:
    on_the_network = settings.model_copy(update={"host": "0.0.0.0", "insecure": insecure})
    stop = asyncio.Event()
    task, url = await started(on_the_network, stop)

    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        status = (await http.get("/api/v1/jobs")).status_code
    stop.set()
    await asyncio.wait_for(task, 30.0)

    assert (status, "INSECURE" in caplog.text) == ((200, True) if insecure else (401, False))


async def test_with_short_leases_its_own_looks_at_the_clock_are_not_taken_for_sleep(
    settings: SchedulerSettings, card: Any
) -> None:
    stop = asyncio.Event()
    task, url = await started(settings.model_copy(update={"lease_s": 1.0}), stop)
    headers = {"authorization": f"Bearer {token(load_or_create_secret(settings.state / 'secret'), 'owner')}"}

    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
        await http.post("/api/v1/workers", json=card(versions=own_versions().model_dump()))
        async with asyncio.timeout(60.0):
            while (await http.get("/api/v1/workers")).json()[0]["state"] != "lost":  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(task, 30.0)
