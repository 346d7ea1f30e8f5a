"""Frames as a response: sent in slices of the arrays they lie in, and their memory accounted until the last is sent."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from PIL import Image
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cluster.arrays import FRAMES_MEDIA_TYPE
from cluster.dataserver.lying import LyingFrames
from cluster.dataserver.readers.interface import Frames
from cluster.zero_copy import EXTENSION, FILE_FOLLOWS

_SLICE_BYTES: Final = 1 << 20
_BLACK_PERCENT, _WHITE_PERCENT = 0.5, 99.9


class FramesResponse(Response):
    """A body of several buffers, none of which is copied; `sent` is called when it has gone, or cannot go."""

    media_type = FRAMES_MEDIA_TYPE

    def __init__(self, buffers: Sequence[bytes | memoryview], *, sent: Callable[[], None]) -> None:
        self._buffers = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        self._sent = sent
        length = sum(buffer.nbytes for buffer in self._buffers)
        super().__init__(headers={"content-length": str(length)})

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the buffers, a slice at a time, as fast as the other side takes them."""
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            for buffer in self._buffers:
                for at in range(0, buffer.nbytes, _SLICE_BYTES):
                    body = buffer[at : at + _SLICE_BYTES]
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._buffers.clear()
            self._sent()


class FileFramesResponse(Response):
    """Frames sent by the system from the files in which they lie, after a head; the files are closed when they have gone, or cannot go."""

    media_type = FRAMES_MEDIA_TYPE

    def __init__(self, frames: LyingFrames) -> None:
        self._frames = frames
        super().__init__(headers={"content-length": str(frames.nbytes)})

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send head and pieces, as fast as the other side takes them."""
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start | {FILE_FOLLOWS: True})
            await send({"type": "http.response.body", "body": self._frames.head, "more_body": True})
            for piece in self._frames.pieces:
                place = {"file": piece.file, "offset": piece.offset, "count": piece.count}
                await send({"type": EXTENSION, **place, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._frames.close()


def frame_png(frame: Frames) -> bytes:
    """Return a (h, w) frame as an 8-bit PNG, its contrast from the 0.5 to the 99.9 percentile."""
    pixels = np.nan_to_num(frame.astype(np.float32), nan=0.0)
    black, white = np.percentile(pixels, (_BLACK_PERCENT, _WHITE_PERCENT))
    span = float(white - black) or 1.0
    scaled = np.clip((pixels - black) * (255.0 / span), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(scaled).save(out, format="PNG")
    return out.getvalue()
