"""A scheduler on one host is found from another by mDNS alone."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Protocol

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.e2e]

ANNOUNCE = """
import asyncio, socket, sys
from fastapi import FastAPI
from cluster.discovery import announce, own_addresses
from cluster.protocol import Identity
from cluster.serving import Server, bind, serve

identity = Identity(role="scheduler", cluster_id="{cluster_id}", name="{name}", machine="m", version="1")
app = FastAPI()

@app.get("/api/v1/identity")
async def show() -> Identity:
    return identity

async def main():
    listener = bind("scheduler", host="0.0.0.0", port=None)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Server(app), listener, stop))
    async with announce(identity, listener.getsockname()[1]):
        print("announced", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    stop.set()
    await serving
    print("withdrawn", flush=True)

asyncio.run(main())
"""

FIND = """
import asyncio, json, socket
from cluster.discovery import browse, reachable

{before}

async def main():
    found = await browse({seconds})
    urls = {{one.name: await reachable(one) for one in found}}
    print(json.dumps({{"urls": urls, "ids": [one.cluster_id for one in found], "join": [one.join for one in found]}}))

asyncio.run(main())
"""

TAKEN = """
taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taken.bind(("", 5353))
"""


class Hosts(Protocol):
    """What the fixture gives."""

    a: str
    b: str

    def start(self, host: str, code: str) -> subprocess.Popen[str]: ...


def announced(hosts: Hosts, host: str, cluster_id: str, name: str) -> subprocess.Popen[str]:
    process = hosts.start(host, ANNOUNCE.format(cluster_id=cluster_id, name=name))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "announced\n", process.communicate(timeout=10)[1]
    return process


def found(hosts: Hosts, host: str, *, before: str = "", seconds: float = 3.0) -> dict[str, Any]:
    out, err = hosts.start(host, FIND.format(before=before, seconds=seconds)).communicate(timeout=60)
    assert out, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_a_scheduler_on_another_host_is_found_and_answers(hosts: Hosts) -> None:
    announced(hosts, hosts.a, "c1", "lab")

    seen = found(hosts, hosts.b)

    assert seen["ids"] == ["c1"]
    assert seen["urls"]["lab"].startswith("http://10.77.0.1:")


def test_it_is_found_although_another_program_holds_the_mdns_port(hosts: Hosts) -> None:
    announced(hosts, hosts.a, "c1", "lab")

    seen = found(hosts, hosts.b, before=TAKEN)

    assert seen["ids"] == ["c1"]


def test_two_clusters_on_one_network_are_told_apart(hosts: Hosts) -> None:
    announced(hosts, hosts.a, "c1", "lab")
    announced(hosts, hosts.b, "c2", "other lab")

    seen = found(hosts, hosts.b, seconds=4.0)

    assert sorted(seen["ids"]) == ["c1", "c2"]
    assert seen["urls"]["lab"].startswith("http://10.77.0.1:")
    assert seen["urls"]["other lab"].startswith("http://10.77.0.2:")


def test_a_scheduler_that_stops_is_not_announced_any_more(hosts: Hosts) -> None:
    process = announced(hosts, hosts.a, "c1", "lab")

    out, err = process.communicate("\n", timeout=30)

    assert out == "withdrawn\n", err
    assert found(hosts, hosts.b)["ids"] == []
