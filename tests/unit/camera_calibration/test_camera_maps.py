"""Maps against the truth of a simulated sensor; tolerances are four standard errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fitting.calibration.camera_maps import camera_maps
from fitting.calibration.photon_transfer import mended, shading
from fitting.calibration.pixel_sums import PixelSums
from fitting.camera import Camera
from fitting.errors import InvalidCalibration

MakeSensor = Callable[..., Any]
DARK_FRAMES, FLAT_FRAMES = 600, 200


def within(pulls: Any) -> None:
    """Pulls of n independent values: mean 0 and spread 1, within four standard errors."""
    number = pulls.size
    assert abs(pulls.mean()) < 4 / np.sqrt(number) + 0.01
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * number) + 0.02


@pytest.mark.statistical
def test_offset_variance_and_gain_are_the_sensors_within_their_errors(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(1)
    dark = sensor.series(DARK_FRAMES, 0, 10)
    flats = [sensor.series(FLAT_FRAMES, level, 20 + k) for k, level in enumerate((50, 200, 1000, 5000))]

    maps = camera_maps(dark, flats)

    assert maps.gains is not None
    assert not maps.replaced.any()
    true_variance = sensor.variance_adu2
    within((maps.dark_adu - sensor.offset) / np.sqrt(true_variance / DARK_FRAMES))
    assert maps.electrons_per_adu is not None
    variance = maps.variance / maps.electrons_per_adu**2
    within((variance - true_variance) / (true_variance * np.sqrt(2 / (DARK_FRAMES - 1))))
    within((maps.gains.pixel_adu_per_e - sensor.gain) / maps.gains.error_adu_per_e)
    error = maps.gains.error_adu_per_e.mean() / np.sqrt(sensor.gain.size)
    assert abs(1 / maps.electrons_per_adu - sensor.gain.mean()) < 4 * error
    assert maps.notes == ()


@pytest.mark.statistical
def test_the_flat_field_evens_out_the_pixels_and_not_the_shading(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(2)
    dark = sensor.series(DARK_FRAMES, 0, 10)
    flats = [sensor.series(FLAT_FRAMES, level, 20 + level) for level in (1000, 5000)]

    flat = camera_maps(dark, flats).flatfield

    truth = 1 / sensor.gain
    ratio = flat / (truth / truth.mean())
    # of 200 frames of some 5000 e⁻ a pixel's mean is known to 0.1 %; the surface, of 48 × 64 pixels spread by 5 %, to 0.3 %
    assert ratio.std() < 0.005
    assert flat.mean() == pytest.approx(1, abs=1e-5)


def test_even_light_keeps_what_varies_slowly(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(3, gain_spread=0.0)
    dark, flat = sensor.series(100, 0, 1), sensor.series(100, 5000, 2)

    smooth, even = (camera_maps(dark, [flat], even_light=even).flatfield for even in (False, True))

    truth = sensor.light.mean() / sensor.light
    assert np.std(smooth) < 0.01
    assert np.std(even / (truth / truth.mean())) < 0.01
    assert np.std(even) > 0.05


@pytest.mark.statistical
def test_a_flickering_lamp_changes_no_gain(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(4)
    dark = sensor.series(DARK_FRAMES, 0, 10)

    maps = camera_maps(dark, [sensor.series(FLAT_FRAMES, 3000, 5, flicker=0.02)])

    assert maps.gains is not None
    within((maps.gains.pixel_adu_per_e - sensor.gain) / maps.gains.error_adu_per_e)


def test_a_drifting_offset_is_told_of_and_stays_out_of_the_variance(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(5)

    drifting = camera_maps(sensor.series(DARK_FRAMES, 0, 10, drift_adu=10.0), electrons_per_adu=0.5)

    assert any("drifts" in note and "higher" in note for note in drifting.notes)
    assert any("up and down together" in note for note in drifting.notes)
    ratio = drifting.variance / (sensor.variance_adu2 * 0.25)
    assert abs(np.median(ratio) - 1) < 0.02


def test_a_frame_with_a_light_leak_is_left_out_and_told_of(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(6)

    leaking = camera_maps(sensor.series(300, 0, 10, leak=[7, 120]), electrons_per_adu=0.5)

    assert any("7, 120" in note for note in leaking.notes)
    assert abs(np.median(leaking.variance / (sensor.variance_adu2 * 0.25)) - 1) < 0.03


def test_a_dead_pixel_counts_in_no_fit_and_a_hot_one_is_known(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(7)
    sensor.gain[3, 4] = 0.0
    sensor.light[20, 30] = 0.0
    sensor.read_noise_e[10, 10] = 40.0
    flats = [sensor.series(300, level, level) for level in (200, 2000)]

    maps = camera_maps(sensor.series(300, 0, 10), flats)

    assert np.argwhere(maps.dead).tolist() == [[3, 4], [20, 30]]
    assert np.isinf(maps.variance[maps.dead]).all()
    assert maps.numbers()["hot_pixels"] == 1
    assert maps.gain_adu_per_e is not None
    assert maps.gain_adu_per_e[3, 4] == pytest.approx(2.1, abs=0.3)
    settings = {"dark_map": maps.dark_adu, "variance_map": maps.variance, "flatfield_map": maps.flatfield}
    metadata = {"voxelsize.x": 0.1, "voxelsize.y": 0.1, "Camera.ElectronsPerCount": maps.electrons_per_adu}
    camera = Camera.from_metadata(metadata, settings, maps.dark_adu.shape)
    assert np.isfinite(camera.pixel_law(1.0, 65535, maps.dark_adu.shape).floor).all()


def test_without_electrons_per_adu_the_variance_is_in_adu_and_says_so(make_sensor: MakeSensor) -> None:
    dark = make_sensor(8).series(300, 0, 10)

    unknown, known = camera_maps(dark), camera_maps(dark, electrons_per_adu=0.5)

    assert (unknown.variance_unit, known.variance_unit) == ("ADU^2", "e-^2")
    assert any("ADU²" in note for note in unknown.notes)
    np.testing.assert_allclose(known.variance, unknown.variance * 0.25, rtol=1e-6)


def test_electrons_per_adu_that_photon_transfer_contradicts_are_told_of(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(9)
    dark, flat = sensor.series(300, 0, 1), sensor.series(300, 2000, 2)

    contradicted, agreed = (camera_maps(dark, [flat], electrons_per_adu=value) for value in (1.0, 0.476))

    assert contradicted.electrons_per_adu == 1.0
    assert any("photon transfer" in note for note in contradicted.notes)
    assert not any("photon transfer" in note for note in agreed.notes)


def test_a_saturated_series_is_left_out(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(10)
    dark, good, full = sensor.series(300, 0, 1), sensor.series(200, 2000, 2), sensor.series(200, 40_000, 3)

    maps = camera_maps(dark, [full, good])

    assert any("Flat series 1 is saturated" in note for note in maps.notes)
    assert maps.electrons_per_adu == pytest.approx(1 / 2.1, rel=0.01)
    with pytest.raises(InvalidCalibration, match="every flat series is saturated"):
        camera_maps(dark, [full])


def test_a_dark_series_that_shows_molecules_is_warned_of_and_a_dark_one_is_not(
    make_sensor: MakeSensor,
) -> None:
    sensor, rng = make_sensor(), np.random.default_rng(5)
    height, width = sensor.offset.shape
    rows, columns = np.mgrid[:height, :width]
    lit = sensor.frames(300, 0, 6)
    for frame in lit:
        for y, x in rng.uniform(0, (height, width), (8, 2)):
            light = 200 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 3)
            frame += rng.poisson(light).astype(frame.dtype)
    sums = PixelSums()
    sums.add(lit)

    dark, molecules = camera_maps(sensor.series(300, 0, 6)), camera_maps(sums.statistics())

    assert dark.warnings == ()
    assert "looks lit" in molecules.warnings[0]


def test_a_chip_with_two_amplifiers_is_not_taken_for_a_lit_one(make_sensor: MakeSensor) -> None:
    sensor = make_sensor()
    sensor.gain[:], sensor.read_noise_e[:] = 2.1, 1.6
    sensor.read_noise_e[: len(sensor.read_noise_e) // 2] *= 1.1

    assert camera_maps(sensor.series(1000, 0, 7)).warnings == ()


def test_few_dark_frames_are_told_of(make_sensor: MakeSensor) -> None:
    maps = camera_maps(make_sensor(11).series(20, 0, 1), electrons_per_adu=1.0)

    assert any("20 dark frames" in note and "32 %" in note for note in maps.notes)


def test_series_that_contradict_each_other_are_refused(make_sensor: MakeSensor) -> None:
    sensor = make_sensor(12)
    dark, flat = sensor.series(50, 0, 1), sensor.series(50, 1000, 2)
    sums_of_another_size = sensor.series(50, 1000, 2)
    cut = {name: getattr(sums_of_another_size, name)[:40] for name in ("mean_adu", "variance_adu2")}
    smaller = type(flat)(**(vars(flat) | cut))

    with pytest.raises(InvalidCalibration, match="64 × 40 px"):
        camera_maps(dark, [smaller])
    with pytest.raises(InvalidCalibration, match="no brighter"):
        camera_maps(dark, [dark])
    with pytest.raises(InvalidCalibration, match="over 0"):
        camera_maps(dark, electrons_per_adu=-1.0)


def test_gains_that_cannot_be_become_their_neighbours_median() -> None:
    gain = np.random.default_rng(0).normal(2.1, 0.05, (30, 40))
    gain[5, 5], gain[10, 20], gain[0, 0], gain[29, 39] = -2.7, 0.0, np.nan, 50.0

    mended_gain, replaced = mended(gain)

    assert np.argwhere(replaced).tolist() == [[0, 0], [5, 5], [10, 20], [29, 39]]
    assert mended_gain[5, 5] == np.median(np.delete(gain[3:8, 3:8].ravel(), 12))
    np.testing.assert_array_equal(mended_gain[~replaced], gain[~replaced])
    assert np.abs(mended_gain[replaced] - 2.1).max() < 4 * 0.05


def test_a_gain_that_is_only_badly_known_is_kept() -> None:
    gain, error = np.full((10, 10), 2.0), np.full((10, 10), 0.5)
    gain[1, 1], gain[2, 2], gain[3, 3] = 0.5, -0.5, 9.0

    replaced = mended(gain, error=error)[1]

    assert np.argwhere(replaced).tolist() == [[2, 2], [3, 3]]


def test_a_block_of_bad_gains_gets_the_median_of_all() -> None:
    gain = np.full((20, 20), 2.0)
    gain[5:15, 5:15] = -1.0

    assert (mended(gain)[0] == 2.0).all()
    with pytest.raises(InvalidCalibration, match="no pixel"):
        mended(-gain[5:15, 5:15] * 0)


def test_shading_is_smooth_and_follows_the_light() -> None:
    y, x = np.mgrid[-1:1:50j, -1:1:70j]
    light = 1000 * (1 - 0.3 * x**2 + 0.1 * x * y - 0.1 * y**4)

    surface = shading(light + np.random.default_rng(0).normal(0, 20, light.shape))

    assert np.abs(surface / light - 1).max() < 0.02
