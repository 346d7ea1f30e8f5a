from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image

from cluster.arrays import FRAMES_MEDIA_TYPE, decode_frames
from cluster.dataserver.reading import Reading
from cluster.http import PROBLEM_MEDIA_TYPE, Gate
from cluster.protocol import Identity, Role, SeriesFacts, SeriesListing, SeriesPlace
from cluster.trust import token

pytestmark = pytest.mark.anyio

CELL = "/api/v1/series/day%201/cell%20%232%20%C3%BC.tif"
GUARDED = [
    "/api/v1/series", CELL, f"{CELL}/frames", f"{CELL}/frames/0.png", "/api/v1/series/a.h5/events",
]  # fmt: skip
ClientAs = Callable[[Role | None], httpx.AsyncClient]


def _assert_problem(reply: httpx.Response, status: int, code: str) -> None:
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.headers["content-type"] == PROBLEM_MEDIA_TYPE


async def test_identity_and_health_need_no_token(client_as: ClientAs) -> None:
    anyone = client_as(None)

    identity = await anyone.get("/api/v1/identity")
    health = await anyone.get("/healthz")

    assert Identity.model_validate_json(identity.content).cluster_id == "c1"
    assert health.json() == {"status": "ok", "role": "dataserver"}


@pytest.mark.parametrize("url", GUARDED)
async def test_every_other_route_needs_a_token(client_as: ClientAs, url: str) -> None:
    reply = await client_as(None).get(url)

    _assert_problem(reply, 401, "unauthorised")


@pytest.mark.parametrize("url", GUARDED)
async def test_a_token_of_another_cluster_is_no_token(client_as: ClientAs, url: str) -> None:
    stranger = {"authorization": f"Bearer {token(b'x' * 32, 'owner')}"}

    reply = await client_as(None).get(url, headers=stranger)

    _assert_problem(reply, 401, "unauthorised")


@pytest.mark.parametrize("url", GUARDED)
async def test_a_submitter_token_may_not_read_frames(client_as: ClientAs, url: str) -> None:
    _assert_problem(await client_as("submitter").get(url), 403, "forbidden")


@pytest.mark.parametrize("role", ["viewer", "worker", "owner"])
@pytest.mark.parametrize("url", GUARDED)
async def test_viewers_workers_and_owners_may_read(client_as: ClientAs, url: str, role: Role) -> None:
    assert (await client_as(role).get(url)).status_code == 200


@pytest.mark.parametrize("url", ["/docs", "/redoc", "/openapi.json"])
async def test_no_page_that_loads_scripts_from_elsewhere_is_served(http: httpx.AsyncClient, url: str) -> None:
    assert (await http.get(url)).status_code == 404


async def test_before_it_has_registered_it_asks_to_come_back_later(
    http: httpx.AsyncClient, gate: Gate
) -> None:
    gate.verifiers = {}

    reply = await http.get("/api/v1/series")

    _assert_problem(reply, 503, "unavailable")
    assert reply.headers["retry-after"] == "1"


async def test_the_roots_say_how_much_room_there_is(client_as: ClientAs) -> None:
    (root,) = (await client_as("viewer").get("/api/v1/roots")).json()

    assert root["path"]
    assert 0 < root["free_bytes"] <= root["total_bytes"]
    assert root["writable"] is True


async def test_the_listing_walks_down_from_the_root(http: httpx.AsyncClient) -> None:
    top = SeriesListing.model_validate_json((await http.get("/api/v1/series")).content)
    below = SeriesListing.model_validate_json(
        (await http.get("/api/v1/series", params={"under": "day 1"})).content
    )

    assert [entry.path for entry in top.entries] == ["a.h5", "day 1", "empty.tif"]
    assert [(entry.path, entry.kind) for entry in below.entries] == [("day 1/cell #2 ü.tif", "series")]


async def test_facts_say_what_the_series_is(http: httpx.AsyncClient) -> None:
    facts = SeriesFacts.model_validate_json((await http.get(CELL)).content)

    assert (facts.path, facts.frames, facts.height, facts.width, facts.dtype) == (
        "day 1/cell #2 ü.tif", 9, 16, 20, "uint16",
    )  # fmt: skip
    assert facts.metadata["voxelsize.x"].source == "sidecar cell #2 ü.json"


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
async def test_frames_arrive_as_they_were_written(http: httpx.AsyncClient, stack: Any, codec: str) -> None:
    reply = await http.get(f"{CELL}/frames", params={"start": 2, "stop": 7, "codec": codec})

    found = decode_frames(reply.content)
    assert reply.headers["content-type"] == FRAMES_MEDIA_TYPE
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert (found.start, found.stop, found.missing) == (2, 7, ())
    np.testing.assert_array_equal(found.frames, stack[2:7])


