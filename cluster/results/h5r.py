"""PYME's results file, `.h5r`: written so that PYME and PyTables open it as their own, and read without trusting it.

`/FitResults` (and `/DriftResults`, `/Events`) are compound tables, `/MetaData` is a tree of attributes, `/Provenance`
is ours. No other resizable dataset may lie at the root: PYME would take the file for an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid, NotFound
from cluster.pyme_metadata import read_tree
from cluster.results.hdf5 import NewFile, Table
from cluster.results.metadata_tree import write_tree
from cluster.results.provenance import GROUP, Provenance, read_provenance, write_provenance
from cluster.results.publish import IfExists, free_bytes

__all__ = ["EVENTS_DTYPE", "Reader", "Results", "Writer", "events_table", "read"]

Rows = npt.NDArray[np.void]

EVENTS_DTYPE = np.dtype([("EventDescr", "S256"), ("EventName", "S32"), ("Time", "<f8")])

_TABLES = ("FitResults", "DriftResults", "Events")
_METADATA_BYTES = 1 << 20
_MOST_ROWS = 1 << 31
_WIDEST_ROW = 1 << 16
_MADE_BY = " (.h5r); clusterofone localise makes one of a series"
_FILTERS = frozenset(
    {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
)

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Results:
    """A results file in memory; `provenance` is None for a file that clusterofone did not write."""

    rows: Rows
    events: Rows
    metadata: dict[str, Any]
    provenance: Provenance | None
    fiducials: Rows | None = None


def events_table(events: Iterable[tuple[str, str, float]]) -> Rows:
    """Make the rows of `/Events` from (name, description, time [s]) triples."""
    rows = [(_cut(description, 256), _cut(name, 32), time) for name, description, time in events]
    return np.array(rows, EVENTS_DTYPE)


def _cut(text: str, limit: int) -> bytes:
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").encode("utf-8")


class Writer:
    """Writes one results file, block by block; it appears under its name when it is whole.

    Use it as a context manager: a block that ends without `finish`, or by an exception, leaves nothing.

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
        self,
        path: Path,
        dtype: np.dtype[np.void],
        metadata: Mapping[str, Any],
        *,
        events: Rows | None = None,
        if_exists: IfExists = "refuse",
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._file = NewFile(path, if_exists=if_exists, free=free)
        self._drift: Table | None = None
        try:
            self._fits = self._file.table("FitResults", dtype)
            self._file.write(
                _METADATA_BYTES, lambda root: write_tree(root.create_group("MetaData"), metadata)
            )
            if events is not None and len(events):
                self._file.append(self._file.table("Events", EVENTS_DTYPE), events.astype(EVENTS_DTYPE))
        except BaseException:
            self.discard()
            raise

    def append(self, rows: Rows) -> None:
        """Append localisations."""
        self._file.append(self._fits, rows)

    def append_fiducials(self, rows: Rows) -> None:
        """Append fiducial fits, to `/DriftResults`."""
        if self._drift is None:
            self._drift = self._file.table("DriftResults", rows.dtype)
        self._file.append(self._drift, rows)

    def finish(self, provenance: Provenance) -> Path:
        """Complete the file and give it its name; returns that name.

        Raises
        ------
        Conflict, OutOfSpace
            As when it was begun; nothing is left then.
        """
        try:
            ledger_bytes = 5 * len(provenance.ledger.status)
            self._file.write(_METADATA_BYTES + ledger_bytes, lambda root: write_provenance(root, provenance))
            return self._file.publish()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing behind; harmless once the file is finished."""
        self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class Reader:
    """An open results file, ours or PYME's, read in blocks; use it as a context manager.

    Links, external and virtual datasets and unknown filters are refused, and nothing is unpickled.

    Raises
    ------
    NotFound
        If there is no such file.
    Invalid
        If it is not a results file, or refers to anything outside itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise NotFound(f"{path}: no such file", path=str(path))
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise Invalid(f"{path} is not an HDF5 file, as results are{_MADE_BY}", field="path") from error
        try:
            self._tables = self._find_tables()
        except BaseException:
            self._file.close()
            raise

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of a localisation."""
        return self._tables["FitResults"].dtype  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self._tables["FitResults"])

    def blocks(self, rows: int = 1 << 17, advance: Advance | None = None) -> Iterator[Rows]:
        """Yield the localisations in order, at most `rows` at a time; `advance` hears how many of how many are done."""
        for start in range(0, len(self), rows):
            yield self._rows("FitResults", start, start + rows)
            if advance is not None:
                advance(min(start + rows, len(self)), len(self))

    def rows(self, start: int, stop: int) -> Rows:
        """Return localisations [start, stop), as they lie in the file."""
        return self._rows("FitResults", start, stop)

    def table(self, name: str) -> Rows | None:
        """Return all rows of a table, or None where there is none."""
        return self._rows(name, 0, _MOST_ROWS) if name in self._tables else None

    def metadata(self) -> dict[str, Any]:
        """Return the metadata by PYME's keys; empty where there is none."""
        group = self._find_group("MetaData")
        return {} if group is None else read_tree(group)

    def provenance(self) -> Provenance | None:
        """Return where the results come from, None for a file of PYME's."""
        return read_provenance(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, name: str, start: int, stop: int) -> Rows:
        try:
            rows: Rows = self._tables[name][start:stop]
        except OSError as error:
            raise Invalid(f"{self.path}: /{name} is damaged: {error}") from error
        return rows

    def _find_tables(self) -> dict[str, h5py.Dataset]:
        found = {name: table for name in _TABLES if (table := self._find(name)) is not None}
        if "FitResults" not in found:
            raise Invalid(f"{self.path} has no FitResults table: it is no result{_MADE_BY}", field="path")
        self._find_group(GROUP)
        return found

    def _find(self, name: str) -> h5py.Dataset | None:
        found = self._hard(name)
        if found is None:
            return None
        if not isinstance(found, h5py.Dataset) or not _is_table(found):
            raise Invalid(f"{self.path}: /{name} is not a table")
        if found.external or found.is_virtual:
            raise Invalid(f"{self.path}: /{name} keeps its rows in another file; that is not followed")
        filters = found.id.get_create_plist()
        if not {filters.get_filter(at)[0] for at in range(filters.get_nfilters())} <= _FILTERS:
            raise Invalid(f"{self.path}: /{name} is compressed in a way that is not known here")
        if len(found) > _MOST_ROWS:
            raise Invalid(f"{self.path}: /{name} claims {len(found)} rows")
        return found

    def _find_group(self, name: str) -> h5py.Group | None:
        found = self._hard(name)
        if found is not None and not isinstance(found, h5py.Group):
            raise Invalid(f"{self.path}: /{name} is not a group")
        return found

    def _hard(self, name: str) -> Any:
        link = self._file.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise Invalid(f"{self.path}: /{name} is a link to elsewhere; links are not followed")
        try:
            return self._file[name]
        except (KeyError, OSError, RuntimeError) as error:
            raise Invalid(f"{self.path}: /{name} is damaged: {error}") from error


def _is_table(found: h5py.Dataset) -> bool:
    kind = found.dtype
    return found.ndim == 1 and kind.names is not None and not kind.hasobject and kind.itemsize <= _WIDEST_ROW


def read(path: Path) -> Results:
    """Read a results file whole.

    Raises
    ------
    Invalid
        As for `Reader`.
    """
    with Reader(path) as reader:
        rows, events = reader.table("FitResults"), reader.table("Events")
        assert rows is not None
        return Results(
            rows=rows,
            events=np.empty(0, EVENTS_DTYPE) if events is None else events,
            metadata=reader.metadata(),
            provenance=reader.provenance(),
            fiducials=reader.table("DriftResults"),
        )
