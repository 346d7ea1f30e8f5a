"""A series is sent while a job follows it, roles are killed meanwhile, and the table is that of the finished series."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import tifffile

from cluster.client import Client

pytestmark = pytest.mark.e2e


def table_of(path: str | Path) -> bytes:
    with h5py.File(path) as file:
        return file["FitResults"][:].tobytes()


def kill(process: Any, role: str) -> None:
    for child in psutil.Process(process.pid).children(recursive=True):
        if role in child.cmdline():
            child.send_signal(signal.SIGKILL)
            return
    pytest.fail(f"no {role} to kill")


@pytest.fixture
def client(shell: Any, series: Path, eventually: Callable[..., Any]) -> Any:
    running = shell.start("-n", 2, "--no-browser")
    said = eventually(lambda: re.search(r"scheduler +(http://\S+)", shell.said(running)), "a scheduler")
    eventually(lambda: "Ctrl-C stops it" in shell.said(running), "a cluster")
    client = Client(said.group(1), shell.run("token", "--role", "owner").stdout.strip())
    client.process = running
    yield client
    client.close()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
@pytest.mark.parametrize("background", ["-30:0", pytest.param("-10:10", marks=pytest.mark.slow)])
def test_a_live_run_killed_in_the_middle_gives_the_table_of_an_offline_one(
    shell: Any, series: Path, client: Any, eventually: Callable[..., Any], background: str
) -> None:
    frames: np.ndarray[Any, Any] = tifffile.imread(series)
    metadata = json.loads(series.with_suffix(".json").read_text(encoding="utf-8"))
    analysis = {"background": background}
    with client.series_writer(
        "cells/live.zarr", height=frames.shape[1], width=frames.shape[2], metadata=metadata, chunk_frames=16
    ) as writer:
        writer.append(frames[:40])
        eventually(lambda: client.facts("cells/live.zarr").frames > 0, "the first frames")
        job = client.submit("cells/live.zarr", analysis=analysis, follow=True)
        writer.append(frames[40:150])
        eventually(lambda: client.job(job.id).frames.localised > 30, "live localisations")
        before_the_end = client.job(job.id)
        kill(client.process, "dataserver")
        writer.append(frames[150:220])
        kill(client.process, "scheduler")
        writer.append(frames[220:])
    done = eventually(
        lambda: (found := client.job(job.id)).state not in {"waiting", "queued", "running"} and found,
        "the end of the job",
    )
    offline = client.submit("cells/series.tif", analysis=analysis)
    reference = eventually(
        lambda: (found := client.job(offline.id)).state == "done" and found, "the other job"
    )

    assert before_the_end.state == "running"
    assert (done.state, done.frames.localised, done.error) == ("done", 300, None)
    assert table_of(done.output) == table_of(reference.output)


def test_an_acquisition_that_breaks_off_ends_its_job_with_what_came(
    shell: Any, series: Path, client: Any, eventually: Callable[..., Any]
) -> None:
    frames: np.ndarray[Any, Any] = tifffile.imread(series)
    metadata = json.loads(series.with_suffix(".json").read_text(encoding="utf-8"))

    def acquire() -> None:
        size = {"height": frames.shape[1], "width": frames.shape[2]}
        with client.series_writer("cells/broken.zarr", metadata=metadata, **size) as writer:
            writer.append(frames[:100])
            raise RuntimeError("the camera caught fire")

    with pytest.raises(RuntimeError, match="caught fire"):
        acquire()
    job = client.submit("cells/broken.zarr", analysis={"idle_limit_s": 3}, follow=True)

    done = eventually(
        lambda: (found := client.job(job.id)).state not in {"waiting", "queued", "running"} and found,
        "the end of the job",
    )

    assert (done.state, done.frames.localised) == ("done_with_errors", 100)
    assert "it stopped growing at 100 frames" in done.error
