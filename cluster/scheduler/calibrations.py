"""Calibrations that people ask for: checked here, made by the data server that has the series."""

from __future__ import annotations

import re
import secrets
from typing import Final

from cluster.calibrating.kinds import check
from cluster.errors import NotFound
from cluster.protocol import CalibrationOrder, CalibrationRequest, CalibrationRun
from cluster.scheduler.dataservers import SeriesSource

_ID: Final = re.compile("[0-9a-f]{16}")


class CalibrationDesk:
    """Passes calibrations on; keeps nothing itself."""

    def __init__(self, source: SeriesSource) -> None:
        self._source = source

    async def start(self, request: CalibrationRequest) -> CalibrationRun:
        """Have a calibration made.

        Raises
        ------
        Invalid, NotFound, Conflict
            If a field is wrong, a series is not there, or the output exists; names it.
        Unavailable
            If no data server answers.
        """
        check(request)
        return await self._source.calibrate(CalibrationOrder(id=secrets.token_hex(8), request=request))

    async def all(self) -> list[CalibrationRun]:
        """Return the calibrations that data servers know of, newest first, without their numbers."""
        return await self._source.calibration_runs()

    async def one(self, run_id: str) -> CalibrationRun:
        """Return one; raises `NotFound`."""
        return await self._source.calibration_run(_checked(run_id))

    async def cancel(self, run_id: str) -> CalibrationRun:
        """End one, unless it has ended, and return it; raises `NotFound`."""
        return await self._source.cancel_calibration(_checked(run_id))

    async def report(self, run_id: str) -> bytes:
        """Return its picture; raises `NotFound`, or `Conflict` while there is none."""
        return await self._source.calibration_report(_checked(run_id))


def _checked(run_id: str) -> str:
    """Return an id as it goes into a route of a data server; what is none is no calibration's."""
    if not _ID.fullmatch(run_id):
        raise NotFound(f"there is no calibration {run_id[:100]!r}")
    return run_id
