"""The account of frames balances, and says which were lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cluster.errors import Invalid
from cluster.results.ledger import FrameCounts, Ledger
from fitting.localisations import FrameStatus

L, S, F = FrameStatus.LOCALISED, FrameStatus.SKIPPED, FrameStatus.FAILED


def rows_in(make_rows: Callable[..., np.ndarray], *frames: int) -> np.ndarray:
    rows = make_rows(len(frames))
    rows["tIndex"] = frames
    return rows


def status(*states: FrameStatus) -> np.ndarray:
    return np.array(states, np.uint8)


def test_every_frame_is_in_exactly_one_state(make_rows: Callable[..., np.ndarray]) -> None:
    ledger = Ledger.empty(6)
    assert ledger.counts == FrameCounts(total=6, localised=0, skipped=0, failed=0, not_analysed=6)
    assert not ledger.counts.balanced

    ledger.record(0, status(S, L, L), rows_in(make_rows, 1, 1))
    ledger.record(4, status(L, F), rows_in(make_rows, 4), {5: "unreadable"})
    ledger.fail(3, 4, "no worker could")

    assert ledger.counts == FrameCounts(total=6, localised=3, skipped=1, failed=2, not_analysed=0)
    assert ledger.counts.balanced
    assert ledger.localisations.tolist() == [0, 2, 0, 0, 1, 0]


def test_a_frame_without_molecules_differs_from_one_never_analysed(
    make_rows: Callable[..., np.ndarray],
) -> None:
    ledger = Ledger.empty(2)
    ledger.record(0, status(L), make_rows(0))

    assert ledger.localisations.tolist() == [0, 0]
    assert ledger.status.tolist() == [L, FrameStatus.NOT_ANALYSED]


def test_failures_are_told_as_runs_with_their_reasons() -> None:
    ledger = Ledger.empty(100)
    ledger.fail(10, 20, "missing")
    ledger.fail(20, 22, "unreadable")
    ledger.fail(50, 51, "unreadable")
    ledger.status[60] = F

    assert list(ledger.failed_ranges()) == [
        (10, 20, "missing"),
        (20, 22, "unreadable"),
        (50, 51, "unreadable"),
        (60, 61, ""),
    ]


@pytest.mark.parametrize(
    ("start", "states", "frames", "said"),
    [
        (8, (L, L, L), (), "not in a series"),
        (-1, (L,), (), "not in a series"),
        (2, (L, L), (4,), "outside frames 2 to 4"),
        (2, (L, L), (1,), "outside frames 2 to 4"),
        (2, (L, S), (3,), "not localised"),
    ],
)
def test_a_result_that_cannot_be_is_refused(
    make_rows: Callable[..., np.ndarray],
    start: int,
    states: tuple[FrameStatus, ...],
    frames: tuple[int, ...],
    said: str,
) -> None:
    ledger = Ledger.empty(10)

    with pytest.raises(Invalid, match=said):
        ledger.record(start, status(*states), rows_in(make_rows, *frames))
    assert ledger.counts.not_analysed == 10
