"""The public client, over HTTP."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.arrays import FrameRange, encode_frames
from cluster.client import Client
from cluster.errors import Conflict, Forbidden, Internal, Invalid, NotAllowed, NotFound, Unavailable
from cluster.protocol import DataServerInfo, Identity

JOBS = "/api/v1/jobs"
MakeJob = Callable[..., dict[str, Any]]


def stream(*jobs: dict[str, Any]) -> httpx.Response:
    import json

    text = "".join(f": still here\n\nevent: job\ndata: {json.dumps(job)}\n\n" for job in jobs)
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


def identity(**changes: Any) -> dict[str, Any]:
    info = DataServerInfo(id="d1", machine="m", host="lab", port=15440, addresses=["127.0.0.1"])
    values = {"role": "scheduler", "cluster_id": "c1", "name": "lab", "machine": "m", "version": "1"}
    return Identity.model_validate(values | {"dataservers": [info]} | changes).model_dump(mode="json")


# --- submitting ---


def test_a_submit_carries_its_settings_a_token_and_a_key(
    client: Client, server: Any, make_job: MakeJob
) -> None:
    server.on("POST", JOBS, make_job("queued"))

    job = client.submit("cells/a.tif", analysis={"threshold": 1.2}, metadata={"voxelsize.x": 0.1}, priority=3)

    (request,) = server.requests
    assert job.id == "j1"
    assert b'"threshold":1.2' in request.content
    assert b'"priority":3' in request.content
    assert request.headers["authorization"] == "Bearer c1.submitter.x"
    assert len(request.headers["idempotency-key"]) >= 16


def test_a_submit_whose_reply_was_lost_is_repeated_under_the_same_key(
    client: Client, server: Any, make_job: MakeJob
) -> None:
    server.on("POST", JOBS, httpx.ReadError("reset"), Unavailable("starting"), make_job("queued"))

    client.submit("cells/a.tif")

    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_two_submits_have_two_keys(client: Client, server: Any, make_job: MakeJob) -> None:
    server.on("POST", JOBS, make_job("queued"))

    client.submit("cells/a.tif")
    client.submit("cells/a.tif")

    assert len({request.headers["idempotency-key"] for request in server.requests}) == 2


def test_a_refused_submit_names_the_field_and_is_not_repeated(client: Client, server: Any) -> None:
    server.on("POST", JOBS, Invalid("threshold: must be positive", field="threshold"))

    with pytest.raises(Invalid, match="must be positive") as caught:
        client.submit("cells/a.tif", analysis={"threshold": -1})

    assert caught.value.facts["field"] == "threshold"
    assert len(server.requests) == 1


def test_a_test_of_settings_is_not_repeated(client: Client, server: Any) -> None:
    server.on("POST", "/api/v1/preview", Unavailable("no worker"))

    with pytest.raises(Unavailable, match="no worker"):
        client.preview("cells/a.tif", frames=[1, 2])

    assert len(server.requests) == 1
    assert b'"frames":[1,2]' in server.requests[0].content


def test_a_cluster_that_stays_away_is_given_up(client: Client, server: Any) -> None:
    server.on("GET", JOBS, httpx.ConnectError("refused"))

    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:15400"):
        client.jobs()

    assert 5.0 < sum(server.slept) <= 20.0


# --- watching ---


def test_a_watched_job_is_seen_at_each_change_until_it_ends(
    client: Client, server: Any, make_job: MakeJob
) -> None:
    states = [make_job(), make_job(localisations=5), make_job(localisations=5), make_job("done")]
    server.on("GET", f"{JOBS}/j1/events", stream(*states))

    seen = list(client.watch("j1"))

    assert [(job.state, job.localisations) for job in seen] == [("running", 0), ("running", 5), ("done", 0)]


def test_a_stream_that_breaks_is_opened_anew(client: Client, server: Any, make_job: MakeJob) -> None:
    server.on(
        "GET",
        f"{JOBS}/j1/events",
        stream(make_job()),
        httpx.ConnectError("restarting"),
        Unavailable("starting"),
        stream(make_job(), make_job("done_with_errors")),
    )

    seen = list(client.watch("j1"))

    assert [job.state for job in seen] == ["running", "done_with_errors"]


def test_a_job_is_polled_where_there_are_no_streams(client: Client, server: Any, make_job: MakeJob) -> None:
    server.on("GET", f"{JOBS}/j1/events", NotAllowed("no streams here"))
    details = {"analysis": {}, "metadata": {}, "facts": _facts()}
    server.on("GET", f"{JOBS}/j1", make_job() | details, make_job() | details, make_job("done") | details)

    seen = list(client.watch("j1", poll_s=2.0))

    assert [job.state for job in seen] == ["running", "done"]
    assert 2.0 in server.slept


def test_a_job_that_nobody_knows_is_not_found(client: Client, server: Any) -> None:
    server.on("GET", f"{JOBS}/j9/events", NotFound("no job j9"))
    server.on("GET", f"{JOBS}/j9", NotFound("no job j9"))

    with pytest.raises(NotFound, match="j9"):
        list(client.watch("j9"))


def test_a_watch_gives_up_when_the_scheduler_stays_away(
    client: Client, server: Any, make_job: MakeJob
) -> None:
    server.on("GET", f"{JOBS}/j1/events", stream(make_job()), httpx.ConnectError("gone"))
    watching = client.watch("j1")

    assert next(watching).state == "running"
    with pytest.raises(Unavailable):
        next(watching)


def test_a_token_that_may_not_look_is_told_so(client: Client, server: Any) -> None:
    server.on("GET", f"{JOBS}/j1/events", Forbidden("a worker token may not do this"))

    with pytest.raises(Forbidden):
        list(client.watch("j1"))


# --- results ---


def test_a_download_is_there_whole(client: Client, server: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    server.on("GET", f"{JOBS}/j1/results.h5r", httpx.Response(200, content=content))

    saved = client.download("j1", "h5r", tmp_path / "a.h5r")

    assert saved.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5r"]


def test_a_download_that_breaks_off_is_begun_again(client: Client, server: Any, tmp_path: Path) -> None:
    torn = httpx.Response(200, content=b"half", headers={"content-length": "8"})
    server.on(
        "GET",
        f"{JOBS}/j1/results.csv",
        torn,
        httpx.ReadError("reset"),
        httpx.Response(200, content=b"complete"),
    )

    client.download("j1", "csv", tmp_path / "a.csv")

    assert (tmp_path / "a.csv").read_bytes() == b"complete"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("error", [Conflict("still running"), Unavailable("away")])
def test_a_download_that_fails_leaves_nothing_and_harms_nothing(
    client: Client, server: Any, tmp_path: Path, error: Any
) -> None:
    server.on("GET", f"{JOBS}/j1/results.h5r", error)
    (tmp_path / "a.h5r").write_bytes(b"precious")

    with pytest.raises(type(error)):
        client.download("j1", "h5r", tmp_path / "a.h5r", overwrite=True)

    assert (tmp_path / "a.h5r").read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5r"]


def test_a_download_overwrites_nothing_unasked(client: Client, server: Any, tmp_path: Path) -> None:
    server.on("GET", f"{JOBS}/j1/results.h5r", httpx.Response(200, content=b"new"))
    (tmp_path / "a.h5r").write_bytes(b"old")

    with pytest.raises(Conflict, match="exists already"):
        client.download("j1", "h5r", tmp_path / "a.h5r")
    client.download("j1", "h5r", tmp_path / "a.h5r", overwrite=True)

    assert (tmp_path / "a.h5r").read_bytes() == b"new"


def npy(array: np.ndarray[Any, Any], *, pickled: bool = False) -> httpx.Response:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=pickled)
    return httpx.Response(200, content=out.getvalue())


def test_rows_come_as_a_table_from_where_one_left_off(client: Client, server: Any) -> None:
    rows = np.array([(1, 2.5), (2, 3.5)], dtype=[("tIndex", "<i4"), ("x", "<f4")])
    server.on("GET", f"{JOBS}/j1/localisations", npy(rows))

    got = client.localisations("j1", from_row=40)

    np.testing.assert_array_equal(got, rows)
    assert server.requests[0].url.params["from_row"] == "40"


@pytest.mark.parametrize(
    "answer",
    [npy(np.array([{"a": 1}], dtype=object), pickled=True), httpx.Response(200, content=b"no table")],
)
def test_rows_are_never_unpickled(client: Client, server: Any, answer: httpx.Response) -> None:
    server.on("GET", f"{JOBS}/j1/localisations", answer)

    with pytest.raises(Internal, match="did not send a table"):
        client.localisations("j1")


# --- series ---


def test_series_are_asked_of_the_data_server_that_is_of_this_cluster(client: Client, server: Any) -> None:
    server.on("GET", "/api/v1/identity", identity(), identity(role="dataserver"))
    server.on("GET", "/api/v1/series", {"under": "cells", "entries": []})
    server.on("GET", "/api/v1/series/cells/a b.tif", _facts())
    frames = FrameRange(3, np.arange(8, dtype=np.uint16).reshape(2, 2, 2))
    body = b"".join(bytes(part) for part in encode_frames(frames))
    server.on("GET", "/api/v1/series/cells/a b.tif/frames", httpx.Response(200, content=body))

    listing, facts, got = (
        client.series("cells"),
        client.facts("cells/a b.tif"),
        client.frames("cells/a b.tif", 3, 5),
    )

    assert (listing.under, facts.frames) == ("cells", 9)
    np.testing.assert_array_equal(got.frames, frames.frames)
    assert [r.url.port for r in server.requests] == [15400, 15440, 15440, 15440, 15440]
    assert "authorization" not in server.requests[1].headers


def test_a_data_server_of_another_cluster_is_not_asked(client: Client, server: Any) -> None:
    stranger = identity(role="dataserver", cluster_id="c2")
    server.on("GET", "/api/v1/identity", *[identity(), stranger] * 50)

    with pytest.raises(Unavailable, match="no data server"):
        client.series()


# --- the rest ---


def test_ids_are_quoted_into_the_path(client: Client, server: Any, make_job: MakeJob) -> None:
    server.on("DELETE", f"{JOBS}/../identity", make_job("cancelled"))

    client.cancel("../identity")

    assert server.requests[0].url.raw_path == b"/api/v1/jobs/..%2Fidentity"


def test_a_reply_with_details_is_a_job_too(client: Client, server: Any, make_job: MakeJob) -> None:
    server.on("POST", f"{JOBS}/j1/retry", make_job() | {"analysis": {}, "metadata": {}, "facts": _facts()})

    assert client.retry("j1").state == "running"


def test_a_reply_of_another_version_says_so(client: Client, server: Any, make_job: MakeJob) -> None:
    server.on("POST", f"{JOBS}/j1/retry", make_job() | {"colour": "blue"})
    server.on("GET", "/api/v1/workers", [{"id": "w1"}])

    with pytest.raises(Internal, match="this version"):
        client.retry("j1")
    with pytest.raises(Internal, match="this version"):
        client.workers()


def test_waiting_machines_are_listed_and_let_in(client: Client, server: Any) -> None:
    waiting = {"id": "p1", "host": "pc3", "address": "10.0.0.3", "cores": 8, "version": "1", "asked": 1.0}
    server.on("GET", "/api/v1/join", {"waiting": [waiting]})
    server.on("POST", "/api/v1/join/p1", httpx.Response(204))

    (machine,) = client.pending_joins()
    client.approve(machine.id)

    assert machine.host == "pc3"
    assert server.requests[-1].content == b'{"approve":true}'


def test_an_address_without_a_scheme_is_understood() -> None:
    with Client("lab-pc-3", "t") as client:
        assert client.url == "http://lab-pc-3:15400"


def test_nothing_to_connect_to_is_an_error_that_says_what_was_tried(tmp_path: Path) -> None:
    environ = {"CLUSTEROFONE_HOME": str(tmp_path)}

    with pytest.raises(Unavailable, match="tried: an address"):
        Client(allow_discovery=False, environ=environ)


def _facts() -> dict[str, Any]:
    return {
        "path": "cells/a b.tif",
        "height": 2,
        "width": 2,
        "dtype": "uint16",
        "frames": 9,
        "fingerprint": "f",
        "bytes": 72,
        "format": "tiff",
    }
