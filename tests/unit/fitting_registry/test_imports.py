"""Whoever validates settings need not wait for a compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["fitting", "fitting.fits", "fitting.errors", "fitting.localisations"])
def test_validating_settings_loads_neither_numba_nor_scipy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()

    assert {"numba", "scipy", "h5py", "pydantic"}.isdisjoint(loaded)
