"""Localisations that somebody looks at, held as columns: decoding results anew for each look would take seconds from some hundred thousand on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from cluster.results.columns import Columns
from cluster.results.quantities import Calibration
from cluster.scheduler.results import Results
from cluster.scheduler.sheets import Sheet
from cluster.scheduler.shelf import Shelf

_MOST_BYTES: Final = 1 << 30
_MOST_JOBS: Final = 16  # that people look at by turns
_BLOCK_ROWS: Final = 1 << 20


@dataclass
class _Held:
    """What is held of a job: whole blocks, and parts that will become the next one."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    blocks: list[Columns] = field(default_factory=list)
    parts: list[Columns] = field(default_factory=list)
    rows: int = 0  # that were read, those that are hidden included

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in (*self.blocks, *self.parts))


class ColumnCache:
    """The columns of the few jobs that were looked at last, within a bound of memory; one larger than that is held while it is looked at, and no longer."""

    def __init__(
        self,
        results: Results,
        shelf: Shelf | None = None,
        *,
        most_bytes: int = _MOST_BYTES,
        most_jobs: int = _MOST_JOBS,
    ) -> None:
        self._results = results
        self._shelf = shelf
        self._most_jobs = most_jobs
        self._most_bytes = most_bytes
        self._books = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def of(self, sheet: Sheet) -> list[Columns]:
        """Return all localisations of a job that are committed, in the order of their commits, in few blocks."""
        with self._books:
            held = self._held.setdefault(sheet.job_id, _Held())
            self._held.move_to_end(sheet.job_id)
        with held.turn:
            self._read_on(sheet, held)
            found = [*held.blocks, *held.parts]
        self._let_go()
        return found

    def _read_on(self, sheet: Sheet, held: _Held) -> None:
        if held.rows == 0 and self._shelf is not None:
            held.blocks, held.rows = self._shelf.take(sheet.job_id)
        calibration = Calibration.from_metadata(sheet.values)
        waiting = sum(map(len, held.parts))
        for rows in self._results.row_blocks(sheet, held.rows):
            held.rows += len(rows)
            part = Columns.of(rows, calibration)
            held.parts.append(part)
            waiting += len(part)
            if waiting >= _BLOCK_ROWS:
                held.blocks.append(Columns.joined(held.parts))
                held.parts, waiting = [], 0
        if len(held.parts) > 1:
            held.parts = [Columns.joined(held.parts)]

    def _let_go(self) -> None:
        """Forget what was looked at longest ago, until the rest is within the bounds."""
        with self._books:
            total = sum(held.nbytes for held in self._held.values())
            while self._held and (total > self._most_bytes or len(self._held) > self._most_jobs):
                total -= self._held.popitem(last=False)[1].nbytes
