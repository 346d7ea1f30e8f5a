"""Columns kept as a file: the same again, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import Invalid
from cluster.results.column_file import read_columns, write_columns
from cluster.results.columns import MEASURES, Columns
from cluster.results.quantities import Calibration
from fitting.localisations import ResultCode

MakeRows = Callable[..., np.ndarray]


@pytest.fixture
def parts(make_rows: MakeRows, metadata: dict[str, Any]) -> list[tuple[int, Columns]]:
    rows = make_rows(1000)
    rows["resultCode"][::7] = ResultCode.ITERATION_LIMIT
    calibration = Calibration.from_metadata(metadata)
    return [(len(part), Columns.of(part, calibration)) for part in np.array_split(rows, 3)]


def test_what_is_read_is_what_was_written(parts: list[tuple[int, Columns]], tmp_path: Path) -> None:
    write_columns(tmp_path / "a.columns", iter(parts))

    found, rows = read_columns(tmp_path / "a.columns")

    assert rows == 1000
    assert [len(one) + one.hidden for one in found] == [count for count, _ in parts]
    whole, again = (Columns.joined(list(blocks)) for blocks in ([one for _, one in parts], found))
    for measure in MEASURES:
        np.testing.assert_array_equal(again.measure(measure.name), whole.measure(measure.name))
    assert again.z_nm is None


def test_of_nothing_there_is_nothing(tmp_path: Path) -> None:
    write_columns(tmp_path / "a.columns", iter(()))

    assert read_columns(tmp_path / "a.columns") == ([], 0)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.9999])
def test_a_file_that_is_not_whole_is_none(
    parts: list[tuple[int, Columns]], tmp_path: Path, share: float
) -> None:
    path = tmp_path / "a.columns"
    write_columns(path, iter(parts))
    body = path.read_bytes()
    path.write_bytes(body[: int(share * len(body))])

    with pytest.raises(Invalid):
        read_columns(path)


def test_a_file_of_another_layout_is_none(parts: list[tuple[int, Columns]], tmp_path: Path) -> None:
    path = tmp_path / "a.columns"
    write_columns(path, iter(parts))
    for known, other in (("columns 1", "columns 0"), ("photons", "photans")):
        path.with_suffix(".other").write_bytes(
            path.read_bytes().replace(known.encode("utf-32-le"), other.encode("utf-32-le"))
        )

        with pytest.raises(Invalid):
            read_columns(path.with_suffix(".other"))
