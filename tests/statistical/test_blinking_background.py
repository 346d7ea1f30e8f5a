"""What the background of earlier frames costs when molecules stay bright for a few frames, as real ones do."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fitting import localise, scoring, simulate

pytestmark = pytest.mark.statistical

# with thirty frames of 20 photons as background B adds 3 % to the variance, and so 1.5 % to the errors; a quartile is half again as noisy
NOISE_OF_BACKGROUND = 1.03


def _ratio(sim: simulate.Simulation, settings: dict[str, Any]) -> tuple[float, float]:
    """RMSE over the bound of molecules that are alone, and its standard error."""
    rows = localise(simulate.frames(sim), settings, simulate.metadata(sim))
    isolated = scoring.score(scoring.columns_of(rows), simulate.truth(sim), radius_nm=250.0).isolated
    return isolated.rmse_over_crlb, isolated.rmse_over_crlb / math.sqrt(4 * isolated.n)


@pytest.mark.parametrize(("structure", "on_frames"), [("uniform", 3.0), ("filaments", 3.0), ("uniform", 8.0)])
def test_blinking_molecules_are_at_the_bound_by_default(structure: Any, on_frames: float) -> None:
    sim = simulate.Simulation(
        frames=400,
        height_px=128,
        width_px=128,
        emitters_per_frame=5,
        structure=structure,
        on_frames=on_frames,
        seed=5,
    )

    default, error = _ratio(sim, {})
    mean, error_of_mean = _ratio(sim, {"background_percentile": None})

    assert default < NOISE_OF_BACKGROUND + 4 * error
    assert mean > default + 2 * math.hypot(error, error_of_mean)  # the bumps of those that shone lately
