"""A cluster that encrypts is known by the certificate that its tokens name, to every client, and to nobody else."""

from __future__ import annotations

import asyncio
import ssl
import stat
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st

from cluster import trust
from cluster.certificates import Certificate, load_or_create
from cluster.client import Client
from cluster.config import SchedulerSettings
from cluster.discovery import identity_at
from cluster.errors import Invalid, Unauthorised, Untrusted
from cluster.pinning import bare, only, pin_in, pinned_address, split_address, with_pin
from cluster.scheduler.run import run
from cluster.serving import Server, bind, serve
from cluster.transport import BlockingLink, Link

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0189-_", min_size=1, max_size=50)


@given(NAMES, NAMES)
def test_a_token_and_an_address_give_back_what_they_were_made_of(mac: str, pin: str) -> None:
    token, url = f"c1.worker.{mac}", "https://lab-pc-3:15400"

    assert (bare(with_pin(token, pin)), pin_in(with_pin(token, pin))) == (token, pin)
    assert with_pin(with_pin(token, "old"), pin) == with_pin(token, pin)
    assert (bare(token), pin_in(token), with_pin(token, None)) == (token, None, token)
    assert split_address(pinned_address(url, pin)) == (url, pin)
    assert split_address(url) == (url, None)


def test_a_server_knows_a_token_with_and_without_the_certificate() -> None:
    secret = bytes(range(32))
    token = trust.token(secret, "submitter")

    for presented in (token, with_pin(token, "A" * 43)):
        assert trust.role_of(presented, trust.verifiers(secret)) == "submitter"
    with pytest.raises(Unauthorised):
        trust.role_of(with_pin(trust.token(bytes(32), "owner"), "A" * 43), trust.verifiers(secret))


def test_a_machine_keeps_its_certificate_and_its_key_to_itself(tmp_path: Path) -> None:
    made = load_or_create(tmp_path / "state", host="größer", addresses=["192.168.1.5", "fe80::1"])

    assert load_or_create(tmp_path / "state", host="renamed") == made
    assert load_or_create(tmp_path / "elsewhere", host="lab").fingerprint != made.fingerprint
    assert "PRIVATE" not in made.file.read_text("ascii")
    if sys.platform != "win32":
        assert stat.S_IMODE(made.key_file.stat().st_mode) == 0o600
    made.file.write_text("-----BEGIN CERTIFICATE-----\nnone\n", "ascii")
    with pytest.raises(Invalid, match=r"certificate\.pem and certificate\.key are damaged .* delete both"):
        load_or_create(tmp_path / "state", host="lab")


