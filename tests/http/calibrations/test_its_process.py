"""The process that makes a calibration: it answers one question, and does not outlive who asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
