"""The process that makes a calibration: it answers one question, and does not outlive who asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cluster.calibrating.__main__ import Progress

PROGRAM = (sys.executable, "-m", "cluster.calibrating")


def asked(series: Path, output: Path) -> subprocess.Popen[bytes]:
    """A process that has been asked for the maps of a camera, and whose standard input is still open."""
    question: dict[str, Any] = {"kind": "camera_maps", "series": [str(series)], "output": str(output)}
    process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(question | {"options": {}, "metadata": {}}).encode() + b"\n")
    process.stdin.flush()
    return process


def test_what_is_wrong_is_its_answer(tmp_path: Path) -> None:
    with asked(tmp_path / "none.tif", tmp_path / "camera") as process:
        assert process.stdout is not None
        said = process.stdout.read()

    assert process.returncode == 0
    assert "none.tif" in json.loads(said)["error"]
    assert list(tmp_path.iterdir()) == []


def test_it_says_how_far_it_is_before_it_answers(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(95, 105, (40, 16, 16), np.uint16)
    tifffile.imwrite(tmp_path / "dark.tif", frames, photometric="minisblack")

    with asked(tmp_path / "dark.tif", tmp_path / "camera") as process:
        assert process.stdout is not None
        *progress, answer = [json.loads(line) for line in process.stdout.read().splitlines()]

    assert "files" in answer
    assert [said["doing"] for said in progress][:1] == ["dark.tif"]
    assert all(0 <= said["fraction"] <= 1 for said in progress)


def test_progress_is_said_at_once_for_each_step_and_then_seldom() -> None:
    said: list[dict[str, Any]] = []
    seconds = [0.0]
    progress = Progress(said.append, now=lambda: seconds[0])

    for done in range(101):
        seconds[0] = done / 100
        progress("a.tif", done, 100)
    progress("fitting", 3, None)

    assert len(said) <= 6
    assert said[0] == {"doing": "a.tif", "fraction": 0.0}
    assert said[-1] == {"doing": "fitting", "fraction": None}


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe stands for a file that is never read to its end")
def test_it_ends_when_whoever_asked_is_gone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dark.tif")

    with asked(tmp_path / "dark.tif", tmp_path / "camera") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with (tmp_path / "dark.tif").open(
            "wb"
        ):  # returns once the process reads the series, for which it will wait
            process.stdin.close()
            assert process.wait(60) == 1
        assert process.stdout.read() == b""
