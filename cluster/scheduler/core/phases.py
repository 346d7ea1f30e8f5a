"""Life of a job, as values. This file owns every transition of a job; no other one makes a job phase.

    Queued ──start──► Running ──settle──► Merging ──finish──► Finished
       │                 │ ▲                 └──break_off──► Broken ──settle──► Merging
       │                 │ └──────retry─────── Finished (with errors), Broken
       └─────cancel──────┴──► Cancelling ──finish──► Cancelled

`Merging` and `Cancelling` mean that every result there will be is committed and its file is being written. Only when
the file is in place does the job end.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queued:
    """No task has been leased yet."""

    def start(self) -> Running:
        """Note the first lease."""
        return Running()

    def settle(self) -> Merging:
        """Note that there is no frame to cover."""
        return Merging()

    def cancel(self) -> Cancelling:
        """Stop before it began."""
        return Cancelling()


@dataclass(frozen=True, slots=True)
class Running:
    """Tasks are leased, or wait to be leased again."""

    def settle(self) -> Merging:
        """Note that every task is done or failed."""
        return Merging()

    def cancel(self) -> Cancelling:
        """Stop, and keep what is finished."""
        return Cancelling()


@dataclass(frozen=True, slots=True)
class Merging:
    """Every task is settled; the result file is being written."""

    def finish(self, *, errors: bool) -> Finished:
        """Note that the file is in place."""
        return Finished(errors)

    def break_off(self, reason: str) -> Broken:
        """Note that the file could not be written; the results are kept."""
        return Broken(reason)


@dataclass(frozen=True, slots=True)
class Cancelling:
    """Cancelled; the file of the finished frames is being written."""

    def finish(self, reason: str | None = None) -> Cancelled:
        """Note that the partial file is in place, or why it is not."""
        return Cancelled(reason)


@dataclass(frozen=True, slots=True)
class Finished:
    """The result file is in place; `errors` says that frames failed."""

    errors: bool

    def retry(self) -> Running:
        """Open again for the tasks that failed."""
        return Running()


@dataclass(frozen=True, slots=True)
class Broken:
    """The result file could not be written."""

    reason: str

    def retry(self) -> Running:
        """Open again for the tasks that failed."""
        return Running()

    def settle(self) -> Merging:
        """Write the file again; no task failed."""
        return Merging()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A person stopped it; `reason` says what became of the partial file if it is not there."""

    reason: str | None = None


Phase = Queued | Running | Merging | Cancelling | Finished | Broken | Cancelled
Active = Queued | Running
Ended = Finished | Broken | Cancelled
