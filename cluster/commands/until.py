"""Moments as people and batch systems write them: `--until 23:30`, `+50m`, `2026-11-26T23:30`, `@1796000000`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from cluster.commands import console

_SPAN: Final = re.compile(r"\+?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})")
_UNITS: Final = ("days", "hours", "minutes", "seconds")


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that a text means, seen from `now`, which carries its time zone.

    A time of day is the next such one; a date without a zone is local; `@` is Unix seconds, as `$SLURM_JOB_END_TIME`.

    Raises
    ------
    Refused
        If it is none of these; names all of them.
    """
    found = _span(text, now) or _clock(text, now) or _written_out(text, now)
    if found is None:
        console.refuse(
            f"--until {text}: write a span (50m, 1h30m), a time of day (23:30), a date (2026-11-26T23:30) "
            "or Unix seconds (@1796000000)",
            console.USAGE,
        )
    return found


def _span(text: str, now: datetime) -> datetime | None:
    match = _SPAN.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    amounts = {unit: int(amount) for unit, amount in zip(_UNITS, match.groups(), strict=True) if amount}
    try:
        return now + timedelta(**amounts)
    except OverflowError:
        return None


def _clock(text: str, now: datetime) -> datetime | None:
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    try:
        today = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    except ValueError:
        return None
    return today if today > now else today + timedelta(days=1)


def _written_out(text: str, now: datetime) -> datetime | None:
    try:
        if text.startswith("@"):
            return datetime.fromtimestamp(float(text[1:]), now.tzinfo)
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=now.tzinfo)
