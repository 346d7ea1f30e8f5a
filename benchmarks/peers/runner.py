"""What every runner does: take requests on standard input, one JSON object a line, and answer each with one.

A runner is executed by the interpreter of the program that it measures, so this file needs Python ≥ 3.10 and numpy only.

    {"do": "prepare", "task": "fit", "name": ..., "data": FILE.npy, "options": {...}}   load, run once (compiles)
    {"do": "run", "name": ...}                                                          run again, timed
    {"do": "rows", "name": ..., "out": FILE.npy}                                        save what the last run gave

Between requests it waits for input and costs nothing, so several runners can share one core and take turns.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

_LEAST_S = 0.3  # a run repeats its work for so long, else the clock and the caches decide


class Task(NamedTuple):
    """One thing to time.

    `run` does it; `rows` turns what it gave into a table, (k, 2) x, y [px] of ROIs or (k, 3) frame, x, y [px] of frames,
    NaN where there is no result; `amount` is the number of ROIs or frames; `first` the number of the first frame.
    """

    run: Callable[[], Any]
    rows: Callable[[Any], Any]
    amount: int
    first: int = 0


Prepare = Callable[[Any, dict[str, Any]], Task]


def serve(started: float, distributions: tuple[str, ...], tasks: dict[str, Prepare]) -> None:
    """Answer requests until standard input ends; `started` is the time before the program was imported."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with the answers
    import_s = time.perf_counter() - started
    versions = {name: version(name) for name in distributions}
    prepared = _Prepared(tasks)
    _say(answers, {"import_s": import_s, "versions": {"python": platform.python_version(), **versions}})
    for line in sys.stdin:
        request = json.loads(line)
        _say(answers, prepared.answer(request))


class _Prepared:
    def __init__(self, tasks: dict[str, Prepare]) -> None:
        self._tasks = tasks
        self._prepared: dict[str, tuple[Task, int]] = {}
        self._last: dict[str, Any] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["name"]
        if request["do"] == "prepare":
            return self._prepare(name, request)
        task, passes = self._prepared[name]
        if request["do"] == "run":
            wall_s, cpu_s, self._last[name] = _timed(task.run, passes)
            return {"wall_s": wall_s / passes, "cpu_s": cpu_s / passes}
        np.save(request["out"], np.asarray(task.rows(self._last[name]), np.float64))
        return {}

    def _prepare(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        task = self._tasks[request["task"]](np.load(request["data"]), request["options"])
        first_s, _, self._last[name] = _timed(task.run)
        again_s, _, _ = _timed(task.run)
        passes = max(1, math.ceil(_LEAST_S / again_s))
        self._prepared[name] = task, passes
        return {"first_s": first_s, "passes": passes, "amount": task.amount, "first": task.first}


def _timed(run: Callable[[], Any], passes: int = 1) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    for _ in range(passes - 1):
        result = run()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def _say(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()
