"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC

import pytest

from cluster.web.models import wording


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (277_200, "3 d 5 h"),
        (None, "–"),
        (float("inf"), "–"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert wording.duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (19_800_000, "19.8 MB"),
        (3_200_000_000_000, "3.2 TB"),
        (None, "–"),
    ],
)
def test_sizes(number: int | None, said: str) -> None:
    assert wording.size(number) == said


def test_counts_rates_and_moments() -> None:
    assert wording.count(12_345) == "12,345"
    assert wording.count(1_234_567) == "1.23 million"
    assert wording.rate(None) == "–"
    assert wording.rate(12.345) == "12.3"
    assert wording.rate(1234.5) == "1,234"
    assert wording.plural(1, "frame") == "1 frame"
    assert wording.plural(2000, "frame") == "2,000 frames"
    assert wording.ago(100.0, 102.0) == "just now"
    assert wording.ago(100.0, 190.0) == "1 min 30 s ago"
    assert wording.moment(0.0, UTC) == "1970-01-01 00:00:00"
