"""One process that parses files, as the data server sees it: started, asked, watched, ended."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import psutil

from cluster.dataserver.parsing import wire
from cluster.dataserver.parsing.limits import Limits
from cluster.dataserver.parsing.shared import Shared
from cluster.dataserver.parsing.wire import Message
from cluster.errors import Unavailable
from cluster.interpreter import RUN_MODULE
from cluster.supervisor import process_options

logger = logging.getLogger(__name__)

PROGRAM: Final = (*RUN_MODULE, "cluster.dataserver.parsing")
LANES: Final = 16  # as many as the data server has threads that read
LANE_BYTES: Final = 4 << 20
_CLOSING_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.1
_ONE_THREAD_EACH: Final = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Why = Literal["crash", "memory", "computing", "waiting"]


class Ended(Exception):
    """The process has ended, or had to be, before it answered. `how` says it in words."""

    def __init__(self, why: Why, how: str, *, guilty: bool) -> None:
        super().__init__(how)
        self.why: Why = why
        self.how = how
        self.guilty = guilty
        """Whether it is known that this request was the cause, and not another one beside it."""


@dataclass(eq=False)
class _Call:
    lane: int
    limit_s: float
    began: float = field(default_factory=time.monotonic)
    answers: queue.SimpleQueue[Message | None] = field(default_factory=queue.SimpleQueue)
    ended: Ended | None = None


class ParserProcess:
    """A started process. It may be asked from several threads at once; `ready` or not, a question waits for its answer."""

    def __init__(self, limits: Limits, *, program: Sequence[str] = PROGRAM) -> None:
        self._limits = limits
        self._shared = Shared((LANES + 1) * LANE_BYTES)
        self._memory = memoryview(
            self._shared.memory
        )  # freed with this object: a late request may still read it
        arguments = [self._shared.address, LANES, LANE_BYTES, limits.memory_bytes, limits.stuck_s]
        try:
            self._process = subprocess.Popen(
                [*program, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_ONE_THREAD_EACH},
                **(process_options() | self._shared.options()),
            )
        finally:
            self._shared.handed_over()
        self._books = threading.Lock()
        self._asking = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._numbers = iter(range(1 << 62))
        self._lanes: queue.LifoQueue[int] = (
            queue.LifoQueue()
        )  # few of them, as a rule, so that little is touched
        for lane in reversed(range(LANES)):
            self._lanes.put(lane)
        self._threads: list[int] = []
        self._settled = threading.Event()
        self._is_ready = False
        self._stopped_for: Why | None = None
        self._gone = False
        self._listener = threading.Thread(target=self._listen, name="parser", daemon=True)
        self._listener.start()
        if limits.watches_memory:
            threading.Thread(target=self._watch_memory, name="parser's memory", daemon=True).start()

    @property
    def pid(self) -> int:
        """Return the process id."""
        pid: int = self._process.pid
        return pid

    @property
    def is_gone(self) -> bool:
        """Return whether it can answer no more."""
        return self._gone

    def ask(self, question: Mapping[str, Any], *, limit_s: float, into: memoryview | None = None) -> Message:
        """Return the answer to a question; the frames it brings go to `into`.

        Raises
        ------
        Ended
            If the process ended first, or was ended because it took more than it may.
        Unavailable
            If it does not even start.
        ClusterError, OSError
            What the parser said is wrong.
        """
        self._wait_until_ready()
        lane = self._lanes.get()
        try:
            return self._asked(_Call(lane, limit_s), question, into)
        finally:
            self._lanes.put(lane)

    def let_go(self, series: int) -> None:
        """Have a series closed; wait for it, but not for long."""
        with contextlib.suppress(Ended, queue.Empty):
            call = _Call(LANES, _CLOSING_S)
            number = self._begin(call)
            try:
                self._tell({"id": number, "lane": LANES, "do": "close", "series": series})
                call.answers.get(timeout=_CLOSING_S)
            finally:
                self._end(number)

    def close(self) -> None:
        """End it: its pipe ends, and if that is not enough it is killed. Waits until it is gone."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._listener.join()

    def _asked(self, call: _Call, question: Mapping[str, Any], into: memoryview | None) -> Message:
        number = self._begin(call)
        try:
            self._tell({"id": number, "lane": call.lane, **question})
            while True:
                answer = self._answer(call)
                if "piece" not in answer:
                    break
                self._take(call, answer["piece"], into)
        finally:
            self._end(number)
        if "out_of_memory" in answer:
            raise Ended("memory", "it ran out of memory", guilty=False)
        wire.raise_failure(answer)
        return answer

    def _take(self, call: _Call, piece: Sequence[int], into: memoryview | None) -> None:
        at, size, place = piece
        first = call.lane * LANE_BYTES + place
        if into is None or at + size > into.nbytes or place + size > LANE_BYTES:
            raise Unavailable("the process that parses files gave more than it was asked for")
        into[at : at + size] = self._memory[first : first + size]
        self._tell({"lane": call.lane, "taken": True})

    def _answer(self, call: _Call) -> Message:
        half_s = call.limit_s / 2
        before: dict[int, float] = {}
        for _ in range(2):
            try:
                answer = call.answers.get(timeout=max(0.001, call.began + half_s - time.monotonic()))
            except queue.Empty:
                before = before or self._computed_s()
                half_s = call.limit_s
                continue
            if answer is None:
                raise call.ended or Ended("crash", "it ended", guilty=False)
            return answer
        self._stop(call, before)
        while (answer := call.answers.get()) is not None:
            if "piece" not in answer:
                return answer  # at the last moment
        raise call.ended or Ended("waiting", f"it took more than {call.limit_s:.0f} s", guilty=True)

    def _stop(self, late: _Call, before: Mapping[int, float]) -> None:
        """End the process because a request is late; the cause may be another one that computes, and holds it up."""
        now = self._computed_s()
        with self._books:
            window_s = late.limit_s / 2
            there_throughout = [call for call in self._calls.values() if call.began <= late.began + window_s]
            computed = {
                call: now.get(call.lane, 0.0) - before.get(call.lane, 0.0) for call in there_throughout
            }
            busiest = max(computed, key=lambda call: (computed[call], call is late), default=late)
            computing = computed.get(busiest, 0.0) >= self._limits.computing_share * window_s
            culprit = (
                late
                if not computing or computed.get(late, 0.0) >= self._limits.computing_share * window_s
                else busiest
            )
            took_s = time.monotonic() - culprit.began
            culprit.ended = Ended(
                "computing" if computing else "waiting", f"it took more than {took_s:.0f} s", guilty=True
            )
            self._stopped_for = culprit.ended.why
        self._process.kill()

    def _computed_s(self) -> dict[int, float]:
        """Return the processor time of each lane so far [s]; where it cannot be told, that of the process for all."""
        try:
            process = psutil.Process(self.pid)
            try:
                spent = {one.id: one.user_time + one.system_time for one in process.threads()}
            except psutil.AccessDenied:
                times = process.cpu_times()
                spent = dict.fromkeys(self._threads, times.user + times.system)
        except psutil.Error:
            return {}
        return {lane: spent.get(thread, 0.0) for lane, thread in enumerate(self._threads)}

    def _wait_until_ready(self) -> None:
        if not self._settled.wait(self._limits.ready_s):
            self._process.kill()
        if not self._is_ready:
            raise Unavailable("the process that parses files does not start; the data server's log says why")

    def _begin(self, call: _Call) -> int:
        with self._books:
            if self._gone:
                raise Ended("crash", "it ended", guilty=False)
            number = next(self._numbers)
            self._calls[number] = call
        return number

    def _end(self, number: int) -> None:
        with self._books:
            self._calls.pop(number, None)

    def _tell(self, message: Message) -> None:
        """A pipe that is broken says nothing here: the process has ended, and whoever waits for an answer hears so."""
        said = wire.line(message)
        with self._asking, contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(said)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for said in self._process.stdout:
                self._hear(wire.message(said))
        self._process.kill()  # it says nothing more, or nonsense
        status = self._process.wait()
        with self._books:
            self._gone = True
            calls = list(self._calls.values())
        for call in calls:
            call.ended = call.ended or self._how_it_ended(status)
            call.answers.put(None)
        self._settled.set()
        self._process.stdout.close()
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _hear(self, message: Message) -> None:
        if "ready" in message:
            self._threads = list(message["threads"])
            self._is_ready = True
            self._settled.set()
            return
        with self._books:
            call = self._calls.get(message["id"])
        if call is not None:
            call.answers.put(message)

    def _how_it_ended(self, status: int) -> Ended:
        if self._stopped_for == "memory":
            return Ended("memory", "it ran out of memory", guilty=False)
        if self._stopped_for is not None:
            return Ended("crash", "another file had to be stopped", guilty=False)
        logger.warning("the process that parses files ended: %s", _told(status))
        return Ended("crash", _told(status), guilty=False)

    def _watch_memory(self) -> None:
        self._settled.wait()
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            most = process.memory_info().rss + self._limits.memory_bytes
            while not self._gone:
                if process.memory_info().rss > most:
                    self._stopped_for = "memory"
                    self._process.kill()
                    return
                time.sleep(_LOOK_EVERY_S)


def _told(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"status {status}"
