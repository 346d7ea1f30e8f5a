"""Moments as people and batch systems write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster.commands.console import USAGE, Refused
from cluster.commands.until import moment

NOW = datetime(2026, 3, 4, 22, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50m", 3000), ("+50m", 3000), ("1h30m", 5400), ("2d", 172_800), ("1d2h3m4s", 93_784), ("45s", 45)],
)
def test_a_span_counts_from_now(text: str, seconds: int) -> None:
    assert moment(text, NOW) == NOW + timedelta(seconds=seconds)


def test_a_time_of_day_is_the_next_such_one() -> None:
    assert moment("23:30", NOW) == datetime(2026, 3, 4, 23, 30, tzinfo=UTC)
    assert moment("07:05", NOW) == datetime(2026, 3, 5, 7, 5, tzinfo=UTC)
    assert moment("22:15", NOW) == datetime(2026, 3, 5, 22, 15, tzinfo=UTC)


def test_a_date_is_local_unless_it_says_otherwise() -> None:
    assert moment("2026-11-26T23:30", NOW) == datetime(2026, 11, 26, 23, 30, tzinfo=UTC)
    assert moment("2026-11-26T23:30+01:00", NOW) == datetime(2026, 11, 26, 22, 30, tzinfo=UTC)


def test_slurm_says_the_end_in_unix_seconds() -> None:
    assert moment(f"@{int(NOW.timestamp()) + 90}", NOW) == NOW.replace(microsecond=0) + timedelta(seconds=90)


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "12:99", "5", "@", "@x", "1h2d", "-5m", "9" * 30 + "d"]
)
def test_anything_else_is_refused_with_what_can_be_written(text: str) -> None:
    with pytest.raises(Refused, match="write a span") as refused:
        moment(text, NOW)

    assert refused.value.status == USAGE
