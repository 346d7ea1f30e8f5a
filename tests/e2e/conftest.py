"""Real processes: the installed command, folders of its own, a simulated series."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile

import fitting
from cluster import trust

COMMAND = [sys.executable, "-m", "clusterofone"]
METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
}
SLOW = {"threshold": 0.3}  # noise is taken for molecules: some hundred a frame, so that a task takes long


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


class Lab:
    """A cluster with its own name and a series of noise; without workers, unless one asks for some."""

    def __init__(
        self,
        shell: Shell,
        eventually: Callable[..., Any],
        *options: str,
        task_frames: int,
        workers: int = 0,
        name: str = "lab",
    ) -> None:
        self.shell, self.eventually, self.name = shell, eventually, name
        self.process = shell.start(
            *(
                "--name",
                name,
                "--no-browser",
                "--no-page",
                "-n",
                workers,
                "--task-frames",
                task_frames,
                *options,
            )
        )
        eventually(lambda: "Ctrl-C" in shell.said(self.process), "a cluster")
        self.url = re.findall(r"scheduler +(http://\S+)", shell.said(self.process))[0]
        owner = trust.own_token(shell.home / "state" / "clusters" / name, "owner")
        self.http = httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"authorization": f"Bearer {owner}"}, trust_env=False
        )

    def worker(self) -> Any:
        return self.shell.start("worker", "--one", "--scheduler", self.url)

    def submit(self) -> str:
        request = {"series": "noise.tif", "analysis": SLOW, "metadata": METADATA}
        reply = self.http.post("/jobs", json=request, timeout=60)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def fits(self) -> bool:
        """Whether a worker has had a task for so long that it is at its fit."""
        return any(worker["state"] == "working" for worker in self.http.get("/workers").json())

    def done(self, job_id: str) -> dict[str, Any]:
        ended = {"done", "done_with_errors", "failed", "cancelled"}
        return dict(
            self.eventually(
                lambda: (job := self.http.get(f"/jobs/{job_id}").json())["state"] in ended and job,
                "the end of the job",
            )
        )

    @property
    def log(self) -> str:
        """What the scheduler has logged."""
        return self.log_of("scheduler")

    def log_of(self, role: str) -> str:
        file = self.shell.home / "state" / "clusters" / self.name / "logs" / f"{role}.log"
        return file.read_text(encoding="utf-8") if file.exists() else ""


@pytest.fixture(scope="session")
def noise() -> np.ndarray[Any, Any]:
    """A series without a molecule, which keeps a worker busy if it is told to take noise for them."""
    return np.random.default_rng(1).poisson(140, (2400, 96, 96)).astype(np.uint16)


@pytest.fixture(scope="session")
def undisturbed(noise: np.ndarray[Any, Any]) -> bytes:
    """The table of a `Lab`'s job, made without any cluster."""
    return bytes(fitting.localise(noise, SLOW, METADATA).tobytes())


@pytest.fixture
def lab(
    shell: Shell, noise: np.ndarray[Any, Any], eventually: Callable[..., Any]
) -> Iterator[Callable[..., Lab]]:
    """Start a cluster that has the noise."""
    made: list[Lab] = []
    tifffile.imwrite(shell.home / "data" / "noise.tif", noise, photometric="minisblack")

    def make(*options: str, **settings: Any) -> Lab:
        made.append(Lab(shell, eventually, *options, **settings))
        return made[-1]

    yield make
    for one in made:
        one.http.close()
