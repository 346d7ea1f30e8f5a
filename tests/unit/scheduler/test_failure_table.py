"""The table of failures names tests; they must exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[2]
TABLE = TESTS.parent / "docs" / "failure.md"
_NAMED = re.compile(r"`(?P<file>[\w/]+/[\w/]+\.py|…)(?:::(?P<test>\w+))?`")


def named_tests(table: str) -> list[tuple[str, str | None]]:
    """Every (file, test) that the table names; `…` stands for the file named last."""
    named: list[tuple[str, str | None]] = []
    for found in _NAMED.finditer(table):
        file = named[-1][0] if found["file"] == "…" else found["file"]
        named.append((file, found["test"]))
    return named


def test_every_test_that_the_table_names_exists() -> None:
    named = named_tests(TABLE.read_text(encoding="utf-8"))

    missing = [
        (file, test)
        for file, test in named
        if not (TESTS / file).is_file()
        or (test is not None and f"def {test}(" not in (TESTS / file).read_text(encoding="utf-8"))
    ]

    assert len(named) > 40
    assert missing == []


def test_every_row_names_a_test() -> None:
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]

    assert [row for row in rows if not row.startswith("| **") and not _NAMED.search(row)] == []