def test_two_roles_that_start_at_once_make_one_certificate(tmp_path: Path) -> None:
    made: list[Certificate] = []
    threads = [
        threading.Thread(target=lambda: made.append(load_or_create(tmp_path, host="lab"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({one.fingerprint for one in made}) == 1
    assert len(made) == 8


@dataclass
class Stranger:
    """A server that is not ours, and notes what it is shown."""

    url: str = ""
    shown: list[str | None] = field(default_factory=list)


@asynccontextmanager
async def stranger(certificate: Certificate | None = None) -> AsyncIterator[Stranger]:
    there, app, stop = Stranger(), FastAPI(), asyncio.Event()

    @app.get("/{path:path}")
    async def note(request: Request) -> dict[str, str]:
        there.shown.append(request.headers.get("authorization"))
        return {}

    listener = bind("web", host="127.0.0.1", port=0)
    scheme = "http" if certificate is None else "https"
    there.url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.Event()
    task = asyncio.create_task(
        serve(Server(app, on_ready=serving.set, certificate=certificate), listener, stop)
    )
    await serving.wait()
    try:
        yield there
    finally:
        stop.set()
        await task


@asynccontextmanager
async def scheduler(folder: Path, *, tls: bool = True) -> AsyncIterator[tuple[str, str]]:
    """Give the URL of a scheduler and its owner's token."""
    settings = SchedulerSettings(
        name="lab", state=folder / "clusters" / "lab", roots=(folder,), port=0, tls=tls
    )
    stop = asyncio.Event()
    serving: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run(settings, stop=stop, ready=serving.set_result))
    try:
        url = await asyncio.wait_for(serving, 60)
        yield url, trust.own_token(settings.state, "owner")
    finally:
        stop.set()
        await task


@pytest.mark.anyio
async def test_who_has_the_token_is_served_and_who_else_answers_is_found_out(tmp_path: Path) -> None:
    other = load_or_create(tmp_path / "other", host="lab")
    async with scheduler(tmp_path / "ours") as (url, token), stranger(other) as impostor:
        assert url.startswith("https://")
        assert pin_in(token) is not None
        jobs = await asyncio.to_thread(lambda: _jobs(url, token))
        identity = await identity_at(url)
        for address in (impostor.url, pinned_address(impostor.url, pin_in(token))):
            with pytest.raises(
                Untrusted, match=r"is not who the token was made for: its certificate is \S+, not"
            ):
                await _asked(address, token)
            with pytest.raises(Untrusted, match="is not who the token was made for"):
                await asyncio.to_thread(lambda address=address: _jobs(address, token, blocking=True))
        with pytest.raises(Untrusted, match="use the token that clusterofone token prints there"):
            await _asked(url, bare(token))

    assert jobs == []
    assert identity.name == "lab"
    assert impostor.shown == []


def _jobs(url: str, token: str, *, blocking: bool = False) -> list[object]:
    if blocking:
        link = BlockingLink(url, token)
        try:
            link.request("GET", "/api/v1/jobs")
        finally:
            link.close()
    with Client(url, token) as client:
        return list(client.jobs())


async def _asked(address: str, token: str | None) -> None:
    link = Link(address, token)
    try:
        await link.request("GET", "/api/v1/jobs")
    finally:
        await link.aclose()


@pytest.mark.anyio
async def test_a_data_server_with_a_certificate_of_its_own_is_known_by_its_address(tmp_path: Path) -> None:
    certificate = load_or_create(tmp_path / "there", host="nas")
    token = with_pin("c1.worker.abc", load_or_create(tmp_path / "here", host="lab").fingerprint)
    async with stranger(certificate) as dataserver:
        await _asked(pinned_address(dataserver.url, certificate.fingerprint), token)

    assert dataserver.shown == ["Bearer c1.worker.abc"]


@pytest.mark.anyio
async def test_a_token_that_names_a_certificate_is_never_sent_in_the_clear(tmp_path: Path) -> None:
    token = with_pin("c1.worker.abc", load_or_create(tmp_path, host="lab").fingerprint)
    async with stranger() as plain:
        with pytest.raises(Untrusted, match="does not encrypt, and this token is of a cluster that does"):
            await _asked(plain.url, token)
        with pytest.raises(Untrusted, match="it is not sent there"):
            BlockingLink(plain.url, token)

    assert plain.shown == []


@pytest.mark.anyio
async def test_who_has_no_token_yet_stays_with_the_certificate_that_was_seen_first(tmp_path: Path) -> None:
    first, second = (load_or_create(tmp_path / name, host=name) for name in ("first", "second"))
    context = only(None)
    async with (
        stranger(first) as one,
        stranger(second) as two,
        httpx.AsyncClient(verify=context, trust_env=False) as http,
    ):
        for _ in range(2):
            assert (await http.get(one.url)).status_code == 200
        with pytest.raises(httpx.ConnectError, match="its certificate is"):
            await http.get(two.url)

    assert isinstance(context, ssl.SSLContext)
    assert two.shown == []


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_program_that_is_told_the_certificate_finds_its_names_right(
    tmp_path: Path, host: str
) -> None:
    certificate = load_or_create(tmp_path, host="lab-pc-3", addresses=["192.168.1.5"])
    context = ssl.create_default_context(cafile=str(certificate.file))  # as curl --cacert does
    async with (
        stranger(certificate) as there,
        httpx.AsyncClient(verify=context, trust_env=False) as http,
    ):
        reply = await http.get(there.url.replace("127.0.0.1", host))

    assert reply.status_code == 200


@pytest.mark.anyio
async def test_tokens_name_a_certificate_only_while_the_scheduler_shows_one(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (_, encrypted):
        pass
    async with scheduler(tmp_path, tls=False) as (url, plain):
        assert url.startswith("http://")
    async with scheduler(tmp_path) as (_, again):
        pass

    assert bare(encrypted) == plain
    assert again == encrypted != plain
