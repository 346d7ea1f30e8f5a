"""The same table from the cores of a Dask cluster, also when one of its workers is killed."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import psutil
import pytest

pytest.importorskip("distributed", reason="the extra clusterofone[dask] is not installed")
pytestmark = pytest.mark.e2e


def table_of(path: str | Path) -> bytes:
    with h5py.File(path) as file:
        return file["FitResults"][:].tobytes()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_a_dask_cluster_that_loses_a_worker_gives_the_table_of_one_process(
    shell: Any, series: Path, eventually: Callable[..., Any]
) -> None:
    reference = shell.json("localise", series, "-o", shell.cwd / "reference.h5r", "-n", 1)
    cluster = shell.start("-n", 0, "--no-browser", "--task-frames", 5, "--root", series.parent)
    eventually(lambda: "Ctrl-C stops it" in shell.said(cluster), "a cluster")
    bridge = shell.start("worker", "--dask", "local", "-n", 2)
    eventually(lambda: re.search(r"2 lanes", shell.said(bridge)), "lanes on Dask")
    job = shell.json("submit", series.name)

    def a_dask_worker() -> psutil.Process | None:
        for child in psutil.Process(bridge.pid).children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > 1.5:
                return child
        return None

    eventually(a_dask_worker, "a Dask worker at work").send_signal(signal.SIGKILL)
    done = shell.json("watch", job["id"])

    assert done["state"] == "done", shell.said(bridge)
    assert table_of(done["output"]) == table_of(reference["output"])


def test_a_dask_scheduler_that_is_not_there_is_named(
    shell: Any, series: Path, eventually: Callable[..., Any]
) -> None:
    cluster = shell.start("-n", 0, "--no-browser", "--root", series.parent)
    eventually(lambda: "Ctrl-C stops it" in shell.said(cluster), "a cluster")

    out = shell.run("worker", "--dask", "tcp://127.0.0.1:9")

    assert out.returncode == 1
    assert "there is no Dask scheduler at tcp://127.0.0.1:9" in out.stderr
