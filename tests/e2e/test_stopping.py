"""Being told to stop (SIGTERM) in the middle of work: what is done is handed in, the rest is handed back, the table is whole."""

from __future__ import annotations

import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import h5py
import psutil
import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a program hears"),
]

Eventually = Callable[..., Any]
Lab = Any
ALL = 100_000  # one task for the whole series, which takes longer than a worker that is to stop goes on


def table(job: dict[str, Any]) -> bytes:
    """The table of a job that lost nothing."""
    assert job["state"] == "done", job
    count = job["frames"]["total"]
    assert job["frames"] == {"total": count, "localised": count, "skipped": 0, "failed": 0}
    with h5py.File(job["output"]) as file:
        return bytes(file["FitResults"][:].tobytes())


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Hold a port, unless somebody has been quicker."""
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        yield
        return
    yield


@pytest.mark.parametrize(
    ("task_frames", "fates"),
    [
        (50, ["task committed"]),
        (ALL, ["task handed_back", "task committed"]),
    ],  # a fast machine is done in time
    ids=["short", "long"],
)
def test_a_worker_that_is_stopped_finishes_its_task_or_hands_it_back_and_nobody_waits_for_its_lease(
    lab: Callable[..., Lab], eventually: Eventually, undisturbed: bytes, task_frames: int, fates: list[str]
) -> None:
    cluster = lab(task_frames=task_frames)
    first = cluster.worker()
    job_id = cluster.submit()
    eventually(cluster.fits, "a worker at work")
    process = psutil.Process(first.pid)
    leased_s = process.cpu_times().user
    eventually(lambda: process.cpu_times().user > leased_s + 0.3, "a fit that has begun")
    before = len(cluster.log)

    first.send_signal(signal.SIGTERM)
    stopped = time.monotonic()
    status = first.wait(15)
    took_s = time.monotonic() - stopped
    eventually(lambda: any(fate in cluster.log[before:] for fate in fates), "word of it", 20)
    held = cluster.http.get(f"/jobs/{job_id}").json()
    assert cluster.http.get("/workers").json() == []  # it has said goodbye
    cluster.worker()
    ended = cluster.done(job_id)

    assert status == 0
    assert took_s < 10
    assert held["frames"]["failed"] == 0
    assert table(ended) == undisturbed
    assert "task error" not in cluster.log


def test_a_worker_that_is_told_twice_ends_at_once(lab: Callable[..., Lab], eventually: Eventually) -> None:
    cluster = lab(task_frames=ALL)
    worker = cluster.worker()
    cluster.submit()
    eventually(cluster.fits, "a worker at work")

    began = time.monotonic()

    def told_again() -> bool:
        worker.send_signal(signal.SIGTERM)
        return worker.poll() is not None

    eventually(told_again, "its end", 15)

    # the last one may come when Python, which is ending, listens to signals no more
    assert worker.returncode in {130, -signal.SIGTERM}
    assert time.monotonic() - began < 3  # it would go on with its task for 3.5 s


def test_a_cluster_that_is_stopped_leaves_no_process_and_goes_on_though_its_ports_are_taken_by_then(
    lab: Callable[..., Lab], eventually: Eventually, undisturbed: bytes
) -> None:
    cluster = lab(task_frames=50, workers=1)
    job_id = cluster.submit()
    said = cluster.shell.said(cluster.process)
    ports = [int(port) for port in re.findall(r"(?:scheduler|data server) +http://127.0.0.1:(\d+)", said)]
    eventually(lambda: "task committed" in cluster.log, "its first results")
    family = psutil.Process(cluster.process.pid).children(recursive=True)

    cluster.process.send_signal(signal.SIGTERM)
    status = cluster.process.wait(15)
    left = psutil.wait_procs(family, timeout=1)[1]
    with taken(ports[0]), taken(ports[1]):
        ended = lab(task_frames=50, workers=1).done(job_id)

    assert status == 130  # as after Ctrl-C
    assert left == []
    assert "Traceback" not in cluster.shell.said(cluster.process)
    assert table(ended) == undisturbed


def test_a_cluster_that_is_told_twice_does_not_wait_for_a_role_that_hangs(
    lab: Callable[..., Lab], eventually: Eventually
) -> None:
    cluster = lab(task_frames=50, workers=1)
    family = psutil.Process(cluster.process.pid).children(recursive=True)
    scheduler = next(child for child in family if "scheduler" in child.cmdline())
    scheduler.suspend()

    cluster.process.send_signal(signal.SIGTERM)
    dataserver = next(child for child in family if "dataserver" in child.cmdline())
    eventually(
        lambda: not dataserver.is_running() or dataserver.status() == psutil.STATUS_ZOMBIE, "the first end"
    )
    cluster.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    cluster.process.wait(15)

    assert time.monotonic() - began < 6  # a role that hangs has eight seconds otherwise
    assert psutil.wait_procs(family, timeout=3)[1] == []
