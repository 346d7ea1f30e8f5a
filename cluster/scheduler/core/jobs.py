"""The tasks of one job: cut lazily from a cursor, kept in eight bytes each once they are done."""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluster.scheduler.core.paces import Paces
from cluster.scheduler.core.phases import Phase, Queued, Running
from cluster.scheduler.core.records import Counts, Growth, JobOrder, JobSaved, TaskSaved
from cluster.scheduler.core.tasks import Done, Failed, Leased, Ready, TaskState

_SMOOTHING = 0.3


@dataclass(slots=True)
class Tally:
    """Sums over a job's settled tasks."""

    localised: int = 0
    skipped: int = 0
    failed: int = 0
    rows: int = 0
    tasks_done: int = 0
    retries: int = 0

    @property
    def frames(self) -> int:
        """Return how many frames are settled one way or another."""
        return self.localised + self.skipped + self.failed


class Job:
    """A job's tasks and sums. Task i covers the frames that follow task i - 1, unless the order lists single frames."""

    __slots__ = (
        "_aside",
        "_cursor",
        "_queue",
        "_starts",
        "_states",
        "_waiting",
        "failed",
        "growth",
        "last_refusal",
        "leased",
        "order",
        "paces",
        "phase",
        "seconds_per_frame",
        "sequence",
        "tally",
    )  # jobs are known for as long as the cluster is

    def __init__(self, order: JobOrder, sequence: int) -> None:
        self.order = order
        self.sequence = sequence
        self.phase: Phase = Queued()
        self.growth = Growth(order.stop, order.total) if order.growing else None
        self.tally = Tally(skipped=0 if order.growing else order.total - self.frames_in_range())
        self.seconds_per_frame: float | None = None
        self.paces = Paces()
        self.last_refusal = ""
        self.leased: dict[int, Leased] = {}
        self.failed: set[int] = set()
        self._waiting: set[int] = set()
        self._queue: list[int] = []  # heap of the waiting tasks; may hold some that wait no longer
        self._aside: dict[str, deque[int]] = {}  # waiting tasks meant for one worker; these too
        self._starts = array("q")
        self._states: list[TaskState | None] = []
        self._cursor = order.start
        if order.frames is not None:
            self._cut_single_frames(order.frames)

    def frames_in_range(self) -> int:
        """Return how many frames the tasks cover."""
        frames = self.order.frames
        return max(0, self.stop - self.order.start) if frames is None else len(frames)

    @property
    def stop(self) -> int:
        """Return the frame after the last that tasks may cover, as far as the series has come."""
        return self.order.stop if self.growth is None else self.growth.stop

    @property
    def total(self) -> int:
        """Return how many frames the series has, as far as it has come."""
        return self.order.total if self.growth is None else self.growth.total

    @property
    def is_growing(self) -> bool:
        """Return whether more frames may come."""
        return self.growth is not None and not self.growth.ended

    @property
    def lacking(self) -> str:
        """Return why the series is not whole, or nothing."""
        return "" if self.growth is None else self.growth.lacking

    # --- what is there -----------------------------------------------------------------------------------------

    @property
    def cursor(self) -> int:
        """Return the first frame that no task covers yet."""
        return self._cursor

    @property
    def is_open(self) -> bool:
        """Return whether tasks may be leased."""
        return isinstance(self.phase, Queued | Running)

    @property
    def has_work(self) -> bool:
        """Return whether a task could be leased now."""
        return self.is_open and (bool(self._waiting) or self._cursor < self._end)

    @property
    def is_settled(self) -> bool:
        """Return whether every frame is covered by a task that is done or failed."""
        return not self.is_growing and self._cursor >= self._end and not self._waiting and not self.leased

    @property
    def frames_uncut(self) -> int:
        """Return how many frames no task covers yet."""
        return max(0, self._end - self._cursor)

    @property
    def tasks(self) -> int:
        """Return how many tasks have been cut."""
        return len(self._states)

    @property
    def _end(self) -> int:
        return self.stop if self.order.frames is None else self._cursor

    def knows(self, task_id: int) -> bool:
        """Return whether this task has been cut."""
        return 0 <= task_id < len(self._states)

    def state(self, task_id: int) -> TaskState:
        """Return the state of a task."""
        state = self._states[task_id]
        assert state is not None
        return state

    def bounds(self, task_id: int) -> tuple[int, int]:
        """Return the frames [start, stop) of a task."""
        start = self._starts[task_id]
        if self.order.frames is not None:
            return start, start + 1
        last = task_id + 1 == len(self._starts)
        return start, self._cursor if last else self._starts[task_id + 1]

    def saved(self) -> JobSaved:
        """Return the job's record."""
        return JobSaved(self.order, self.phase, self.growth)

    def record(self, task_id: int, counts: Counts | None = None, first_row: int = 0) -> TaskSaved:
        """Return a task's record."""
        start, stop = self.bounds(task_id)
        state = self.state(task_id)
        return TaskSaved(self.order.job_id, task_id, start, stop, state, counts or Counts(), first_row)

    # --- what changes ------------------------------------------------------------------------------------------

    def grow(self, growth: Growth) -> None:
        """Note how far the series has come."""
        assert self.growth is not None
        self.tally.skipped += growth.skipped - self.growth.skipped
        self.growth = growth

    def take(
        self, eligible: Callable[[Ready], bool], size: Callable[[Job], int], worker_id: str, run: int
    ) -> int | None:
        """Return a task to lease: the first ready one that is eligible, else one set aside for the worker, else a new
        one, else one that is set aside for another.

        With a new one, up to `run` - 1 of its successors are cut and set aside for the same worker.
        """
        taken = self._take_from_queue(eligible)
        if taken is None:
            taken = self._take_aside(worker_id)
        if taken is None and self._cursor < self._end:
            taken = self._cut(size(self))
            self._set_aside(worker_id, size, run - 1)
        return self._take_from_the_longest_row() if taken is None else taken

    def _take_from_queue(self, eligible: Callable[[Ready], bool]) -> int | None:
        passed_over: list[int] = []
        taken = None
        while self._queue and taken is None:
            task_id = heapq.heappop(self._queue)
            state = self._states[task_id]
            if not isinstance(state, Ready):
                continue
            if eligible(state):
                taken = task_id
            else:
                passed_over.append(task_id)
        for task_id in passed_over:
            heapq.heappush(self._queue, task_id)
        return taken

    def _set_aside(self, worker_id: str, size: Callable[[Job], int], number: int) -> None:
        for _ in range(number):
            if self._cursor < self._end:
                task_id = self._cut(size(self))
                self._waiting.add(task_id)
                self._aside.setdefault(worker_id, deque()).append(task_id)

    def _take_aside(self, worker_id: str, *, last: bool = False) -> int | None:
        """Return the first, or the last, task that is set aside for a worker and still waits."""
        row = self._aside.get(worker_id)
        while row:
            task_id = row.pop() if last else row.popleft()
            if task_id in self._waiting:
                return task_id
        self._aside.pop(worker_id, None)
        return None

    def _take_from_the_longest_row(self) -> int | None:
        """Return the task that its worker would come to last."""
        while self._aside:
            longest = max(self._aside, key=lambda worker_id: len(self._aside[worker_id]))
            task_id = self._take_aside(longest, last=True)
            if task_id is not None:
                return task_id
        return None

    def put(self, task_id: int, state: TaskState) -> None:
        """Put a task into the book of its new state; the sums follow."""
        before = self._states[task_id]
        self._states[task_id] = state
        self._leave(task_id, before)
        match state:
            case Ready():
                self._wait(task_id)
            case Leased():
                self.leased[task_id] = state
            case Failed():
                start, stop = self.bounds(task_id)
                self.failed.add(task_id)
                self.tally.failed += stop - start
            case Done():
                self.tally.tasks_done += 1

    def count(self, counts: Counts, frames: int) -> int:
        """Add a result to the sums and return where its rows begin among the job's."""
        tally = self.tally
        first_row = tally.rows
        tally.localised += counts.localised
        tally.skipped += counts.skipped
        tally.failed += counts.failed
        tally.rows += counts.rows
        if counts.seconds > 0:
            measured = counts.seconds / frames
            known = self.seconds_per_frame
            self.seconds_per_frame = measured if known is None else known + _SMOOTHING * (measured - known)
        return first_row

    def forget_workers(self) -> None:
        """Drop who is how fast and what is set aside for whom: no task is leased any more."""
        self.paces.forget()
        self._aside.clear()

    def restore_task(self, record: TaskSaved) -> None:
        """Put a journaled task back; tasks come in the order of their numbers."""
        if self.order.frames is None:
            self._starts.append(record.start)
            self._states.append(None)
            self._cursor = record.stop
        self.put(record.task_id, record.state)
        if isinstance(record.state, Done):
            self.count(record.counts, record.stop - record.start)

    def cut_all(self, frames: int) -> None:
        """Cut every frame that no task covers yet into tasks of so many frames."""
        while self._cursor < self._end:
            self._wait(self._cut(frames))

    def waiting(self) -> Iterator[tuple[int, Ready]]:
        """Yield the tasks that wait for a worker; the book may change meanwhile."""
        for task_id in sorted(self._waiting):
            state = self._states[task_id]
            assert isinstance(state, Ready)
            yield task_id, state

    def live(self) -> Iterator[tuple[int, Leased]]:
        """Yield the leased tasks; the book may change meanwhile."""
        yield from list(self.leased.items())

    def _cut(self, frames: int) -> int:
        self._starts.append(self._cursor)
        self._states.append(Ready())
        self._cursor = min(self.stop, self._cursor + max(1, frames))
        return len(self._states) - 1

    def _cut_single_frames(self, frames: tuple[int, ...]) -> None:
        for task_id, frame in enumerate(frames):
            self._starts.append(frame)
            self._states.append(Ready())
            self._wait(task_id)

    def _wait(self, task_id: int) -> None:
        self._waiting.add(task_id)
        heapq.heappush(self._queue, task_id)

    def _leave(self, task_id: int, before: TaskState | None) -> None:
        match before:
            case Leased():
                del self.leased[task_id]
            case Failed():
                start, stop = self.bounds(task_id)
                self.failed.discard(task_id)
                self.tally.failed -= stop - start
            case Ready():
                self._waiting.discard(task_id)
            case _:
                pass
