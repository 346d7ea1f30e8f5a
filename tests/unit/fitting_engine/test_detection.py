from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from fitting import analyse
from fitting.candidates import DROPPED, KEPT, UNDECIDED, debounce
from fitting.filters import make_filters

RNG = np.random.default_rng(4)


@numba.njit
def _debounce(peaks: Any, values: Any, number: int, radius: Any, state: Any) -> None:
    debounce(peaks, values, number, radius, state)


def _greedy(values: Any, radius: float) -> Any:
    """Take the brightest, drop what is near, and so on."""
    kept = np.zeros(len(values), bool)
    for i in np.lexsort((values[:, 1], values[:, 0], -values[:, 2])):
        near = np.hypot(values[:, 0] - values[i, 0], values[:, 1] - values[i, 1]) < radius
        kept[i] = not (kept & near).any()
    return kept


@pytest.mark.parametrize("radius", [0.5, 3.0, 4.0, 9.0])
def test_debounce_keeps_the_brightest_first_whatever_the_order_of_brightness(radius: float) -> None:
    for _ in range(20):
        place = np.unique(RNG.integers(0, 40, (60, 2)), axis=0).astype(np.int32)
        brightness = RNG.integers(1, 12, len(place))
        values = np.column_stack([place, brightness, brightness]).astype(np.float32)
        state = np.full(len(place), UNDECIDED, np.uint8)

        _debounce(place, values, len(place), np.float32(radius), state)

        assert set(state) <= {KEPT, DROPPED}
        np.testing.assert_array_equal(state == KEPT, _greedy(values, radius))


def _analyse(image: Any, metadata: dict[str, object], **settings: Any) -> Any:
    return analyse(image[np.newaxis], {"background": None, **settings}, metadata)


def _adu(electrons: Any) -> Any:
    return np.round(100 + electrons / 0.5).astype(np.uint16)


@pytest.mark.parametrize(
    "highpass", [2.0, 2.2, 2.8, 3.0, 3.3, 5.0]
)  # every row, and every second and interpolated
@pytest.mark.parametrize(
    ("x", "y"), [(31, 28), (30, 28), (31, 27), (30, 27), (0, 33), (69, 63), (13, 31), (20, 40), (20, 43)]
)
def test_the_signal_to_noise_is_that_of_the_plain_filters(
    x: int, y: int, highpass: float, spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    raw = _adu(spot(x, y, 900, 1.3, 64, 70) + 10)

    candidates = _analyse(raw, metadata, highpass_sigma=highpass).candidates

    d = raw.astype(float) - 100
    r = gaussian_filter(d, 1.0, truncate=4.0) - gaussian_filter(d, highpass, truncate=4.0)
    sigma = np.sqrt(1.6**2 + 0.5 * np.maximum(d, 1) + 1) / 0.5
    gain = make_filters(64, 70, 1.0, highpass)
    snr = r / (sigma * np.sqrt(np.outer(gain.gain_y, gain.gain_x)))
    assert len(candidates) == 1
    assert candidates["snr"][0] == pytest.approx(snr.max(), rel=2e-3)
    assert candidates["x_px"][0] == pytest.approx(x, abs=0.5 if x in (0, 69) else 0.05)
    assert candidates["y_px"][0] == pytest.approx(y, abs=0.5 if y in (0, 63) else 0.05)


@pytest.mark.parametrize(
    ("x", "y"), [(0.0, 0.0), (0.3, 20.0), (39.0, 31.0), (20.0, 0.0), (39.2, 15.7), (1.6, 30.4)]
)
def test_a_molecule_at_the_frames_edge_is_found_and_fitted(
    x: float, y: float, spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    rng = np.random.default_rng(8)
    raw = _adu(rng.poisson(spot(x, y, 3000, 1.3, 32, 40) + 10))

    rows = _analyse(raw, metadata, psf_sigma_nm=130.0).rows

    assert len(rows) == 1
    found, error = rows["fitResults"][0], rows["fitError"][0]
    assert rows["resultCode"][0] == 1
    assert abs(found["x0"] - 100 * x) < 4.5 * error["x0"]
    assert abs(found["y0"] - 100 * y) < 4.5 * error["y0"]
    assert rows["slicesUsed"]["x"]["start"][0] == max(0, round(x) - 3)
    assert rows["slicesUsed"]["y"]["stop"][0] == min(32, round(y) + 4)


def test_two_molecules_that_touch_are_two_candidates(
    spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    raw = _adu(spot(20, 20, 2000, 1.3, 48, 48) + spot(25.5, 20, 1500, 1.3, 48, 48) + 10)

    assert len(_analyse(raw, metadata).rows) == 2
    assert len(_analyse(raw, metadata, debounce_radius=7).rows) == 1
    assert list(_analyse(raw, metadata, debounce_radius=7).candidates["fitted"]) == [1, 0]


@pytest.mark.parametrize("value", [400, 5000, 65535])
def test_a_hot_pixel_is_no_molecule(value: int, metadata: dict[str, object]) -> None:
    raw = _adu(np.random.default_rng(1).poisson(10.0, (40, 40)))
    raw[17, 23] = value

    assert len(_analyse(raw, metadata).rows) == 0


def test_a_saturated_spot_is_no_molecule(spot: Callable[..., Any], metadata: dict[str, object]) -> None:
    raw = np.minimum(_adu(spot(20, 20, 30_000, 1.3, 40, 40) + 10), 4095)

    assert len(_analyse(raw, {**metadata, "Camera.BitDepth": 12}).rows) == 0
    assert len(_analyse(raw, metadata).rows) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 3), (5, 200), (17, 16), (33, 65)])
