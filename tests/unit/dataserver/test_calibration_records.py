"""Records of calibrations on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.dataserver.calibration_records import Record, Records
from cluster.protocol import CalibrationRun


def record(root: Path, number: int) -> Record:
    run = CalibrationRun(
        id=f"{number:016x}",
        kind="camera_maps",
        state="done",
        series=["dark.tif"],
        options={},
        metadata={},
        output="camera",
        created=float(number),
    )
    return Record(run, root, root / "camera")


def test_records_come_back_oldest_first_and_are_dropped(tmp_path: Path) -> None:
    records = Records(tmp_path / "state" / "calibrations")
    kept = [record(tmp_path, number) for number in (2, 1, 3)]
    for one in kept:
        records.keep(one)

    records.drop(kept[2].run.id)
    records.drop("none")

    assert Records(tmp_path / "state" / "calibrations").all() == [kept[1], kept[0]]


def test_what_is_no_record_is_passed_over_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = Records(tmp_path)
    records.keep(record(tmp_path, 1))
    (tmp_path / "torn.json").write_text('{"run": {"id": "a"', encoding="utf-8")
    (tmp_path / "other.json").write_bytes((tmp_path / f"{1:016x}.json").read_bytes())

    assert [one.run.id for one in records.all()] == [f"{1:016x}"]
    assert "torn.json" in caplog.text
    assert "other.json" in caplog.text


def test_a_record_that_cannot_be_written_is_told_of_and_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    Records(tmp_path / "file").keep(record(tmp_path, 1))

    assert "will not be known after a restart" in caplog.text


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    records = Records(None)
    records.keep(record(tmp_path, 1))
    records.drop("x")

    assert records.all() == []
