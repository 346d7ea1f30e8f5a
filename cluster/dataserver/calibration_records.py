"""What a data server knows of its calibrations, on the disk: one small JSON file each, in the user's state folder.

They outlive the server, so that the list and the reports are there after a restart. A record that cannot be written is missing then, and
nothing else: the files of the calibration are what counts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from cluster.errors import ClusterError
from cluster.protocol import CalibrationRun
from cluster.results.publish import writing

logger = logging.getLogger(__name__)

_MOST_BYTES: Final = 32 << 20


@dataclass(frozen=True)
class Record:
    """A calibration, and where its files are on this machine."""

    run: CalibrationRun
    root: Path
    output: Path


class Records:
    """The records in a folder; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def keep(self, record: Record) -> None:
        """Write a record, whole or not at all."""
        if self._folder is None:
            return
        facts = {
            "run": record.run.model_dump(mode="json"),
            "root": str(record.root),
            "output": str(record.output),
        }
        try:
            with writing(self._path(record.run.id), replace=True) as temporary:
                temporary.write_text(json.dumps(facts), encoding="utf-8")
        except (ClusterError, OSError, UnicodeEncodeError) as error:
            logger.warning("calibration %s will not be known after a restart: %s", record.run.id, error)

    def drop(self, run_id: str) -> None:
        """Remove a record."""
        if self._folder is None:
            return
        try:
            self._path(run_id).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the record of calibration %s stays: %s", run_id, error)

    def all(self) -> list[Record]:
        """Return the records, oldest first; what is none is passed over with a line in the log."""
        return sorted(self._found(), key=lambda record: record.run.created)

    def _found(self) -> Iterator[Record]:
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.glob("*.json"):
            try:
                yield _read(path)
            except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
                logger.warning("%s is no record of a calibration: %s", path, error)

    def _path(self, run_id: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{run_id}.json"


def _read(path: Path) -> Record:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("it is larger than any")
    facts = json.loads(path.read_text(encoding="utf-8"))
    run = CalibrationRun.model_validate(facts["run"])
    if run.id != path.stem:
        raise ValueError(f"it is of calibration {run.id}")
    return Record(run, Path(facts["root"]), Path(facts["output"]))
