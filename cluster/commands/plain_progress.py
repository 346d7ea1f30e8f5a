"""Progress where there is no terminal, in a log say: a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rich.progress import TaskID

GAP_S: Final = 30.0


@dataclass
class _Task:
    description: str
    total: float | None
    rates: str
    completed: float = 0.0
    said_at: float = 0.0
    said: str = ""


class PlainProgress:
    """Says how far each task is, `GAP_S` after the last time at the soonest. `now` is a monotonic clock in seconds."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._tasks: list[_Task] = []

    def add_task(self, description: str, *, total: float | None, rates: str) -> TaskID:
        """Begin with a task; nothing is said yet: it may be done at once."""
        self._tasks.append(_Task(description, total, rates, said_at=self._now()))
        return TaskID(len(self._tasks) - 1)

    def update(
        self,
        task_id: TaskID,
        *,
        total: float | None = None,
        completed: float | None = None,
        description: str | None = None,
        **fields: Any,
    ) -> None:
        """Note how far a task is, and say so if that is due."""
        task = self._tasks[task_id]
        task.total = task.total if total is None else total
        task.completed = task.completed if completed is None else completed
        task.description = task.description if description is None else description
        task.rates = str(fields.get("rates", task.rates))
        self._say_if_due(task)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Note that a task is further."""
        task = self._tasks[task_id]
        self.update(task_id, completed=task.completed + advance)

    def _say_if_due(self, task: _Task) -> None:
        now = self._now()
        if now - task.said_at < GAP_S:
            return
        of = "" if task.total is None else f" of {task.total:.0f}"
        said = f"{task.description}: {task.completed:.0f}{of} {task.rates}".rstrip()
        task.said_at = now
        if said != task.said:
            task.said = said
            self._say(said)