async def test_frames_that_lie_in_no_blocks_come_as_ever(http: httpx.AsyncClient, stack: Any) -> None:
    reply = await http.get(
        f"{CELL}/frames", params={"start": 2, "stop": 7, "stored": 1, "codec": "blosc-lz4"}
    )

    np.testing.assert_array_equal(decode_frames(reply.content).frames, stack[2:7])


async def test_a_transposed_file_serves_the_same_frames(http: httpx.AsyncClient, stack: Any) -> None:
    reply = await http.get("/api/v1/series/a.h5/frames")

    np.testing.assert_array_equal(decode_frames(reply.content).frames, stack)


async def test_missing_frames_travel_with_the_range(http: httpx.AsyncClient, root: Path, stack: Any) -> None:
    (root / "cut.raw").write_bytes(stack.tobytes()[: -stack[0].nbytes - 3])
    (root / "cut.yaml").write_text(
        "Byte Order: <\nData Type: uint16\nFrames: 9\nHeight: 16\nWidth: 20\n", encoding="utf-8"
    )

    found = decode_frames((await http.get("/api/v1/series/cut.raw/frames")).content)

    assert found.missing == (7, 8)
    np.testing.assert_array_equal(found.frames[:7], stack[:7])
    assert not found.frames[7:].any()


async def test_a_frame_as_a_picture_has_its_contrast_stretched(http: httpx.AsyncClient) -> None:
    reply = await http.get(f"{CELL}/frames/3.png")

    picture = np.asarray(Image.open(io.BytesIO(reply.content)))
    assert reply.headers["content-type"] == "image/png"
    assert picture.shape == (16, 20)
    assert (picture.min(), picture.max()) == (0, 255)


async def test_a_frame_without_contrast_is_still_a_picture(http: httpx.AsyncClient, root: Path) -> None:
    tifffile.imwrite(root / "flat.tif", np.full((2, 16, 20), 7, np.float32))

    reply = await http.get("/api/v1/series/flat.tif/frames/0.png")

    assert reply.status_code == 200


async def test_events_are_listed(http: httpx.AsyncClient) -> None:
    reply = await http.get("/api/v1/series/a.h5/events")

    assert reply.json() == [{"name": "StartAq", "description": "0", "time": 1.7e9}]


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("/api/v1/series/none.tif", 404, "not_found"),
        ("/api/v1/series/none.tif/frames", 404, "not_found"),
        ("/api/v1/series/none.tif/frames/0.png", 404, "not_found"),
        ("/api/v1/series/none.tif/events", 404, "not_found"),
        ("/api/v1/series?under=none", 404, "not_found"),
        ("/api/v1/series/", 404, "not_found"),
        ("/api/v1/series/%2e%2e/%2e%2e/etc/passwd", 400, "invalid"),
        ("/api/v1/series/%2Fetc%2Fpasswd", 400, "invalid"),
        ("/api/v1/series/C:%5Cdata%5Ca.tif", 400, "invalid"),
        ("/api/v1/series/a%00.tif", 400, "invalid"),
        ("/api/v1/series?under=..", 400, "invalid"),
        ("/api/v1/series/empty.tif", 400, "invalid"),
        ("/api/v1/series/empty.tif/frames", 400, "invalid"),
        (f"{CELL}/frames?start=0&stop=10", 400, "invalid"),
        (f"{CELL}/frames?start=-1", 400, "invalid"),
        (f"{CELL}/frames?start=x", 400, "invalid"),
        (f"{CELL}/frames?codec=zip", 400, "invalid"),
        (f"{CELL}/frames/9.png", 400, "invalid"),
        (f"{CELL}/frames?fingerprint=other", 409, "conflict"),
    ],
)
async def test_what_cannot_be_served_is_a_problem_with_its_code(
    http: httpx.AsyncClient, url: str, status: int, code: str
) -> None:
    _assert_problem(await http.get(url), status, code)


