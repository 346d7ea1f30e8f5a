from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest

from cluster.arrays import FRAMES_MEDIA_TYPE, FrameRange, decode_frames, encode_frames
from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.reading import Reading
from cluster.dataserver.writing import Writing
from cluster.http import Gate
from cluster.protocol import Identity, Role
from cluster.stored_frames import decode
from cluster.trust import token, verifiers

SECRET = b"s" * 32
STACK = np.random.default_rng(4).poisson(120, (10, 16, 20)).astype(np.uint16)
WANTED = {"height": 16, "width": 20, "dtype": "uint16", "chunk_frames": 4, "metadata": {"voxelsize.x": 0.1}}
SERIES = "/api/v1/series/day 1/new.zarr"
ClientAs = Callable[[Role | None], httpx.AsyncClient]


@pytest.fixture
def room() -> list[int]:
    """Free bytes of the disk, to be changed by a test."""
    return [1 << 40]


@pytest.fixture
def writing(root: Path, room: list[int]) -> Writing:
    acquisitions = Acquisitions([root], free=lambda _: room[0])
    return Writing(acquisitions, append_limit_bytes=20_000, file_limit_bytes=20_000, silence_s=0.2)


@pytest.fixture
async def client_as(reading: Reading, root: Path, writing: Writing) -> AsyncIterator[ClientAs]:
    def identity() -> Identity:
        return Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")

    gate = Gate(verifiers=verifiers(SECRET))
    app = create_app(reading.store, Calibrations([root], reading.store), gate, identity, reading=reading)
    app.state.writing = writing
    clients: list[httpx.AsyncClient] = []

    def client(role: Role | None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {token(SECRET, role)}"} if role else {}
        made = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1", headers=headers
        )
        clients.append(made)
        return made

    yield client
    for made in clients:
        await made.aclose()


@pytest.fixture
def http(client_as: ClientAs) -> httpx.AsyncClient:
    return client_as("submitter")


def encoded(start: int, stop: int, codec: str = "blosc-lz4", version: int = 0) -> dict[str, Any]:
    body = b"".join(encode_frames(FrameRange(start, STACK[start:stop] + np.uint16(version)), codec))
    return {
        "params": {"start": start},
        "content": body,
        "headers": {"content-type": FRAMES_MEDIA_TYPE},
    }


def left_behind(root: Path) -> list[Path]:
    return list(root.rglob("*.part"))


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_series_is_made_filled_and_completed(client_as: ClientAs, http: httpx.AsyncClient) -> None:
    made = await http.post(SERIES, json=WANTED)
    again = await http.post(SERIES, json=WANTED)
    other = await http.post(SERIES, json={**WANTED, "height": 17})
    first = await http.post(f"{SERIES}/frames", **encoded(4, 10))
    plain = await http.post(
        f"{SERIES}/frames", params={"start": 0}, content=STACK[:6].astype("<u2").tobytes()
    )
    done = await http.post(f"{SERIES}/complete", json={"frames": 12})
    done_again = await http.post(f"{SERIES}/complete", json={"frames": None})

    assert (made.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert made.json()["complete"] is False
    assert first.json() == {"start": 4, "stop": 10, "new": 6}
    assert plain.json() == {"start": 0, "stop": 6, "new": 4}
    assert (done.json()["frames"], done.json()["missing"], done.json()["complete"]) == (12, [[10, 12]], True)
    assert done_again.json() == done.json()
    read = await client_as("worker").get(
        f"{SERIES}/frames", params={"fingerprint": made.json()["fingerprint"]}
    )
    assert np.array_equal(decode_frames(read.content).frames[:10], STACK)
    as_it_lies = await client_as("worker").get(
        f"{SERIES}/frames", params={"stored": 1, "start": 1, "stop": 12}
    )
    sent = decode(as_it_lies.content)
    assert as_it_lies.content[:4] == b"C1ST"
    assert (sent.start, sent.missing) == (1, (10, 11))
    assert np.array_equal(sent.frames[:9], STACK[1:])


async def test_the_same_bytes_again_change_nothing_and_others_are_a_conflict_that_names_the_frames(
    http: httpx.AsyncClient,
) -> None:
    await http.post(SERIES, json=WANTED)
    await http.post(f"{SERIES}/frames", **encoded(2, 6))

    again = await http.post(f"{SERIES}/frames", **encoded(2, 6, codec="none"))
    other = await http.post(f"{SERIES}/frames", **encoded(4, 9, version=1))

    assert again.json()["new"] == 0
    assert (other.status_code, other.json()["frames"]) == (409, [[4, 6]])
    assert "4 to 5" in other.json()["detail"]


async def test_only_submitters_and_the_owner_may_write(client_as: ClientAs) -> None:
    requests = [
        ("POST", SERIES, {"json": WANTED}),
        ("POST", f"{SERIES}/frames", encoded(0, 4)),
        ("POST", f"{SERIES}/events", {"json": []}),
        ("POST", f"{SERIES}/complete", {"json": {}}),
        ("POST", f"{SERIES}/archive", {}),
        ("PUT", "/api/v1/files/notes.txt", {"content": b"x"}),
    ]

    for method, url, options in requests:
        refused = [
            (await client_as(role).request(method, url, **options)).status_code
            for role in ("viewer", "worker", None)
        ]
        allowed = (await client_as("owner").request(method, url, **options)).status_code
        assert (refused, allowed) in [([403, 403, 401], 200), ([403, 403, 401], 201)], url


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("method", "url"), [("POST", f"{SERIES}/frames?start=0"), ("PUT", "/api/v1/files/large.bin")]
)
async def test_a_body_over_the_limit_is_refused_with_and_without_its_length(
    http: httpx.AsyncClient, root: Path, method: str, url: str, chunked: bool
) -> None:
    await http.post(SERIES, json=WANTED)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield bytes(1000)

    reply = await http.request(method, url, content=pieces() if chunked else bytes(30_000))

    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
    assert not (root / "large.bin").exists()
    assert left_behind(root) == []


