"""What is tried again, and what is not."""

from __future__ import annotations

import random

import pytest

from cluster.backoff import Attempts, Backoff
from cluster.errors import ClusterError, Invalid, OutOfSpace, Unavailable


def attempts() -> Attempts:
    return Attempts(Backoff(total_s=30.0), clock=lambda: 0.0, rng=random.Random(1))


@pytest.mark.parametrize("error", [Unavailable("away"), OutOfSpace("the journal could not be written")])
def test_what_passes_by_itself_is_tried_again(error: ClusterError) -> None:
    assert attempts().pause_s(error) >= 0.0


@pytest.mark.parametrize("error", [Invalid("no"), OutOfSpace("too full", needed_bytes=2, free_bytes=1)])
def test_what_somebody_must_mend_first_is_told_at_once(error: ClusterError) -> None:
    with pytest.raises(type(error)):
        attempts().pause_s(error)
