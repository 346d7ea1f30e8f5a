"""Real processes: the installed command, folders of its own, a simulated series."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "clusterofone"]


@dataclass
class Shell:
    """Runs `clusterofone` as a person would, with a home of its own."""

    home: Path
    cache: Path
    cwd: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLUSTEROFONE", "PYMEDATADIR"))}
        own = {
            "CLUSTEROFONE_HOME": str(self.home),
            "CLUSTEROFONE_CACHE": str(self.cache),
            "PYMEDATADIR": str(self.home / "data"),
        }
        return {**kept, **own, "COLUMNS": "200", "PYTHONUTF8": "1"}

    def run(self, *arguments: object, timeout: float = 180.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            check=False,
            env=self.environment,
            cwd=self.cwd,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def json(self, *arguments: object) -> dict[str, Any]:
        out = self.run(*arguments, "--json")
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout.splitlines()[-1])

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        log = (self.home / f"shell-{len(self.started)}.log").open("w", encoding="utf-8")
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=self.environment,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
        )
        log.close()
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        return (self.home / f"shell-{self.started.index(process)}.log").read_text(encoding="utf-8")

    def stop_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled kernels, shared by all tests of the run."""
    return tmp_path_factory.mktemp("kernels")


def _shell(folder: Path, kernel_cache: Path) -> Shell:
    home = folder / "home"
    (home / "data").mkdir(parents=True)
    return Shell(home=home, cache=kernel_cache, cwd=folder)


def _series(shell: Shell) -> Path:
    path = shell.home / "data" / "cells" / "series.tif"
    path.parent.mkdir()
    out = shell.run("simulate", path, "--frames", 300, "--size", 64, "--emitters", 5, "--seed", 3)
    assert out.returncode == 0, out.stderr
    return path


@pytest.fixture
def shell(tmp_path: Path, kernel_cache: Path) -> Iterator[Shell]:
    shell = _shell(tmp_path, kernel_cache)
    yield shell
    shell.stop_all()


@pytest.fixture
def series(shell: Shell) -> Path:
    """300 frames of 64×64, with truth and metadata beside them."""
    return _series(shell)


@pytest.fixture(scope="module")
def shared_shell(tmp_path_factory: pytest.TempPathFactory, kernel_cache: Path) -> Iterator[Shell]:
    """A shell, and what it started, for all tests of a file."""
    shell = _shell(tmp_path_factory.mktemp("shared"), kernel_cache)
    yield shell
    shell.stop_all()


@pytest.fixture(scope="module")
def shared_series(shared_shell: Shell) -> Path:
    return _series(shared_shell)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """Poll until something is true; the deadline is generous because machines are slow."""

    def wait(look: Callable[[], Any], what: str, deadline_s: float = 120.0) -> Any:
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(0.05)
        pytest.fail(f"{what}: not within {deadline_s:.0f} s")

    return wait
