"""A file that another program holds open, as Windows tells of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import held_files
from cluster.errors import Invalid
from cluster.held_files import patiently
from cluster.results.publish import publish, temporary_for


def held(number: int = 32) -> PermissionError:
    error = PermissionError(
        13, "The process cannot access the file because it is being used by another process"
    )
    error.winerror = number  # type: ignore[attr-defined]  # Windows alone sets it
    return error


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was paused; nobody waits for it here."""
    taken: list[float] = []
    monkeypatch.setattr(held_files, "_pause", taken.append)
    return taken


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, Exception], None]:
    """Have a method of every path fail so many times before it works."""

    def arrange(method: str, times: int, error: Exception) -> None:
        works, left = getattr(Path, method), [times]

        def refusing(path: Path, *arguments: object, **named: object) -> object:
            if left[0] > 0:
                left[0] -= 1
                raise error
            return works(path, *arguments, **named)

        monkeypatch.setattr(Path, method, refusing)

    return arrange


@pytest.mark.parametrize("number", [5, 32, 33])
def test_it_is_tried_again_until_the_other_lets_go(pauses: list[float], number: int) -> None:
    left = [held(number)] * 6

    def action() -> str:
        if left:
            raise left.pop()
        return "done"

    assert patiently(action) == "done"
    assert len(pauses) == 6
    assert pauses == sorted(pauses)


def test_but_for_ten_seconds_at_most(pauses: list[float]) -> None:
    def action() -> None:
        raise held()

    with pytest.raises(PermissionError):
        patiently(action)

    assert 10.0 <= sum(pauses) < 10.6


def test_a_permission_that_is_lacking_is_told_at_once(pauses: list[float]) -> None:
    def action() -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError):
        patiently(action)

    assert pauses == []


def test_a_file_is_replaced_once_its_reader_has_closed_it(
    tmp_path: Path, pauses: list[float], refuse: Callable[[str, int, Exception], None]
) -> None:
    path = tmp_path / "cells.h5r"
    path.write_bytes(b"old")
    temporary = temporary_for(path, if_exists="replace or number")
    temporary.write_bytes(b"new")
    refuse("replace", 3, held())

    assert publish(temporary, path, if_exists="replace or number") == path
    assert path.read_bytes() == b"new"
    assert len(pauses) == 3


def test_one_that_is_held_for_good_stays_and_the_new_one_gets_the_next_name(
    tmp_path: Path, pauses: list[float], refuse: Callable[[str, int, Exception], None]
) -> None:
    path = tmp_path / "cells.h5r"
    path.write_bytes(b"old")
    temporary = temporary_for(path, if_exists="replace or number")
    temporary.write_bytes(b"new")
    refuse("replace", 1000, held())

    published = publish(temporary, path, if_exists="replace or number")

    assert published == tmp_path / "cells_1.h5r"
    assert (path.read_bytes(), published.read_bytes()) == (b"old", b"new")
    assert not temporary.exists()


def test_where_another_name_will_not_do_it_is_an_error_and_the_old_file_stays(
    tmp_path: Path, pauses: list[float], refuse: Callable[[str, int, Exception], None]
) -> None:
    path = tmp_path / "7.1.result"
    path.write_bytes(b"old")
    temporary = temporary_for(path, if_exists="replace")
    refuse("replace", 1000, held())

    with pytest.raises(Invalid, match="being used by another process"):
        publish(temporary, path, if_exists="replace")

    assert path.read_bytes() == b"old"


def test_removing_waits_too(
    tmp_path: Path, pauses: list[float], refuse: Callable[[str, int, Exception], None]
) -> None:
    path = tmp_path / "left.part"
    path.touch()
    refuse("unlink", 2, held())

    held_files.remove(path)
    held_files.remove(path)

    assert not path.exists()
    assert len(pauses) == 2
