"""What is logged is one line, and no terminal obeys it: names come from anywhere."""

from __future__ import annotations

import logging
import sys

import pytest

from cluster.log_format import OneLine


def formatted(message: str, *arguments: object, **more: object) -> str:
    record = logging.LogRecord("x", logging.INFO, "file", 1, message, arguments, more.get("exc_info"))  # type: ignore[arg-type]
    return OneLine("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("cell 1\nERROR all is lost", r"cell 1\nERROR all is lost"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\rb\x00\x9b31m", r"a\rb\x00\x9b31m"),
        ("abc\u202etxt", r"abc\u202etxt"),
        ("µ-cell 日本 é", "µ-cell 日本 é"),
    ],
)
def test_a_name_cannot_write_lines_of_its_own(name: str, written: str) -> None:
    assert formatted("job %s is queued", name) == f"INFO job {written} is queued"


def test_a_traceback_keeps_its_lines() -> None:
    try:
        int("no\nno")
    except ValueError:
        lines = formatted("failed", exc_info=sys.exc_info()).splitlines()

    assert lines[0] == "INFO failed"
    assert lines[1].startswith("Traceback")
