"""Columns as a file: what was worked out of a result once, there again in a fiftieth of the time that decoding its rows takes.

The file is made of numpy's arrays, one behind the other: the layout and the names of the columns; then, block by block, how long it is, how many rows are hidden in it, and
its columns; at the end, how many rows of the result all this is of. It is a copy, so one that is not whole, or of another layout, is as good as none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from cluster.errors import Invalid
from cluster.results.columns import Columns
from cluster.results.publish import writing

__all__ = ["read_columns", "write_columns"]

_LAYOUT: Final = "clusterofone columns 1"
_END: Final = -1


def write_columns(path: Path, parts: Iterable[tuple[int, Columns]]) -> None:
    """Write parts of a result, each with the number of rows that it was made of; all parts have the same columns.

    Raises
    ------
    OutOfSpace
        If the disk is full; nothing is left of it then.
    """
    rows, names = 0, None
    with writing(path, replace=True) as temporary, temporary.open("wb") as file:
        for count, columns in parts:
            present = columns.present
            if names is None:
                names = list(present)
                _write(file, np.array([_LAYOUT, *names]))
            _write(file, np.array([len(columns), columns.hidden], np.int64))
            for name in names:
                _write(file, present[name])
            rows += count
        if names is None:
            _write(file, np.array([_LAYOUT]))
        _write(file, np.array([_END, rows], np.int64))


def read_columns(path: Path) -> tuple[list[Columns], int]:
    """Return the parts, and how many rows of the result they are of.

    Raises
    ------
    Invalid
        If it is not a whole file of this layout.
    OSError
        If there is none.
    """
    found: list[Columns] = []
    with path.open("rb") as file:
        layout, *names = _read(file).tolist()
        if layout != _LAYOUT:
            raise Invalid(f"{path} is of another layout")
        while True:
            length, other = (int(value) for value in _read(file))
            if length == _END:
                return found, other
            columns = {name: _read(file) for name in names}
            if any(column.shape != (length,) for column in columns.values()):
                raise Invalid(f"{path} is damaged")
            found.append(_columns(columns, other, path))


def _columns(columns: dict[str, Any], hidden: int, path: Path) -> Columns:
    try:
        return Columns(**columns, hidden=hidden)
    except TypeError:
        raise Invalid(f"{path} has other columns") from None


def _write(file: IO[bytes], array: np.ndarray[Any, Any]) -> None:
    np.lib.format.write_array(file, array, allow_pickle=False)


def _read(file: IO[bytes]) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        raise Invalid(f"{file.name} is not whole") from error
    return array
