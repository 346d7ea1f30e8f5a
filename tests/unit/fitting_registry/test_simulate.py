"""Simulated series: reproducible, and with the statistics they claim."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fitting import fits
from fitting.errors import InvalidSettings
from fitting.simulate import Simulation, frames, metadata, sensor_maps, truth

SMALL = Simulation(frames=60, height_px=48, width_px=64, emitters_per_frame=5, off_frames=20)
FLAT = Simulation(
    frames=50, height_px=100, width_px=100, emitters_per_frame=0, read_noise_e=0, electrons_per_adu=1
)


def test_any_range_of_frames_is_the_same_as_that_part_of_the_whole() -> None:
    whole = frames(SMALL)

    assert whole.shape == (60, 48, 64)
    assert whole.dtype == np.uint16
    assert np.array_equal(frames(SMALL, 17, 31), whole[17:31])
    assert frames(SMALL, 5, 5).shape == (0, 48, 64)


def test_another_seed_gives_another_series() -> None:
    assert not np.array_equal(frames(SMALL, 0, 3), frames(replace(SMALL, seed=1), 0, 3))


def test_frames_outside_the_series_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="frames: 50 to 61 is not inside"):
        frames(SMALL, 50, 61)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("photons", -1),
        ("sigma_px", 0),
        ("structure", "cells"),
        ("frames", 2.5),
        ("sigma_px", math.nan),
        ("seed", -1),
    ],
)
def test_a_simulation_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Simulation(**{name: value})  # type: ignore[arg-type]
    assert caught.value.field == name


@pytest.mark.parametrize("mean", [0.3, 20.0, 700.0])
def test_background_is_poisson(mean: float) -> None:
    counts = frames(replace(FLAT, background_photons=mean)).astype(float) - FLAT.offset_adu

    n = counts.size
    assert abs(counts.mean() - mean) < 4 * math.sqrt(mean / n)
    assert abs(counts.var() / mean - 1) < 4 * math.sqrt((2 + 1 / mean) / n)
    assert len(np.unique(counts[:, 0, 0])) > 1


def test_read_noise_and_gain_are_those_of_the_metadata() -> None:
    sim = replace(FLAT, background_photons=50, read_noise_e=5, electrons_per_adu=0.25)

    electrons = (frames(sim) - float(sim.offset_adu)) * sim.electrons_per_adu

    variance = 50 + 25 + sim.electrons_per_adu**2 / 12
    assert abs(electrons.mean() - 50) < 4 * math.sqrt(variance / electrons.size)
    assert abs(electrons.var() / variance - 1) < 4 * math.sqrt(2.1 / electrons.size)


def test_em_gain_doubles_the_photon_variance() -> None:
    sim = replace(FLAT, background_photons=30, em_gain=100, electrons_per_adu=10, read_noise_e=20)

    photons = (frames(sim) - float(sim.offset_adu)) * sim.electrons_per_adu / sim.em_gain

    variance = sim.noise_factor**2 * 30 + (20 / 100) ** 2 + 0.1**2 / 12
    assert abs(photons.mean() - 30) < 4 * math.sqrt(variance / photons.size)
    assert abs(photons.var() / variance - 1) < 5 * math.sqrt(2.3 / photons.size)
    assert metadata(sim)["Camera.NoiseFactor"] == math.sqrt(2)


def test_an_isolated_molecule_lands_where_the_truth_says_with_all_its_photons() -> None:
    sim = Simulation(
        frames=400, height_px=31, width_px=31, emitters_per_frame=1, off_frames=0, structure="grid",
        background_photons=0, read_noise_e=0, electrons_per_adu=1, photons=500,
    )  # fmt: skip
    row = truth(sim)[0]

    mean = frames(sim).mean(axis=0) - sim.offset_adu

    y, x = np.indices(mean.shape)
    photons, spread = mean.sum(), math.hypot(sim.sigma_px, 1 / math.sqrt(12))
    tolerance = 4 * spread / math.sqrt(photons * sim.frames)
    assert abs(photons - 500) < 4 * math.sqrt(500 / sim.frames)
    assert abs((x * mean).sum() / photons - row["x_nm"] / sim.pixel_nm) < tolerance
    assert abs((y * mean).sum() / photons - row["y_nm"] / sim.pixel_nm) < tolerance
    variance = ((x - row["x_nm"] / sim.pixel_nm) ** 2 * mean).sum() / photons
    assert variance == pytest.approx(spread**2, rel=0.03)


def test_truth_is_ordered_inside_the_field_and_as_dense_as_asked() -> None:
    sim = replace(SMALL, frames=2000, on_frames=2)
    rows = truth(sim)

    assert np.array_equal(np.lexsort((rows["molecule"], rows["frame"])), np.arange(len(rows)))
    assert rows["x_nm"].min() >= -sim.pixel_nm / 2
    assert rows["x_nm"].max() < (sim.width_px - 0.5) * sim.pixel_nm
    assert rows["y_nm"].max() < (sim.height_px - 0.5) * sim.pixel_nm
    # frames are alike over about on_frames, and filaments lose a few molecules at the rim
    assert len(rows) / sim.frames == pytest.approx(5, rel=4 * math.sqrt(3 / (5 * sim.frames)) + 0.02)
    assert len(np.unique(rows[["frame", "molecule"]])) == len(rows)


def test_bright_times_have_the_mean_length_asked_for() -> None:
    rows = truth(replace(SMALL, frames=4000, on_frames=4, off_frames=100, structure="uniform"))

    by_molecule = np.sort(rows, order=["molecule", "frame"])
    breaks = (np.diff(by_molecule["frame"]) != 1) | (np.diff(by_molecule["molecule"]) != 0)
    times = np.count_nonzero(breaks) + 1
    assert len(rows) / times == pytest.approx(4, rel=4 / math.sqrt(times))


def test_molecules_that_never_go_dark_shine_in_every_frame() -> None:
    rows = truth(replace(SMALL, off_frames=0, structure="grid"))

    assert np.array_equal(np.bincount(rows["frame"]), np.full(60, 5))


def test_nothing_shines_before_the_laser_is_on() -> None:
    sim = replace(SMALL, dark_frames=10)

    dark = frames(sim, 0, 10).astype(float)

    assert truth(sim)["frame"].min() >= 10
    assert abs(dark.mean() - sim.offset_adu) < 0.5
    assert fits.resolve({}, metadata(sim))["start_at"] == 10


def test_drift_moves_every_molecule_alike() -> None:
    still = truth(replace(SMALL, off_frames=0, structure="grid"))
    moved = truth(replace(SMALL, off_frames=0, structure="grid", drift_nm_per_frame=(2.0, -1.0)))

    assert np.allclose(moved["x_nm"] - still["x_nm"], 2.0 * still["frame"])
    assert np.allclose(moved["y_nm"] - still["y_nm"], -1.0 * still["frame"])


def test_photons_spread_as_asked() -> None:
    photons = truth(replace(SMALL, frames=4000, photon_spread=1.0))["photons"]

    assert photons.mean() == pytest.approx(1000, rel=4 / math.sqrt(len(photons)))
    assert photons.std() / photons.mean() == pytest.approx(1, rel=8 / math.sqrt(len(photons)))


def test_the_camera_saturates_at_its_bit_depth() -> None:
    bright = replace(SMALL, photons=100_000, bit_depth=12)

    assert frames(bright, 0, 20).max() == 4095


def test_a_camera_with_maps_is_described_by_them() -> None:
    sim = replace(
        FLAT, frames=300, height_px=20, width_px=20, sensor_maps=True, read_noise_e=3, dark_frames=300
    )
    maps = sensor_maps(sim)

    dark = frames(sim).astype(float)

    variance = maps["variance_map"] / maps["flatfield_map"] ** 2 + 1 / 12
    z = (dark.mean(axis=0) - maps["dark_map"]) / np.sqrt(variance / sim.frames)
    assert abs(z.mean()) < 4 / math.sqrt(z.size)
    assert abs(z.std() - 1) < 4 / math.sqrt(2 * z.size)
    ratio = dark.var(axis=0) / variance
    assert abs(ratio.mean() - 1) < 4 * math.sqrt(2 / (sim.frames * ratio.size)) + 0.01
    assert sensor_maps(FLAT) == {}


@pytest.mark.parametrize("structure", ["uniform", "filaments", "rings", "grid"])
def test_every_structure_fills_the_field(structure: str) -> None:
    rows = truth(replace(SMALL, structure=structure, frames=500, off_frames=200))  # type: ignore[arg-type]

    for name, size in (("x_nm", 6400), ("y_nm", 4800)):
        assert np.ptp(rows[name]) > size / 2


def test_the_metadata_suffice_for_an_analysis_and_fit_into_json() -> None:
    facts = metadata(SMALL)

    fits.check_metadata(fits.resolve({}, facts), facts)
    assert json.loads(json.dumps(facts)) == facts