async def test_the_refusal_of_an_empty_file_names_it(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/v1/series/empty.tif")).json()["detail"] == "empty.tif is empty"


async def test_frames_of_the_pinned_file_are_served_until_it_changes(
    http: httpx.AsyncClient, root: Path, stack: Any
) -> None:
    pinned = (await http.get(CELL)).json()["fingerprint"]
    before = await http.get(f"{CELL}/frames", params={"fingerprint": pinned})

    tifffile.imwrite(root / "day 1" / "cell #2 ü.tif", stack[:5])
    after = await http.get(f"{CELL}/frames", params={"fingerprint": pinned})

    assert before.status_code == 200
    _assert_problem(after, 409, "conflict")
    assert "the file changed" in after.json()["detail"]


async def test_a_range_over_the_limit_says_how_much_may_be_asked(http: httpx.AsyncClient, root: Path) -> None:
    with (root / "huge.raw").open("wb") as file:
        file.truncate(600 << 20)
    (root / "huge.yaml").write_text(
        "Byte Order: <\nData Type: uint16\nFrames: 600\nHeight: 512\nWidth: 1024\n", encoding="utf-8"
    )

    reply = await http.get("/api/v1/series/huge.raw/frames")

    _assert_problem(reply, 413, "too_large")
    assert reply.json()["most_frames"] == 256


async def test_many_requests_at_once_all_get_theirs_and_give_their_memory_back(
    http: httpx.AsyncClient, reading: Reading, stack: Any
) -> None:
    asked = [http.get(f"{CELL}/frames", params={"start": n % 8, "stop": n % 8 + 1}) for n in range(60)]

    replies = await asyncio.gather(*asked)

    assert all(
        np.array_equal(decode_frames(r.content).frames[0], stack[n % 8]) for n, r in enumerate(replies)
    )
    assert reading.budget.used == 0


async def test_a_refused_range_gives_its_memory_back(http: httpx.AsyncClient, reading: Reading) -> None:
    await http.get(f"{CELL}/frames", params={"fingerprint": "other"})

    assert reading.budget.used == 0


CURVES = {
    "format": "clusterofone width curves",
    "z_nm": [-100, 0, 100, 200],
    "sigma_x_nm": [1.0, 2, 3, 4],
    "sigma_y_nm": [4.0, 3, 2, 1],
}


async def test_width_curves_and_shift_fields_are_handed_out_without_their_notes(
    http: httpx.AsyncClient, root: Path
) -> None:
    (root / "day 1" / "psf.sigma.json").write_text(json.dumps(CURVES), encoding="utf-8")
    field = {"centre_nm": [0, 0], "scale_nm": 1000, "dx_nm": [[5.0]], "dy_nm": [[1.0, 2.0]]}
    (root / "shifts.json").write_text(json.dumps({"field": field, "beads": 17}), encoding="utf-8")

    curves = (await http.get("/api/v1/calibrations/day 1/psf.sigma.json")).json()
    shifts = (await http.get("/api/v1/calibrations/shifts.json")).json()

    assert curves["path"] == "day 1/psf.sigma.json"
    assert curves["value"] == {name: CURVES[name] for name in ("z_nm", "sigma_x_nm", "sigma_y_nm")}
    assert shifts["value"]["dy_nm"] == [[1.0, 2.0]]
    assert len({curves["digest"], shifts["digest"]}) == 2


@pytest.mark.parametrize(
    ("path", "text", "status", "said"),
    [
        ("cell.json", '{"voxelsize.x": 0.1}', 400, "neither a shift field nor width curves"),
        ("curves.json", '{"z_nm": [1, 2]}', 400, "curves.json"),
        ("curves.json", '{"z_nm": [1, 2', 400, "not JSON"),
        ("curves.txt", json.dumps(CURVES), 400, "those are .json"),
        ("large.json", " " * ((4 << 20) + 1), 413, "larger than any calibration"),
    ],
)
async def test_no_other_file_is_handed_out(
    http: httpx.AsyncClient, root: Path, path: str, text: str, status: int, said: str
) -> None:
    (root / path).write_text(text, encoding="utf-8")

    reply = await http.get(f"/api/v1/calibrations/{path}")

    assert reply.status_code == status
    assert said in reply.json()["detail"]


async def test_a_calibration_outside_the_roots_is_not_there_and_needs_a_token(
    http: httpx.AsyncClient, client_as: Any, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "curves.json"
    secret.write_text(json.dumps(CURVES), encoding="utf-8")
    (root / "inside.json").symlink_to(secret)

    assert (await http.get("/api/v1/calibrations/inside.json")).status_code == 404
    assert (await http.get("/api/v1/calibrations/%2e%2e/curves.json")).status_code == 400
    assert (await client_as(None).get("/api/v1/calibrations/a.json")).status_code == 401


async def test_a_worker_learns_where_the_frames_lie_and_nobody_else_does(
    client_as: ClientAs, root: Path, stack: np.ndarray[Any, Any]
) -> None:
    facts = SeriesFacts.model_validate_json((await client_as("worker").get(CELL)).content)

    reply = await client_as("worker").get(f"{CELL}/place", params={"fingerprint": facts.fingerprint})
    place = SeriesPlace.model_validate_json(reply.content)

    (run,) = place.runs
    assert (run.frame, run.count, run.stride) == (0, 9, stack[0].nbytes)
    np.testing.assert_array_equal(np.memmap(place.files[0], "<u2", "r", run.offset, stack.shape), stack)
    for role in ("viewer", "submitter"):
        _assert_problem(await client_as(role).get(f"{CELL}/place"), 403, "forbidden")


async def test_frames_that_are_not_as_served_lie_nowhere(client_as: ClientAs) -> None:
    reply = await client_as("worker").get("/api/v1/series/a.h5/place")

    _assert_problem(reply, 404, "not_found")


async def test_the_place_of_another_series_than_asked_for_is_refused(client_as: ClientAs) -> None:
    reply = await client_as("worker").get(f"{CELL}/place", params={"fingerprint": "another"})

    _assert_problem(reply, 409, "conflict")