@pytest.mark.parametrize(
    ("method", "url"), [("POST", f"{SERIES}/frames?start=0"), ("PUT", "/api/v1/files/slow.bin")]
)
async def test_a_sender_that_falls_silent_is_let_go(
    http: httpx.AsyncClient, root: Path, writing: Writing, method: str, url: str
) -> None:
    await http.post(SERIES, json=WANTED)

    async def silence() -> AsyncIterator[bytes]:
        yield b"x"
        await anyio.sleep_forever()

    reply = await http.request(method, url, content=silence())

    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
    assert writing.budget.used == 0
    assert left_behind(root) == []


async def test_what_was_damaged_on_the_way_is_refused(http: httpx.AsyncClient) -> None:
    await http.post(SERIES, json=WANTED)
    options = encoded(0, 4)
    options["content"] = options["content"][:-1] + bytes([options["content"][-1] ^ 1])
    plain = STACK[:2].tobytes()

    packed = await http.post(f"{SERIES}/frames", **options)
    digest = await http.post(
        f"{SERIES}/frames", params={"start": 0}, content=plain, headers={"x-sha256": "0" * 64}
    )
    short = await http.post(f"{SERIES}/frames", params={"start": 0}, content=plain[:-1])

    assert (packed.status_code, digest.status_code, short.status_code) == (422, 422, 400)
    assert "640 bytes" in short.json()["detail"]


async def test_frames_of_another_shape_start_or_series_are_refused_by_name(http: httpx.AsyncClient) -> None:
    await http.post(SERIES, json=WANTED)
    wide = b"".join(encode_frames(FrameRange(0, np.zeros((1, 16, 21), np.uint16))))
    head = {"content-type": FRAMES_MEDIA_TYPE}

    shape = await http.post(f"{SERIES}/frames", params={"start": 0}, content=wide, headers=head)
    start = await http.post(f"{SERIES}/frames", **{**encoded(4, 8), "params": {"start": 5}})
    foreign = await http.post("/api/v1/series/a.h5/frames", **encoded(0, 4))
    absent = await http.post("/api/v1/series/none.zarr/frames", **encoded(0, 4))

    assert (shape.json()["field"], start.json()["field"], foreign.json()["field"]) == (
        "shape",
        "start",
        "path",
    )
    assert absent.status_code == 404


