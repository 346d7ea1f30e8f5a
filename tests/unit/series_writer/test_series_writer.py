from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.arrays import decode_frames
from cluster.backoff import Backoff
from cluster.errors import Conflict, Invalid, TooManyRequests, Unavailable
from cluster.protocol import NewSeries, SeriesFacts
from cluster.series_writer import SeriesWriter, split_options
from cluster.transport import BlockingLink

STACK = np.random.default_rng(8).poisson(50, (20, 4, 5)).astype(np.uint16)
WANTED = NewSeries(height=4, width=5, chunk_frames=4)


class FakeServer:
    """Keeps what it is sent; answers otherwise where a test says so."""

    def __init__(self) -> None:
        self.frames: dict[int, Any] = {}
        self.requests: list[tuple[str, bytes]] = []
        self.answer: Callable[[str], httpx.Response | None] = lambda _tail: None
        self._books = threading.Lock()

    def link(self) -> BlockingLink:
        return BlockingLink("http://127.0.0.1:1", transport=httpx.MockTransport(self))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        tail = request.url.path.removeprefix("/api/v1/series/cell.zarr")
        with self._books:
            self.requests.append((tail, request.content))
            answered = self.answer(tail)
            if answered is not None:
                return answered
            if tail == "/frames":
                sent = decode_frames(request.content)
                self.frames |= {sent.start + n: frame for n, frame in enumerate(sent.frames)}
                return httpx.Response(
                    200, json={"start": sent.start, "stop": sent.stop, "new": len(sent.frames)}
                )
        return httpx.Response(200, json=self._facts().model_dump(mode="json"))

    def tails(self) -> list[str]:
        return [tail for tail, _ in self.requests]

    def sent(self, tail: str) -> bytes:
        return next(content for found, content in self.requests if found == tail)

    def _facts(self) -> SeriesFacts:
        return SeriesFacts(
            path="cell.zarr",
            height=4,
            width=5,
            dtype="uint16",
            frames=len(self.frames),
            fingerprint="f",
            bytes=0,
            format="acquired zarr",
        )


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def writer_to(server: FakeServer, **options: Any) -> SeriesWriter:
    backoff = options.pop("backoff", Backoff(first_s=0.001, longest_s=0.002, total_s=30))
    return SeriesWriter(server.link, "cell.zarr", WANTED, backoff=backoff, **options)


def write_and_flush(writer: SeriesWriter) -> None:
    with writer:
        writer.append(STACK)
        writer.flush()


def problem(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": f"it is {code}"})


def test_frames_are_sent_in_chunks_and_the_series_is_completed(server: FakeServer) -> None:
    with writer_to(server) as writer:
        for frame in STACK[:6]:
            writer.append(frame)
        writer.append(STACK[6:])

    assert np.array_equal(np.stack([server.frames[n] for n in range(20)]), STACK)
    assert server.tails().count("/frames") == 5
    assert server.tails()[-1] == "/complete"
    assert server.sent("/complete") == b'{"frames":20}'


def test_a_server_that_is_away_or_full_is_tried_again(server: FakeServer) -> None:
    refusals = [problem(503, "unavailable"), problem(507, "out_of_space"), problem(503, "unavailable")]
    server.answer = lambda tail: refusals.pop() if tail == "/frames" and refusals else None

    with writer_to(server) as writer:
        writer.append(STACK)

    assert sorted(server.frames) == list(range(20))
    assert refusals == []


def test_a_refusal_is_raised_at_the_next_append_or_at_the_end(server: FakeServer) -> None:
    server.answer = lambda tail: problem(409, "conflict") if tail == "/frames" else None

    with pytest.raises(Conflict, match="it is conflict"):
        write_and_flush(writer_to(server))

    assert "/complete" not in server.tails()


def test_an_exception_leaves_the_series_incomplete_with_the_reason(server: FakeServer) -> None:
    def film() -> None:
        with writer_to(server) as writer:
            writer.append(STACK[:6])
            raise RuntimeError("the camera was unplugged")

    with pytest.raises(RuntimeError, match="the camera"):
        film()

    assert sorted(server.frames) == list(range(6))
    assert "/complete" not in server.tails()
    assert b"RuntimeError: the camera was unplugged" in server.sent("/events")


def test_a_full_queue_is_said_or_waited_for(server: FakeServer) -> None:
    let_go = threading.Event()

    def hold(tail: str) -> None:
        if tail == "/frames":
            assert let_go.wait(20)

    server.answer = hold  # type: ignore[assignment]

    with writer_to(server, queue_bytes=1, when_full="raise", senders=1) as writer:
        writer.append(STACK[:8])
        with pytest.raises(TooManyRequests, match="8 frames"):
            writer.append(STACK[8])
        assert writer.frames_waiting == 8
        let_go.set()
        writer.flush()
        writer.append(STACK[8])

    assert sorted(server.frames) == list(range(9))


def test_an_append_waits_until_there_is_room(server: FakeServer) -> None:
    with writer_to(server, queue_bytes=1, senders=1) as writer:
        for frame in STACK:
            writer.append(frame)
            assert writer.frames_waiting <= 8

    assert sorted(server.frames) == list(range(20))


def test_frames_of_a_slow_camera_are_sent_before_their_chunk_is_full(server: FakeServer) -> None:
    with writer_to(server, flush_s=0.01) as writer:
        writer.append(STACK[0])
        with writer._change:
            assert writer._change.wait_for(lambda: 0 in server.frames, 20)


def test_frames_of_another_shape_or_type_are_refused_at_once(server: FakeServer) -> None:
    with writer_to(server) as writer:
        with pytest.raises(Invalid, match="4×5"):
            writer.append(np.zeros((5, 4), np.uint16))
        with pytest.raises(Invalid, match="uint16, not float64"):
            writer.append(np.zeros((4, 5)))


def test_a_server_that_stays_away_ends_the_writer_after_the_time_it_was_given(server: FakeServer) -> None:
    server.answer = lambda tail: problem(503, "unavailable") if tail == "/frames" else None

    writer = writer_to(server, backoff=Backoff(first_s=0.001, longest_s=0.001, total_s=0.02))

    with pytest.raises(Unavailable):
        write_and_flush(writer)


def test_what_is_given_is_told_apart_into_the_series_and_the_writer() -> None:
    new, options = split_options({"height": 4, "width": 5, "dtype": "uint8", "frames": 9, "flush_s": 1.0})

    assert (new.height, new.dtype, new.frames) == (4, "uint8", 9)
    assert options == {"flush_s": 1.0}
