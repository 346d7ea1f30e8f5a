"""The tables of failures and of what is kept out name tests; they must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
TABLES = [TESTS.parent / "docs" / name for name in ("failure.md", "security.md")]
_NAMED = re.compile(r"`(?P<file>[\w/]+/[\w/]+\.py|…)(?:::(?P<test>\w+))?`")


def named_tests(table: str) -> list[tuple[str, str | None]]:
    """Every (file, test) that the table names; `…` stands for the file named last."""
    named: list[tuple[str, str | None]] = []
    for found in _NAMED.finditer(table):
        file = named[-1][0] if found["file"] == "…" else found["file"]
        named.append((file, found["test"]))
    return named


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.name)
def test_every_test_that_the_table_names_exists(table: Path) -> None:
    named = named_tests(table.read_text(encoding="utf-8"))

    missing = [
        (file, test)
        for file, test in named
        if not (TESTS / file).is_file()
        or (test is not None and f"def {test}(" not in (TESTS / file).read_text(encoding="utf-8"))
    ]

    assert len(named) > 40
    assert missing == []


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.name)
def test_every_row_names_a_test(table: Path) -> None:
    rows = [line for line in table.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]

    assert [row for row in rows if not row.startswith("| **") and not _NAMED.search(row)] == []
