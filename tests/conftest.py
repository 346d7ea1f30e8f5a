"""Fixtures every layer of the suite shares."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Before numpy is loaded: beside another busy process the threads of its linear algebra wait for each other, and what takes a second takes twenty.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The same examples each time, so that a change is judged by what it changed; HYPOTHESIS_PROFILE=search looks for new ones,
# and long for very many.
settings.register_profile("same", derandomize=True)
settings.register_profile("search")
settings.register_profile("long", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
