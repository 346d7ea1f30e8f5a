"""What the Python client does with calibrations; the part of `cluster.client` that is of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from cluster.errors import Internal
from cluster.protocol import (
    CalibrationKind,
    CalibrationKindInfo,
    CalibrationRequest,
    CalibrationRun,
    CalibrationRuns,
    Message,
)
from cluster.transport import BlockingLink, Reply

B = TypeVar("B", bound=BaseModel)

API: Final = "/api/v1"
POLL_S: Final = 1.0
_KINDS: Final = TypeAdapter(list[CalibrationKindInfo])


class CalibrationCalls(ABC):
    """Calibrations over a link that the client has."""

    _link: BlockingLink
    _sleep: Callable[[float], None]

    @abstractmethod
    def _again(self, method: str, path: str, body: Message | None = None, **options: Any) -> Reply:
        """Make a request that is safe to repeat, for as long as it takes."""

    def calibrate(
        self,
        kind: CalibrationKind,
        series: str | Sequence[str],
        *,
        options: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        output: str | None = None,
    ) -> CalibrationRun:
        """Start a calibration: a PSF, a shift field or camera maps; `calibration` says how it goes.

        Raises
        ------
        Invalid
            If an option or metadata key is unknown or out of range; names it.
        NotFound
            If there is no such series.
        Conflict
            If the output exists.
        """
        request = CalibrationRequest(
            kind=kind,
            series=[series] if isinstance(series, str) else list(series),
            options=dict(options or {}),
            metadata=dict(metadata or {}),
            output=output,
        )
        return self._link.request("POST", f"{API}/calibrations", request).message(CalibrationRun)

    def calibrations(self) -> list[CalibrationRun]:
        """Return the calibrations that data servers know of, newest first, without their numbers."""
        return self._again("GET", "/calibrations").message(CalibrationRuns).calibrations

    def calibration(self, calibration_id: str) -> CalibrationRun:
        """Return a calibration; raises `NotFound`."""
        return self._again("GET", _calibration_route(calibration_id)).message(CalibrationRun)

    def watch_calibration(self, calibration_id: str, *, poll_s: float = POLL_S) -> Iterator[CalibrationRun]:
        """Yield a calibration at each change, `doing` and `fraction` among them, and last as it ended.

        Raises
        ------
        NotFound
            If there is no such calibration.
        Unavailable
            If the scheduler or the data server stays away for longer than the client's back-off allows.
        """
        last: CalibrationRun | None = None
        while last is None or last.state in {"queued", "running"}:
            if last is not None:
                self._sleep(poll_s)
            run = self.calibration(calibration_id)
            if run != last:
                yield run
            last = run

    def cancel_calibration(self, calibration_id: str) -> CalibrationRun:
        """Cancel a calibration; return it, as it ended if it had already. Raises `NotFound`."""
        return self._again("DELETE", _calibration_route(calibration_id)).message(CalibrationRun)

    def calibration_report(self, calibration_id: str) -> bytes:
        """Return the report of a calibration that is done, as a PNG."""
        return self._again("GET", _calibration_route(calibration_id, "/report.png")).content

    def calibration_kinds(self) -> list[CalibrationKindInfo]:
        """Return the kinds of calibration with the schemas of their options."""
        return listed(_KINDS, self._again("GET", "/calibrations/kinds"))


def _calibration_route(calibration_id: str, tail: str = "") -> str:
    return f"/calibrations/{quote(calibration_id, safe='')}{tail}"


def listed(adapter: TypeAdapter[list[B]], reply: Reply) -> list[B]:
    """Read a list of messages."""
    try:
        return adapter.validate_json(reply.content)
    except ValidationError as error:
        raise Internal(f"{reply.url} answered in a way that this version does not understand") from error
