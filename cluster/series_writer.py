"""Frames from a camera into a series of the data server, while they are being taken.

    with Client().series_writer("cell1.zarr", height=256, width=256, metadata={...}) as writer:
        for frame in camera:
            writer.append(frame)

Frames are gathered into chunks, sent by threads of the writer and sent again until the server has them on its disk.
What waits takes a bounded memory; a camera that is faster than the disk is held up, or told so.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np

from cluster.arrays import FRAMES_MEDIA_TYPE, FrameRange, encode_frames
from cluster.backoff import Backoff, Pace, persist_now
from cluster.errors import ClusterError, Conflict, Invalid, TooManyRequests, Unavailable
from cluster.protocol import Appended, Completion, NewSeries, SeriesEvent, SeriesFacts
from cluster.transport import BlockingLink, series_route

_CHUNK_BYTES: Final = 8 << 20
_EXACT_TYPES: Final = "the camera's own type; convert the frames, or name another dtype"
_ANSWER_S: Final = 60.0


def split_options(given: Mapping[str, Any]) -> tuple[NewSeries, dict[str, Any]]:
    """Return the fields of a new series, and the rest, which are options of the writer."""
    fields = {key: value for key, value in given.items() if key in NewSeries.model_fields}
    return NewSeries.model_validate(fields), {key: given[key] for key in given.keys() - fields.keys()}


@dataclass
class _Batch:
    """Frames from `start` on, as many as have come."""

    start: int
    frames: np.ndarray[Any, Any]
    since: float
    count: int = 0

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def is_full(self) -> bool:
        return self.count == len(self.frames)


class SeriesWriter:
    """Appends to one series; `append` is for one thread, everything else is done by threads of its own.

    `queue_bytes` of frames may wait; then `append` waits ("wait") or raises `TooManyRequests` ("raise"). Frames are sent when
    a chunk is full, or the first of it is `flush_s` old. `backoff` says for how long a server that is away, or whose disk
    is full, is tried again.
    """

    def __init__(
        self,
        find: Callable[[], BlockingLink],
        path: str,
        new: NewSeries,
        *,
        queue_bytes: int = 512 << 20,
        when_full: Literal["wait", "raise"] = "wait",
        flush_s: float = 2.0,
        senders: int = 2,
        codec: Literal["none", "blosc-lz4"] = "blosc-lz4",
        backoff: Backoff | None = None,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self._find = find
        self._dtype = np.dtype(new.dtype)
        frame_bytes = new.height * new.width * self._dtype.itemsize
        self._frame_bytes = frame_bytes
        self._unit = new.chunk_frames or max(1, min(_CHUNK_BYTES // frame_bytes, 4096))
        self._new = new.model_copy(update={"chunk_frames": self._unit})
        self._queue_bytes = max(queue_bytes, 2 * self._unit * frame_bytes)
        self._when_full = when_full
        self._flush_s = flush_s
        self._codec = codec
        self._backoff = backoff or Backoff(total_s=600.0)
        self._pace = pace or Pace(rng=random.Random())  # noqa: S311 -- jitter, not a secret
        self._sleep = sleep
        self._links: list[BlockingLink] = []
        self._finding = threading.Lock()
        self._change = threading.Condition()
        self._waiting: deque[_Batch] = deque()
        self._open: _Batch | None = None
        self._unsent = 0  # frames taken and not yet acknowledged
        self._next = 0
        self._end = 0
        self._failed: ClusterError | None = None
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"series writer {number}", daemon=True)
            for number in range(senders)
        ]

    def __enter__(self) -> Self:
        """Make the series, and start to send."""
        self._links.append(persist_now(self._find, self._backoff, sleep=self._sleep, pace=self._pace))
        self._post("", self._new)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the series; after an exception leave it incomplete, with the reason as an event."""
        try:
            if error is None:
                self.complete()
            else:
                self._say_why(error)
        finally:
            with self._change:
                self._closing = True
                self._change.notify_all()
            for thread in self._threads:
                thread.join()
            for link in self._links:
                link.close()

    @property
    def frames_waiting(self) -> int:
        """Return how many frames the server has not acknowledged yet."""
        return self._unsent

    def append(self, frames: np.ndarray[Any, Any], *, start: int | None = None) -> None:
        """Take a (height, width) frame, or (n, height, width) of them; they are copied.

        `start` is the number of the first, by default the one after the last. Returns before they are sent.

        Raises
        ------
        Invalid
            If they are not of the series' shape and type.
        TooManyRequests
            If the queue is full and is not to be waited for; none of these frames were taken.
        ClusterError
            If earlier frames could not be sent.
        """
        stack = frames[np.newaxis] if frames.ndim == 2 else frames
        self._check(stack)
        at = self._next if start is None else start
        self._make_room(len(stack))
        taken = 0
        while taken < len(stack):
            taken += self._take(at + taken, stack[taken:])
        self._next = at + len(stack)
        self._end = max(self._end, self._next)

    def add_events(self, events: Sequence[SeriesEvent]) -> None:
        """Add events of the acquisition to the series; returns once the server has them."""
        self._post(
            "/events",
            b"[" + b",".join(event.model_dump_json().encode() for event in events) + b"]",
            headers={"content-type": "application/json"},
        )

    def flush(self) -> None:
        """Return once the server has acknowledged every frame; raises if it cannot be."""
        with self._change:
            self._close_batch()
            self._change.wait_for(lambda: self._failed is not None or self._unsent == 0)
            self._raise_failure()

    def complete(self, frames: int | None = None) -> SeriesFacts:
        """Say that no more frames come, once all have been acknowledged; `frames`: how many there should have been."""
        self.flush()
        total = self._end if frames is None else frames
        facts: SeriesFacts = self._post("/complete", Completion(frames=total)).message(SeriesFacts)
        return facts

    # --- taking frames ---

    def _check(self, stack: np.ndarray[Any, Any]) -> None:
        new = self._new
        if stack.ndim != 3 or stack.shape[1:] != (new.height, new.width):
            raise Invalid(
                f"{self.path} takes frames of {new.height}×{new.width}, not {stack.shape}", field="frames"
            )
        if stack.dtype.newbyteorder("=") != self._dtype:
            raise Invalid(
                f"{self.path} takes {self._dtype.name}, not {stack.dtype.name}: use {_EXACT_TYPES}",
                field="dtype",
            )

    def _make_room(self, count: int) -> None:
        most = max(self._queue_bytes // self._frame_bytes, count)

        def fits() -> bool:
            return self._failed is not None or self._unsent + count <= most

        with self._change:
            if not fits() and self._when_full == "raise":
                raise TooManyRequests(
                    f"{self._unsent} frames of {self.path} wait for the data server, which is all that fit the queue"
                )
            if not fits():
                self._close_batch()
            self._change.wait_for(fits)
            self._raise_failure()
            self._unsent += count

    def _take(self, at: int, stack: np.ndarray[Any, Any]) -> int:
        """Copy frames into the open batch, as far as its chunk goes; return how many."""
        with self._change:
            if self._open is not None and self._open.stop != at:
                self._close_batch()
            if self._open is None:
                room = self._unit - at % self._unit
                shape = (min(room, self._unit), self._new.height, self._new.width)
                self._open = _Batch(at, np.empty(shape, self._dtype), time.monotonic())
            batch = self._open
            count = min(len(stack), len(batch.frames) - batch.count)
            batch.frames[batch.count : batch.count + count] = stack[:count]
            batch.count += count
            if batch.is_full:
                self._close_batch()
            return count

    def _close_batch(self) -> None:
        if self._open is not None:
            self._waiting.append(self._open)
            self._open = None
            self._change.notify_all()

    # --- sending ---

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            failure: ClusterError | None = None
            try:
                self._send(batch)
            except ClusterError as error:
                failure = error
            with self._change:
                self._unsent -= batch.count
                self._failed = self._failed or failure
                self._change.notify_all()
            del batch

    def _next_batch(self) -> _Batch | None:
        with self._change:
            while not self._closing and self._failed is None:
                if self._waiting:
                    return self._waiting.popleft()
                opened = self._open
                if opened is not None and time.monotonic() - opened.since >= self._flush_s:
                    self._close_batch()
                    continue
                self._change.wait(self._flush_s / 2)
            return None

    def _send(self, batch: _Batch) -> None:
        frames = FrameRange(batch.start, batch.frames[: batch.count])
        body = b"".join(encode_frames(frames, self._codec))
        reply = self._post(
            "/frames", body, params={"start": batch.start}, headers={"content-type": FRAMES_MEDIA_TYPE}
        ).message(Appended)
        if (reply.start, reply.stop) != (batch.start, batch.stop):
            raise Conflict(f"{self.path}: the data server acknowledged other frames than it was sent")

    def _post(self, tail: str, body: Any, **options: Any) -> Any:
        def once() -> Any:
            link = self._links[-1]
            try:
                return link.request(
                    "POST", series_route(self.path, tail), body, timeout_s=_ANSWER_S, **options
                )
            except Unavailable:
                self._look_again(link)
                raise

        return persist_now(once, self._backoff, sleep=self._sleep, pace=self._pace)

    def _look_again(self, link: BlockingLink) -> None:
        """A data server that went away may have come back somewhere else."""
        with self._finding, contextlib.suppress(ClusterError):
            if self._links[-1] is link:
                self._links.append(self._find())

    def _say_why(self, error: BaseException) -> None:
        """Send what was taken, and say as an event why no more came."""
        with contextlib.suppress(ClusterError):
            self.flush()
        reason = f"{type(error).__name__}: {error}"[:1000]
        with contextlib.suppress(ClusterError):
            self.add_events([SeriesEvent(name="AcquisitionFailed", description=reason, time=time.time())])

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed
