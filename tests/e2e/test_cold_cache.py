"""Workers that start at the same time on a machine that has never compiled anything."""

from __future__ import annotations

import json
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


SHARE = [sys.executable, "-W", "error", "-P", "-m", "fitting.warm", json.dumps({}), "uint16"]


def _kept(cache: Path) -> list[str]:
    """Names of the kernels that lie compiled in a cache, once for each set of types."""
    return sorted(path.name.partition("-")[0] for path in cache.rglob("*.nbc"))


def _share(cache: Path) -> subprocess.Popen[bytes]:
    """The second of the two processes that compile at a first start."""
    return subprocess.Popen(
        SHARE, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    )


def _warm_up(cache: Path) -> None:
    code = "from fitting import warm_up; warm_up({})"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True, timeout=200)


def test_what_the_second_process_compiles_the_first_one_does_not_and_the_next_one_nothing(
    tmp_path: Path,
) -> None:
    with _share(tmp_path) as share:
        assert share.wait(200) == 0, share.stderr and share.stderr.read()
    shared = _kept(tmp_path)

    _warm_up(tmp_path)
    all_of_them = _kept(tmp_path)
    _warm_up(tmp_path)

    assert {
        "scan.put_found",
        "mle.fit_blocks",
        "neighbours.compose",
        "background.percentile_level",
    } <= set(shared)
    assert "scan.scan" not in shared
    assert [name for name in all_of_them if name in shared] == shared, "none for other types"
    assert "scan.scan" in all_of_them
    assert _kept(tmp_path) == all_of_them


def test_the_second_process_ends_with_the_first(tmp_path: Path) -> None:
    share = _share(tmp_path)

    share.communicate(timeout=100)

    assert "background.percentile_level" not in _kept(tmp_path), "it had not come to its end"
