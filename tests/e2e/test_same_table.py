"""The promise: same frames, same table, byte for byte."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.e2e


def table_of(path: str | Path) -> bytes:
    with h5py.File(path) as file:
        return file["FitResults"][:].tobytes()


def test_any_number_of_workers_and_any_task_size_give_the_same_bytes(shell: Any, series: Path) -> None:
    tables = []
    for number, arguments in enumerate(
        [("-n", 1), ("-n", 2), ("-n", 2, "--task-frames", 10), ("-n", 1, "--task-frames", 500)]
    ):
        job = shell.json("localise", series, "-o", shell.cwd / f"{number}.h5r", *arguments)
        assert job["frames"] == {"total": 300, "localised": 300, "skipped": 0, "failed": 0}
        tables.append(table_of(job["output"]))

    assert len(tables[0]) > 108 * 1000
    assert all(table == tables[0] for table in tables)


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX; Windows terminates in another test")
def test_a_worker_killed_in_the_middle_changes_nothing(
    shell: Any, series: Path, eventually: Callable[..., Any]
) -> None:
    reference = shell.json("localise", series, "-o", shell.cwd / "reference.h5r", "-n", 1)
    process = shell.start("localise", series, "-o", shell.cwd / "killed.h5r", "-n", 2, "--task-frames", 5)

    def a_worker() -> psutil.Process | None:
        for child in psutil.Process(process.pid).children(recursive=True):
            if "worker" in child.cmdline() and child.cpu_times().user > 0.5:
                return child
        return None

    victim = eventually(a_worker, "a working worker")
    victim.send_signal(signal.SIGKILL)

    assert process.wait(120) == 0, shell.said(process)
    assert table_of(shell.cwd / "killed.h5r") == table_of(reference["output"])


def test_the_result_opens_in_pytables_with_the_ledger(shell: Any, series: Path) -> None:
    import tables

    job = shell.json("localise", series)

    assert Path(job["output"]) == series.parent / "analysis" / "series.h5r"
    with tables.open_file(job["output"]) as file:
        rows = file.root.FitResults[:]
        assert isinstance(file.root.FitResults, tables.Table)
        assert rows.dtype.itemsize == 108
        assert (np.diff(rows["tIndex"]) >= 0).all()
        assert file.root.MetaData.Camera._v_attrs.ADOffset == 100.0


def test_a_second_result_does_not_overwrite_the_first(shell: Any, series: Path) -> None:
    first, second = (shell.json("localise", series, "-n", 1)["output"] for _ in range(2))

    assert Path(first).name == "series.h5r"
    assert Path(second).name == "series_1.h5r"
    assert table_of(first) == table_of(second)


def test_like_repeats_the_settings_of_a_result(shell: Any, series: Path) -> None:
    first = shell.json(
        "localise",
        series,
        "-o",
        shell.cwd / "first.h5r",
        "--set",
        "threshold=1.7",
        "--set",
        "background=-10:0",
    )

    again = shell.json("localise", series, "-o", shell.cwd / "again.h5r", "--like", first["output"])

    assert table_of(again["output"]) == table_of(first["output"])
    assert again["localisations"] > 0
