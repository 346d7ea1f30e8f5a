"""A short run of what anyone can run for longer: `python -m tests.soak --minutes 60`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.samples import Sample, Samples, slope

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_cluster_that_is_used_for_a_while_does_not_grow() -> None:
    """Half a minute is too short for memory, which is still warming up; descriptors, threads and files are looked at."""
    out = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "0.5", "--seed", "7", "--every-s", "1"],
        check=False, capture_output=True, text=True, cwd=ROOT, timeout=580, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert "BROKEN" not in out.stdout, out.stdout + out.stderr
    most = {
        (role, what): float(value)
        for role, what, value in re.findall(
            r"^ *(scheduler|dataserver|worker \d) +(\w+) +[\d.]+ +[\d.]+ +([\d.]+)", out.stdout, re.MULTILINE
        )
    }
    assert most["scheduler", "descriptors"] < 60, out.stdout
    assert most["scheduler", "threads"] < 60, out.stdout
    assert most["dataserver", "descriptors"] < 80, out.stdout
    assert most["worker 1", "descriptors"] < 40, out.stdout
    assert most["scheduler", "results"] < 5.0, out.stdout


def test_a_slope_is_that_of_the_line_and_no_peak_moves_it() -> None:
    line = [Sample(float(at), 0, 5.0 + 2.0 * at) for at in range(20)]

    assert slope(line) == 2.0
    assert slope([*line, Sample(20.0, 0, 1e9)]) == 2.0
    assert slope([Sample(0.0, 0, 1.0)]) == 0.0


def test_what_grows_is_noticed_and_what_a_job_may_take_is_not(tmp_path: Path) -> None:
    samples = Samples(tmp_path)
    for minute in range(60):
        samples.note("scheduler", "rss", 60.0 * minute, 10 * minute, 1e8 + 8e3 * 10 * minute)  # 8 kB a job
        samples.note("scheduler", "descriptors", 60.0 * minute, 10 * minute, 20 + minute)

    grows = {trend.what: trend.grows(hours=1.0) for trend in samples.trends()}

    assert grows == {"rss": False, "descriptors": True}