def test_frames_of_any_shape_are_scanned(shape: tuple[int, int], metadata: dict[str, object]) -> None:
    raw = _adu(np.random.default_rng(6).poisson(10.0, shape))

    result = _analyse(raw, metadata, threshold=0.2)

    assert list(result.frame_status) == [1]
    assert np.isfinite(result.rows["fitResults"]["x0"]).all()


@pytest.mark.parametrize("shape", [(64, 70), (65, 71), (7, 200), (200, 9), (40, 1100)])
@pytest.mark.parametrize("highpass", [2.4, 3.0])
def test_bands_and_strips_of_any_shape_join_without_a_seam(
    shape: tuple[int, int], highpass: float, metadata: dict[str, object]
) -> None:
    """Every candidate of noise is a local maximum of the plainly filtered frame, and none is missing."""
    raw = _adu(np.random.default_rng(9).poisson(30.0, shape))
    filters = make_filters(*shape, 1.0, highpass)

    found = _analyse(raw, metadata, threshold=0.35, highpass_sigma=highpass, debounce_radius=0.5).candidates

    d = raw.astype(float) - 100
    r = gaussian_filter(d, 1.0, truncate=4.0) - gaussian_filter(d, highpass, truncate=4.0)
    variance = (1.6**2 + 0.5 * np.maximum(d, 1) + 1) / 0.25
    snr = r / np.sqrt(variance * np.outer(filters.gain_y, filters.gain_x))
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    peaks = snr[(snr > maximum_filter(snr, footprint=ring, mode="constant")) & (snr > 0.36)]
    listed = np.sort(found["snr"][found["snr"] > 0.36])
    assert (
        abs(len(peaks) - len(listed)) <= 0.02 * len(peaks) + 1
    )  # some lie at the threshold or are too sharp
    nearest = np.abs(np.sort(peaks)[:, np.newaxis] - listed).min(axis=1)
    assert np.quantile(nearest, 0.97) < 2e-3


def test_the_noise_gain_at_the_border_is_that_of_filtered_noise() -> None:
    height, width = 40, 52
    filters = make_filters(height, width, 1.0, 3.0)
    noise = RNG.normal(size=(4000, height, width))
    passed = gaussian_filter(noise, (0, 1.0, 1.0)) - gaussian_filter(noise, (0, 3.0, 3.0))

    spread = passed.var(axis=0) / passed[:, 18:22, 20:32].var()

    relative_error = np.sqrt(2 / 4000)
    product = np.outer(filters.gain_y, filters.gain_x)
    assert abs(spread[0, 26] / product[0, 26] - 1) < 5 * relative_error
    assert abs(spread[20, 1] / product[20, 1] - 1) < 5 * relative_error
    assert (spread < product * (1 + 6 * relative_error)).mean() > 0.97
