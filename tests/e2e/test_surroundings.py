"""What surrounds the roles: a console that nobody reads, clocks that are wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import httpx
import pytest

pytestmark = pytest.mark.e2e


@pytest.mark.skipif(sys.platform == "win32", reason="the scheduler is ended by SIGTERM")
def test_a_scheduler_whose_console_nobody_reads_serves_on_and_ends(
    shell: Any, eventually: Callable[..., Any]
) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "clusterofone", "scheduler", "--insecure", "--name", "full"],
        env=shell.environment, cwd=shell.cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writing,
    )  # fmt: skip
    os.close(writing)
    runtime = shell.home / "state" / "clusters" / "full" / "runtime.json"
    try:
        eventually(runtime.exists, "a scheduler that serves")
        url = eventually(lambda: shell_url(runtime), "its URL")
        with httpx.Client(base_url=url, trust_env=False, timeout=20.0) as http:
            for number in range(1500):  # each a line of the log, together more than a pipe holds
                info = {
                    "id": f"d{number}",
                    "machine": "m" * 40,
                    "host": "h" * 60,
                    "port": 1,
                    "addresses": ["127.0.0.1"],
                }
                reply = http.post("/api/v1/dataservers", json={"info": info, "protocol": 1, "version": "0"})
                assert reply.status_code == 200, reply.text
        process.send_signal(signal.SIGTERM)
        status = process.wait(30.0)
        held_back = os.read(reading, 1 << 20)
    finally:
        process.kill()
        process.wait()
        os.close(reading)

    assert status == 0
    assert len(held_back) >= 60_000  # it was full


def shell_url(runtime: Path) -> str | None:
    try:
        return str(json.loads(runtime.read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError):
        return None


SHIFTED = """
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {shift_s}
time.time_ns = lambda: _time_ns() + {shift_s} * 10**9
"""


def test_workers_whose_clocks_are_a_day_off_change_nothing(
    shell: Any, series: Path, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    reference = shell.json("localise", series, "-o", series.with_name("reference.h5r"), "-n", 1)
    shell.start(
        "--name", "clocks", "--no-browser", "--no-page", "-n", 0, "--root", series.parent, "--task-frames", 20
    )
    runtime = shell.home / "state" / "clusters" / "clocks" / "runtime.json"
    eventually(lambda: shell_url(runtime), "a cluster")
    workers = []
    for number, shift_s in enumerate((86_400, -86_400)):
        folder = tmp_path / f"clock {number}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SHIFTED.format(shift_s=shift_s), encoding="utf-8")
        environment = {**shell.environment, "PYTHONPATH": str(folder)}
        workers.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "clusterofone",
                    "worker",
                    "--one",
                    "--scheduler",
                    str(shell_url(runtime)),
                ],
                env=environment,
                cwd=shell.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
    token = shell.run("token", "--role", "owner", "--name", "clocks").stdout.strip()

    def present() -> bool:
        headers = {"authorization": f"Bearer {token}"}
        found = httpx.get(f"{shell_url(runtime)}/api/v1/workers", headers=headers, trust_env=False)
        return len(found.json()) == 2

    try:
        eventually(present, "two workers")
        job = shell.json("localise", series, "-o", series.with_name("shifted.h5r"))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    assert (job["state"], job["retries"]) == ("done", 0)
    assert rows(job["output"]) == rows(reference["output"])


def rows(output: str) -> bytes:
    with h5py.File(output) as file:
        return bytes(file["FitResults"][:].tobytes())
