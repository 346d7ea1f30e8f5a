"""Series in folders whose path is longer than 260 characters, with spaces and letters of other alphabets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

FOLDERS = ["Ångström Lab – messungen", "日本語の実験データ" * 4, "ein sehr langer Ordner " * 5, "день 1"]
STEM = "細胞 #2 100% µm & co" + "字" * 60  # 180 bytes of letters alone: a name may have 255


def test_a_series_there_is_localised_and_its_result_lies_beside_it(shell: Any, series: Path) -> None:
    folder = series.parent.joinpath(*(name.strip() for name in FOLDERS))
    folder.mkdir(parents=True)
    there = folder / f"{STEM}.tif"
    shutil.copy(series, there)
    shutil.copy(series.with_suffix(".json"), there.with_suffix(".json"))

    job = shell.json("localise", there, "-n", 1)
    again = shell.json("localise", there, "-n", 1)
    table = shell.run("export", job["output"], folder / f"{STEM}.csv")

    assert len(str(there)) > 260
    assert job["frames"] == {"total": 300, "localised": 300, "skipped": 0, "failed": 0}
    assert Path(job["output"]) == folder / "analysis" / f"{STEM}.h5r"
    assert Path(again["output"]) == folder / "analysis" / f"{STEM}_1.h5r"
    assert table.returncode == 0, table.stderr
    assert [file for file in folder.rglob("*") if file.name.endswith((".part", ".ballast"))] == []
