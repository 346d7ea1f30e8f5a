"""Presets lie under what a job says."""

from __future__ import annotations

import pytest

from cluster.errors import Invalid
from cluster.presets import PRESETS, with_preset
from fitting import fits


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_made_of_settings_that_exist(name: str) -> None:
    settings, _ = with_preset({"preset": name})

    resolved = fits.resolve(settings, {})

    none = {"background": None} if settings["background"] == "0:0" else {}
    assert {key: resolved[key] for key in settings} == {**settings, **none}


def test_dna_paint_keeps_molecules_that_stay_bound_out_of_the_background() -> None:
    assert with_preset({"preset": "DNA-PAINT"})[0] == {"threshold": 2.0, "background": "0:0"}


def test_what_is_said_beside_it_wins_and_the_note_says_so() -> None:
    settings, note = with_preset({"preset": "dna-paint", "threshold": 1.5})

    assert settings == {"threshold": 1.5, "background": "0:0"}
    assert note == "preset dna-paint: threshold 2.0 (but 1.5 was given), background 0:0"


def test_without_one_nothing_changes() -> None:
    assert with_preset({"threshold": 1.5}) == ({"threshold": 1.5}, None)


def test_one_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(Invalid, match="there is no 'storm'; there are dstorm, palm, dna-paint, beads"):
        with_preset({"preset": "storm"})
