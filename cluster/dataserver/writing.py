"""What may be written through the data server's HTTP interface: series that are acquired, and single files.

Bodies of frames and files are read here piece by piece, after the token was looked at: within a limit, with or
without Content-Length, within a bounded memory over all requests, and not from a sender that has fallen silent.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from starlette.requests import ClientDisconnect

from cluster.arrays import FRAMES_MEDIA_TYPE, decode_frames_as_sent
from cluster.dataserver.budget import ByteBudget
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.live.blocks import as_frames
from cluster.dataserver.live.durable import clear_failures
from cluster.dataserver.live.series import AcquiredSeries
from cluster.errors import ChecksumMismatch, Invalid, TooLarge, Unavailable
from cluster.http import require
from cluster.openapi import raw_body
from cluster.protocol import Appended, Completion, NewSeries, SeriesEvent, UploadedFile
from cluster.results.publish import publish, temporary_for

MAX_APPEND_BYTES: Final = 80 << 20
_MAX_FILE_BYTES: Final = 1 << 40
_BYTES_IN_FLIGHT: Final = 256 << 20
_WRITING_THREADS: Final = 8
_SILENCE_S: Final = 30.0
_PIECE_BYTES: Final = 4 << 20
_API: Final = "/api/v1"
_T = TypeVar("_T")


class Writing:
    """The acquisitions behind the app: reached from a bounded number of threads, bodies within a bounded memory."""

    def __init__(
        self,
        acquisitions: Acquisitions,
        *,
        bytes_in_flight: int = _BYTES_IN_FLIGHT,
        append_limit_bytes: int = MAX_APPEND_BYTES,
        file_limit_bytes: int = _MAX_FILE_BYTES,
        silence_s: float = _SILENCE_S,
    ) -> None:
        self.acquisitions = acquisitions
        self.budget = ByteBudget(bytes_in_flight)
        self.append_limit_bytes = append_limit_bytes
        self.file_limit_bytes = file_limit_bytes
        self.silence_s = silence_s
        self._threads = anyio.CapacityLimiter(_WRITING_THREADS)

    async def __call__(self, write: Callable[..., _T], *arguments: Any) -> _T:
        """Return what a function that works on the disk returns."""
        return await to_thread.run_sync(partial(write, *arguments), limiter=self._threads)


def reads_itself(method: str, path: str) -> bool:
    """Return whether a request's body is read here, and not before the route is known."""
    appends = method == "POST" and path.startswith(f"{_API}/series/") and path.endswith("/frames")
    return appends or (method == "PUT" and path.startswith(f"{_API}/files/"))


async def _writing(request: Request) -> Writing:
    writing: Writing = request.app.state.writing
    return writing


WritingDep = Annotated[Writing, Depends(_writing)]
Name = Annotated[str, PathParameter(max_length=1024)]
Start = Annotated[int, Query(ge=0, lt=2**31)]

router = APIRouter(prefix=_API, dependencies=[Depends(require("submitter"))])


@router.post("/series/{path:path}/frames", **raw_body("application/octet-stream", FRAMES_MEDIA_TYPE))
async def append_frames(path: Name, start: Start, request: Request, writing: WritingDep) -> Appended:
    """Append frames, in our own encoding or as plain little-endian pixels; answers once they are on the disk."""
    series = await writing(writing.acquisitions.series, path)
    async with _body(request, writing) as body:
        _check_digest(request, body)
        encoded = request.headers.get("content-type", "").partition(";")[0].strip() == FRAMES_MEDIA_TYPE
        appended: Appended = await writing(_append, writing.acquisitions, series, start, body, encoded)
    request.app.state.metrics.appended(appended.new)
    return appended


@router.post("/series/{path:path}/complete")
async def complete_series(path: Name, completion: Completion, request: Request, writing: WritingDep) -> Any:
    """Say that no more frames come; answers what the series is."""
    series = await writing(writing.acquisitions.series, path)
    await writing(_with_clear_failures, path, series.complete, completion.frames)
    return await _facts(request, path)


@router.post("/series/{path:path}/events")
async def add_events(path: Name, events: list[SeriesEvent], writing: WritingDep) -> dict[str, int]:
    """Add events; those that are there already are not added again."""
    series = await writing(writing.acquisitions.series, path)
    return {"new": await writing(_with_clear_failures, path, series.add_events, events)}


@router.post("/series/{path:path}/archive")
async def archive_series(path: Name, request: Request, writing: WritingDep) -> Any:
    """Put the chunks of a complete series into few large files; answers what the series is."""
    series = await writing(writing.acquisitions.series, path)
    await writing(_archive, writing.acquisitions, series)
    return await _facts(request, path)


@router.post("/series/{path:path}", status_code=201)
async def create_series(
    path: Name, wanted: NewSeries, response: Response, request: Request, writing: WritingDep
) -> Any:
    """Make a series to append to: 201, or 200 if the same one was made before."""
    if not await writing(writing.acquisitions.create, path, wanted):
        response.status_code = 200
    return await _facts(request, path)


