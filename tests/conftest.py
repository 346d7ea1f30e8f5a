"""Fixtures every layer of the suite shares."""

from __future__ import annotations

import os

import pytest

# Before numpy is loaded: beside another busy process the threads of its linear algebra wait for each other, and what takes a second takes twenty.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