async def test_a_disk_that_is_nearly_full_takes_nothing_until_there_is_room(
    http: httpx.AsyncClient, room: list[int]
) -> None:
    await http.post(SERIES, json=WANTED)
    room[0] = 1 << 29
    refused = await http.post(f"{SERIES}/frames", **encoded(0, 4))
    refused_file = await http.put("/api/v1/files/notes.txt", content=b"x")
    room[0] = 1 << 40
    taken = await http.post(f"{SERIES}/frames", **encoded(0, 4))

    assert (refused.status_code, refused_file.status_code, taken.status_code) == (507, 507, 200)
    assert refused.json()["code"] == "out_of_space"


async def test_a_file_is_kept_whole_with_its_digest_and_over_nothing(
    http: httpx.AsyncClient, root: Path
) -> None:
    digest = hashlib.sha256(b"one").hexdigest()

    wrong = await http.put("/api/v1/files/day 2/notes.txt", content=b"two", headers={"x-sha256": digest})
    right = await http.put("/api/v1/files/day 2/notes.txt", content=b"one", headers={"x-sha256": digest})
    again = await http.put("/api/v1/files/day 2/notes.txt", content=b"three")
    within = await http.put("/api/v1/files/x.zarr/zarr.json", content=b"{}")

    assert (wrong.status_code, right.status_code, again.status_code, within.status_code) == (
        422,
        201,
        409,
        400,
    )
    assert right.json() == {"path": "day 2/notes.txt", "bytes": 3, "sha256": digest}
    assert [file.read_bytes() for file in (root / "day 2").iterdir()] == [b"one"]


async def test_events_and_archive(client_as: ClientAs, http: httpx.AsyncClient) -> None:
    event = {"name": "ProtocolTask", "description": "lasers off", "time": 1.7e9}
    await http.post(SERIES, json=WANTED)
    await http.post(f"{SERIES}/frames", **encoded(0, 10))

    counts = [(await http.post(f"{SERIES}/events", json=[event])).json() for _ in range(2)]
    early = await http.post(f"{SERIES}/archive")
    await http.post(f"{SERIES}/complete", json={})
    archived = await http.post(f"{SERIES}/archive")

    assert counts == [{"new": 1}, {"new": 0}]
    assert (early.status_code, archived.status_code) == (409, 200)
    assert archived.json()["frames"] == 10
    read = await client_as("viewer").get(f"{SERIES}/frames")
    assert np.array_equal(decode_frames(read.content).frames, STACK)
    assert (await client_as("viewer").get(f"{SERIES}/events")).json() == [event]


LONG = {
    "letters": ("a" * 235, True),
    "of three bytes": ("字" * 78, True),
    "too many": ("b" * 237, False),
    "far too many": ("b" * 700, False),
    "of three bytes, too many": ("字" * 79, False),
}


@pytest.mark.parametrize("stem", LONG)
async def test_a_name_may_be_as_long_as_disks_allow_and_no_longer(
    http: httpx.AsyncClient, client_as: ClientAs, root: Path, stem: str
) -> None:
    name, fits = LONG[stem]

    made = await http.post(f"/api/v1/series/{name}.zarr", json=WANTED)
    put = await http.put(f"/api/v1/files/{name}.tif", content=b"x")
    read = await client_as("viewer").get(f"/api/v1/series/{name}.dax")

    assert [made.status_code, put.status_code] == ([201, 201] if fits else [400, 400]), made.text + put.text
    assert read.status_code in {400, 404}
    assert left_behind(root) == []


@pytest.mark.parametrize(
    "name", ["cells:b", "a:b", "CON", "d/nul", "slleC\u202er", "a\x9b31m", "a\u200eb", "d\u200f/a"]
)
async def test_nothing_new_gets_a_name_that_means_something_else_elsewhere(
    http: httpx.AsyncClient, root: Path, name: str
) -> None:
    before = everything(root)

    made = await http.post(f"/api/v1/series/{name}.zarr", json=WANTED)
    put = await http.put(f"/api/v1/files/{name}.tif", content=b"x")

    assert [(made.status_code, made.json()["field"]), (put.status_code, put.json()["field"])] == [
        (400, "path")
    ] * 2
    assert everything(root) == before


async def test_a_folder_that_is_there_keeps_its_name_and_takes_new_files(
    http: httpx.AsyncClient, root: Path
) -> None:
    (root / "day\u200f").mkdir()

    put = await http.put("/api/v1/files/day\u200f/a.tif", content=b"x")

    assert put.status_code == 201, put.text
    assert (root / "day\u200f" / "a.tif").read_bytes() == b"x"


def everything(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))
