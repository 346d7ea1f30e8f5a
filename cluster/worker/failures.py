"""What a failed attempt is called, so that the scheduler knows whether another worker should try."""

from __future__ import annotations

import traceback
from typing import Final, Literal

from cluster.errors import ClusterError, Conflict, Invalid, NotFound, TooLarge
from cluster.protocol import TaskFailure
from fitting.errors import FittingError

_INVALID: Final = (FittingError, NotFound, Invalid, TooLarge)
_MESSAGE_CHARACTERS: Final = 4000
_TRACEBACK_CHARACTERS: Final = 60_000


def failure_of(error: BaseException, attempt: int) -> TaskFailure:
    """Return what to tell the scheduler about an attempt that ended in `error`.

    Input that no worker could use is "invalid", and "changed" if it is because a file is another now; what this worker in particular cannot get is "refused"; anything else
    is an "error" of the fit, and its traceback travels with it.
    """
    message = (str(error) or type(error).__name__)[:_MESSAGE_CHARACTERS]
    kind = _kind(error)
    if kind != "error":
        return TaskFailure(kind=kind, attempt=attempt, message=message)
    trace = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    return TaskFailure(
        kind="error", attempt=attempt, message=f"{type(error).__name__}: {message}"[:4096], traceback=trace
    )


def handed_back(attempt: int) -> TaskFailure:
    """Return what a worker says of an attempt that it gives up because it is asked to stop."""
    return TaskFailure(kind="handed_back", attempt=attempt, message="the worker stops as planned")


def _kind(error: BaseException) -> Literal["invalid", "changed", "refused", "error"]:
    if isinstance(error, Conflict):
        return "changed"
    if isinstance(error, _INVALID):
        return "invalid"
    return "refused" if isinstance(error, ClusterError) else "error"
