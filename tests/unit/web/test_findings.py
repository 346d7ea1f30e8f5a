"""A Test: what is drawn and counted, at the threshold it was made with and at another."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cluster.protocol import Preview
from cluster.web.models.findings import (
    ACCEPTED,
    CHANNEL,
    CROWDED,
    REJECTED,
    findings,
    overlay,
    redraws,
    summary,
)


def candidate(x: float, y: float, snr: float, fitted: bool = True) -> dict[str, Any]:
    return {"x_px": x, "y_px": y, "snr": snr, "fitted": fitted}


def row(x: float, y: float, status: int = 1, photons: float = 1000.0) -> dict[str, Any]:
    return {"x_px": x, "y_px": y, "sigma_px": 1.3, "photons": photons, "error_x_nm": 7.0, "status": status}


def preview(*frames: dict[str, Any], **changes: Any) -> Preview:
    said = {"job_id": "j", "series": "c.tif", "fit": "LatGaussFitFR", "analysis": {}, "seconds": 1.5}
    return Preview.model_validate(
        {**said, "frames": [{"frame": 0, "status": "localised", **frame} for frame in frames], **changes}
    )


TESTED = preview(
    {
        "candidates": [
            candidate(10, 20, 9.0),
            candidate(30, 40, 1.2),
            candidate(31, 41, 1.1, fitted=False),
            candidate(50, 5, 3.0),
        ],
        "rows": [row(10.4, 20.1), row(30.2, 39.9), row(50, 5, status=-1)],
    }
)


def test_what_was_tested_is_told_apart() -> None:
    found = findings(TESTED.frames[0], 1.0)

    assert [one.x_px for one in found.accepted] == [10.4, 30.2]
    assert [one.x_px for one in found.rejected] == [50]
    assert [one.x_px for one in found.crowded] == [31]
    assert found.candidates == 4


def test_a_higher_threshold_takes_away_candidates_and_what_came_of_them() -> None:
    found = findings(TESTED.frames[0], 2.0)

    assert [one.x_px for one in found.accepted] == [10.4]
    assert [one.x_px for one in found.rejected] == [50]
    assert found.crowded == ()
    assert redraws(1.0, 2.0)
    assert redraws(1.0, 1.0)
    assert not redraws(1.0, 0.9)


def test_a_threshold_that_leaves_nothing_is_not_the_cameras_fault() -> None:
    said = summary(TESTED, 100.0, 64 * 64)

    assert "0 localisations" in said.text
    assert said.advice == "At this threshold nothing is left: lower it."


def test_the_drawing_has_the_pixels_centre_at_a_half() -> None:
    drawn = overlay(findings(TESTED.frames[0], 1.0))

    circle = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert circle is not None
    assert [float(value) for value in circle.groups()] == pytest.approx([10.9, 20.6])
    assert (
        drawn.count(f'stroke="{ACCEPTED}"'),
        drawn.count(f'stroke="{REJECTED}"'),
        drawn.count(f'stroke="{CROWDED}"'),
    ) == (2, 1, 1)


def test_channels_are_outlined() -> None:
    box = {"top": 0, "bottom": 32, "left": 0, "right": 64, "flipped": False}
    two = preview({}, channels=[box, {**box, "top": 32, "bottom": 64}])

    assert overlay(findings(two.frames[0], 1.0), two.channels).count(f'stroke="{CHANNEL}"') == 2


def test_a_summary_says_how_many_how_bright_and_how_long() -> None:
    said = summary(TESTED, 1.0, 64 * 64)

    assert "2 localisations of 4 candidates in 1 frame" in said.text
    assert "median 1000 photons" in said.text
    assert "±7.0 nm" in said.text
    assert "1 fit did not converge" in said.text
    assert said.text.endswith("1.5 s")
    assert said.advice == ""
    assert said.photons == (1000.0, 1000.0)


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        (preview({}), "Nothing was found"),
        (
            preview(
                {"candidates": [candidate(x % 64, x // 64, 2.0) for x in range(500)], "rows": [row(1, 1)]}
            ),
            "far too much",
        ),
        (
            preview({"candidates": [candidate(1, 1, 2.0)], "rows": [row(1, 1, status=-1)]}),
            "no fit of them converged",
        ),
    ],
)
def test_a_test_that_cannot_be_right_says_to_check_the_offset_first(tested: Preview, said: str) -> None:
    advice = summary(tested, 1.0, 64 * 64).advice

    assert said in advice
    assert advice.index("Camera.ADOffset") < advice.index("threshold")


def test_frames_that_failed_say_why() -> None:
    failed = preview({"status": "failed", "reason": "the disk is gone"})

    assert "the disk is gone" in summary(failed, 1.0, 100).advice
    assert findings(failed.frames[0], 1.0).reason == "the disk is gone"
