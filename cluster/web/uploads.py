"""Files that somebody drops on the page: passed on to the data server piece by piece, with the visitor's token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Path, Request
from starlette.requests import ClientDisconnect

from cluster.errors import ClusterError, Invalid, Unavailable
from cluster.protocol import UploadedFile
from cluster.web.visitors import visitor_of

router = APIRouter(prefix="/data", include_in_schema=False)

_SILENCE_S: Final = 30.0
_ROUTE: Final = "/data/files/"


def reads_itself(method: str, path: str) -> bool:
    """Return whether a request's body is read here, piece by piece."""
    return method == "PUT" and path.startswith(_ROUTE)


@router.put("/files/{path:path}", status_code=201)
async def put_file(request: Request, path: Annotated[str, Path(max_length=1024)]) -> UploadedFile:
    """Pass a file on. The data server looks at the token, the name, the size and the room before it takes anything."""
    visitor = visitor_of(request.scope)
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else None
    pieces = _Pieces(request, asyncio.get_running_loop())
    try:
        return await to_thread.run_sync(partial(visitor.client.upload, path, iter(pieces), size=size))
    except ClusterError:
        await pieces.drop()  # a browser hears of a refusal only once it has sent everything
        raise


class _Pieces:
    """A body as a thread reads it, from the loop on which it arrives; nothing is read ahead."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = request.stream()
        self._loop = loop

    def __iter__(self) -> Iterator[bytes]:
        while piece := asyncio.run_coroutine_threadsafe(self._next(), self._loop).result():
            yield piece

    async def drop(self) -> None:
        """Read what is left, and keep nothing of it."""
        while await self._next():
            pass

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(_SILENCE_S):
                while True:
                    piece = await anext(self._stream)
                    if piece:
                        return piece
        except StopAsyncIteration:
            return b""
        except TimeoutError:
            raise Unavailable(f"nothing came for {_SILENCE_S:g} s in the middle of a file") from None
        except ClientDisconnect:
            raise Invalid("the browser went away in the middle of a file") from None
