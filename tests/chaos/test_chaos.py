"""A short run of what anyone can run for longer: `python -m tests.chaos --minutes 5`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and SIGSTOP are POSIX")
def test_whatever_is_done_to_a_real_cluster_every_table_is_that_of_an_undisturbed_run() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--minutes", "0.5", "--seed", "7", "--workers", "2"],
        check=False, capture_output=True, text=True, cwd=ROOT, timeout=580, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert out.returncode == 0, out.stdout + out.stderr
    found = re.search(r"tables +(\d+) of (\d+) are those", out.stdout)
    assert found is not None
    assert int(found[1]) == int(found[2]) > 0
    assert re.search(r"\d+  kill -9 ", out.stdout), out.stdout