@router.put("/files/{path:path}", status_code=201, **raw_body("application/octet-stream"))
async def put_file(path: Name, request: Request, writing: WritingDep) -> UploadedFile:
    """Keep a file under the roots: whole, with the SHA-256 that the header `x-sha256` says, and over nothing."""
    declared = _declared_bytes(request, writing.file_limit_bytes)
    target = await writing(writing.acquisitions.place_upload, path, declared or 0)
    temporary = await writing(temporary_for, target)
    try:
        digest, size = await _receive(request, writing, temporary, path)
        expected = request.headers.get("x-sha256")
        if expected is not None and digest != expected.strip().lower():
            raise ChecksumMismatch(f"{path} arrived with the SHA-256 {digest}, not {expected}")
        await writing(publish, temporary, target)
    finally:
        await writing(partial(temporary.unlink, missing_ok=True))
    return UploadedFile(path=path, bytes=size, sha256=digest)


async def _facts(request: Request, path: str) -> Any:
    reading = request.app.state.reading
    return await reading(reading.store.facts, path)


def _append(
    acquisitions: Acquisitions, series: AcquiredSeries, start: int, body: memoryview, encoded: bool
) -> Appended:
    acquisitions.check_room(series.folder, body.nbytes)
    compressed: bytes | None = None
    if encoded:
        sent, compressed = decode_frames_as_sent(body)
        if sent.missing:
            raise Invalid("frames that are missing cannot be appended; leave a gap instead", field="missing")
        if sent.start != start:
            raise Invalid(f"start is {start} in the query and {sent.start} in the body", field="start")
        frames = sent.frames
    else:
        frames = _plain_frames(series, body)
    with clear_failures(series.path):
        return series.append(start, frames, compressed)


def _plain_frames(series: AcquiredSeries, body: memoryview) -> Any:
    layout = series.record.layout
    if body.nbytes % layout.frame_bytes:
        raise Invalid(
            f"{body.nbytes} bytes are no whole number of frames of {series.path}, which take {layout.frame_bytes} "
            f"bytes ({layout.height} rows of {layout.width} little-endian {layout.dtype.name})",
            field="body",
        )
    return as_frames(layout, body)


def _archive(acquisitions: Acquisitions, series: AcquiredSeries) -> None:
    size = sum(file.stat().st_size for file in series.folder.rglob("*") if file.is_file())
    acquisitions.check_room(series.folder, size)
    _with_clear_failures(series.path, series.archive)


def _with_clear_failures(path: str, write: Callable[..., _T], *arguments: Any) -> _T:
    with clear_failures(path):
        return write(*arguments)


def _declared_bytes(request: Request, limit: int) -> int | None:
    declared = request.headers.get("content-length")
    if declared is None:
        return None
    if not declared.isdigit() or int(declared) > limit:
        raise TooLarge(f"the body is over the limit of {limit} bytes", limit_bytes=limit)
    return int(declared)


@asynccontextmanager
async def _body(request: Request, writing: Writing) -> AsyncIterator[memoryview]:
    """Yield a body that was read whole; its memory is accounted for as long as it is used."""
    limit = writing.append_limit_bytes
    declared = _declared_bytes(request, limit)
    async with writing.budget.taken(2 * (limit if declared is None else declared)):  # as sent, and unpacked
        body = bytearray()
        async for piece in _pieces(request, writing.silence_s):
            body += piece
            if len(body) > limit:
                raise TooLarge(f"the body is over the limit of {limit} bytes", limit_bytes=limit)
        yield memoryview(body)


async def _receive(request: Request, writing: Writing, temporary: Path, path: str) -> tuple[str, int]:
    """Write a body to a file as it comes; return its SHA-256 and its size."""
    digest, size = hashlib.sha256(), 0
    held = bytearray()
    async with writing.budget.taken(2 * _PIECE_BYTES):
        async for piece in _pieces(request, writing.silence_s):
            held += piece
            size += len(piece)
            if size > writing.file_limit_bytes:
                raise TooLarge(f"the body is over the limit of {writing.file_limit_bytes} bytes")
            if len(held) >= _PIECE_BYTES:
                await writing(_write_piece, writing.acquisitions, temporary, path, held)
                digest.update(held)
                held = bytearray()
        await writing(_write_piece, writing.acquisitions, temporary, path, held)
        digest.update(held)
    return digest.hexdigest(), size


def _write_piece(acquisitions: Acquisitions, temporary: Path, path: str, held: bytearray) -> None:
    acquisitions.check_room(temporary.parent, len(held))
    with clear_failures(path), temporary.open("ab") as file:
        file.write(held)


async def _pieces(request: Request, silence_s: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(silence_s):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Unavailable(
                f"nothing came for {silence_s:g} s in the middle of a body; send it again"
            ) from None
        except ClientDisconnect:
            raise Invalid("the sender went away in the middle of a body") from None
        yield piece


def _check_digest(request: Request, body: memoryview) -> None:
    expected = request.headers.get("x-sha256")
    if expected is not None and hashlib.sha256(body).hexdigest() != expected.strip().lower():
        raise ChecksumMismatch("the bytes that arrived do not have the SHA-256 of the header x-sha256")
