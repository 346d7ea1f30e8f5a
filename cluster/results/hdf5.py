"""A new HDF5 file that is written whole or not at all, and survives a disk that fills up."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from cluster.errors import Invalid
from cluster.results.publish import IfExists, check_room, clear_errors, free_bytes, publish, temporary_for

_CHUNK_BYTES = 128 << 10
_DEFLATE_LEVEL = 5  # as the file says; ISA-L's own level 1 packs as tightly, six times as fast
_ISAL_LEVEL = 1
_CACHE_BYTES = 1 << 20  # of each table; HDF5 may hold so much unwritten
_BALLAST_BYTES = 4 << 20
_FIRST_BYTES = 1 << 20
_PACKERS = min(4, os.cpu_count() or 1)
_MOST_UNWRITTEN = 4 * _PACKERS  # chunks


class Table:
    """A table that grows: shuffled and deflated as PyTables makes them, whole chunks at a time.

    The chunks are made here, by the threads of `packers`, and handed to HDF5 as they shall lie in the file: its own
    deflate takes more time than all else that is done to make a result file.
    """

    def __init__(
        self, root: h5py.File, name: str, dtype: np.dtype[np.void], packers: ThreadPoolExecutor
    ) -> None:
        self._rows_a_chunk = max(1, _CHUNK_BYTES // dtype.itemsize)
        self._dataset = root.create_dataset(
            name,
            shape=(0,),
            dtype=dtype,
            maxshape=(None,),
            chunks=(self._rows_a_chunk,),
            compression="gzip",
            compression_opts=_DEFLATE_LEVEL,
            shuffle=True,
        )
        self._packers = packers
        self._chunk = np.zeros(self._rows_a_chunk, dtype)  # that is not full
        self._begun = 0  # how many rows of it there are
        self._unwritten: deque[tuple[int, Future[bytes]]] = deque()  # chunks: how many rows, and packed

    @property
    def name(self) -> str:
        """Return its path in the file."""
        return str(self._dataset.name)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Return the type of a row."""
        return self._dataset.dtype  # type: ignore[no-any-return]

    def append(self, rows: npt.NDArray[np.void]) -> None:
        """Append rows, which must not change any more: some are kept until their chunk is full and packed, or until `finish`."""
        at = self._begin(rows) if self._begun else 0
        for start in range(at, len(rows) - self._rows_a_chunk + 1, self._rows_a_chunk):
            at = start + self._rows_a_chunk
            self._pack(rows[start:at])
        self._begin(rows[at:])

    def finish(self) -> None:
        """Write what is left."""
        if self._begun:
            self._pack(self._chunk, self._begun)
            self._begun = 0
        self._write(leave=0)

    def _begin(self, rows: npt.NDArray[np.void]) -> int:
        """Put rows into the chunk that is not full; return how many found room."""
        taken = min(len(rows), self._rows_a_chunk - self._begun)
        self._chunk[self._begun : self._begun + taken] = rows[:taken]
        self._begun += taken
        if self._begun == self._rows_a_chunk:
            self._pack(self._chunk)
            self._chunk, self._begun = np.zeros_like(self._chunk), 0
        return taken

    def _pack(self, chunk: npt.NDArray[np.void], rows: int | None = None) -> None:
        self._unwritten.append((rows or len(chunk), self._packers.submit(_packed, chunk)))
        self._write(leave=_MOST_UNWRITTEN)

    def _write(self, *, leave: int) -> None:
        while len(self._unwritten) > leave:
            rows, packed = self._unwritten.popleft()
            filled = len(self._dataset)
            self._dataset.resize(filled + rows, axis=0)
            self._dataset.id.write_direct_chunk((filled,), packed.result())


def _packed(chunk: npt.NDArray[np.void]) -> bytes:
    shuffled = np.ascontiguousarray(chunk.view(np.uint8).reshape(len(chunk), -1).T)
    packed: bytes = isal_zlib.compress(shuffled.data, _ISAL_LEVEL)
    return packed


class NewFile:
    """A file under a temporary name, with tables that grow; `publish` gives it its own.

    HDF5 crashes the process when it must close a file and cannot write what it still holds. So room is looked for
    before rows are appended, and should the disk fill up all the same, a ballast beside the file is given up to make
    room for closing.

    Raises
    ------
    Conflict
        If the file exists (unless `if_exists` says what to do).
    Invalid
        If the folder cannot be written.
    OutOfSpace
        If the disk is full.
    """

    def __init__(
        self, path: Path, *, if_exists: IfExists = "refuse", free: Callable[[Path], int] = free_bytes
    ) -> None:
        self.path = path
        self._if_exists: IfExists = if_exists
        self._free = free
        self._temporary = temporary_for(path, if_exists=if_exists)
        self._ballast = self._temporary.with_suffix(".ballast")
        self._file: h5py.File | None = None
        self._tables: list[Table] = []
        self._packers = ThreadPoolExecutor(_PACKERS, "pack")
        try:
            check_room(path, _FIRST_BYTES, free)
            with clear_errors(path):
                self._ballast.write_bytes(os.urandom(_BALLAST_BYTES))
                # its name is ours alone, and locks fail on some network shares
                self._file = h5py.File(self._temporary, "w", locking=False, rdcc_nbytes=_CACHE_BYTES)
        except BaseException:
            self.discard()
            raise

    @property
    def root(self) -> h5py.File:
        """The open file."""
        if self._file is None:
            raise ValueError("the file is finished")
        return self._file

    def table(self, name: str, dtype: np.dtype[np.void]) -> Table:
        """Create an empty table."""
        self._tables.append(Table(self.root, name, dtype, self._packers))
        return self._tables[-1]

    def append(self, table: Table, rows: npt.NDArray[np.void]) -> None:
        """Append rows to a table."""
        if rows.dtype != table.dtype:
            raise Invalid(f"rows of {rows.dtype} do not belong in {table.name}, whose rows are {table.dtype}")
        if len(rows) == 0:
            return
        check_room(self.path, rows.nbytes, self._free)
        with clear_errors(self.path):
            table.append(rows)

    def write(self, bytes_needed: int, write: Callable[[h5py.File], Any]) -> None:
        """Let a function write something else of about that size."""
        check_room(self.path, bytes_needed, self._free)
        with clear_errors(self.path):
            write(self.root)

    def publish(self) -> Path:
        """Close the file and give it its name, which is returned."""
        with clear_errors(self.path):
            for table in self._tables:
                table.finish()
            self._close()
        self._packers.shutdown()
        return publish(self._temporary, self.path, if_exists=self._if_exists)

    def discard(self) -> None:
        """Leave nothing behind; harmless once the file is published."""
        self._packers.shutdown()
        with contextlib.suppress(OSError, RuntimeError):
            self._close()
        for leftover in (self._ballast, self._temporary):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)

    def _close(self) -> None:
        self._ballast.unlink(missing_ok=True)
        file, self._file = self._file, None
        if file is not None:
            file.close()
