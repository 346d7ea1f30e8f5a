"""Workers that start at the same time on a machine that has never compiled anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

TOGETHER = 3
CODE = """
import hashlib
import numpy as np
from fitting import fit_rois

y, x = np.mgrid[:9, :9]
spot = 10 + 80 * np.exp(-((x - 4.2) ** 2 + (y - 3.9) ** 2) / 3.4)
rows = fit_rois(np.random.default_rng(1).poisson(spot, (200, 9, 9)))
assert (rows["status"] == 1).all()
print(hashlib.sha256(rows.tobytes()).hexdigest())
"""


def _start(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CODE],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_workers_that_compile_at_the_same_time_agree_and_leave_a_cache_that_can_be_used(
    tmp_path: Path,
) -> None:
    workers = [_start(tmp_path) for _ in range(TOGETHER)]
    ended = [(*worker.communicate(timeout=200), worker.returncode) for worker in workers]
    kept = {path.name for path in tmp_path.rglob("*.nbc")}
    later = _start(tmp_path)
    said, complaint = later.communicate(timeout=200)

    assert [code for _, _, code in ended] == [0] * TOGETHER, [wrong for _, wrong, _ in ended]
    assert later.returncode == 0, complaint
    assert {out for out, _, _ in ended} == {said}
    assert kept
    assert {path.name for path in tmp_path.rglob("*.nbc")} == kept, "the later one compiled nothing"


def test_what_a_second_worker_compiles_meanwhile_is_the_fit_and_not_what_the_first_begins_with(
    tmp_path: Path,
) -> None:
    code = "from fitting.warm import warm_up_fit; warm_up_fit({})"

    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        check=True,
        timeout=200,
    )

    kept = {path.name.partition("-")[0] for path in tmp_path.rglob("*.nbc")}
    assert "mle.fit_blocks" in kept
    assert "scan.scan" not in kept
