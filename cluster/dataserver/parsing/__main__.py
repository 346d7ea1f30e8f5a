"""The process in which files are parsed: asked by lines of JSON on standard input, answered by lines on standard output.

Several requests are seen to at once, each in a lane: a thread, and a part of the shared memory through which its frames
go. The process ends when its standard input does (ADR 7): whoever asked is gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import mmap
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import psutil

from cluster.dataserver.parsing import wire
from cluster.dataserver.parsing.shared import attach
from cluster.dataserver.parsing.wire import Message
from cluster.dataserver.readers.interface import GoesOn, Grows, SeriesReader
from cluster.dataserver.readers.registry import file_on_disk, open_series, open_written
from cluster.dataserver.sidecars import read_sidecars
from cluster.errors import ClusterError, Invalid

logger = logging.getLogger(__name__)

HALVES: Final = 2
"""A lane's memory is filled in halves: while one is taken away the other is filled."""


class _Lane:
    """One request at a time, and the memory through which its frames go."""

    def __init__(self, parser: _Parser, number: int, memory: memoryview) -> None:
        self._parser = parser
        self._memory = memory
        self._asked: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.free = threading.Semaphore(HALVES)
        self.thread = threading.Thread(target=self._work, name=f"lane {number}", daemon=True)

    def ask(self, message: Message) -> None:
        self._asked.put(message)

    def _work(self) -> None:
        while True:
            message = self._asked.get()
            about = Path(message.get("path", "")).name
            try:
                answer = self._parser.answer(message, self)
            except Exception as error:
                answer = wire.failure(error, about)
                if not isinstance(error, ClusterError | OSError | MemoryError):
                    logger.info("%s", about, exc_info=error)
            self._parser.say({"id": message["id"], **answer})
            del message, answer

    def send(self, number: int, frames: np.ndarray[Any, Any]) -> None:
        """Bring frames across, piece by piece."""
        content = frames.reshape(-1).view(np.uint8).data
        half = len(self._memory) // HALVES
        for piece, at in enumerate(range(0, content.nbytes, half)):
            size = min(half, content.nbytes - at)
            place = piece % HALVES * half
            self.free.acquire()
            self._memory[place : place + size] = content[at : at + size]
            self._parser.say({"id": number, "piece": [at, size, place]})


class _Parser:
    """The series that are open here, and the lanes. The last lane only closes: that must wait for nobody."""

    def __init__(self, out: BinaryIO, memory: mmap.mmap, lanes: int, lane_bytes: int) -> None:
        self._out = out
        self._saying = threading.Lock()
        self._open: dict[int, SeriesReader] = {}
        self._books = threading.Lock()
        whole = memoryview(memory)
        self.lanes = [
            _Lane(self, number, whole[number * lane_bytes : (number + 1) * lane_bytes])
            for number in range(lanes + 1)
        ]

    def start(self) -> None:
        for lane in self.lanes:
            lane.thread.start()
        self.say({"ready": True, "threads": [lane.thread.native_id for lane in self.lanes]})

    def say(self, message: Message) -> None:
        said = wire.line(message)
        with self._saying:
            self._out.write(said)
            self._out.flush()

    def answer(self, message: Message, lane: _Lane) -> Message:
        match message["do"]:
            case "open":
                opener = open_written if message["written"] else open_series
                return self._opened(message, opener(Path(message["path"])))
            case "renew":
                return self._opened(message, self._renewed(message))
            case "progress":
                reader = self._reader(message["series"])
                assert isinstance(reader, Grows)
                return {"progress": wire.progress(reader.progress(message["since"]))}
            case "read":
                return self._read(message, lane)
            case "events":
                return {"events": wire.events(self._reader(message["series"]).events())}
            case "sidecars":
                path = Path(message["path"])
                return {"metadata": wire.metadata(read_sidecars(file_on_disk(path)) | read_sidecars(path))}
            case _:
                self._close(message["series"])
                return {}

    def _reader(self, number: int) -> SeriesReader:
        with self._books:
            return self._open[number]

    def _opened(self, message: Message, reader: SeriesReader) -> Message:
        try:
            told = wire.opened(reader, written=message["written"])
        except BaseException:
            reader.close()
            raise
        with self._books:
            self._open[message["series"]] = reader
        return told

    def _renewed(self, message: Message) -> SeriesReader:
        known = self._reader(message["known"])
        return known.renewed() if isinstance(known, GoesOn) else open_written(Path(message["path"]))

    def _close(self, number: int) -> None:
        with self._books:
            reader = self._open.pop(number, None)
        if reader is not None:
            reader.close()

    def _read(self, message: Message, lane: _Lane) -> Message:
        reader = self._reader(message["series"])
        start, stop, shape = message["start"], message["stop"], reader.shape
        frames, missing = reader.read(start, stop)
        if frames.shape != (stop - start, shape.height, shape.width) or frames.dtype != shape.dtype:
            raise Invalid(
                f"the reader of {Path(message['path']).name} gave frames of {frames.shape} {frames.dtype}"
            )
        lane.send(message["id"], np.ascontiguousarray(frames))
        return {"missing": [int(number) for number in missing]}


def limit(memory_bytes: int) -> None:
    """Hold this process to its limits, as far as the system does: memory beyond what it has now; no core dump, no dialogue."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.kernel32.SetErrorMode(
            0x0001 | 0x0002
        )  # no window that waits for somebody after a crash
    else:
        import resource

        no_core = (
            1 if sys.platform == "linux" else 0
        )  # to Linux, 1 also means: call no program that collects them
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (no_core, no_core))
    if sys.platform == "linux":
        most = psutil.Process().memory_info().data + memory_bytes
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def leave_when_stuck(stuck_s: float) -> None:
    """A parser may loop in C and hold the interpreter's lock: a thread of C ends the process then.

    The data server ends one that takes too long, but may have been killed itself, and nobody here would notice.
    """

    def beat() -> None:
        while True:
            faulthandler.dump_traceback_later(stuck_s, exit=True)
            time.sleep(stuck_s / 10)

    threading.Thread(target=beat, name="beat", daemon=True).start()


def main(argv: list[str] | None = None) -> None:
    """Answer until the standard input ends."""
    address, lanes, lane_bytes, memory_bytes, stuck_s = (argv or sys.argv)[1:6]
    asked, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a library prints is no answer
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    size = (int(lanes) + 1) * int(lane_bytes)
    parser = _Parser(out, attach(address, size), int(lanes), int(lane_bytes))
    limit(int(memory_bytes))
    leave_when_stuck(float(stuck_s))
    parser.start()
    for said in asked:
        message = wire.message(said)
        lane = parser.lanes[message["lane"]]
        if "taken" in message:
            lane.free.release()
        else:
            lane.ask(message)
    os._exit(0)


if __name__ == "__main__":
    main()
