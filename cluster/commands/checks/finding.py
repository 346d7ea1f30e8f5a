"""One thing looked at, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. A note is worth knowing; a problem must be mended, and `detail` says how."""

    what: str
    verdict: Verdict
    detail: str


def ok(what: str, detail: str) -> Finding:
    """Return that a thing is as it should be."""
    return Finding(what, "ok", detail)


def note(what: str, detail: str) -> Finding:
    """Return what is worth knowing of a thing."""
    return Finding(what, "note", detail)


def problem(what: str, detail: str) -> Finding:
    """Return what must be mended."""
    return Finding(what, "problem", detail)
