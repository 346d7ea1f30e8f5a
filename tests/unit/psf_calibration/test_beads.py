"""Which beads are found, which are dropped, and that it is said why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fitting.calibration.beads import channel_views, find_beads, tally
from fitting.calibration.calibrate_psf import calibrate_psf
from fitting.calibration.psf_options import resolve_psf_options
from fitting.errors import InvalidFrames

SIZES = {"pixel_nm": 100.0, "step_nm": 50.0, "half_size": 12}


def _found(stack: Any, **options: Any) -> dict[tuple[int, int], str]:
    chosen = resolve_psf_options(SIZES | options)
    return {bead.places[0]: bead.dropped for bead in find_beads([channel_views(stack, chosen)], chosen)}


def test_lone_bright_beads_are_used(scope: Any, bead: Any, field: Any) -> None:
    stack = field(scope, [bead(30, 40), bead(80, 70, photons=25_000)])

    assert _found(stack) == {(30, 40): "", (80, 70): ""}


def test_a_bead_at_the_edge_is_dropped_and_says_so(scope: Any, bead: Any, field: Any) -> None:
    found = _found(field(scope, [bead(60, 60), bead(10, 60)]))

    assert found[60, 60] == ""
    assert "at the edge: 15 px" in found[10, 60]


def test_beads_too_near_to_each_other_are_both_dropped_and_say_so(scope: Any, bead: Any, field: Any) -> None:
    found = _found(field(scope, [bead(30, 30), bead(80, 60), bead(80, 72)]))

    assert found[30, 30] == ""
    assert found[80, 60] == found[80, 72] == "too near to another: 12 px"


def test_a_dim_neighbour_spoils_nothing_but_itself(scope: Any, bead: Any, field: Any) -> None:
    found = _found(field(scope, [bead(60, 60), bead(60, 74, photons=3000)]))

    assert found[60, 60] == ""
    assert "too near" in found[60, 74]


def test_a_dim_bead_is_dropped_and_says_so(scope: Any, bead: Any, field: Any) -> None:
    found = _found(field(scope, [bead(30, 30), bead(90, 90), bead(30, 90, photons=2500)]))

    assert found[30, 90] == "dim: less than 10% of the bright ones"


@pytest.mark.parametrize("highest", [1500.0, 65535.0])
def test_a_saturated_bead_is_dropped_and_says_so(scope: Any, bead: Any, field: Any, highest: float) -> None:
    stack = field(
        scope,
        [bead(30, 30, photons=20_000), bead(80, 80, photons=60_000 * highest / 1500)],
        highest=highest,
    )

    found = _found(stack, least_brightness=0.0)

    assert found[30, 30] == ""
    assert found[80, 80].startswith("saturated: ")
    assert f"{highest:g}" in found[80, 80]


def test_a_given_limit_of_saturation_is_kept(scope: Any, bead: Any, field: Any) -> None:
    stack = field(scope, [bead(30, 30, photons=20_000), bead(80, 80)])

    found = _found(stack, saturation_adu=1000)

    assert found[30, 30] == ""
    assert found[80, 80].startswith("saturated")


def test_more_beads_than_needed_are_dropped_dimmest_first(scope: Any, bead: Any, field: Any) -> None:
    found = _found(field(scope, [bead(30, 30, photons=30_000), bead(80, 80)]), most_beads=1)

    assert found == {(80, 80): "", (30, 30): "not needed: 1 brighter ones are enough"}


def test_a_bead_missing_in_the_second_channel_is_dropped_and_says_so(
    scope: Any, bead: Any, field: Any
) -> None:
    left = [bead(30, 30), bead(80, 60)]
    right = [bead(32, 33 + 100), bead(30, 78 + 100)]
    stack = field(scope, left + right, (120, 200))

    found = _found(stack, channel0=[0, 0, 100, 120], channel1=[100, 0, 200, 120], flip=False)

    assert found[30, 30] == ""
    assert found[80, 60].startswith("without an image in channel 1")


def test_noise_alone_holds_no_beads(scope: Any, field: Any) -> None:
    stack = field(scope, [])

    assert _found(stack) == {}
    with pytest.raises(InvalidFrames, match=r"no beads found in 120 × 120 px × 31 planes.*lower threshold"):
        calibrate_psf([stack], SIZES)


def test_when_all_are_dropped_the_error_says_why_and_what_was_tried(
    scope: Any, bead: Any, field: Any
) -> None:
    stack = field(scope, [bead(8, 60), bead(60, 60), bead(60, 72)])

    with pytest.raises(
        InvalidFrames, match=r"none of 3 beads.*2 too near to another, 1 at the edge.*half_size 12"
    ):
        calibrate_psf([stack], SIZES)


def test_the_tally_counts_reasons(scope: Any, bead: Any, field: Any) -> None:
    chosen = resolve_psf_options(SIZES)
    stack = field(scope, [bead(8, 20), bead(8, 90), bead(60, 60)])

    assert tally(find_beads([channel_views(stack, chosen)], chosen)) == "2 at the edge"


def test_a_channel_beyond_the_frame_is_refused() -> None:
    chosen = resolve_psf_options(SIZES | {"channel0": [0, 0, 50, 50], "channel1": [60, 0, 110, 50]})

    with pytest.raises(InvalidFrames, match=r"channel1.*beyond the frame, 100 × 60 px"):
        channel_views(np.zeros((9, 60, 100)), chosen)
