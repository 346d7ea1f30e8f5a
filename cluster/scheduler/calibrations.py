"""Calibrations that people ask for: checked here, made by the data server that has the series."""

from __future__ import annotations

import secrets

from cluster.calibrating.kinds import check
from cluster.protocol import CalibrationOrder, CalibrationRequest, CalibrationRun
from cluster.scheduler.dataservers import SeriesSource


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
        return await self._source.calibration_run(run_id)

    async def report(self, run_id: str) -> bytes:
        """Return its picture; raises `NotFound`, or `Conflict` while there is none."""
        return await self._source.calibration_report(run_id)
