"""A job as people see it in the list and on its page."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.protocol import FailedFrames, Job
from cluster.web.models.job_lines import failures, line_of, nothing_happens, pyme_command

NOW = 1_000.0


def job(**changes: Any) -> Job:
    facts: dict[str, Any] = {
        "id": "j1",
        "name": "cells",
        "owner": "ada",
        "machine": "m",
        "kind": "localise",
        "state": "running",
        "series": "day 1/cells.tif",
        "priority": 0,
        "fit": "LatGaussFitFR",
        "frames": {"total": 1000, "localised": 240, "skipped": 10, "failed": 0},
        "tasks_running": 2,
        "retries": 0,
        "localisations": 5000,
        "rate_frames_per_s": 50.0,
        "eta_s": 15.0,
        "output": None,
        "error": None,
        "created": 900.0,
        "started": 990.0,
        "finished": None,
    }
    return Job.model_validate({**facts, **changes})


def frames(localised: int = 0, failed: int = 0, total: int = 1000) -> dict[str, int]:
    return {"total": total, "localised": localised, "skipped": 0, "failed": failed}


def test_a_running_job_says_how_far_it_is_how_fast_and_how_long_yet() -> None:
    line = line_of(job(), NOW)

    assert line.state == "running"
    assert line.fraction == 0.25
    assert line.frames == "250 of 1,000 (10 skipped)"
    assert (line.localisations, line.rate, line.localisation_rate) == ("5,000", "50", "1,000")
    assert line.left == "15 s left"
    assert line.open
    assert not line.has_result
    assert not line.can_retry


def test_when_all_frames_are_done_the_result_is_being_written() -> None:
    assert line_of(job(frames=frames(localised=1000)), NOW).state == "writing the result"


def test_a_job_that_lost_frames_may_be_retried_and_has_a_result() -> None:
    line = line_of(
        job(state="done_with_errors", frames=frames(990, 10), output="/x.h5r", finished=1055.0), NOW
    )

    assert line.tone == "warning"
    assert line.state == "done, with failed frames"
    assert line.can_retry
    assert line.has_result
    assert "10 failed" in line.frames
    assert line.left == "took 1 min 5 s"


@pytest.mark.parametrize(
    ("changes", "working", "said"),
    [
        ({"state": "queued", "tasks_running": 0}, 0, "clusterofone worker"),
        ({"state": "waiting", "tasks_running": 0}, 2, "no new frames"),
        ({"state": "running"}, 2, ""),
        ({"state": "done", "tasks_running": 0}, 0, ""),
    ],
)
def test_a_job_that_does_not_get_on_says_why(changes: dict[str, Any], working: int, said: str) -> None:
    found = nothing_happens(job(**changes), working)

    assert said in found
    assert bool(found) == bool(said)


def test_failed_frames_are_told_by_reason_the_commonest_first() -> None:
    failed = [
        FailedFrames(start=0, stop=1, reason="torn"),
        FailedFrames(start=10, stop=20, reason="the disk"),
        FailedFrames(start=40, stop=45, reason="the disk"),
    ]

    assert failures(failed) == [("15 frames: 10–19, 40–44", "the disk"), ("1 frame: 0", "torn")]


def test_what_is_meant_for_scripts_is_not_said_to_people() -> None:
    said = job(state="done_with_errors", error="1 of 60 frames failed; failed_frames says which and why")

    assert line_of(said, 0.0).note == "1 of 60 frames failed"


def test_the_line_for_pymevisualize_quotes_the_path() -> None:
    assert pyme_command("D:\\my data\\a.h5r").endswith('PYMEVisualise "D:\\my data\\a.h5r"')
