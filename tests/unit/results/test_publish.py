"""A result file is whole under its name, or not there."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from cluster.errors import Conflict, Invalid, OutOfSpace
from cluster.results.publish import (
    check_room,
    check_writable,
    clear_errors,
    free_name,
    publish,
    temporary_for,
    writing,
)


def test_free_names_count_upwards(tmp_path: Path) -> None:
    path = tmp_path / "s.h5r"
    assert free_name(path) == path

    path.touch()
    (tmp_path / "s_1.h5r").touch()
    assert free_name(path) == tmp_path / "s_2.h5r"
    assert free_name(path, {str(tmp_path / "s_2.h5r"), "else"}) == tmp_path / "s_3.h5r"


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"

    with writing(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        assert not path.exists()

    assert path.read_text(encoding="utf-8") == "half"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "table.csv") as temporary:
        temporary.write_text(str(1 // 0), encoding="utf-8")

    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old", encoding="utf-8")

    with pytest.raises(Conflict, match=r"table\.csv exists already"), writing(path):
        pass
    assert path.read_text(encoding="utf-8") == "old"

    with writing(path, replace=True) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_taken_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    temporary = temporary_for(path)
    temporary.write_text("ours", encoding="utf-8")
    path.write_text("theirs", encoding="utf-8")

    with pytest.raises(Conflict):
        publish(temporary, path)
    assert path.read_text(encoding="utf-8") == "theirs"

    assert publish(temporary, path, if_exists="number") == tmp_path / "table_1.csv"
    assert (tmp_path / "table_1.csv").read_text(encoding="utf-8") == "ours"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows renames without links")
def test_a_file_system_without_hard_links_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    path = tmp_path / "table.csv"

    with writing(path) as temporary:
        temporary.write_text("whole", encoding="utf-8")
    with pytest.raises(Conflict), writing(path):
        pass

    assert path.read_text(encoding="utf-8") == "whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError(f"Can't write (errno = {errno.ENOSPC}, error message = 'No space left on device')"),
    ],
)
def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(OutOfSpace, match=r"the disk is full: .*x\.h5r"), clear_errors(tmp_path / "x.h5r"):
        raise error


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(Invalid, match=r"the folder .*file cannot be written"),
        writing(tmp_path / "file" / "x.csv"),
    ):
        pass


def test_looking_whether_a_file_could_be_written_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    check_writable(tmp_path / "mine" / "a.h5r")
    check_writable(tmp_path / "new" / "analysis" / "a.h5r")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Invalid, match="file"):
        check_writable(tmp_path / "file" / "analysis" / "a.h5r")

    assert sorted(tmp_path.rglob("*")) == [tmp_path / "file", tmp_path / "mine"]


def test_a_folder_that_vanishes_as_a_file_is_begun_there_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = Path.touch

    def after_it_was_removed(path: Path, *, exist_ok: bool = True) -> None:
        monkeypatch.setattr(Path, "touch", touch)
        path.parent.rmdir()
        touch(path, exist_ok=exist_ok)

    monkeypatch.setattr(Path, "touch", after_it_was_removed)

    assert temporary_for(tmp_path / "analysis" / "a.h5r").exists()


def test_room_is_looked_for_before_writing(tmp_path: Path) -> None:
    check_room(tmp_path / "x.h5r", 1000, free=lambda _: 100 << 20)

    with pytest.raises(OutOfSpace, match=r"needs 200\.0 MB"):
        check_room(tmp_path / "x.h5r", 200_000_000, free=lambda _: 100 << 20)


@pytest.mark.parametrize("letter", ["a", "字", "é", "😀"])
def test_the_longest_name_that_a_file_can_have_has_a_temporary_one(tmp_path: Path, letter: str) -> None:
    name = letter * ((255 - len(".h5r")) // len(letter.encode())) + ".h5r"

    with writing(tmp_path / name) as temporary:
        temporary.write_bytes(b"whole")

    assert [file.name for file in tmp_path.iterdir()] == [name]
