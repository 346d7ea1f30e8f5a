"""What may be named as a series on a command line: files, folders that are series, and arrays within files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from cluster.commands.connection import relative_to_roots
from cluster.commands.console import Refused
from cluster.commands.localise import _check_arguments

FRAME = np.zeros((8, 8), np.uint16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for number in range(3):
        tifffile.imwrite(tmp_path / "frames" / f"img_{number:03}.tif", FRAME)
    with h5py.File(tmp_path / "cell.h5", "w") as file:
        file["entry/images"] = np.zeros((3, 8, 8), np.uint16)
    (tmp_path / "day").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["frames", "cell.h5", "cell.h5!entry!images"])
def test_a_series_is_taken_and_named_under_its_root(folder: Path, name: str) -> None:
    _check_arguments([folder / name], None, overwrite=False, local=True)

    assert relative_to_roots(folder / name, (folder.resolve(),)) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("day", "is a folder, and no series itself"),
        ("nothing.tif", "there is no such file"),
        ("nothing.h5!entry!images", "there is no such file"),
    ],
)
def test_anything_else_is_refused_by_name(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(Refused, match=f"{name}: {reason}"):
        _check_arguments([folder / name], None, overwrite=False, local=True)

    assert name == "day" or relative_to_roots(folder / name, (folder.resolve(),)) is None
