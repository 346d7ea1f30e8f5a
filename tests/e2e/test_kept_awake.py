"""A real cluster says once that it keeps this computer awake, or that nothing here can; with `--let-sleep` it does neither."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WORDS = ("is kept awake while it works", "cannot be kept awake by a program")
BETWEEN_LOOKS = timedelta(seconds=10)


def said(log: str) -> list[str]:
    return [line for line in log.splitlines() if any(words in line for words in WORDS)]


def busy_for(log: str) -> timedelta:
    """How long results have been coming in."""
    times = [
        datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 -- both of one clock
        for line in log.splitlines()
        if "task committed" in line
    ]
    return times[-1] - times[0] if times else timedelta()


def test_a_cluster_says_once_that_it_keeps_the_computer_awake_and_not_if_it_is_to_let_it_sleep(
    lab: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    keeps, lets = (
        lab(*options, name=name, task_frames=50, workers=1)
        for name, options in (("keeps", ()), ("lets", ("--let-sleep",)))
    )
    roles = ("scheduler", "worker-1")
    for cluster in (keeps, lets):
        for _ in range(8):
            cluster.submit()

    eventually(lambda: all(said(keeps.log_of(role)) for role in roles), "word of it")
    eventually(
        lambda: busy_for(lets.log) > BETWEEN_LOOKS, "work for so long that it would have been looked at"
    )

    for role in roles:
        assert len(said(keeps.log_of(role))) == 1
        assert said(lets.log_of(role)) == []
        assert "wakepy" not in keeps.log_of(role)
