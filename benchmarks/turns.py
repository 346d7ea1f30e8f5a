"""Time several programs against each other fairly: each in its own process, all on one core, taking turns."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

_RUNNERS = Path(__file__).parent / "peers"
_ONE_THREAD = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Runner:
    """A program to measure, running under its own interpreter and waiting for requests.

    Parameters
    ----------
    script : str
        Name of the file in `benchmarks/peers`.
    python : str
        The interpreter that has the program.
    limit_s : float
        A request that takes longer than this ends the runner.
    """

    def __init__(self, script: str, python: str, limit_s: float = 1800.0) -> None:
        self._script, self._limit_s = script, limit_s
        self._process = subprocess.Popen(
            [python, str(_RUNNERS / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | dict.fromkeys(_ONE_THREAD, "1"),
        )
        hello = self._answer()
        self.import_s: float = hello["import_s"]
        self.versions: dict[str, str] = hello["versions"]

    def ask(self, **request: object) -> dict[str, Any]:
        """Send one request and wait for its answer; SystemExit if the runner ends instead."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the runner."""
        self._process.communicate(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watch = threading.Timer(self._limit_s, self._process.kill)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if not line:
            raise SystemExit(f"{self._script} ended with status {self._process.wait()}")
        return dict(json.loads(line))


@dataclass
class Contender:
    """One way to do a task: a runner, the task's name there, and what it is told."""

    name: str
    runner: Runner
    task: str
    data: Path
    options: dict[str, Any]
    prepared: dict[str, Any] = field(default_factory=dict)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    @property
    def amount(self) -> int:
        """ROIs or frames in one run."""
        return int(self.prepared["amount"])

    @property
    def rate(self) -> float:
        """Those in a second of wall time, the median of all runs."""
        return self.amount / median(self.wall_s)

    @property
    def rate_cpu(self) -> float:
        """Those in a second of processor time: what the rate would be if nothing else used the core."""
        return self.amount / median(self.cpu_s)

    def prepare(self) -> None:
        """Load the data and run once, which compiles what is compiled at run time."""
        self.prepared = self.runner.ask(
            do="prepare", name=self.name, task=self.task, data=str(self.data), options=self.options
        )

    def run(self) -> None:
        """Run once more, timed."""
        times = self.runner.ask(do="run", name=self.name)
        self.wall_s.append(times["wall_s"])
        self.cpu_s.append(times["cpu_s"])

    def rows(self) -> npt.NDArray[np.float64]:
        """What the last run found."""
        path = self.data.with_name("rows.npy")
        self.runner.ask(do="rows", name=self.name, out=str(path))
        return np.asarray(np.load(path))

    def timing(self, unit: str) -> dict[str, Any]:
        """The figures of speed, for the report."""
        return {
            f"{unit}_per_s": _rounded(self.rate),
            f"{unit}_per_cpu_s": _rounded(self.rate_cpu),
            "wall_s": [_rounded(t) for t in self.wall_s],
            "cpu_s": [_rounded(t) for t in self.cpu_s],
            "amount": self.amount,
            "passes": self.prepared["passes"],
            "first_run_s": _rounded(self.prepared["first_s"]),
            "options": self.options,
        }


def take_turns(contenders: Sequence[Contender], repeat: int) -> None:
    """Time all contenders `repeat` times, one after the other each time, so that a slow spell of the machine hits all."""
    for contender in contenders:
        contender.prepare()
    for _ in range(repeat):
        for contender in contenders:
            contender.run()


def pin(core: int | None) -> int | None:
    """Keep this process and those it starts on one core (by default the last it may use); None where that is impossible."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):  # macOS has no such call
        return None
    chosen = max(process.cpu_affinity()) if core is None else core
    process.cpu_affinity([chosen])
    return int(chosen)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _processor(),
        "cores": psutil.cpu_count(),
        "system": platform.platform(),
        "commit": _commit(),
        "load": [round(load, 2) for load in psutil.getloadavg()],
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the engine; "+" where its files differ from it."""
    folder = Path(__file__).parent.parent
    answers = [
        subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=False
        ).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "fitting"])
    ]
    return answers[0] + ("+" if answers[1] else "")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
