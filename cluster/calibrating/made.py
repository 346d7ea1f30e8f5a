"""What a calibration hands back, and how it tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Level = Literal["warning", "note", "good"]
Advance = Callable[[str, int, int | None], None]
"""Hears what is being done, how much of it is, and of how much; frames, while a series is read."""


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know of a calibration."""

    level: Level
    text: str


@dataclass(frozen=True)
class Made:
    """Files that were written, by what they are; what a person should know; and numbers for programs."""

    files: Mapping[str, Path]
    findings: tuple[Finding, ...]
    numbers: Mapping[str, Any]


def nobody(_doing: str, _done: int, _total: int | None) -> None:
    """Hear of progress and tell nobody."""
