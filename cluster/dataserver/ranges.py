"""Ranges of frames: what was asked for, what is sent, and the short way of requests in their usual form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from cluster.arrays import encode_frames
from cluster.dataserver.lying import CAN_SEND_FILES
from cluster.dataserver.metrics import DataServerMetrics
from cluster.dataserver.reading import Reading
from cluster.dataserver.responses import FileFramesResponse, FramesResponse
from cluster.dataserver.store import SeriesStore
from cluster.errors import ClusterError
from cluster.http import Gate
from cluster.protocol import Role
from cluster.stored_frames import encode_stored
from cluster.zero_copy import has_zero_copy

Codec = Literal["none", "blosc-lz4"]
MAY_READ: Final[tuple[Role, ...]] = ("viewer", "worker")
_PATH: Final = re.compile(r"/api/v1/series/(.{1,1024})/frames")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_PARTS: Final = frozenset({"start", "stop", "codec", "stored", "fingerprint"})


@dataclass(frozen=True)
class Asked:
    """Frames [start, stop) of a series, in which form, and of which fingerprint the series must be."""

    path: str
    start: int
    stop: int | None
    codec: Codec = "none"
    stored: bool = False
    fingerprint: str | None = None


async def answer(asked: Asked, reading: Reading, metrics: DataServerMetrics, *, by_system: bool) -> Response:
    """Return the response; `by_system`: it may hand files to the system. Raises as the store does."""
    path, start, stop, pinned = asked.path, asked.start, asked.stop, asked.fingerprint
    if asked.codec == "none" and by_system and CAN_SEND_FILES:
        lying = await reading.of(path, reading.store.lying, start, stop, pinned=pinned)
        if lying is not None:  # nothing of it is held in memory, however slowly it is taken
            metrics.served(lying.count, lying.nbytes)
            return FileFramesResponse(lying)
    first, after, size = await reading.of(path, reading.store.extent, start, stop, pinned=pinned)
    size *= 1 if asked.codec == "none" else 2  # compressed, they are there twice for a while
    await reading.budget.take(size)
    try:
        body = partial(_body, reading.store)
        buffers = await reading.of(path, body, first, after, asked.codec, pinned, stored=asked.stored)
    except BaseException:
        reading.budget.give_back(size)
        raise
    metrics.served(after - first, sum(memoryview(buffer).nbytes for buffer in buffers))
    return FramesResponse(buffers, sent=partial(reading.budget.give_back, size))


def _body(
    store: SeriesStore, path: str, start: int, stop: int, codec: str, pinned: str | None, *, stored: bool
) -> list[bytes | memoryview]:
    found = store.stored(path, start, stop, pinned=pinned) if stored else None
    if found is not None:
        return encode_stored(found)
    return encode_frames(store.frames(path, start, stop, pinned=pinned), codec)


class UsualRanges(BaseRoute):
    """Answers raw ranges that are asked for as workers do, by whom they may be; leaves everything else to the route behind it.

    Which route it is, what its parameters are and who asks takes FastAPI as long as the system takes to send 2 MB. No
    request is refused here: one that is unusual in any way is not ours.
    """

    path_format = "/api/v1/series/{path}/frames"

    def __init__(self, gate: Gate, reading: Reading, metrics: DataServerMetrics) -> None:
        self._gate = gate
        self._reading = reading
        self._metrics = metrics

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the request is one of ours, with what was asked."""
        if scope["type"] != "http" or scope["method"] != "GET" or not has_zero_copy(scope):
            return Match.NONE, {}
        asked = usual(scope)
        if asked is None or not self._lets_in(scope):
            return Match.NONE, {}
        return Match.FULL, {"route": self, "asked": asked}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it."""
        response = await answer(scope["asked"], self._reading, self._metrics, by_system=True)
        await response(scope, receive, send)

    def _lets_in(self, scope: Scope) -> bool:
        try:
            self._gate.admit(Request(scope), MAY_READ)
        except (
            ClusterError
        ):  # or the server has not joined yet, when it knows no token; the route behind says which
            return False
        return True


def usual(scope: Mapping[str, object]) -> Asked | None:
    """Return what was asked for, or None if it was not said in the usual form, or not for raw frames."""
    path, query = scope["path"], scope["query_string"]
    assert isinstance(path, str)
    assert isinstance(query, bytes)
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        return None
    said = dict(pairs)
    start, stop, fingerprint = said.get("start", ""), said.get("stop", ""), said.get("fingerprint")
    if (
        len(said) < len(pairs)
        or not said.keys() <= _PARTS
        or not (_NUMBER.fullmatch(start) and _NUMBER.fullmatch(stop))
        or said.get("codec", "none") != "none"
        or said.get("stored", "0") not in {"0", "1"}
        or len(fingerprint or "") > 1024
    ):
        return None
    stored = said.get("stored") == "1"
    return Asked(found[1], int(start), int(stop), stored=stored, fingerprint=fingerprint)
