"""Numbers and times as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def count(number: float) -> str:
    """Return 12,345, or 1.23 million from a million on."""
    if abs(number) >= 1e6:
        return f"{number / 1e6:.3g} million"
    return f"{round(number):,}"


def rate(per_s: float | None) -> str:
    """Return a rate with three figures; "–" where there is none."""
    if per_s is None:
        return "–"
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def duration(seconds: float | None) -> str:
    """Return 45 s, 3 min 5 s, 2 h 10 min or 3 d 4 h; "–" where there is none."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    whole = max(0, math.ceil(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ago(then: float, now: float) -> str:
    """Return how long ago a moment (Unix seconds) was."""
    passed = now - then
    return "just now" if passed < 5 else f"{duration(passed)} ago"


def size(number: int | None) -> str:
    """Return a number of bytes with its unit (1 kB is 1000 bytes)."""
    if number is None:
        return "–"
    value, unit = float(number), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.3g} {_UNITS[unit]}"


def moment(then: float | None, zone: tzinfo | None = None) -> str:
    """Return a moment (Unix seconds) as date and time of day, in this machine's zone unless one is given."""
    if then is None:
        return "–"
    return datetime.fromtimestamp(then, tz=UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def plural(number: int, word: str) -> str:
    """Return "1 frame" or "3 frames"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
